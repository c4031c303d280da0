"""Rotary positions (Su et al. 2021, arXiv 2104.09864), also stretched to longer contexts.

A pair of values of a head turns by position * frequency. Stretching divides the frequencies: all
alike ("linear"; Chen et al. 2023, arXiv 2306.15595), the slow ones only ("llama3"; Llama 3.1), or
each by a factor of its own that depends on whether the text is longer than what the model was first
trained on ("longrope"; Ding et al. 2024, arXiv 2402.13753).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rope:
    theta: float = 10_000.0
    size: int | None = None  # values of a head that turn, the first ones; None: all
    kind: str = "default"  # or "linear", "llama3", "longrope"
    factor: float = 1.0  # of "linear" and "llama3"
    low: float = 1.0  # "llama3": what turns less often than this in `original` is stretched,
    high: float = 4.0  # what turns more often than this is not, and in between partly
    original: int = 0  # tokens that the unstretched model was trained on
    short: tuple[float, ...] = ()  # "longrope": a divisor for each frequency, in short texts
    long: tuple[float, ...] = ()  # and in texts longer than `original`
    scale: float = 1.0  # "longrope": of cosines and sines


def frequencies(rope: Rope, size: int, longest: int) -> Tensor:
    """Radians a token, [size / 2], of the values that turn in texts of `longest` tokens."""
    plain = rope.theta ** (-torch.arange(0, size, 2).float() / size)
    match rope.kind:
        case "linear":
            return plain / rope.factor
        case "llama3":
            return plain / llama3_divisors(rope, plain)
        case "longrope":
            return plain / torch.tensor(rope.long if longest > rope.original else rope.short)
    return plain


def llama3_divisors(rope: Rope, plain: Tensor) -> Tensor:
    """What the frequencies are divided by."""
    turns = rope.original * plain / (2 * math.pi)  # in the original context
    kept = ((turns - rope.low) / (rope.high - rope.low)).clamp(0, 1)
    return 1 / (kept + (1 - kept) / rope.factor)


def angles(
    rope: Rope, positions: Tensor, head_size: int, longest: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines for positions [tokens], each [tokens, 1, size], made in float32.

    The first half of the sines is negative, as `rotate` wants them.
    """
    each = frequencies(rope, rope.size or head_size, longest).to(positions.device)
    turned = positions.float()[:, None, None] * each  # [tokens, 1, size / 2]
    cos, sin = turned.cos() * rope.scale, turned.sin() * rope.scale
    return torch.cat([cos, cos], dim=-1).to(dtype), torch.cat([-sin, sin], dim=-1).to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [tokens, heads, head_size]; the two halves of what turns are the pairs."""
    size = cos.shape[-1]
    if size < x.shape[-1]:
        return torch.cat([rotate(x[..., :size], cos, sin), x[..., size:]], dim=-1)
    return torch.addcmul(x * cos, x.roll(size // 2, -1), sin)
