"""What all sides of benchmarks/scratch.py and less.py learn from, and the one judge of all.

A folder has train.parquet (`id`, `text`), held_out.parquet and perhaps kept.parquet. It gets a
tokenizer and a corpus (`bantam.corpus.shards`) of each. All sides read the same tokens.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import polars as pl
import torch

from bantam.corpus import shards, vocabulary
from bantam.corpus.shards import Corpus
from bantam.formats.tokenizer import Tokenizer
from bantam.judge import pairs
from bantam.train import held_out
from bantam.train.device import pick_precision
from grammar import ours, scored
from scratch_rivals import Ids

VOCABULARY = 8192
CONTEXT = 256
FILES = ("train", "held_out", "kept")


def write(folder: Path, other: Path | None) -> dict[str, Any]:
    """The corpora, with a tokenizer that is learned from the texts, or that of another folder."""
    texts = ordered(folder / "train.parquet")
    known = vocabulary.learn(texts, VOCABULARY) if other is None else tokenizer(other)
    (folder / "tokenizer").mkdir(exist_ok=True)
    known.save(folder / "tokenizer")
    for name in FILES:
        file = folder / f"{name}.parquet"
        if file.exists():
            shards.write(folder / name, [partial(ordered, file)], known, workers=1)
    learned = read(folder, "train")
    return {"documents": len(learned), "tokens": learned.tokens, "bytes": learned.bytes}


def ordered(file: Path) -> list[str]:
    """The texts of a file in an order that is by chance and always the same."""
    rows = pl.read_parquet(file, columns=["id", "text"]).iter_rows()
    return [text for _, text in sorted(rows, key=lambda r: hashlib.sha256(r[0].encode()).digest())]


def read(folder: Path, name: str) -> Corpus:
    return shards.read(folder / name)


def tokenizer(folder: Path) -> Tokenizer:
    return vocabulary.load(folder / "tokenizer")


def ids_of(corpus: Corpus, documents: int) -> Ids:
    """The tokens of the first documents, one after another; each begins with the edge."""
    (only,) = corpus.shards
    return only[: int(corpus.lengths[:documents].sum())]


@contextmanager
def judging() -> Iterator[None]:
    """In bfloat16 where that is quicker; what was compiled for the shape of batches is not compiled
    for others, which takes minutes."""
    mixed = in_bfloat16()
    with (
        torch.compiler.set_stance("force_eager"),
        torch.autocast("cpu", torch.bfloat16, enabled=mixed),
    ):
        yield


@cache
def in_bfloat16() -> bool:
    """Whether this machine should compute so, all sides alike."""
    return pick_precision(torch.device("cpu")) == "bfloat16"


def bits_per_byte(decoder: Any, held: Corpus) -> float:
    """Of the documents that are held out, by a decoder or whatever looks like one."""
    with judging():
        return held_out.bits_per_byte(decoder, held, CONTEXT)


def grammar(decoder: Any, tokenizer: Tokenizer) -> float:
    """The accuracy over all pairs of our own."""
    with judging():
        return pairs.judge(ours(), partial(scored, decoder, tokenizer, CONTEXT))[0].accuracy
