"""Documents as token ids on the disk, mapped into memory: they may be larger than it.

A shard is three files: NNNNN.tokens, the ids of its documents one after another (uint16, or uint32
where the vocabulary is larger; little-endian), and NNNNN.lengths and NNNNN.bytes, an int64 a
document: its tokens, and its bytes of UTF-8. A document is the token that begins a text, and its
own; what ends it is the beginning of the next one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bantam import runs
from bantam.documents.pool import mapped
from bantam.errors import BadInput
from bantam.formats.tokenizer import Tokenizer

Numbers = NDArray[np.int64]
# What gives the texts of one shard; it is called in another process.
Source = Callable[[], Iterable[str]]
Told = Callable[[int, int], None]  # shards done, shards in all


@dataclass(frozen=True)
class Corpus:
    """Tokenised documents, numbered through all shards."""

    shards: tuple[NDArray[Any], ...]  # ids of each shard, memory-mapped
    shard: Numbers  # of each document, [documents]
    begins: Numbers  # in its shard
    lengths: Numbers  # tokens, with the one that begins the text
    sizes: Numbers  # bytes of UTF-8
    edge: int  # the token that begins and ends a text

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    @property
    def bytes(self) -> int:
        return int(self.sizes.sum())

    def document(self, number: int) -> NDArray[Any]:
        """Its ids, [lengths[number]]; nothing is copied."""
        begin = self.begins[number]
        ids: NDArray[Any] = self.shards[self.shard[number]][begin : begin + self.lengths[number]]
        return ids


def write(
    folder: Path,
    sources: Sequence[Source],
    tokenizer: Tokenizer,
    workers: int | None = None,
    told: Told | None = None,
) -> Corpus:
    """Tokenise documents into `folder`, a shard a source, on all cores (or `workers`).

    Documents come in the order of the sources; empty ones are left out. What a call that was
    killed left is written again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = partial(_shard, folder, tokenizer.gguf_metadata())
    for done, _ in enumerate(mapped(work, list(enumerate(sources)), workers), 1):
        if told:
            told(done, len(sources))
    facts = {
        "shards": len(sources),
        "kind": _kind(tokenizer),
        "edge": tokenizer.edge,
        "vocabulary": tokenizer.vocab_size,
    }
    runs.write_json(folder / "corpus.json", facts)
    return read(folder)


def read(folder: Path) -> Corpus:
    """The corpus in a folder. Raises BadInput when it is not whole."""
    try:
        facts = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        count, kind, edge = int(facts["shards"]), str(facts["kind"]), int(facts["edge"])
        if kind not in ("<u2", "<u4"):
            raise ValueError(f"its tokens are {kind}")
        names = [folder / f"{number:05d}" for number in range(count)]
        lengths, sizes = (
            [np.fromfile(name.with_suffix(f".{what}"), "<i8") for name in names]
            for what in ("lengths", "bytes")
        )
        shards = tuple(_mapped(name.with_suffix(".tokens"), kind) for name in names)
        for ids, each, size in zip(shards, lengths, sizes, strict=True):
            if each.sum() != len(ids) or (each < 1).any() or len(each) != len(size):
                raise ValueError("its documents do not fill it")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{folder}: no whole corpus ({error})", "write it again") from error
    none = [np.zeros(0, np.int64)]  # so that there is something to join
    return Corpus(
        shards,
        np.concatenate([np.full(len(each), i, np.int64) for i, each in enumerate(lengths)] + none),
        np.concatenate([np.cumsum(each) - each for each in lengths] + none),
        np.concatenate(lengths + none),
        np.concatenate(sizes + none),
        edge,
    )


def _mapped(path: Path, kind: str) -> NDArray[Any]:
    return np.memmap(path, kind, "r") if path.stat().st_size else np.zeros(0, kind)


def _kind(tokenizer: Tokenizer) -> str:
    return "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"


def _shard(folder: Path, keys: dict[str, Any], item: tuple[int, Source]) -> None:
    number, source = item
    tokenizer = Tokenizer(keys, "the vocabulary")
    edge, kind = tokenizer.edge, _kind(tokenizer)
    lengths, sizes = [], []
    with (folder / f"{number:05d}.tokens").open("wb") as file:
        for text in source():
            if not text:
                continue
            ids = np.array([edge, *tokenizer.encode([(text, False)])], kind)
            file.write(ids.tobytes())
            lengths.append(len(ids))
            sizes.append(len(text.encode()))
    np.array(lengths, "<i8").tofile(folder / f"{number:05d}.lengths")
    np.array(sizes, "<i8").tofile(folder / f"{number:05d}.bytes")
