"""Sources to shards of documents: every file that holds text, and why the others were passed over.

The files come in the order of their paths and each is read by itself, so that the same folder gives
the same documents, ids and shards, and files can be shared out among processes (`documents_of`).
"""

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from errno import ENOSPC
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import polars as pl

from bantam.documents import readers, unpack
from bantam.documents.apart import Apart
from bantam.documents.document import Document, Unread, document, frame, named
from bantam.documents.parts import Fault, Part, Unreadable, Wanted, parted, whole
from bantam.documents.readers import mbox
from bantam.documents.recognise import ARCHIVES, HEAD, PACKED, Unknown, recognise
from bantam.documents.walk import Source, files
from bantam.errors import JobFailed
from bantam.licences import LICENCE_FILE, named_in
from bantam.runs import file_sha256

SHARD = 4 << 20  # characters of text in one frame: a process takes 30 bytes for each
ROW = 200  # bytes that a document costs beside its text
NESTED = 10  # archives and packed files within one another; a tar.gz is two
FAULTS = 100  # of one file that are listed one by one
LICENCE = 200_000  # bytes that are read of a licence's text

_SPDX = re.compile(rb"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+() -]{2,200}[A-Za-z0-9.+)])")


def read(sources: Sequence[Source], unread: list[Unread]) -> Iterator[pl.DataFrame]:
    """Shards of the sources' documents (`document.SCHEMA`), of about SHARD characters each.

    What could not be read is appended to `unread` on the way. BadInput: a source's folder is not
    there. JobFailed: no room on the disk for what is unpacked.
    """
    return read_files(_all(sources, unread), unread)


def _all(sources: Sequence[Source], unread: list[Unread]) -> Iterator[tuple[Source, str]]:
    for source in sources:
        for path in files(source):
            if isinstance(path, Unread):
                unread.append(path)
            else:
                yield source, path


def read_files(files: Iterable[tuple[Source, str]], unread: list[Unread]) -> Iterator[pl.DataFrame]:
    """As `read`, of these files: each a source, and the path of a file within its folder."""
    rows: list[Document] = []
    size = 0
    with Apart() as apart:
        for source, path in files:
            for found in documents_of(source, path, apart):
                if isinstance(found, Unread):
                    unread.append(found)
                    continue
                rows.append(found)
                size += len(found["text"]) + ROW
                if size >= SHARD:
                    yield frame(rows)
                    rows, size = [], 0
    if rows:
        yield frame(rows)


def documents_of(
    source: Source, path: str, apart: Apart | None = None
) -> Iterator[Document | Unread]:
    """The documents of one file of a source, of an archive those of all files in it.

    `apart` is where parsers run that may hang; without one, a process is started for this file.
    """
    file = source.folder / path
    label = named(f"{source.called}/{path}" if source.called else path)
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(file.open("rb"))
            size = file.stat().st_size
        except OSError as error:
            yield Unread(source.name, label, f"it cannot be opened: {error.strerror}")
            return
        reading = _Reading(source, apart or stack.enter_context(Apart()), unpack.Budget(size), size)
        yield from reading.file(
            _File(
                label,
                PurePosixPath(label).name,
                stream,
                on_disk=file,
                again=True,
                sha256=lambda: file_sha256(file),
                licence=licence_around(source.folder, file.parent),
            )
        )


class _File(NamedTuple):
    """A file that is open, wherever it lies."""

    path: str
    name: str
    stream: IO[bytes]
    on_disk: Path | None
    again: bool  # any place of the stream can be had quickly
    sha256: Callable[[], str]
    licence: str | None  # of what lies around it


