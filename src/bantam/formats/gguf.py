"""GGUF files: read the header, read tensors as float32, write.

The layout is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Reading trusts
nothing: every count, length, type, shape and offset is held against the file's size before anything
is allocated, so that a file which passes here is safe to hand to the runtime. NumPy is imported
only when tensors are read or written: `bantam run` needs the header alone, at once.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from bantam.errors import BadInput
from bantam.formats.tensor_types import TYPES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    # name, shape (row-major), type ("Q8_0"), and the values, made when their turn comes
    NewTensor = tuple[str, tuple[int, ...], str, Callable[[], NDArray[np.float32]]]

_TYPE_OF_NUMBER = {number: name for name, (number, _, _) in TYPES.items()}

# Metadata value types; strings (8) and arrays (9) have no fixed size.
_SCALARS = {
    **{0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?"},
    **{10: "Q", 11: "q", 12: "d"},
}
_STRING, _ARRAY = 8, 9
_UINT32, _INT32, _FLOAT32, _BOOL, _UINT64, _INT64 = 4, 5, 6, 7, 10, 11
_ALIGNMENT = 32  # what we write, and what a file has that does not say

# No honest model comes near these; they bound the time and memory that a hostile header can take.
_MAX_HEADER_BYTES = 256 << 20
_MAX_STRING_BYTES = 16 << 20
_MAX_KEYS = 1 << 16
_MAX_TENSORS = 1 << 16
_MAX_ITEMS = 1 << 22
_MAX_NAME_BYTES = 63  # the runtime's own limit on tensor names


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file: `shape` is row-major as in torch, `offset` is from the file's start."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class GGUF:
    """The header of a file. Metadata are plain Python values, arrays are lists."""

    path: Path
    version: int
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]


def read(path: str | Path) -> GGUF:
    """Read and check the header of the GGUF file at `path`. Raises BadInput for a broken one."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 24:
                raise _broken(path, f"it has {size} bytes, too few for a GGUF header")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data).read()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})", "name a GGUF file") from error


def _broken(path: Path, what: str) -> BadInput:
    return BadInput(f"{path}: not a sound GGUF file: {what}", "download or export the file again")


