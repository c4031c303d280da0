"""Wheels, zips and tar.gz files, opened as data: nothing in them is run or trusted."""

import gzip
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from errno import EINVAL
from hashlib import file_digest
from math import inf
from pathlib import Path
from shutil import copyfileobj
from typing import IO, Any, cast

from bantam.errors import BadInput, BantamError, JobFailed
from bantam.sources.door import MAX_BYTES, ROOM

MAX_FILES = 100_000
MAX_RATIO = 200  # unpacked over packed; real text stays below 50, a bomb is near 1000
FREE_BYTES = 64 << 20  # below this the ratio does not matter
CHUNK = 1 << 20
HEAD = 16 << 10  # bytes of what a tar says before a member: long names and attributes
HEADS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
RECORD = re.compile(rb"(\d{1,5}) [^=]+=")  # the begin of one in a pax header, and its length
UTF8 = b"20 hdrcharset=UTF-8\n"
PIECE = re.compile(r"(?P<whole>.+)\.part(?P<number>\d{1,4})")


def extract(archive: Path, folder: Path) -> None:
    """Open a wheel, zip or tar.gz into `folder`, which is made if missing.

    Only plain files with relative names are written, as plain files; archives inside stay closed.
    Raises BadInput for a broken or hostile archive (a part of it may then be in `folder`) and
    JobFailed when the disk refuses.
    """
    limit = min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * archive.stat().st_size))
    written = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with archive.open("rb") as raw:
            magic = raw.read(4)
            raw.seek(0)
            for name, stream in _members(raw, magic, limit):
                target = folder / safe_name(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                with stream, target.open("xb") as out:
                    while chunk := stream.read(CHUNK):
                        written += len(chunk)
                        if written > limit:
                            raise Refused(f"it unpacks to more than {limit:,} bytes")
                        out.write(chunk)
    except BantamError:
        raise
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise _refusal(archive, "it holds one name twice") from None
    except Exception as error:  # the readers of zip, gzip and tar fail in many ways on bad bytes
        if isinstance(error, OSError) and error.errno not in (None, EINVAL):
            raise JobFailed(f"could not write to {folder}: {error.strerror}", ROOM) from None
        raise _refusal(archive, str(error) or "it ends too early") from None


class Refused(Exception):
    """What is wrong with an archive; who catches it adds which one."""


def _refusal(archive: Path, reason: str) -> BadInput:
    return BadInput(f"{archive.name} cannot be opened: {reason}", "get it from a place you trust")


def unpack(archive: Path, folder: Path) -> None:
    """`extract` to a new `folder`, without the one that a source distribution wraps all in."""
    opened = folder.with_name(f"{folder.name}-opened")
    extract(archive, opened)
    top = list(opened.iterdir())
    if len(top) == 1 and top[0].is_dir() and top[0].suffix != ".dist-info":
        top[0].rename(folder)
        opened.rmdir()
    else:
        opened.rename(folder)


def safe_name(name: str) -> str:
    """A member's name if it stays inside its folder on every system; raises BadInput if not."""
    name = name.removeprefix("./")
    odd = len(name) > 1000 or any(c in '\\:*?"<>|' or c < " " or c == "\x7f" for c in name)
    if odd or any(part in ("", ".", "..") or len(part.encode()) > 255 for part in name.split("/")):
        raise BadInput(f"unsafe file name {name[:200]!r}", "get it from a place you trust")
    return name


def _members(raw: IO[bytes], magic: bytes, limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    if magic[:2] == b"PK":
        return _zip_members(raw)
    if magic[:2] == b"\x1f\x8b":
        return _tar_members(raw, limit)
    raise Refused("it is no wheel, zip or tar.gz")


def _zip_members(raw: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(raw) as file:
        if len(file.infolist()) > MAX_FILES:
            raise Refused(f"it holds more than {MAX_FILES:,} files")
        for member in file.infolist():
            if member.filename.endswith("/"):
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise Refused(f"it holds a link or device: {member.filename!r}")
            # The other methods may unpack without bound in one step.
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Refused(f"it holds an unusual compression: {member.filename!r}")
            yield member.filename, file.open(member)


def _tar_members(raw: IO[bytes], limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    unpacked = cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    stream = cast(IO[bytes], Forward(unpacked, 2 * limit))
    claimed = 0
    with tarfile.open(fileobj=stream, mode="r:", tarinfo=TarMember) as file:
        for count, member in enumerate(file):
            cast(Any, file).members = []  # tarfile would keep them all
            claimed += member.size
            if count >= MAX_FILES:
                raise Refused(f"it holds more than {MAX_FILES:,} files")
            if not 0 <= member.size <= limit or claimed > limit:
                raise Refused(f"it unpacks to more than {limit:,} bytes")
            if member.isdir():
                continue
            content = file.extractfile(member) if member.isreg() else None
            if content is None or member.issparse():
                raise Refused(f"it holds a link or device: {member.name!r}")
            yield member.name, content
    # What follows holds the sum over the whole, which is only checked at the end.
    while stream.read(CHUNK):
        pass


class Forward:
    """A stream read in order, in small steps and no further than `most` bytes.

    `tarfile` reads a header of any claimed length at one go, and may follow offsets backwards
    for ever. What it reads next may be put into `ahead`.
    """

    def __init__(self, stream: IO[bytes], most: float = inf) -> None:
        self.stream, self.most = stream, most
        self.tell = stream.tell
        self.ahead = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= CHUNK:
            raise Refused("it holds a header that is too long")
        self._reach(self.tell())
        ahead, self.ahead = self.ahead, b""
        return ahead or self.stream.read(size)

    def seek(self, offset: int, *_: Any) -> int:
        if offset < self.tell():
            raise Refused("it holds offsets that go backwards")
        self._reach(offset)
        return self.stream.seek(offset)

    def _reach(self, offset: int) -> None:
        if offset > self.most:
            raise Refused(f"it unpacks to more than {self.most:,} bytes")


class TarMember(tarfile.TarInfo):
    """A member whose headers take little: `tarfile` reads the map of a sparse file without end, and
    a pax header in the square of its length."""

    _block: Any  # these are tarfile's own
    _proc_builtin: Any
    _sparse_structs: Any

    def _proc_member(self, archive: Any) -> Any:
        if (self.type in HEADS and self.size > HEAD) or len(archive.pax_headers) > 100:
            raise Refused("it holds a header that is too long")
        return cast(Any, super())._proc_member(archive)

    def _proc_pax(self, archive: Any) -> Any:
        head = UTF8 + archive.fileobj.read(self._block(self.size))
        end = 0
        while record := RECORD.match(head, end):
            end += int(record[1])
            if end < record.end():
                raise Refused("it holds a header whose records overlap")
        if head[end:].strip(b"\0"):
            raise Refused("it holds a damaged header")
        archive.fileobj.ahead = head  # begins with what tarfile would look for to its end
        return cast(Any, super())._proc_pax(archive)

    def _proc_sparse(self, archive: Any) -> Any:
        more = self._sparse_structs[1]
        while more:
            more = archive.fileobj.read(tarfile.BLOCKSIZE)[504]
        self.sparse = b""  # the map, which is not kept
        return self._proc_builtin(archive)

    def _proc_gnusparse_00(self, member: Any, *_: Any) -> None:
        member.sparse = b""

    _proc_gnusparse_10 = _proc_gnusparse_00


def join_pieces(folder: Path) -> None:
    """Join each `NAME.part00`, `NAME.part01`, ... found anywhere in `folder` to `folder/NAME`.

    A SHA256SUMS file in `folder` that names the whole must agree. The pieces are removed.
    Raises BadInput when a piece is missing or the sum differs.
    """
    wholes: dict[str, dict[int, Path]] = {}
    sums: dict[str, str] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if piece := PIECE.fullmatch(file.name):
            wholes.setdefault(piece["whole"], {})[int(piece["number"])] = file
        elif file.name == "SHA256SUMS":
            for line in file.read_text(errors="replace").splitlines():
                digest, _, name = line.strip().partition(" ")
                sums[name.strip().lstrip("*")] = digest.lower()
    for whole, pieces in wholes.items():
        first = min(pieces)
        if first > 1 or sorted(pieces) != list(range(first, first + len(pieces))):
            raise BadInput(
                f"{whole} is split and pieces are missing: there are {sorted(pieces)}",
                "clear it from the cache and fetch it again",
            )
        with (folder / whole).open("xb") as out:
            for number in sorted(pieces):
                with pieces[number].open("rb") as piece_file:
                    copyfileobj(piece_file, out, CHUNK)
                pieces[number].unlink()
        with (folder / whole).open("rb") as joined:
            if whole in sums and file_digest(joined, "sha256").hexdigest() != sums[whole]:
                raise BadInput(
                    f"{whole}, joined from {len(pieces)} pieces, is not what its SHA256SUMS says",
                    "clear it from the cache and fetch it again, or ask its author",
                )
