"""What the columns of a data file hold."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import polars as pl

from bantam.text import read
from bantam.text import values as values_of

MOST_LABELS = 1000
SEPARATORS = "|;,"  # that are looked for between the labels of a cell
LEAST_SEVERAL = 0.02  # share of the cells with several labels, below which the mark is an accident
LEAST_ALONE = 0.5  # share of the labels in such cells that are the whole of another cell elsewhere
LABEL_WORDS = 4  # most words of one of several labels

Kind = Literal["text", "words", "number", "id", "constant", "empty", "list", "json", "functions"]


@dataclass(frozen=True)
class Column:
    """A column: what it seems to hold, how many different values, some of them, and a remark."""

    name: str
    kind: Kind
    distinct: int
    missing: int
    samples: list[str]
    remark: str = ""
    separator: str | None = None  # between the labels of a cell, where it seems to hold several


def column(values: pl.Series) -> Column:
    """What a column seems to hold, from all its cells (texts, null where there is nothing)."""
    present = values.drop_nulls()
    distinct = present.n_unique()
    held = values_of.seen(present)
    if held == "json" and distinct == 1:
        held = None
    kind = held or _kind(present, distinct)
    separator = None if held else _separator(present)
    if separator:
        distinct = len(_labels(present, separator))
    return Column(
        name=values.name,
        kind="list" if separator == read.ITEM else kind,
        distinct=distinct,
        missing=values.null_count(),
        samples=present.unique(maintain_order=True).head(3).to_list(),
        separator=separator,
    )


def _separator(present: pl.Series) -> str | None:
    """What stands between the labels of a column's cells, if it is plain that they hold several.

    It is where labels repeat, are short, come in varying number, and mostly stand alone as well:
    "Portland, Oregon" is no two labels.
    """
    if present.str.contains(read.ITEM, literal=True).any():
        return read.ITEM
    for mark in SEPARATORS:
        cells = present.filter(present.str.contains(mark, literal=True))
        if len(cells) < max(2, LEAST_SEVERAL * len(present)):
            continue
        beginning = _labels(cells.head(100), mark)
        if any(len(label.split()) > LABEL_WORDS for label in beginning):
            continue
        alone = set(present.filter(~present.str.contains(mark, literal=True)))
        labels, within = _labels(present, mark), _labels(cells, mark)
        known = sum(count for label, count in within.items() if label in alone)
        short = all(len(label.split()) <= LABEL_WORDS for label in labels)
        repeat = 2 <= len(labels) <= min(MOST_LABELS, labels.total() // 5)
        if short and repeat and known >= LEAST_ALONE * within.total():
            return mark
    return None


def _labels(present: pl.Series, separator: str) -> Counter[str]:
    """How often each label stands in the cells."""
    parts = present.str.split(separator).explode().str.strip_chars()
    return Counter(parts.filter(parts != ""))


def _kind(present: pl.Series, distinct: int) -> Kind:
    if distinct < 2:
        return "constant" if distinct else "empty"
    number = present.str.contains(r"^[+-]?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?$").all()
    measured = number and present.str.contains(r"[.eE]").any()
    if distinct == len(present) and not measured and not present.str.contains(r"\s").any():
        return "id"
    if number:
        return "number"
    words = present.str.count_matches(r"\S+").median()
    return "text" if isinstance(words, float) and words >= 4 else "words"