class _Reader:
    """A place in a mapped file, and what may still be read there."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.place = 0
        self.size = len(data)
        self.end = min(self.size, _MAX_HEADER_BYTES)
        self.items = _MAX_ITEMS

    def read(self) -> GGUF:
        if self.data[:4] != b"GGUF":
            raise _broken(self.path, f"it begins with {self.data[:4]!r}, not b'GGUF'")
        self.place = 4
        version: int = self.number("I", "the version")
        if version & 0xFFFF == 0 and version:
            raise BadInput(
                f"{self.path}: is big-endian; only little-endian GGUF files can be read",
                "convert it with gguf_convert_endian.py of llama.cpp",
            )
        if version not in (2, 3):
            raise _broken(self.path, f"version {version}; only 2 and 3 can be read")
        tensors = self.count("the number of tensors", _MAX_TENSORS)
        keys = self.count("the number of metadata keys", _MAX_KEYS)

        metadata: dict[str, Any] = {}
        for index in range(keys):
            key = self.string(f"the name of metadata key {index + 1} of {keys}")
            if key in metadata:
                raise _broken(self.path, f"metadata key {key!r} is twice")
            metadata[key] = self.value(f"metadata {key!r}")
        return GGUF(self.path, version, metadata, self.tensors(tensors, metadata))

    def tensors(self, count: int, metadata: dict[str, Any]) -> dict[str, TensorInfo]:
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise _broken(self.path, f"general.alignment is {alignment!r}, not a power of two")
        infos = [self.tensor_info(f"tensor {i + 1} of {count}") for i in range(count)]
        start = _aligned(self.place, alignment)
        tensors: dict[str, TensorInfo] = {}
        wanted = 0
        for name, shape, kind, offset in infos:
            if name in tensors:
                raise _broken(self.path, f"tensor {name!r} is twice")
            nbytes = tensor_bytes(shape, kind)
            # The runtime accepts no other place, and so nothing can overlap.
            if offset != wanted:
                raise _broken(
                    self.path, f"tensor {name!r} is at offset {offset}, it should be at {wanted}"
                )
            if start + offset + nbytes > self.size:
                raise _broken(
                    self.path,
                    f"tensor {name!r} ends at byte {start + offset + nbytes}, "
                    f"the file at byte {self.size}",
                )
            tensors[name] = TensorInfo(name, shape, kind, start + offset, nbytes)
            wanted = _aligned(offset + nbytes, alignment)
        return tensors

    def tensor_info(self, what: str) -> tuple[str, tuple[int, ...], str, int]:
        name = self.string(f"the name of {what}")
        if not name.isprintable() or ".." in name or not 0 < len(name.encode()) <= _MAX_NAME_BYTES:
            raise _broken(self.path, f"the name of {what} is {name[:80]!r}")
        what = f"tensor {name!r}"
        dimensions: int = self.number("I", f"the dimensions of {what}")
        if not 1 <= dimensions <= 4:
            raise _broken(self.path, f"{what} has {dimensions} dimensions")
        shape: tuple[int, ...] = self.numbers(f"{dimensions}Q", f"the shape of {what}")[::-1]
        number: int = self.number("I", f"the type of {what}")
        offset: int = self.number("Q", f"the offset of {what}")
        kind = _TYPE_OF_NUMBER.get(number)
        if kind is None:
            raise _broken(self.path, f"{what} has the unknown type {number}")
        if 0 in shape:
            raise _broken(self.path, f"{what} has the shape {shape}")
        if shape[-1] % TYPES[kind][1]:
            raise _broken(
                self.path, f"{what}: rows of {shape[-1]} values do not fill whole {kind} blocks"
            )
        return name, shape, kind, offset

    def value(self, what: str) -> Any:
        kind: int = self.number("I", f"the type of {what}")
        if kind == _STRING:
            return self.string(what)
        if kind == _ARRAY:
            return self.array(what)
        return self.number(self.scalar(kind, what), what)

    def array(self, what: str) -> list[Any]:
        kind: int = self.number("I", f"the type of {what}")
        count = self.count(f"the length of {what}", self.items)
        self.items -= count
        if kind == _STRING:
            return self.strings(count, what)
        if kind == _ARRAY:
            raise _broken(self.path, f"{what} is an array of arrays")
        return list(self.numbers(f"{count}{self.scalar(kind, what)}", what))

    def scalar(self, kind: int, what: str) -> str:
        if kind not in _SCALARS:
            raise _broken(self.path, f"{what} has the unknown type {kind}")
        return _SCALARS[kind]

    def string(self, what: str) -> str:
        return self.strings(1, what)[0]

    def strings(self, count: int, what: str) -> list[str]:
        """Vocabularies have 50,000 to 500,000 of these: one plain loop, few names to look up."""
        if count * 8 > self.end - self.place:
            raise self.past_end(what)
        data, place, end = self.data, self.place, self.end
        length_at = struct.Struct("<Q").unpack_from
        strings: list[str] = []
        try:
            for _ in range(count):
                (length,) = length_at(data, place)
                stop = place + 8 + length
                if length > _MAX_STRING_BYTES or stop > end:
                    raise _broken(self.path, f"{what} has a string of {length} bytes")
                strings.append(str(data[place + 8 : stop], "utf-8"))
                place = stop
        except struct.error:
            raise self.past_end(what) from None
        except UnicodeDecodeError:
            raise _broken(self.path, f"{what} is not UTF-8 (byte {place + 8})") from None
        self.place = place
        return strings

    def count(self, what: str, most: int) -> int:
        count: int = self.number("Q", what)
        if count > most:
            raise _broken(self.path, f"{what} is {count}, more than {most}")
        return count

    def number(self, code: str, what: str) -> Any:
        return self.numbers(code, what)[0]

    def numbers(self, code: str, what: str) -> tuple[Any, ...]:
        code = f"<{code}"
        size = struct.calcsize(code)
        if size > self.end - self.place:
            raise self.past_end(what)
        values = struct.unpack_from(code, self.data, self.place)
        self.place += size
        return values

    def past_end(self, what: str) -> BadInput:
        if self.end < self.size:
            return _broken(self.path, f"the header passes {_MAX_HEADER_BYTES >> 20} MiB at {what}")
        return _broken(self.path, f"it ends within {what}")


def tensor_bytes(shape: Sequence[int], kind: str) -> int:
    """The bytes that a tensor of `shape` takes as type `kind`; rows must fill whole blocks."""
    _, block, block_bytes = TYPES[kind]
    count = 1
    for length in shape:
        count *= length
    return count // block * block_bytes


def _aligned(place: int, alignment: int) -> int:
    return (place + alignment - 1) // alignment * alignment


def tensor(gguf: GGUF, name: str) -> NDArray[np.float32]:
    """The tensor `name` as float32 of its row-major shape.

    Raises BadInput when there is no such tensor, its type cannot be read, or a value is not finite.
    """
    import numpy as np

    from bantam.formats import quants

    info = gguf.tensors.get(name)
    if info is None:
        raise BadInput(f"{gguf.path}: has no tensor {name!r}", "use a complete model file")
    if info.type not in quants.READABLE:
        raise BadInput(
            f"{gguf.path}: tensor {name!r} is {info.type}; "
            f"the types that can be read are {', '.join(quants.READABLE)}",
            "use a file of this model with one of these types, such as Q8_0 or F16",
        )
    try:
        stored = np.memmap(gguf.path, np.uint8, "r", info.offset, (info.nbytes,))
    except (OSError, ValueError) as error:
        raise _broken(gguf.path, f"tensor {name!r} can no longer be read ({error})") from error
    values = quants.dequantise(stored, info.type).reshape(info.shape)
    if not np.isfinite(values).all():
        raise _broken(gguf.path, f"tensor {name!r} holds NaN or infinite values")
    return values


def write(path: str | Path, metadata: dict[str, Any], tensors: Sequence[NewTensor]) -> None:
    """Write a GGUF file, whole or not at all; the values of one tensor are held at a time.

    Metadata are bool, int, float, str or a list of one of these. An int becomes UINT32 (INT32 when
    negative) or the 64-bit type that holds it, in lists INT32 or INT64; a float becomes FLOAT32.
    Each tensor is (name, row-major shape, type, a function that returns its values).
    """
    from bantam.formats import quants

    path = Path(path)
    metadata = {key: value for key, value in metadata.items() if key != "general.alignment"}
    header = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    header += [_string(key) + _value(key, value) for key, value in metadata.items()]
    offset = 0
    for name, shape, kind, _ in tensors:
        number, block, _ = TYPES[kind]
        if shape[-1] % block:
            raise ValueError(f"{name}: rows of {shape[-1]} values do not fill whole {kind} blocks")
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        header.append(_string(name) + dimensions + struct.pack("<IQ", number, offset))
        offset += _aligned(tensor_bytes(shape, kind), _ALIGNMENT)

    with _whole_file(path) as file:
        file.write(b"".join(header))
        for name, shape, kind, values in tensors:
            file.write(bytes(-file.tell() % _ALIGNMENT))
            made = values()
            if made.shape != tuple(shape):
                raise ValueError(f"{name} has the shape {made.shape}, not {tuple(shape)}")
            file.write(quants.quantise(made, kind).data)
        file.write(bytes(-file.tell() % _ALIGNMENT))


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that is synced and takes its name only when the block ends well."""
    part = path.with_name(f"{path.name}.partial")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(key: str, value: Any) -> bytes:
    if not isinstance(value, list):
        kind = _kind(key, [value], single=True)
        return struct.pack("<I", kind) + _items(kind, [value])
    kind = _kind(key, value, single=False)
    return struct.pack("<IIQ", _ARRAY, kind, len(value)) + _items(kind, value)


def _items(kind: int, values: list[Any]) -> bytes:
    if kind == _STRING:
        return b"".join(map(_string, values))
    return struct.pack(f"<{len(values)}{_SCALARS[kind]}", *values)


def _kind(key: str, values: list[Any], *, single: bool) -> int:
    """The number of the smallest metadata type that `write` promises for these values."""
    types = {type(value) for value in values}
    if types == {bool}:
        return _BOOL
    if types == {float}:
        return _FLOAT32
    if types <= {str}:  # an empty list too: its type is never looked at
        return _STRING
    if types != {int}:
        raise TypeError(f"metadata {key!r} mixes or holds types that GGUF has not: {types}")
    least, most = min(values), max(values)
    if single and least >= 0:
        return _UINT32 if most < 1 << 32 else _UINT64
    return _INT32 if least >= -(1 << 31) and most < 1 << 31 else _INT64
