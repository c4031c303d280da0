"""What became of the data: numbers for text/report.json, and warnings in plain words."""

import math
from collections import Counter
from typing import Any

import polars as pl

from bantam.kinds import several
from bantam.recipe import Data
from bantam.text import clean, references, values
from bantam.text.split import split_hash

SHOWN = 20  # contradictions, and rows that do not fit, that are spelt out
SHOWN_CHARACTERS = 300  # of a written output
FEW_GROUPS = 10  # eight, all one way, are the fewest that show anything beside four rivals
FEW_TEST_ROWS = 100
MANY_TEST_ROWS = 5000
FEW_TRAINING_ROWS = 10  # of one label
IMBALANCE = 20  # times as many rows as the rarest label
MEMORISED = 0.5  # share of the test rows whose answer is in train, above which that is told
TELLING = 0.9  # share of the rows from which a text or group is said to give the label away

# What breaks a schema is another thing in every row: they are counted together.
SHORT_REASON = pl.col("reason").str.replace(rf"(?s)^({values.BROKEN}):.*$", "${1}")


def report(
    data: Data,
    splits: dict[str, pl.DataFrame],
    dropped: pl.DataFrame,
    merged: dict[str, str],
    contradictions: list[dict[str, Any]],
    notes: list[str],
    multi: bool,
    kind: str,
    files: dict[str, int],
) -> dict[str, Any]:
    """The report, ready for JSON. Lengths are quantiles over all kept rows; `files` are the rows
    of each file."""
    kept = pl.concat(splits.values())
    labels = kind == "classify"
    told = {
        "schema": 1,
        "seed": data.seed,
        "split_hash": split_hash(splits),
        "rows_read": sum(files.values()),
        "rows_kept": kept.height,
        "files": [{"file": file, "rows": rows} for file, rows in files.items()],
        "splits": {
            name: {
                "rows": rows.height,
                "groups": rows["group"].drop_nulls().n_unique(),
                "labels": label_counts(rows, multi) if labels else {},
            }
            for name, rows in splits.items()
        },
        "labels": label_counts(kept, multi) if labels else {},
        "labels_a_row": _labels_a_row(kept) if multi else None,
        "merged_labels": merged,
        "dropped": [
            {"reason": reason[0], "rows": rows.height, "ids": rows["id"].head(3).to_list()}
            for reason, rows in dropped.with_columns(SHORT_REASON)
            .sort("reason", maintain_order=True)
            .group_by("reason", maintain_order=True)
        ],
        "duplicates": dropped.filter(pl.col("reason") == "duplicate").height,
        "contradictions": {
            "texts": len(contradictions),
            "rule": data.conflicts if kind != "generate" else "keep",
            "shown": contradictions[:SHOWN] if labels else _shortened(contradictions[:SHOWN]),
        },
        "lengths": {
            "characters": quantiles(kept["input"].str.len_chars()),
            "words": quantiles(kept["input"].str.count_matches(r"\S+")),
        },
        "smallest_difference": smallest_difference(splits["test"].height),
        "warnings": notes + _warnings(splits, kept, multi, kind),
    }
    return told if labels else told | _of_written(told, kept, dropped, kind)


def _of_written(
    told: dict[str, Any], kept: pl.DataFrame, dropped: pl.DataFrame, kind: str
) -> dict[str, Any]:
    """What the report says of answers that are written rather than chosen."""
    lengths = references.each(kept)["output"] if kind == "generate" else kept["output"]
    return {
        "kind": kind,
        "lengths": told["lengths"] | {"output_characters": quantiles(lengths.str.len_chars())},
        "unfit": values.unfit(dropped).head(SHOWN).to_dicts(),
    }


def _shortened(contradictions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "text": found["text"][:SHOWN_CHARACTERS],
            "labels": {
                output[:SHOWN_CHARACTERS]: rows
                for output, rows in list(found["labels"].items())[:SHOWN]
            },
        }
        for found in contradictions
    ]


def label_counts(rows: pl.DataFrame, multi: bool) -> dict[str, int]:
    """Rows of each label, the commonest first."""
    labels = clean.single(rows["output"], multi).to_frame("label")
    counts = labels.group_by("label").len().sort("len", "label", descending=[True, False])
    return dict(counts.iter_rows())


def _labels_a_row(rows: pl.DataFrame) -> dict[str, int]:
    """How many rows have how many labels: {"0": 12, "1": 300, ...}."""
    counts = Counter(len(several.parted(output)) for output in rows["output"])
    return {str(count): counts[count] for count in sorted(counts)}


