"""Check the header of a safetensors file before any library opens it.

A file is 8 bytes (the header's length), the header (JSON: name to dtype, shape and the two ends of
its bytes) and the bytes: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from bantam.errors import BadInput

# Bits of one value.
_BITS = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8},
    **{"U16": 16, "I16": 16, "F16": 16, "BF16": 16},
    **{"U32": 32, "I32": 32, "F32": 32},
    **{"U64": 64, "I64": 64, "F64": 64, "C64": 64},
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}
_MAX_HEADER = 16 << 20  # bytes; a model of 1,000 tensors has 100 kB
_MAX_DIMENSIONS = 8

# dtype, shape, and where the bytes start and end in the file
Entry = tuple[str, tuple[int, ...], int, int]


def check(path: str | Path) -> dict[str, Entry]:
    """The tensors of the file at `path` by name: (dtype, shape, start, end), in bytes of the file.

    Raises BadInput unless the header is sound and the tensors fill the rest of the file without
    gap or overlap.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            if not 2 <= length <= min(size - 8, _MAX_HEADER):
                raise _broken(path, f"its header would have {length} bytes, the file has {size}")
            raw = file.read(length)
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be read ({error.strerror})", "name a safetensors file"
        ) from error
    entries = _entries(path, raw, 8 + length)
    place = 8 + length
    for name, (_, _, start, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if start != place:
            raise _broken(path, f"tensor {name!r} starts at byte {start}, it should at {place}")
        place = end
    if place != size:
        raise _broken(path, f"its tensors end at byte {place}, the file at {size}")
    return entries


def _entries(path: Path, raw: bytes, offset: int) -> dict[str, Entry]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a name is twice")
        return dict(pairs)

    try:
        header = json.loads(raw.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"its header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise _broken(path, "its header is no JSON object")
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(text, str) for text in notes.values()):
        raise _broken(path, "its __metadata__ is no object of strings")
    return {name: _entry(path, name, info, offset) for name, info in header.items()}


def _entry(path: Path, name: str, info: Any, offset: int) -> Entry:
    match info:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [start, end], **rest}:
            numbers = [*shape, start, end]
        case _:
            raise _broken(path, f"tensor {name[:80]!r} lacks dtype, shape or data_offsets")
    if not name.isprintable() or ".." in name or rest:
        raise _broken(path, f"tensor {name[:80]!r} has an odd name or odd keys")
    if len(shape) > _MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in numbers):
        raise _broken(path, f"tensor {name!r} has a shape or offsets that cannot be")
    if dtype not in _BITS:
        raise _broken(path, f"tensor {name!r} has the unknown dtype {dtype[:80]!r}")
    if 8 * (end - start) != math.prod(shape) * _BITS[dtype]:
        raise _broken(
            path, f"tensor {name!r} has {end - start} bytes, not those of {dtype} {shape}"
        )
    return dtype, tuple(shape), offset + start, offset + end


def _broken(path: Path, what: str) -> BadInput:
    return BadInput(
        f"{path}: not a sound safetensors file: {what}", "download or export the file again"
    )
