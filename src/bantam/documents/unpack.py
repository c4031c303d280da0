"""Packed files and archives as streams. Nothing is written but what does not fit in memory, to
temporary files without the names that an archive gives.

All that comes out of a file, however nested, is paid from one Budget: an archive bomb ends there.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import stat
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from posixpath import normpath
from typing import IO, Any, NamedTuple, cast

from bantam.documents.parts import Fault, Unreadable
from bantam.sources.archives import CHUNK, FREE_BYTES, MAX_RATIO, Forward, TarMember
from bantam.sources.door import MAX_BYTES

MEMBERS = 1_000_000
MEMBER = 512  # bytes that each member costs at least: millions of empty ones are a bomb too
IN_MEMORY = 8 << 20
XZ_MEMORY = 256 << 20  # `xz -9` asks for 65 MB to unpack


class Budget:
    """The bytes that may come out of a file that has `packed` bytes."""

    def __init__(self, packed: int) -> None:
        self.left = self.limit = min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * packed))

    def pay(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise Unreadable(f"it unpacks to more than {self.limit:,} bytes: an archive bomb?")


class Paid(io.RawIOBase):
    """A stream whose bytes are paid for when they are read first; it may begin again."""

    def __init__(self, stream: IO[bytes], budget: Budget) -> None:
        self._stream = stream
        self._budget = budget
        self._paid = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        read = self._stream.read(min(len(buffer), CHUNK))
        at = self._stream.tell()
        if at > self._paid:
            self._budget.pay(at - self._paid)
            self._paid = at
        buffer[: len(read)] = read
        return len(read)


def opened(file: IO[bytes], form: str, budget: Budget) -> IO[bytes]:
    """What is in a file of one of `recognise.PACKED`: a stream that may begin again."""
    openers: dict[str, Callable[[IO[bytes]], Any]] = {
        "gzip": lambda file: gzip.GzipFile(fileobj=file),
        "zstd": _zstd,
        "xz": Xz,
        "bzip2": bz2.BZ2File,
    }
    return io.BufferedReader(Paid(cast(IO[bytes], openers[form](file)), budget))


class Xz:
    """What is in an xz file. Python's own lzma takes as much memory as the file asks for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._at, self._packed = 0, b""
        self._begin()

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end."""
        while True:
            if self._inner.eof:  # another stream may follow, with zeros before it
                self._packed = self._packed or self._inner.unused_data or self._file.read(CHUNK)
                while self._packed and not self._packed.strip(b"\0"):
                    self._packed = self._file.read(CHUNK)
                if not self._packed:
                    return b""
                self._packed = self._packed.lstrip(b"\0")
                self._begin()
            if self._inner.needs_input and not self._packed:
                self._packed = self._file.read(CHUNK)
                if not self._packed:
                    raise Unreadable("it ends too early")
            found = self._inner.decompress(self._packed, size)
            self._packed = b""
            if found:
                self._at += len(found)
                return found

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Begin again: no other place can be had."""
        if (offset, whence) != (0, 0):
            raise io.UnsupportedOperation("seek")
        self._file.seek(0)
        self._at, self._packed = 0, b""
        self._begin()
        return 0

    def _begin(self) -> None:
        self._inner = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)


def _zstd(file: IO[bytes]) -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.ZstdFile(file)


class Member(NamedTuple):
    """A file in an archive. `stream` is read before the next member is asked for."""

    name: str
    stream: IO[bytes]


def members(file: IO[bytes], form: str, budget: Budget) -> Iterator[Member | Fault]:
    """The files of a zip or tar in their order; links are passed over, those out of it told."""
    for member in _zip(file) if form == "zip" else _tar(file):
        budget.pay(MEMBER)
        if isinstance(member, Member):
            stream = io.BufferedReader(Paid(member.stream, budget))
            yield member._replace(stream=stream)
        else:
            yield member


def office(file: IO[bytes]) -> str:
    """What a zip is: the format of an office file or book, or "zip"."""
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist()[:MEMBERS])
        if "mimetype" in names:
            kind = archive.open("mimetype").read(100).decode("ascii", "replace").strip()
            for mark, form in (("/epub+zip", "epub"), (".text", "odt"), (".presentation", "odt")):
                if kind.endswith(mark):
                    return form
    if "word/document.xml" in names:
        return "docx"
    if "ppt/presentation.xml" in names:
        return "pptx"
    if "xl/workbook.xml" in names or "mimetype" in names:
        raise Unreadable('a spreadsheet or drawing: save its tables as "CSV UTF-8"')
    return "zip"


def _zip(file: IO[bytes]) -> Iterator[Member | Fault]:
    with zipfile.ZipFile(file) as archive:
        if len(archive.infolist()) > MEMBERS:
            raise Unreadable(f"it holds more than {MEMBERS:,} files")
        for info in archive.infolist():
            name = info.filename
            kind = stat.S_IFMT(info.external_attr >> 16)
            if name.endswith("/"):
                continue
            if reason := _unsafe(name):
                yield Fault(name, reason)
            elif kind not in (0, stat.S_IFREG):
                yield Fault(name, "a link or device")
            elif info.flag_bits & 1:
                yield Fault(name, "it is encrypted")
            # The other methods may unpack without bound in one step.
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                yield Fault(name, "packed by a method that is not read")
            else:
                try:
                    stream = archive.open(info)
                except zipfile.BadZipFile as error:
                    yield Fault(name, str(error))
                    continue
                with stream:
                    yield Member(name, stream)


def _tar(file: IO[bytes]) -> Iterator[Member | Fault]:
    forward = cast(IO[bytes], Forward(file))
    with tarfile.open(fileobj=forward, mode="r:", tarinfo=TarMember) as archive:
        for count, info in enumerate(archive):
            if count >= MEMBERS:
                raise Unreadable(f"it holds more than {MEMBERS:,} files")
            cast(Any, archive).members = []  # tarfile would keep them all
            name = info.name.removeprefix("./")
            if info.isdir() or info.islnk():
                continue  # a hard link's target is in the archive by a name of its own
            if reason := _unsafe(name):
                yield Fault(name, reason)
            elif info.issym():
                inner = normpath(f"{name}/../{info.linkname}")
                if _unsafe(inner) or info.linkname.startswith("/"):
                    yield Fault(name, "a link out of the archive is not followed")
            elif not info.isreg() or info.issparse():
                yield Fault(name, "neither a plain file nor a folder")
            elif (content := archive.extractfile(info)) is not None:
                yield Member(name, content)


def _unsafe(name: str) -> str | None:
    if len(name) > 4096 or any(letter < " " or letter == "\x7f" for letter in name):
        return "its name is not a file's"
    names = name.replace("\\", "/").split("/")
    return "its name leads out of the archive" if names[0] == "" or ".." in names else None


class Held(NamedTuple):
    """A stream that was read to its end, to be read again. `path` is where it is on the disk, null
    where it is in memory."""

    file: IO[bytes]
    path: Path | None
    sha256: str


@contextmanager
def held(stream: IO[bytes]) -> Iterator[Held]:
    """Keep a stream in memory, or on the disk from IN_MEMORY bytes on, until the block ends."""
    digest = hashlib.sha256()
    start = stream.read(IN_MEMORY)
    digest.update(start)
    if len(start) < IN_MEMORY:
        yield Held(io.BytesIO(start), None, digest.hexdigest())
        return
    with tempfile.TemporaryDirectory(prefix="bantam-") as folder:
        path = Path(folder) / "held"
        with path.open("w+b") as file:
            file.write(start)
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
            file.seek(0)
            yield Held(file, path, digest.hexdigest())
