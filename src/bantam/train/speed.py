"""How quick this machine is: the products that it can do at best, to hold training against."""

import time

import torch

SIZE = 1024
REPEATS = 8


def matrix_peak(device: torch.device, precision: str) -> float:
    """Floating-point operations a second of a large product of matrices, the best of a few."""
    kind: torch.dtype = getattr(torch, precision)
    left, right = (torch.ones(SIZE, SIZE, dtype=kind, device=device) for _ in range(2))
    spent = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        left @ right
        if device.type != "cpu":
            torch.accelerator.synchronize()
        spent.append(time.perf_counter() - began)
    return 2 * SIZE**3 / min(spent)