class _Reading(NamedTuple):
    """What reading one file of a source and all that is in it goes by."""

    source: Source
    apart: Apart
    budget: unpack.Budget
    size: int

    def file(self, file: _File, depth: int = 0) -> Iterator[Document | Unread]:
        """The documents of a file and of the files in it."""
        return self._guarded(file.path, self._documents(file, depth))

    def _guarded(
        self, path: str, found: Iterator[Document | Unread]
    ) -> Iterator[Document | Unread]:
        """What is found, and at its end what went wrong."""
        try:
            yield from found
        except (Unreadable, Unknown) as error:
            yield Unread(self.source.name, path, str(error))
        except Exception as error:  # readers of packed files fail in many ways on bad bytes
            if isinstance(error, OSError) and error.errno == ENOSPC:
                raise JobFailed(
                    f"no room on the disk to unpack {path}", "free some, or set TMPDIR"
                ) from None
            kind = type(error).__name__
            yield Unread(self.source.name, path, f"it is damaged ({kind}: {error})"[:300])

    def _documents(self, file: _File, depth: int) -> Iterator[Document | Unread]:
        head = file.stream.read(HEAD)
        file.stream.seek(0)
        if not head:
            raise Unreadable("it is empty")
        form = recognise(file.name, head)
        if form in (*PACKED, *ARCHIVES) and depth >= NESTED:
            raise Unreadable(f"more than {NESTED} packed files within one another")
        if form in PACKED:
            stream = unpack.opened(file.stream, form, self.budget)
            name = _unpacked(file.name)
            inner = file._replace(stream=stream, name=name, on_disk=None, again=False)
            yield from self._documents(inner, depth + 1)
            return
        if form not in ("tar", "mbox", *readers.STREAMED) and not file.again:
            with unpack.held(file.stream) as held:
                inner = file._replace(stream=held.file, on_disk=held.path, again=True)
                yield from self._documents(inner, depth)
            return
        if form == "zip":
            form = unpack.office(file.stream)
            file.stream.seek(0)
        if form in ARCHIVES:
            yield from self._members(file, form, depth)
        else:
            yield from self._text(file, form, _stated(head))

    def _members(self, file: _File, form: str, depth: int) -> Iterator[Document | Unread]:
        licences = _licences(file, form, unpack.Budget(self.size))
        file.stream.seek(0)
        empty = True
        for member in unpack.members(file.stream, form, self.budget):
            empty = False
            path = f"{file.path}!/{whole(member.name)}"
            if isinstance(member, Fault):
                yield Unread(self.source.name, path, member.reason)
                continue
            folders = map(str, PurePosixPath(member.name).parents)
            licence = next((licences[one] for one in folders if one in licences), file.licence)
            yield from self._guarded(path, self._member(member, path, licence, depth))
        if empty:
            raise Unreadable("an archive without files")

    def _member(
        self, member: unpack.Member, path: str, licence: str | None, depth: int
    ) -> Iterator[Document | Unread]:
        with unpack.held(member.stream) as held:
            name = PurePosixPath(member.name).name
            digest = partial(str, held.sha256)
            inner = _File(path, name, held.file, held.path, True, digest, licence)
            yield from self._documents(inner, depth + 1)

    def _text(self, file: _File, form: str, stated: str | None) -> Iterator[Document | Unread]:
        licence = stated or self.source.licence or file.licence
        digest = file.sha256()
        texts = faults = 0
        for part in self._parts(file, form):
            if isinstance(part, Part):
                texts += 1
                yield document(
                    part.text,
                    self.source.name,
                    file.path,
                    part.name,
                    part.licence or licence,
                    digest,
                )
            else:
                faults += 1
                if faults <= FAULTS:
                    path = f"{file.path}, {part.name}"
                    yield Unread(self.source.name, path, part.reason)
        if faults > FAULTS:
            yield Unread(self.source.name, file.path, f"{faults - FAULTS:,} more of its parts")
        if not texts and not faults:
            raise Unreadable("it holds no text")

    def _parts(self, file: _File, form: str) -> Iterator[Part | Fault]:
        wanted = Wanted(self.source.text, self.source.licence_column)
        if form == "mbox":
            return self._messages(file, wanted)
        if form in readers.WHOLE:
            return self.apart.parts(form, file.stream, file.on_disk, wanted)
        return parted(readers.reader(form)(file.stream, form, wanted))

    def _messages(self, file: _File, wanted: Wanted) -> Iterator[Part | Fault]:
        for number, message in enumerate(mbox.messages(file.stream), 1):
            name = f"message {number}"
            if message is None:
                yield Fault(name, f"a mail of more than {mbox.LARGEST >> 20} MB")
                continue
            try:
                for part in self.apart.parts("message", io.BytesIO(message), None, wanted):
                    yield part._replace(name=", ".join(filter(None, (name, part.name))))
            except Unreadable as error:
                yield Fault(name, str(error))


def _unpacked(name: str) -> str:
    """The name of what is in a packed file."""
    stem, _, suffix = name.rpartition(".")
    if suffix.lower() in ("tgz", "tzst", "txz", "tbz", "tbz2"):
        return f"{stem}.tar"
    return stem if suffix.lower() in ("gz", "gzip", "zst", "zstd", "z", "xz", "bz2") else name


def _stated(head: bytes) -> str | None:
    """The licence that a file states in its first lines as SPDX asks for."""
    found = _SPDX.search(head)
    return found[1].decode() if found else None


@lru_cache(maxsize=10_000)
def licence_around(root: Path, folder: Path) -> str | None:
    """The licence whose text lies in a folder or in the nearest one above it within `root`."""
    with suppress(OSError):
        for file in sorted(one for one in folder.iterdir() if LICENCE_FILE.fullmatch(one.name)):
            if file.is_file() and not file.is_symlink():
                with file.open("rb") as text:
                    if licence := named_in(text.read(LICENCE).decode("utf-8", "replace")):
                        return licence
    return None if folder == root else licence_around(root, folder.parent)


def _licences(file: _File, form: str, budget: unpack.Budget) -> Mapping[str, str]:
    """The licences whose texts lie in the folders of an archive."""
    found: dict[str, str] = {}
    with suppress(Exception):  # what is wrong with it is found when it is read
        for member in unpack.members(file.stream, form, budget):
            path = PurePosixPath(member.name)
            if isinstance(member, unpack.Member) and LICENCE_FILE.fullmatch(path.name):
                text = member.stream.read(LICENCE).decode("utf-8", "replace")
                if licence := named_in(text):
                    found.setdefault(str(path.parent), licence)
    return found
