"""Several processes that train one model, each on its share of every batch.

Who starts them is torchrun (`bantam make --nproc` calls it, on a cluster it is called by hand).
Each process holds the whole model, or its share of one that does not fit (`sharded`), and takes the
same steps; the first one judges, writes and talks.
Without it there is one process, and nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


def there() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if there() else 0


def size() -> int:
    return dist.get_world_size() if there() else 1


@contextmanager
def together() -> Iterator[None]:
    """Meet the other processes that torchrun has started, and part from them."""
    accelerated = torch.cuda.is_available()
    if accelerated:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if accelerated else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def wait() -> None:
    """Until all processes are here."""
    if there():
        dist.barrier()


def summed(value: Tensor) -> Tensor:
    """The sum of all processes' values."""
    if there():
        dist.all_reduce(value)
    return value


def anyone(truth: bool, device: torch.device) -> bool:
    """Whether it is true for one process at least."""
    return bool(summed(torch.tensor(float(truth), device=device)) > 0) if there() else truth


def first_says(value: float, device: torch.device) -> float:
    """The first process's value."""
    if not there():
        return value
    told = torch.tensor([value], dtype=torch.float32 if device.type == "mps" else torch.float64)
    told = told.to(device)
    dist.broadcast(told, 0)
    return float(told)
