"""Block formats of GGUF tensors to and from float32, bit for bit as the `gguf` package does.

A block holds 32 values: a scale `d` (and a least value `m` in the _1 formats) in float16, the fifth
bits of the Q5 formats, then the values, where a byte of Q4 or Q5 holds value i in its lower and
value i + 16 in its upper half (ggml-quants.c). The blocks of 256 values are in k_quants.py.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bantam.formats.k_quants import K_QUANTS, Bytes, Floats, half
from bantam.formats.tensor_types import TYPES

WRITABLE = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
READABLE = (*WRITABLE, *K_QUANTS)

# Values worked on at once, so that what is made on the way stays in the processor's cache.
_CHUNK = 1 << 18


def dequantise(stored: Bytes, kind: str) -> Floats:
    """The values of `stored` (flat bytes of whole blocks) as flat float32."""
    if kind == "F32":
        return np.array(stored).view("<f4")
    if kind == "F16":
        return stored.view("<f2").astype(np.float32)
    if kind == "BF16":
        return (stored.view("<u2").astype(np.uint32) << 16).view(np.float32)
    _, block, block_bytes = TYPES[kind]
    blocks = stored.reshape(-1, block_bytes)
    from_blocks = K_QUANTS.get(kind) or functools.partial(_from_blocks, kind=kind)
    values = np.empty((len(blocks), block), np.float32)
    for part in _chunks(len(blocks), block):
        values[part] = from_blocks(blocks[part])
    return values.reshape(-1)


def _chunks(blocks: int, block: int) -> Iterator[slice]:
    step = _CHUNK // block
    return (slice(start, start + step) for start in range(0, blocks, step))


def _from_blocks(blocks: Bytes, kind: str) -> Floats:
    scale = half(blocks, 0)
    if kind == "Q8_0":
        return scale * blocks[:, 2:].view(np.int8).astype(np.float32)
    halves = blocks[:, -16:]
    values = np.concatenate([halves & 15, halves >> 4], axis=1)
    if kind in ("Q5_0", "Q5_1"):
        values |= np.unpackbits(blocks[:, -20:-16], axis=1, bitorder="little") << 4
    if kind in ("Q4_1", "Q5_1"):
        return scale * values.astype(np.float32) + half(blocks, 2)
    middle = 8 if kind == "Q4_0" else 16
    return scale * (values.astype(np.float32) - np.float32(middle))


def quantise(values: NDArray[Any], kind: str) -> Bytes:
    """The bytes that a GGUF stores for float32 `values` as type `kind`, flat."""
    values = np.ascontiguousarray(values, np.float32).reshape(-1)
    if kind == "F32":
        return values.view(np.uint8)
    if kind == "F16":
        return values.astype("<f2").view(np.uint8)
    if kind == "BF16":
        return _to_bfloat16(values).view(np.uint8)
    if kind not in WRITABLE:
        raise ValueError(f"cannot write {kind}; only {', '.join(WRITABLE)}")
    _, block, block_bytes = TYPES[kind]
    blocks = values.reshape(-1, block)
    stored = np.empty((len(blocks), block_bytes), np.uint8)
    for part in _chunks(len(blocks), block):
        stored[part] = _to_q8_0(blocks[part]) if kind == "Q8_0" else _to_blocks(blocks[part], kind)
    return stored.reshape(-1)


def _to_bfloat16(values: Floats) -> NDArray[np.uint16]:
    bits = values.view(np.uint32)
    # To the nearest, ties to even; a NaN is kept one by setting its quiet bit instead of rounding.
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) >> 16
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(nan, (bits >> 16) | 64, rounded).astype("<u2")


def _to_q8_0(blocks: Floats) -> Bytes:
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    scaled = blocks * _inverse(scale)
    # Round halves away from zero, as C's roundf does.
    whole = np.trunc(scaled)
    whole += np.trunc(2 * (scaled - whole))
    return np.concatenate([_half_bytes(scale), whole.astype(np.int8).view(np.uint8)], axis=1)


def _to_blocks(blocks: Floats, kind: str) -> Bytes:
    steps = 16 if kind in ("Q4_0", "Q4_1") else 32
    if kind in ("Q4_1", "Q5_1"):
        least = blocks.min(axis=1, keepdims=True)
        scale = (blocks.max(axis=1, keepdims=True) - least) / np.float32(steps - 1)
        scaled = (blocks - least) * _inverse(scale) + np.float32(0.5)
        head = [_half_bytes(scale), _half_bytes(least)]
    else:
        # The value furthest from zero becomes the end of the range that has one step more.
        furthest = np.abs(blocks).argmax(axis=1, keepdims=True)
        scale = np.take_along_axis(blocks, furthest, axis=1) / np.float32(-steps // 2)
        scaled = blocks * _inverse(scale) + np.float32(steps // 2 + 0.5)
        head = [_half_bytes(scale)]
    values = np.trunc(scaled).astype(np.uint8).clip(0, steps - 1)
    if steps == 32:
        head.append(np.packbits(values >> 4, axis=1, bitorder="little"))
    return np.concatenate([*head, values[:, :16] & 15 | values[:, 16:] << 4], axis=1)


def _inverse(scale: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.where(scale == 0, np.float32(0), 1 / scale)


def _half_bytes(scale: Floats) -> Bytes:
    return scale.astype("<f2").view(np.uint8)
