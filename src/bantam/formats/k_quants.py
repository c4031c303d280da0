"""The K-quants of GGUF to float32: blocks of 256 values, cut into 16 or 8 groups with own scales.

A block holds a scale `d` (and `m` for the least values, in Q2, Q4 and Q5) in float16, then small
whole numbers by which each group multiplies them, and the values, their upper bits often apart
from the lower. Where the parts are differs and is told at each function (ggml-quants.c).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def half(blocks: Bytes, place: int) -> Floats:
    """The float16 at byte `place` of each block."""
    return np.ascontiguousarray(blocks[:, place : place + 2]).view("<f2").astype(np.float32)


def _unpack(packed: Bytes, bits: int, run: int) -> Bytes:
    """Values of `bits` bits: the lowest bits of `run` bytes come first, then their next, and on."""
    runs = packed.reshape(len(packed), -1, run)
    parts = [runs >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)]
    return np.stack(parts, axis=2).reshape(len(packed), -1)


def _q2_k(blocks: Bytes) -> Floats:
    """16 bytes: scale and least value of a group; 64: values; d; m."""
    scales = half(blocks, 80) * (blocks[:, :16] & 15).astype(np.float32)
    least = half(blocks, 82) * (blocks[:, :16] >> 4).astype(np.float32)
    return _grouped(_unpack(blocks[:, 16:80], 2, 32), scales, least)


def _q3_k(blocks: Bytes) -> Floats:
    """32 bytes: third bits of the values; 64: lower bits; 8 + 4: scales' 4 + 2 bits; d."""
    values = _unpack(blocks[:, 32:96], 2, 32) | _unpack(blocks[:, :32], 1, 32) << 2
    scales = _unpack(blocks[:, 96:104], 4, 8) | _unpack(blocks[:, 104:108], 2, 4) << 4
    return _grouped(values.view(np.int8) - 4, half(blocks, 108) * (scales.view(np.int8) - 32))


def _q4_k(blocks: Bytes) -> Floats:
    """d; m; 12 bytes: scales and least values; 128: values."""
    return _grouped(_unpack(blocks[:, 16:], 4, 32), *_scales_and_least(blocks))


def _q5_k(blocks: Bytes) -> Floats:
    """d; m; 12 bytes: scales and least values; 32: fifth bits of the values; 128: lower bits."""
    values = _unpack(blocks[:, 48:], 4, 32) | _unpack(blocks[:, 16:48], 1, 32) << 4
    return _grouped(values, *_scales_and_least(blocks))


def _q6_k(blocks: Bytes) -> Floats:
    """128 bytes: lower 4 bits of the values; 64: upper 2 bits; 16: scales; d."""
    values = _unpack(blocks[:, :128], 4, 64) | _unpack(blocks[:, 128:192], 2, 32) << 4
    scales = half(blocks, 208) * blocks[:, 192:208].view(np.int8)
    return _grouped(values.view(np.int8) - 32, scales)


def _scales_and_least(blocks: Bytes) -> tuple[Floats, Floats]:
    """Of Q4_K and Q5_K, 6 bits each for 8 groups.

    Bytes 0 to 3 hold the scales, 4 to 7 the least values of groups 0 to 3, and in their upper 2
    bits those of groups 4 to 7, whose lower bits are the two halves of bytes 8 to 11.
    """
    packed = blocks[:, 4:12]
    first = packed & 63
    last = _unpack(blocks[:, 12:16], 4, 4) | packed >> 6 << 4
    scales = np.concatenate([first[:, :4], last[:, :4]], axis=1)
    least = np.concatenate([first[:, 4:], last[:, 4:]], axis=1)
    return half(blocks, 0) * scales, half(blocks, 2) * least


def _grouped(values: NDArray[np.integer], scales: Floats, least: Floats | None = None) -> Floats:
    grouped = values.reshape(*scales.shape, -1) * scales[:, :, None]
    if least is not None:
        grouped -= least[:, :, None]
    return grouped.reshape(len(values), -1)


K_QUANTS: dict[str, Callable[[Bytes], Floats]] = {
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
