"""Telling measures of documents as histograms in fixed bins: of all that were read, of the kept."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from bantam.documents import quality
from bantam.recipe_documents import Rules


class Measure(NamedTuple):
    """A column of `quality.measure`, and the edges of its bins. A bin holds its lower edge; the
    last one holds whatever lies beyond it, too."""

    name: str
    edges: list[float]


SHARES = [round(0.05 * edge, 2) for edge in range(21)]
MEASURES = (
    Measure("words", [0, *(round(10 ** (edge / 5)) for edge in range(5, 27))]),
    Measure("word_length", [0.5 * edge for edge in range(31)]),
    Measure("alphabetic", SHARES),
    Measure("repeated_5_grams", SHARES),
    Measure("ended_lines", SHARES),
    Measure("short_lines", SHARES),
)


def histograms(
    measured: Iterable[tuple[pl.DataFrame, pl.Series]], rules: Rules
) -> list[dict[str, Any]]:
    """For each of `MEASURES` the documents in each bin, all that were read and the kept.

    `measured` are shards: what `quality.measure` gave, and of each row whether it is kept.
    `unmeasured` are documents of which the measure says nothing; `limits` are the rules'.
    """
    read = {measure.name: np.zeros(len(measure.edges) - 1, np.int64) for measure in MEASURES}
    kept = {name: counts.copy() for name, counts in read.items()}
    unmeasured = dict.fromkeys(read, 0)
    for measures, stays in measured:
        for name, edges in MEASURES:
            read[name] += _counted(measures[name], edges)
            kept[name] += _counted(measures[name].filter(stays), edges)
            unmeasured[name] += measures[name].null_count()
    return [
        {
            "measure": name,
            "edges": edges,
            "read": read[name].tolist(),
            "kept": kept[name].tolist(),
            "unmeasured": unmeasured[name],
            "limits": _limits(name, rules),
        }
        for name, edges in MEASURES
    ]


def _counted(values: pl.Series, edges: list[float]) -> npt.NDArray[np.int64]:
    bins = np.searchsorted(edges, values.drop_nulls().to_numpy(), "right") - 1
    return np.bincount(np.minimum(bins, len(edges) - 2), minlength=len(edges) - 1)


def _limits(name: str, rules: Rules) -> dict[str, float]:
    """By rule, as in {"gopher.min_words": 50}; without the rules that are off."""
    limits = {
        f"{section}.{key}": getattr(getattr(rules, section), key)
        for section, key, measure in quality.RULES
        if measure == name
    }
    return {rule: limit for rule, limit in limits.items() if limit is not None}
