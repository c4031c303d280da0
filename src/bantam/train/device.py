"""Where and in which precision to train: one device object for everything."""

import time

import psutil
import torch
from torch import Tensor


def pick() -> torch.device:
    """CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def memory(device: torch.device) -> int:
    """Its bytes, free or not; of the machine's where it has none of its own."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def free(device: torch.device) -> int:
    """Its bytes that nothing takes up yet; of the machine's where it has none of its own."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def pick_precision(device: torch.device) -> str:
    """ "bfloat16" where it is quicker than float32: on CUDA where the card has products of it, on
    the CPU by timing one."""
    if device.type == "cuda":
        quicker = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        seconds = {dtype: _product(dtype) for dtype in (torch.float32, torch.bfloat16)}
        quicker = seconds[torch.bfloat16] < 0.8 * seconds[torch.float32]
    else:
        quicker = False
    return "bfloat16" if quicker else "float32"


def _product(dtype: torch.dtype) -> float:
    """Seconds of the quickest of a few products in the shape of a small model's layer."""
    x: Tensor = torch.ones(512, 576, dtype=dtype)
    weight = torch.ones(1536, 576, dtype=dtype)
    spent = []
    for _ in range(6):
        start = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        spent.append(time.perf_counter() - start)
    return min(spent)
