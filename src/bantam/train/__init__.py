"""Training: a plan that fits the budget, the loop that follows it, checkpoints that resume it."""

import bantam.nets  # noqa: F401  sets how threads wait, before torch is imported
