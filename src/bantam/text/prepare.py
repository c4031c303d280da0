"""From labelled files to train, val and test rows, and a report of what became of each row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from bantam.errors import BadInput
from bantam.kinds import several
from bantam.recipe import Data
from bantam.text import clean, dates, mending, near, read, references, shares, values
from bantam.text.report import report
from bantam.text.split import by_time, split

COLUMNS = ("id", "input", "output", "group", "file", "row")
MORE_COLUMNS = ("shares", "tools", "accepted")  # of some recipes
VALUES = ("output", "tools", "accepted")  # that hold JSON, where outputs do
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Prepared:
    """The rows as docs/architecture.md lays them out, and the report that goes beside them.

    `mended` are the rows of the sheet that was filled in by hand, if there is one and as far as
    they fit (`mending.SHEET`).
    """

    train: pl.DataFrame
    val: pl.DataFrame
    test: pl.DataFrame
    dropped: pl.DataFrame
    report: dict[str, Any]
    mended: pl.DataFrame | None = None

    @property
    def labelled(self) -> pl.DataFrame:
        """All rows whose labels can be looked at: those that are kept, and the contradictions."""
        contradictions = self.dropped.filter(pl.col("reason").str.starts_with(clean.CONTRADICTED))
        parts = [self.train, self.val, self.test, contradictions.drop("reason")]
        return pl.concat(parts, how="diagonal")


def prepare(
    data: Data,
    files: Sequence[Path],
    val_files: Sequence[Path] | None = None,
    test_files: Sequence[Path] | None = None,
    multi: bool = False,
    kind: str = "classify",
    schema: dict[str, Any] | None = None,
    mended: Path | None = None,
) -> Prepared:
    """Read, clean and split labelled rows; the files are those of `data`, already fetched.

    With `multi` a cell may hold several labels, and the output of a row is their set as
    `kinds.several.joined` writes it. Of the kind "extract" outputs are JSON as `values.written`
    writes it, which `schema`, if given, describes. Of the kind "generate" they are texts; several
    to one input are rows of their own in train, and one row with several references in val and
    test.

    Val and test files of their own are not split, thinned or deduplicated; what they share with the
    other rows leaves the others. The sheet `mended` (see `mending`) changes labels of all rows.
    BadInput when a file or column cannot be read, when there are not two labels, when outputs are
    not what the kind needs, or when a split would be empty.
    """
    given = [(None, files), ("val", val_files), ("test", test_files)]
    parts = [_read(data, part, name, multi, kind) for name, part in given if part]
    notes = [note for part in parts for note in part.notes]
    together = pl.concat((part.frame for part in parts), how="diagonal")
    sheet = mending.load(mended) if mended else None
    if kind == "classify":
        cleaned = _labels(data, together, multi, sheet)
    elif kind == "extract":
        cleaned = _values(data, together, schema, sheet)
    else:
        cleaned = _texts(together, sheet)
    frame = clean.apart(cleaned.frame)
    notes += cleaned.mended.notes if cleaned.mended else []
    if data.near_duplicates:
        frame = near.apart(near.clustered(frame))
        notes += near.warnings(frame.filter(clean.KEPT))
    if data.date:
        frame, told = dates.dated(frame, data.date)
        notes += told
    _check(data, frame, multi, kind)
    if data.shares:
        labels = frame.filter(clean.POOL)["output"].unique().sort().to_list()
        frame, told = shares.gathered(frame, labels, data.shares)
        notes += told
    frame = _split(data, frame, multi, kind)
    kept = frame.filter(clean.KEPT)
    columns = [*COLUMNS, *(name for name in MORE_COLUMNS if name in frame.columns)]
    splits = {name: kept.filter(pl.col("split") == name).select(columns) for name in SPLITS}
    if kind == "generate":
        splits |= {name: references.joined(splits[name]) for name in ("val", "test")}
    _check_splits(data, splits, multi, kind)
    dropped = frame.filter(~clean.KEPT).select(*columns, "reason")
    return Prepared(
        **splits,
        dropped=dropped,
        report=report(
            data,
            splits,
            dropped,
            cleaned.merged,
            cleaned.contradictions,
            notes,
            multi,
            kind,
            dict(together["file"].value_counts().sort("file").iter_rows()),
        )
        | _told(kept, cleaned.mended),
        mended=cleaned.mended.sheet if cleaned.mended else None,
    )


class _Cleaned(NamedTuple):
    """Rows as `clean` leaves them, which labels were merged, which texts had several, and what was
    mended by hand."""

    frame: pl.DataFrame
    merged: dict[str, str]
    contradictions: list[dict[str, Any]]
    mended: mending.Mended | None


def _labels(data: Data, frame: pl.DataFrame, multi: bool, sheet: pl.DataFrame | None) -> _Cleaned:
    frame = clean.missing(frame, data.none, multi)
    if multi:
        frame, merged = clean.label_sets(frame, data.separator, data.none)
    else:
        frame, merged = clean.merge_labels(frame)
    labels = clean.single(frame.filter(clean.KEPT)["output"].unique(), multi)
    known = {clean.normalised(label): label for label in labels}

    def spelt(written: str) -> str:
        """Labels as the other rows spell them."""
        parts = several.parted(written) if multi else [written]
        parts = [part.strip() for part in parts if part.strip()]
        return several.joined(known.get(clean.normalised(part), part) for part in parts)

    frame, mended = _mended(clean.identify(frame), sheet, spelt)
    if mended:
        labels = clean.single(frame.filter(clean.KEPT)["output"].unique().sort(), multi)
        new = ", ".join(f'"{label}"' for label in labels if clean.normalised(label) not in known)
        mended.notes.extend([f"data.mended: no row had the label {new} before"] if new else [])
    frame, found = clean.contradictions(frame, data.conflicts)
    return _Cleaned(clean.duplicates(frame), merged, found, mended)


def _values(
    data: Data, frame: pl.DataFrame, schema: dict[str, Any] | None, sheet: pl.DataFrame | None
) -> _Cleaned:
    def checked(frame: pl.DataFrame) -> pl.DataFrame:
        return values.calls(frame) if data.tools else values.outputs(frame, schema)

    frame, mended = _mended(clean.identify(checked(clean.missing(frame, what="output"))), sheet)
    if mended:
        frame = checked(frame)
    key = "question" if data.tools else "key"
    frame, found = clean.contradictions(frame, data.conflicts, key, "output")
    return _Cleaned(clean.duplicates(frame, key), {}, found, mended)


def _texts(frame: pl.DataFrame, sheet: pl.DataFrame | None) -> _Cleaned:
    """Several texts of one input are no contradiction, and letters in another case another input:
    only the very same pair is a duplicate."""
    frame = clean.missing(references.parted(frame), what="output")
    frame, mended = _mended(clean.identify(frame), sheet)
    return _Cleaned(clean.duplicates(frame, "input"), {}, [], mended)


def _mended(
    frame: pl.DataFrame, sheet: pl.DataFrame | None, spelt: Callable[[str], str] = str
) -> tuple[pl.DataFrame, mending.Mended | None]:
    if sheet is None:
        return frame, None
    found = mending.applied(frame, sheet, spelt)
    return found.frame, found


def _told(kept: pl.DataFrame, mended: mending.Mended | None) -> dict[str, Any]:
    """What the report says of the rows that only these know of."""
    found: dict[str, Any] = {"mended": mended.told} if mended else {}
    if "cluster" in kept.columns:
        found["near_copies"] = near.told(kept)
    if "when" in kept.columns:
        found["dates"] = {
            str(name): [str(rows["when"].min()), str(rows["when"].max())]
            for (name,), rows in kept.drop_nulls("when").group_by("split", maintain_order=True)
        }
    return found


def _read(
    data: Data, files: Sequence[Path], split_name: str | None, multi: bool, kind: str
) -> read.Table:
    columns = {"input": data.input, "output": data.output}
    if kind == "extract" and data.tools:
        columns["tools"] = data.tools
    lists = ["output"] if multi or kind == "generate" else []
    frames, notes = [], []
    for path in files:
        wanted = columns | ({"group": data.group} if data.group else {})
        if data.date and split_name is None:
            wanted["date"] = data.date
        if data.shares and split_name is None:
            wanted |= shares.columns(path, data.shares)
        if data.accepted and _judged(data, path, split_name):
            wanted["accepted"] = data.accepted
        table = read.table(path, wanted, lists=lists, values=VALUES if kind == "extract" else ())
        nothing = pl.lit(None, pl.String)
        group = pl.col("group") if data.group else nothing.alias("group")
        accepted = [] if "accepted" in wanted or not data.tools else [nothing.alias("accepted")]
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
                pl.col("^(tools|accepted|date)$"),
                *accepted,
            )
        )
        notes += table.notes
    return read.Table(pl.concat(frames, how="diagonal"), notes)


def _judged(data: Data, path: Path, split_name: str | None) -> bool:
    """Whether a file must say which calls are accepted: rows that judge do, others may."""
    judging = split_name == ("test" if isinstance(data.test, list) else None)
    return judging or data.accepted in read.names(path)


def _check(data: Data, frame: pl.DataFrame, multi: bool, kind: str) -> None:
    """There must be something to learn: two labels, and fewer labels than half the rows; of other
    kinds two outputs."""
    pool = frame.filter(clean.POOL)
    single = clean.single(pool["output"], multi)
    labels = single.n_unique()
    what, thing = ("label", "labelled text") if kind == "classify" else ("output", "output")
    if labels < 2:
        reasons = frame.filter(~clean.KEPT)["reason"].value_counts(sort=True)
        lost = ", ".join(f"{count} {reason}" for reason, count in reasons.head(9).iter_rows())
        only = f'only one {what}, "{single[0]:.60}"' if labels else f"no {thing}"
        raise BadInput(
            f'column "{data.output}" leaves {only} in {pool.height} rows'
            + (f" (dropped: {lost})" if lost else ""),
            "a classifier needs rows of two labels: is data.output the right column?"
            if kind == "classify"
            else "a model needs different outputs to learn from: is data.output the right column?",
        )
    if kind != "classify":
        return
    if labels > len(single) / 2:
        raise BadInput(
            f'column "{data.output}" has {labels} different labels in {pool.height} rows',
            "name a column whose values repeat as data.output, or give more rows of each label",
        )


def _split(data: Data, frame: pl.DataFrame, multi: bool, kind: str) -> pl.DataFrame:
    pool = frame.filter(clean.POOL)
    if kind != "classify":  # nearly every output is another: there is nothing to spread evenly
        pool = pool.with_columns(pl.lit("").alias("output"))
    val = data.val if isinstance(data.val, float) else 0.0
    test = data.test if isinstance(data.test, float) else 0.0
    chosen = by_time(pool, val, test) if data.date else split(pool, val, test, data.seed, multi)
    where = pl.int_range(pl.len()).filter(clean.POOL)
    places = frame.select(where).to_series()
    return frame.with_columns(frame["split"].scatter(places, chosen))


def _check_splits(data: Data, splits: dict[str, pl.DataFrame], multi: bool, kind: str) -> None:
    for name, rows in splits.items():
        if rows.height:
            continue
        total = sum(other.height for other in splits.values())
        groups = pl.concat([other["group"] for other in splits.values()]).drop_nulls().n_unique()
        within = f' in {groups} groups ("{data.group}" is never split)' if data.group else ""
        near_too = ", or say data.near_duplicates = false" if data.near_duplicates else ""
        raise BadInput(
            f"the {name} split would be empty: {total} rows{within} are too few",
            "give more rows, larger shares in data.val and data.test, or files of their own there"
            + (", or take out data.group" if data.group else near_too),
        )
    if kind == "classify" and clean.single(splits["train"]["output"], multi).n_unique() < 2:
        raise BadInput(
            "all rows left for training have one label",
            "give more rows" + (", or take out data.group" if data.group else ""),
        )
