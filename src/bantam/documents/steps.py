"""What is done to a shard, step by step; each step fills the folder of its shard.

`read`: files to documents with plain text, and the lines that recur in them. `clean`: what the
rules say of each document, which personal data it held, its sketch. `settle`: what is kept and what
goes, when the sketches of all shards have been compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from bantam import runs
from bantam.documents import (
    boilerplate,
    c4,
    contamination,
    duplicates,
    language,
    quality,
    redact,
    score,
    words,
)
from bantam.documents.document import Unread
from bantam.documents.normalise import normalise
from bantam.documents.read import read_files
from bantam.documents.walk import Source
from bantam.documents.words import SYMBOL, Words
from bantam.recipe_documents import Documents, Redaction

HARDNESS = ["sentences", "word_length"]  # measures that the order of training may go by
GONE = pl.Schema(  # a document, or with `line` a line of one, that was taken out
    {
        **dict.fromkeys(("id", "source", "path", "part"), pl.String()),
        "line": pl.Int64(),
        **dict.fromkeys(("text", "reason", "value"), pl.String()),
    }
)


def read(files: Sequence[tuple[Source, str]], wanted: Documents, folder: Path) -> None:
    """documents-NNN.parquet, sizes.parquet, recurring.parquet, read.json."""
    unread: list[Unread] = []
    mended: Counter[str] = Counter()
    sizes, recurring, documents, size = [], [], 0, 0
    for number, frame in enumerate(read_files(files, unread)):
        texts, changed = normalise(frame["text"], wanted.markup)
        mended.update(changed)
        frame = frame.with_columns(text=texts)
        documents, size = documents + len(frame), size + int(texts.str.len_bytes().sum())
        sizes.append(boilerplate.sizes(frame))
        if wanted.boilerplate:
            recurring.append(boilerplate.count(frame, wanted.boilerplate))
        frame.write_parquet(folder / f"documents-{number:03d}.parquet")
    if sizes:
        pl.concat(sizes).write_parquet(folder / "sizes.parquet")
        lines = pl.concat([boilerplate.LINES.to_frame(), *recurring])
        lines.write_parquet(folder / "recurring.parquet")
    told = {"documents": documents, "bytes": size, "mended": mended, "unread": unread}
    runs.write_json(folder / "read.json", told)


def clean(
    documents: Path,
    recurring: Path,
    benchmarks: Path,
    scorer: Path | None,
    wanted: Documents,
    secret: bytes,
    folder: Path,
) -> None:
    """documents-NNN.parquet with `reason` and `value`, and beside each `measures`, `lines` and
    `contaminated`; sketch.npz and redacted.parquet of the whole shard. With the file of a scorer
    the documents have a `score`."""
    learned = score.load(scorer) if scorer else None
    sought = contamination.index(pl.read_parquet(benchmarks))
    plain = pl.read_parquet(recurring)
    rules = redaction(wanted.redact)
    sketches, redacted = [], []
    for number, frame in enumerate(frames(documents)):
        frame, lines = _without_lines(frame, plain, wanted)
        frame = language.identify(frame.with_columns(reason=pl.lit(None, pl.String), value=None))
        frame = frame.with_columns(pl.col("value").cast(pl.String))
        if wanted.languages:
            frame = language.wanted(frame, wanted.languages, wanted.language_probability)
        found = words.split(frame["text"])
        measures = quality.measure(found, wanted, frame["language"])
        frame = quality.judge(frame, measures, wanted)
        if learned:
            frame = frame.with_columns(score.scores(found, learned))
        hits = contamination.search(frame, found, sought)
        frame = contamination.mark(frame, hits)
        if rules.kinds or rules.patterns or rules.words:
            before = frame["text"]
            frame, told = redact.redact(frame, rules, secret)
            lines = redact.redact(lines, rules, secret)[0]
            redacted.append(told)
            if (before != frame["text"]).any():
                found = words.split(frame["text"])
        frame = frame.with_columns(words=_counts(found, False), symbols=_counts(found, True))
        sketches.append(duplicates.sketch(found))
        frame.write_parquet(folder / f"documents-{number:03d}.parquet")
        measures.write_parquet(folder / f"measures-{number:03d}.parquet")
        lines.write_parquet(folder / f"lines-{number:03d}.parquet")
        hits.write_parquet(folder / f"contaminated-{number:03d}.parquet")
    redact.totals(redacted).write_parquet(folder / "redacted.parquet")
    np.savez(
        folder / "sketch.npz",
        exact=np.concatenate([one.exact for one in sketches]),
        signatures=np.concatenate([one.signatures for one in sketches]),
    )


def settle(
    cleaned: Path, found: Path, rows: tuple[int, int], least: float | None, folder: Path
) -> None:
    """kept-NNN.parquet and gone-NNN.parquet. `found` is the file of `duplicates.find` with the
    column `split`; `rows` says where those of this shard begin, and how many they are; `least` is
    the score below which documents go, if they have one."""
    copies = pl.scan_parquet(found).slice(*rows).collect()
    for number, frame in enumerate(frames(cleaned)):
        if least is not None:
            frame = score.mark(frame, least)
        measures = pl.read_parquet(cleaned / f"measures-{number:03d}.parquet", columns=HARDNESS)
        frame = frame.with_columns(measures.get_columns())
        here = copies.join(frame.select("id"), on="id", how="semi")
        frame = duplicates.mark(frame, here)
        kept = frame.filter(pl.col("reason").is_null()).drop("reason", "value", "symbols")
        kept = kept.join(here.select("id", "cluster", "split"), on="id", how="left")
        kept.write_parquet(folder / f"kept-{number:03d}.parquet")
        gone = frame.filter(pl.col("reason").is_not_null()).with_columns(line=None)
        lines = pl.read_parquet(cleaned / f"lines-{number:03d}.parquet").join(
            frame.select("id", "source", "path", "part"), on="id", how="left"
        )
        parts = [part.select(GONE.names()).cast(GONE) for part in (gone, lines)]
        pl.concat(parts).write_parquet(folder / f"gone-{number:03d}.parquet")


def redaction(wanted: Redaction) -> redact.Rules:
    """What the recipe wants redacted. Raises BadInput for what cannot be looked for."""
    kinds = redact.USUAL if wanted.kinds is None else tuple(wanted.kinds)
    rules = redact.Rules(kinds, wanted.regions, wanted.patterns, wanted.words, wanted.fakes)
    redact.finders(rules)
    return rules


def frames(shard: Path) -> Iterator[pl.DataFrame]:
    """The documents of a shard, some megabytes at a time."""
    return map(pl.read_parquet, sorted(shard.glob("documents-*.parquet")))


def _without_lines(
    frame: pl.DataFrame, plain: pl.DataFrame, wanted: Documents
) -> tuple[pl.DataFrame, pl.DataFrame]:
    frame, recurring = boilerplate.drop(frame, plain)
    frame, others = c4.drop(frame, wanted.c4)
    return frame, pl.concat([recurring, others])


def _counts(found: Words, symbols: bool) -> pl.Series:
    """How many symbols, or words, each text has."""
    total = np.concatenate([[0], np.cumsum((found.kind == SYMBOL) == symbols)])
    return pl.Series(np.diff(total[found.first]), dtype=pl.Int64)
