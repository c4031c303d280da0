"""Rows whose label may be wrong, for a person to look at. Nothing is changed here."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bantam.documents.folds import folds
from bantam.documents.words import WORD
from bantam.kinds import multi_hot, several
from bantam.text import clean, confident, near, quick, references
from bantam.text.mending import NO_LABELS, SHEET
from bantam.text.split import units

CONTRADICTED = "the same text has another label"
NEAR = "a near copy has another label"
UNLIKELY = "a quick model expects another label"

FEWEST = 5  # rows of a label; what it means cannot be learned from fewer
MOST_SHARES = 20_000_000  # rows times labels that the quick model is asked about
ALIKE = 0.1  # of the rows of each of two labels that are taken for the other
SHOWN, SHOWN_PAIRS = 5, 10  # suspects of each reason, and pairs of labels, in the report
SHOWN_CHARACTERS = 300
# Of the quick model: the rows it was asked about, the share of labels that it agrees with, and
# pairs of labels that look alike to it.
NOT_ASKED: dict[str, Any] = {"rows": 0, "agrees": None, "alike": []}

Ints = NDArray[np.int64]


class Checked(NamedTuple):
    """Suspects, in the columns of `mending.SHEET`, and what the report says of the check."""

    suspects: pl.DataFrame
    report: dict[str, Any]


def check(
    rows: pl.DataFrame,
    kind: str = "classify",
    multi: bool = False,
    seed: int = 0,
    mended: pl.DataFrame | None = None,
) -> Checked:
    """Find rows whose label may be wrong: contradictions, near copies with different labels and, of
    the kind "classify", labels that a quick model would not give, which has not seen the row.

    `rows` has `file`, `row`, `id`, `input`, `output`, `group` and perhaps `tools`, as `prepare`
    leaves them. What stands in the sheet `mended` has been looked at: it is no suspect any more.

    Of the rows of one text, or of its near copies, those come that have not the commonest label;
    `confidence` is the share of the rows that have it. If two are as common there is none to
    suggest and all rows come. Below them come the unlikely labels, the surest first: `confidence`
    is how likely the suggested label is against the given one.
    """
    rows = references.parted(rows) if kind == "generate" else rows
    rows = clean.identify(rows.with_columns(pl.lit(None, pl.String).alias("reason")))
    rows = near.clustered(rows.sort("id", "output", "file", "row"))
    tools = ["tools"] if "tools" in rows.columns else []
    found, told = [], NOT_ASKED
    if kind != "generate":  # where several outputs of an input are references
        found.append(_outvoted(rows, ["key", *tools], CONTRADICTED))
    if kind == "classify":
        found.append(_outvoted(_near(rows), ["cluster"], NEAR))
        contradicted = found[0]["key"].unique()
        sure = rows.filter(~pl.col("key").is_in(contradicted.implode()))
        unlikely, told = (_unlikely_sets if multi else _unlikely)(sure, seed)
        found.append(unlikely)
    else:
        unexplained = _unexplained(_near(rows))
        found.append(_outvoted(unexplained, ["cluster", *tools], NEAR, "unexplained"))
    columns = [pl.col(name).cast(type) for name, type in SHEET.items()]
    sheet = pl.concat((part.rename({"output": "label"}) for part in found), how="diagonal")
    sheet = sheet.with_columns(mended=pl.lit("")).select(columns)
    sheet = sheet.unique(["id", "label"], keep="first", maintain_order=True)
    if mended is not None:
        sheet = sheet.filter(~pl.col("id").is_in(mended["id"].implode()))
    if multi:
        sheet = sheet.with_columns(pl.col("label", "suggested").replace("", NO_LABELS))
    return Checked(sheet, told | {"suspects": list(_told(sheet))})


def _told(sheet: pl.DataFrame) -> Iterator[dict[str, Any]]:
    short = pl.col("input", "label", "suggested").str.head(SHOWN_CHARACTERS)
    for (reason,), rows in sheet.group_by("reason", maintain_order=True):
        shown = rows.head(SHOWN).with_columns(short).drop("id", "reason", "mended")
        yield {"reason": reason, "rows": rows.height, "shown": shown.to_dicts()}


def _outvoted(
    rows: pl.DataFrame, by: list[str], reason: str, compared: str = "output"
) -> pl.DataFrame:
    """Of rows that are equal `by` these columns and differ in what is `compared`, those that have
    not what most have; all, if there is no such."""
    votes = rows.group_by(*by, compared).len("votes")
    most = pl.col("votes") == pl.col("votes").max()
    leading = (
        votes.group_by(by)
        .agg(
            pl.col(compared).filter(most).first().alias("common"),
            most.sum().alias("leaders"),
            pl.len().alias("sides"),
            (pl.col("votes").max() / pl.col("votes").sum()).alias("confidence"),
        )
        .filter(pl.col("sides") > 1)
        .with_columns(pl.when(pl.col("leaders") == 1).then("common").alias("common"))
    )
    # Another text's written answer is none to suggest: it says what that text says.
    suggested = pl.col("common") if compared == "output" else pl.lit(None, pl.String)
    return (
        rows.join(leading, on=by, maintain_order="left")
        .filter(pl.col(compared).ne_missing(pl.col("common")))
        .with_columns(suggested.alias("suggested"), pl.lit(reason).alias("reason"))
        .sort(by, maintain_order=True)
    )


def _near(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows whose texts have near copies, beside those that are the same."""
    return rows.filter(pl.col("key").n_unique().over("cluster") > 1)


