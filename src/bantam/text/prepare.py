"""From labelled files to train, val and test rows, and a report of what became of each row."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from bantam.errors import BadInput
from bantam.recipe import Data
from bantam.text import clean, read, shares
from bantam.text.report import report
from bantam.text.split import split

COLUMNS = ("id", "input", "output", "group", "file", "row")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Prepared:
    """The rows as docs/architecture.md lays them out, and the report that goes beside them."""

    train: pl.DataFrame
    val: pl.DataFrame
    test: pl.DataFrame
    dropped: pl.DataFrame
    report: dict[str, Any]


def prepare(
    data: Data,
    files: Sequence[Path],
    val_files: Sequence[Path] | None = None,
    test_files: Sequence[Path] | None = None,
    multi: bool = False,
) -> Prepared:
    """Read, clean and split labelled rows; the files are those of `data`, already fetched.

    With `multi` a cell may hold several labels, and the output of a row is their set as
    `kinds.several.joined` writes it.

    Val and test files of their own are not split, thinned or deduplicated; what they share with the
    other rows leaves the others. BadInput when a file or column cannot be read, when there are not
    two labels, or when a split would be empty.
    """
    given = [(None, files), ("val", val_files), ("test", test_files)]
    parts = [_read(data, part, name, multi) for name, part in given if part]
    notes = [note for part in parts for note in part.notes]
    together = pl.concat((part.frame for part in parts), how="diagonal")
    frame = clean.missing(together, data.none, multi)
    if multi:
        frame, merged = clean.label_sets(frame, data.separator, data.none)
    else:
        frame, merged = clean.merge_labels(frame)
    frame, contradictions = clean.contradictions(clean.identify(frame), data.conflicts)
    frame = clean.apart(clean.duplicates(frame))
    _check(data, frame, multi)
    if data.shares:
        labels = frame.filter(clean.POOL)["output"].unique().sort().to_list()
        frame, told = shares.gathered(frame, labels, data.shares)
        notes += told
    frame = _split(data, frame, multi)
    kept = frame.filter(clean.KEPT)
    columns = [*COLUMNS, "shares"] if data.shares else COLUMNS
    splits = {name: kept.filter(pl.col("split") == name).select(columns) for name in SPLITS}
    _check_splits(data, splits, multi)
    dropped = frame.filter(~clean.KEPT).select(*columns, "reason")
    return Prepared(
        **splits,
        dropped=dropped,
        report=report(data, splits, dropped, merged, contradictions, notes, multi),
    )


def _read(data: Data, files: Sequence[Path], split_name: str | None, multi: bool) -> read.Table:
    columns = {"input": data.input, "output": data.output}
    frames, notes = [], []
    for path in files:
        wanted = columns | ({"group": data.group} if data.group else {})
        if data.shares and split_name is None:
            wanted |= shares.columns(path, data.shares)
        table = read.table(path, wanted, lists=["output"] if multi else [])
        group = pl.col("group") if data.group else pl.lit(None, pl.String).alias("group")
        frames.append(
            table.frame.select(
                "input",
                "output",
                group,
                pl.lit(str(path)).alias("file"),
                "row",
                "reason",
                pl.lit(split_name, pl.String).alias("split"),
                pl.col(f"^{shares.MARK}.*$"),
            )
        )
        notes += table.notes
    return read.Table(pl.concat(frames, how="diagonal"), notes)


def _check(data: Data, frame: pl.DataFrame, multi: bool) -> None:
    """There must be something to learn: two labels, and fewer labels than half the rows."""
    pool = frame.filter(clean.POOL)
    single = clean.single(pool["output"], multi)
    labels = single.n_unique()
    if labels < 2:
        reasons = frame.filter(~clean.KEPT)["reason"].value_counts(sort=True)
        lost = ", ".join(f"{count} {reason}" for reason, count in reasons.iter_rows())
        only = f'only one label, "{single[0]}"' if labels else "no labelled text"
        raise BadInput(
            f'column "{data.output}" leaves {only} in {pool.height} rows'
            + (f" (dropped: {lost})" if lost else ""),
            "a classifier needs rows of two labels: is data.output the right column?",
        )
    if labels > len(single) / 2:
        raise BadInput(
            f'column "{data.output}" has {labels} different labels in {pool.height} rows',
            "name a column whose values repeat as data.output, or give more rows of each label",
        )


def _split(data: Data, frame: pl.DataFrame, multi: bool) -> pl.DataFrame:
    pool = frame.filter(clean.POOL)
    val = data.val if isinstance(data.val, float) else 0.0
    test = data.test if isinstance(data.test, float) else 0.0
    chosen = split(pool, val, test, data.seed, multi)
    where = pl.int_range(pl.len()).filter(clean.POOL)
    places = frame.select(where).to_series()
    return frame.with_columns(frame["split"].scatter(places, chosen))


def _check_splits(data: Data, splits: dict[str, pl.DataFrame], multi: bool) -> None:
    for name, rows in splits.items():
        if rows.height:
            continue
        total = sum(other.height for other in splits.values())
        groups = pl.concat([other["group"] for other in splits.values()]).drop_nulls().n_unique()
        within = f' in {groups} groups ("{data.group}" is never split)' if data.group else ""
        raise BadInput(
            f"the {name} split would be empty: {total} rows{within} are too few",
            "give more rows, larger shares in data.val and data.test, or files of their own there"
            + (", or take out data.group" if data.group else ""),
        )
    if clean.single(splits["train"]["output"], multi).n_unique() < 2:
        raise BadInput(
            "all rows left for training have one label",
            "give more rows" + (", or take out data.group" if data.group else ""),
        )
