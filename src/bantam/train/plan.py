"""The plan of a training run: everything that decides the weights besides data and base."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Everything that decides the weights besides data and base. Learning rates are per step."""

    method: str  # "lora" or "full"
    precision: str  # of the products: "bfloat16" or "float32"
    threads: int
    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    evaluate_every: int
    seed: int
    weight_decay: float = 0.0
    clip: float = 1.0
    rank: int = 16
    recompute: bool = False  # blocks are computed again backwards: a third more time, less memory
    patience: int = 3  # evaluations without a better one
    reading_steps: int = 0  # of `steps`, the first: texts are read, answers come after them

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then a cosine to a hundredth (step counts from 0)."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        way = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * way)))