def _unexplained(rows: pl.DataFrame) -> pl.DataFrame:
    """Add `unexplained`: the words of a row's output, without those that its text has and not all
    of its near copies have. Where texts differ in a number, so may their answers."""
    parts = [rows.clear().with_columns(pl.lit("").alias("unexplained"))]
    for _, alike in rows.group_by("cluster", maintain_order=True):
        texts = [_words(text) for text in alike["input"]]
        common = set(texts[0]).intersection(*texts[1:])
        own = [set(text) - common for text in texts]
        outputs = map(_words, alike["output"])
        left = [
            " ".join(word for word in output if word not in mine)
            for output, mine in zip(outputs, own, strict=True)
        ]
        parts.append(alike.with_columns(pl.Series("unexplained", left, pl.String)))
    return pl.concat(parts)


def _words(text: str) -> list[str]:
    return [word for word in WORD.findall(text.casefold()) if word[0].isalnum()]


def _unlikely(rows: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Rows whose label is likely wrong, and for the report which labels look alike."""
    rows = rows.filter(pl.len().over("output") >= FEWEST)
    labels = rows["output"].unique().sort()
    if len(labels) < 2:
        return rows.clear(), NOT_ASKED
    rows = _some(rows, len(labels), seed)
    labels = rows["output"].unique().sort()
    given = rows["output"].cast(pl.Enum(labels)).to_physical().to_numpy().astype(np.int64)
    fold = folds(units(rows), given, seed)
    shares = quick.labels(rows["input"].to_list(), given, fold, seed)
    best, own = shares.argmax(axis=1), shares[np.arange(len(given)), given]
    most = shares.max(axis=1)
    found = rows.with_columns(
        labels.gather(best).alias("suggested"),
        pl.lit(UNLIKELY).alias("reason"),
        pl.Series("confidence", most / (most + own)),
    )
    told = {
        "rows": rows.height,
        "agrees": float(np.mean(best == given)),
        "alike": _alike(labels.to_list(), given, best),
    }
    wrong = pl.Series(confident.tells(given, shares) & confident.wrong(given, shares))
    return found.filter(wrong).sort("confidence", "id", descending=[True, False]), told


def _unlikely_sets(rows: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Rows whose set of labels likely lacks some or has too many; each label is a question."""
    rows = _some(rows, max(1, clean.single(rows["output"], True).n_unique()), seed)
    counts = clean.single(rows["output"], True).value_counts().filter(pl.col("count") >= FEWEST)
    labels = counts["output"].sort().to_list()
    if not labels:
        return rows.clear(), NOT_ASKED
    sets = [several.parted(output) for output in rows["output"]]
    asked = [several.joined(set(one) & set(labels)) for one in sets]
    given = multi_hot.of(asked, labels)
    kind = rows["output"].rank("dense").to_numpy().astype(np.int64)
    fold = folds(units(rows), kind, seed)
    shares = quick.sets(rows["input"].to_list(), given, fold, seed)
    wrong = np.zeros(given.shape, dtype=bool)
    for n, share in enumerate(shares.T):
        held, both = given[:, n].astype(np.int64), np.stack([1 - share, share], axis=1)
        wrong[:, n] = confident.tells(held, both) & confident.wrong(held, both)
    suggested = [
        several.joined(set(one) ^ {labels[n] for n in np.flatnonzero(flips)})
        for one, flips in zip(sets, wrong, strict=True)
    ]
    against = np.where(given, 1 - shares, shares)
    found = rows.with_columns(
        pl.Series("suggested", suggested, pl.String),
        pl.lit(UNLIKELY).alias("reason"),
        pl.Series("confidence", np.where(wrong, against, 0).max(axis=1)),
    ).filter(pl.Series(wrong.any(axis=1)))
    told = NOT_ASKED | {"rows": rows.height}
    return found.sort("confidence", "id", descending=[True, False]), told


def _some(rows: pl.DataFrame, labels: int, seed: int) -> pl.DataFrame:
    """All rows, or as many as there is room for the probabilities of."""
    most = MOST_SHARES // labels
    return rows if rows.height <= most else rows.sample(most, seed=seed)


def _alike(labels: list[str], given: Ints, best: Ints) -> list[dict[str, Any]]:
    """Pairs of labels that are taken for each other in both directions, the worst first."""
    mixed = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(mixed, (given, best), 1)
    rows = mixed.sum(axis=1)
    shares = mixed / np.maximum(rows, 1)[:, None]
    both = np.triu(np.minimum(shares, shares.T), 1)
    places = np.argsort(-both, axis=None, kind="stable")[:SHOWN_PAIRS]
    pairs = [divmod(int(place), len(labels)) for place in places]
    return [
        {
            "labels": [labels[a], labels[b]],
            "rows": [int(rows[a]), int(rows[b])],
            "taken_for_the_other": [int(mixed[a, b]), int(mixed[b, a])],
        }
        for a, b in pairs
        if both[a, b] >= ALIKE
    ]
