"""Documents counted by where they come from, and by what was found in them, a frame at a time."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import polars as pl

SHOWN = 50  # languages and findings that are told one by one
LICENCES = 20  # of a source
LONGEST = 300  # characters
KEPT = ("source", "split", "licence", "words", "text")
SIZES = ("documents", "bytes")

Plain = dict[str, Any]


def sources(
    read: Iterable[pl.DataFrame], kept: Iterable[pl.DataFrame]
) -> tuple[list[Plain], dict[str, Plain]]:
    """What was `read` of each `source` and what of it is `kept`, with the `licences` of the latter;
    and what of all that is kept is in which split.

    `read` have the columns `source` and `text`, `kept` those of KEPT. Documents, bytes of UTF-8
    and, of what is kept, words.
    """
    of_read: Counter[tuple[str, str]] = Counter()
    of_kept: Counter[tuple[str, str]] = Counter()
    of_split: Counter[tuple[str, str]] = Counter()
    licences: Counter[tuple[str, str]] = Counter()
    sized = [pl.len().alias("documents"), pl.col("text").str.len_bytes().sum().alias("bytes")]
    for frame in read:
        _add(of_read, frame.group_by("source").agg(sized))
    for frame in kept:
        _add(of_kept, frame.group_by("source").agg(*sized, pl.sum("words")))
        _add(of_split, frame.group_by("split").agg(*sized, pl.sum("words")))
        named = pl.col("licence").fill_null("unknown").str.slice(0, LONGEST)
        for source, licence, count in frame.group_by("source", named).len().iter_rows():
            licences[source, licence] += count
    known: dict[str, dict[str, int]] = {}
    for (source, licence), count in _most(licences):
        of_it = known.setdefault(source, {})
        if len(of_it) < LICENCES:
            of_it[licence] = count
    told = [
        {
            "source": name,
            "read": {unit: of_read[name, unit] for unit in SIZES},
            "kept": {unit: of_kept[name, unit] for unit in (*SIZES, "words")},
            "licences": known.get(name, {}),
        }
        for name in sorted({name for name, _ in of_read})
    ]
    splits = sorted({name for name, _ in of_split})
    return told, {
        name: {unit: of_split[name, unit] for unit in (*SIZES, "words")} for name in splits
    }


def _add(counts: Counter[tuple[str, str]], told: pl.DataFrame) -> None:
    """Add up the numbers of a frame, by its first column's value and by the others' names."""
    for name, *numbers in told.iter_rows():
        for unit, number in zip(told.columns[1:], numbers, strict=True):
            counts[name, unit] += number


def _most(counts: Counter[Any]) -> list[tuple[Any, int]]:
    """The commonest first, of equally common ones by name: in whatever order they were met."""
    return sorted(counts.items(), key=lambda one: (-one[1], str(one[0])))


def languages(told: Iterable[tuple[pl.DataFrame, pl.Series]]) -> list[Plain]:
    """The commonest languages: `language` (null where unknown), `read`, `kept`, in documents.

    `told` are frames with the column `language`, and of each row whether it is kept.
    """
    read: Counter[str | None] = Counter()
    kept: Counter[str | None] = Counter()
    for frame, stays in told:
        read.update(frame["language"].to_list())
        kept.update(frame["language"].filter(stays).to_list())
    return [
        {"language": language, "read": count, "kept": kept[language]}
        for language, count in _most(read)[:SHOWN]
    ]


def contaminated(told: Iterable[tuple[pl.DataFrame, pl.DataFrame]]) -> Plain:
    """What documents share with benchmarks: how many `rows` of each `benchmark` they hold, and in
    how many `documents`; and the rows that most documents hold, with the document that holds most
    of it and the words `shared`.

    `told` are what `contamination.search` found, each with the documents that it looked at.
    """
    hits: Counter[str] = Counter()
    rows = pl.DataFrame()
    for found, documents in told:
        for benchmark, ids in found.group_by("benchmark").agg(pl.n_unique("id")).iter_rows():
            hits[benchmark] += ids
        shared = pl.col("shared").str.slice(0, LONGEST)
        here = found.join(documents, on="id", how="left").with_columns(shared, documents=1)
        rows = pl.concat([rows, here], how="diagonal").sort("runs", "id", descending=[True, False])
        rows = rows.group_by("benchmark", "row", maintain_order=True).agg(
            pl.sum("documents"), pl.exclude("documents").first()
        )
    most = rows.sort("documents", "benchmark", "row", descending=[True, False, False])
    found_rows = Counter(rows["benchmark"].to_list())
    return {
        "benchmarks": [
            {"benchmark": name, "rows": found_rows[name], "documents": count}
            for name, count in _most(hits)
        ],
        "rows": most.head(SHOWN).to_dicts(),
    }
