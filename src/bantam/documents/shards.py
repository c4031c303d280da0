"""Pieces of a long work, each in a folder of its own that is written whole and bears its key.

A *shard* is a few megabytes of documents and what a step found in them. Its folder is sealed with
the hash of what it was made from and of the settings, so a work that was killed goes on where it
was, and a changed setting makes anew just what it touches.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bantam import runs
from bantam.documents.pool import Map


class Shard(NamedTuple):
    """A shard of a step that is made."""

    folder: Path
    key: str


class Piece(NamedTuple):
    """A shard to make: `build` fills a folder."""

    folder: Path
    key: str
    build: Callable[[Path], None]


def made(
    pieces: Sequence[Piece],
    advance: Callable[[int, int], None],
    *,
    mapped: Map,
) -> list[Shard]:
    """All pieces, in order: those that stand there with their key, the others by `mapped`.

    What stands in the folder of the step beside them is of an earlier recipe, and is removed.
    """
    _tidy(pieces)
    left = [piece for piece in pieces if runs.manifest(piece.folder).get("key") != piece.key]
    done = len(pieces) - len(left)
    advance(done, len(pieces))
    for _ in mapped(_make, left):
        done += 1
        advance(done, len(pieces))
    return [Shard(piece.folder, piece.key) for piece in pieces]


def _make(piece: Piece) -> None:
    runs.stage(piece.folder.parent, piece.folder.name, piece.key, piece.build)


def _tidy(pieces: Sequence[Piece]) -> None:
    wanted = {piece.folder for piece in pieces}
    for step in {piece.folder.parent for piece in pieces}:
        step.mkdir(parents=True, exist_ok=True)
        for old in step.iterdir():
            if old not in wanted:
                shutil.rmtree(old)


def numbered(step: Path, count: int) -> Iterator[Path]:
    """The folders of a step's shards."""
    return (step / f"{number:05d}" for number in range(count))
