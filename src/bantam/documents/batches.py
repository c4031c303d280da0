"""Files in batches of about one shard, so that they can be read side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from bantam import runs
from bantam.documents.document import Unread, named
from bantam.documents.read import licence_around
from bantam.documents.walk import Source, files

BATCH = 16 << 20  # bytes of files; a larger file is a batch by itself


class Batch(NamedTuple):
    """Files that one process reads, in order."""

    files: list[tuple[Source, str]]
    key: str  # of their contents and of what is asked of their sources


def batches(sources: Sequence[Source]) -> tuple[list[Batch], list[Unread]]:
    """All files of the sources, and what was passed over while they were looked for."""
    unread: list[Unread] = []
    found: list[Batch] = []
    held: list[tuple[Source, str]] = []
    size = 0
    for source, path, bytes in _sized(sources, unread):
        if held and size + bytes > BATCH:
            found.append(_batch(held))
            held, size = [], 0
        held.append((source, path))
        size += bytes
    if held:
        found.append(_batch(held))
    return found, unread


def _sized(sources: Sequence[Source], unread: list[Unread]) -> Iterator[tuple[Source, str, int]]:
    for source in sources:
        for path in files(source):
            if isinstance(path, Unread):
                unread.append(path)
                continue
            try:
                yield source, path, (source.folder / path).stat().st_size
            except OSError as error:
                unread.append(
                    Unread(source.name, named(path), f"it cannot be opened: {error.strerror}")
                )


def _batch(held: list[tuple[Source, str]]) -> Batch:
    told = [
        [
            asdict(source) | {"folder": None, "files": None},
            path,
            _contents(source.folder / path),
            licence_around(source.folder, (source.folder / path).parent),
        ]
        for source, path in held
    ]
    return Batch(held, runs.key_of("batch", told))


def _contents(path: Path) -> str:
    try:
        return runs.file_sha256(path)
    except OSError:
        return ""  # what cannot be read is told when it is to be
