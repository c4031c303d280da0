"""Networks in PyTorch."""

import os

# Read when torch is first imported, which is below. Without it a thread that waits burns a core for
# milliseconds, and two threads beside another busy program take ten times as long as one.
# It would win over a policy that somebody set.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