def quantiles(numbers: pl.Series) -> dict[str, int]:
    """Smallest, 5%, half, 95%, 99% and largest."""
    points = {"min": 0.0, "p5": 0.05, "p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: int(numbers.quantile(point, "nearest") or 0) for name, point in points.items()}


def smallest_difference(rows: int) -> float:
    """About the smallest difference in accuracy that a test on so many rows can show.

    Two models on the same rows, right or wrong differently on a fifth of them, two-sided 5%, power
    80% (McNemar's test, normal approximation): (1.96 + 0.84) * sqrt(0.2 / rows).
    """
    return min(1.0, 2.8 * math.sqrt(0.2 / rows))


def _warnings(
    splits: dict[str, pl.DataFrame], kept: pl.DataFrame, multi: bool, kind: str
) -> list[str]:
    warnings = []
    test = splits["test"].height
    if test < FEW_TEST_ROWS and kind == "generate":
        warnings.append(
            f"the test split has only {test} rows: small differences between models cannot be "
            "told; more rows or a larger data.test tell more"
        )
    elif test < FEW_TEST_ROWS:
        points = 100 * smallest_difference(test)
        warnings.append(
            f"the test split has only {test} rows: models that differ by less than about "
            f"{points:.0f} points of accuracy cannot be told apart; more rows or a larger "
            "data.test tell more"
        )
    groups = splits["test"]["group"]
    if test and not groups.null_count() and groups.n_unique() < FEW_GROUPS:
        warnings.append(
            f"the test rows are of only {groups.n_unique()} groups: models are compared by groups, "
            "and so few of them show large differences or none; more groups tell more"
        )
    if test > MANY_TEST_ROWS:
        warnings.append(
            f"the test split has {test} rows, and every rival answers each: "
            "2,000 are enough for most purposes (data.test)"
        )
    if kind == "classify":
        warnings += _label_warnings(splits, kept, multi)
        warnings += _leak_warnings(kept, multi)
    elif kind == "generate":
        warnings += _text_warnings(splits, kept)
    return warnings


def _text_warnings(splits: dict[str, pl.DataFrame], kept: pl.DataFrame) -> list[str]:
    """Signs that answers need not be written: they are copied from their texts, or from train."""
    warnings = []
    pairs = references.each(kept)
    quoted = pairs.filter(pl.col("input").str.contains(pl.col("output"), literal=True)).height
    if quoted >= TELLING * pairs.height:
        warnings.append(
            f"{quoted / pairs.height:.0%} of the answers stand word for word in their texts: "
            "the answer is copied from the text"
        )
    known = set(splits["train"]["output"])
    test = references.each(splits["test"])
    seen = test.filter(pl.col("output").is_in(list(known)))["input"].n_unique()
    if seen > MEMORISED * splits["test"].height:
        warnings.append(
            f"{seen / splits['test'].height:.0%} of the test rows have an answer that train has "
            'too: the test may reward memorising; is the kind "classify"?'
        )
    return warnings


def _label_warnings(splits: dict[str, pl.DataFrame], kept: pl.DataFrame, multi: bool) -> list[str]:
    warnings = []
    counts = label_counts(kept, multi)
    in_split = {name: label_counts(rows, multi) for name, rows in splits.items()}
    for name, consequence in (
        ("train", "the model cannot learn it"),
        ("val", "the best moment to stop is chosen without it"),
        ("test", "nothing will be known of how well it is recognised"),
    ):
        absent = [label for label in counts if label not in in_split[name]]
        if absent:
            warnings.append(f"no rows of {_named(absent)} in {name}: {consequence}")
    few = [label for label, rows in in_split["train"].items() if rows < FEW_TRAINING_ROWS]
    if few:
        warnings.append(f"fewer than {FEW_TRAINING_ROWS} rows to learn {_named(few)} from")
    common, rare = next(iter(counts)), list(counts)[-1]
    if counts[common] >= IMBALANCE * counts[rare]:
        warnings.append(
            f'labels are uneven: {counts[common]} rows of "{common}", {counts[rare]} of "{rare}"; '
            "look at macro-F1 beside accuracy"
        )
    return warnings


def _leak_warnings(kept: pl.DataFrame, multi: bool) -> list[str]:
    """Signs that the answer is given away: the label stands in the text, or the group tells it."""
    warnings = []
    each = (
        kept.with_columns(pl.col("output").str.split(several.SEPARATOR)).explode("output")
        if multi
        else kept
    )
    long_enough = pl.col("output").str.len_chars() >= 3
    told = (
        pl.col("input")
        .str.to_lowercase()
        .str.contains(pl.col("output").str.to_lowercase(), literal=True)
    )
    share = each.filter(long_enough & told).height / each.height
    if share >= TELLING:
        warnings.append(
            f"{share:.0%} of the texts hold their own label: is the answer in the input?"
        )
    groups = (
        kept.drop_nulls("group")
        .group_by("group")
        .agg(pl.len().alias("rows"), pl.col("output").n_unique().alias("labels"))
        .filter(pl.col("rows") > 1)
    )
    if groups.height and groups.filter(pl.col("labels") == 1).height >= TELLING * groups.height:
        warnings.append(
            "nearly all groups have one label only: rows of a group are not independent, "
            "so the test says less than its number of rows"
        )
    return warnings


def _named(labels: list[str]) -> str:
    shown = ", ".join(f'"{label}"' for label in labels[:5])
    return shown + (f" and {len(labels) - 5} more labels" if len(labels) > 5 else "")
