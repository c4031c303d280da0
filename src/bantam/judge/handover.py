"""Hand-over: what is gained if a larger model answers what ours is not sure of, and what it costs.

The threshold is picked on validation rows: where both together score best, and of equally good ones
that which hands over the least. What it comes to is counted on the test rows, of which the larger
model answers only those that it would be handed.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from bantam import crowd as crowds
from bantam import kinds, runs
from bantam.answer import Answer, Written
from bantam.judge import elsewhere, larger, statistics
from bantam.judge.judge import Advance, quantiles
from bantam.judge.measure import Measure
from bantam.judge.metrics import POINTS
from bantam.judge.written import CONTEXT, answered, drawn, latencies, shared, split_of
from bantam.kinds import Row
from bantam.model import Model
from bantam.sources.endpoint import Line

VAL_ROWS = 300  # that both answer to pick the threshold by
Reply = Answer | Written
Ask = Callable[[Model, Sequence[Row]], list[Reply | None]]
Progress = Callable[[int], None]  # how many rows are done
Rows = Callable[[Sequence[Row], Progress], list[Reply | None]]
Curve = list[tuple[float, float, float]]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class On(Part):
    """What hand-over comes to on some rows."""

    rows: int
    kept: float = Field(description="share of the rows that ours answers")
    score: float = Field(description="of both together")
    ours: float = Field(description="score of ours alone")
    ours_handed: float | None = Field(description="of ours on what is handed over; null: nothing")
    larger_handed: float | None = Field(description="of the larger model on the same")


class OnTest(On):
    score_low: float
    score_high: float
    difference: float = Field(description="of both together to ours alone")
    difference_low: float
    difference_high: float


class HandOver(Part):
    """The contract of handover.json."""

    schema_: Literal[1] = Field(alias="schema")
    model: str
    metric: str
    threshold: float = Field(description="answers with less confidence are handed over")
    picked: bool = Field(description="on the validation rows; false: the recipe says it")
    validation: On
    test: OnTest
    ours_ms: float = Field(description="median of a request, one thread")
    larger_ms: float
    mean_ms: float = Field(description="of an answer: what is handed over costs both")
    curve: list[tuple[float, float, float]] = Field(
        description="on validation: threshold, share handed over, score of both together"
    )
    sentence: str


def judge(
    folder: Path,
    name: str,
    threshold: float | Literal["auto"],
    packed: Path,
    other: Path | Line,
    val: pl.DataFrame,
    test: pl.DataFrame,
    seed: int,
    advance: Advance,
) -> dict[str, Any]:
    """Write handover.json into `folder` and return it; `name` is the larger model's, `other` its
    file or the line to its endpoint."""
    task = Model(packed).asked()
    tried = _Rows(task, drawn(val, VAL_ROWS))
    asked = _Rows(task, test)
    with crowds.crowd(packed, context=CONTEXT) as share:
        ours = _crowd(share, _ours(task))
        ours_val = tried.told(ours, "ours: validation", advance)
        ours_test = asked.told(ours, "ours: test", advance)
    with _larger(other, task) as theirs:
        told = tried.told(theirs.ask, f"{name}: validation", advance, ours_val)
        points = curve(ours_val[0], ours_val[1], told[1])
        picked = threshold == "auto"
        bound = best(points) if threshold == "auto" else threshold
        here = np.flatnonzero(ours_test[0] < bound)
        both = ours_test[1].copy()
        if len(here):
            some, alone = _Rows(task, test[here.tolist()]), (ours_test[0][here], ours_test[1][here])
            both[here] = some.told(theirs.ask, f"{name}: test", advance, alone)[1]
    costs = [
        _milliseconds(packed, _ours(task), asked.rows, "ours", advance),
        theirs.milliseconds(asked.rows, name, advance),
    ]
    on_val = np.where(ours_val[0] < bound, told[1], ours_val[1])
    groups = test.select(pl.coalesce("group", "id")).to_series().to_list()
    low, high = statistics.bootstrap_interval(both, groups, seed=seed)
    pair = statistics.paired(both, ours_test[1], groups, seed=seed)
    found: dict[str, Any] = {
        "schema": 1,
        "model": name,
        "metric": asked.measure.metric,
        "threshold": bound,
        "picked": picked,
        "validation": _on(ours_val, on_val, bound),
        "test": {
            **_on(ours_test, both, bound),
            "score_low": low,
            "score_high": high,
            "difference": pair.difference,
            "difference_low": pair.low,
            "difference_high": pair.high,
        },
        "ours_ms": costs[0],
        "larger_ms": costs[1],
        "mean_ms": costs[0] + len(here) / len(both) * costs[1],
        "curve": points[:: math.ceil(len(points) / POINTS)],
    }
    found["sentence"] = sentence(found)
    checked = HandOver.model_validate(found).model_dump(mode="json", by_alias=True)
    runs.write_json(folder / "handover.json", checked)
    return checked


Told = tuple[NDArray[np.float64], NDArray[np.float64]]  # confidence and score [rows]


class _Rows:
    """Rows, and how answers to them are scored from 0 to 1."""

    def __init__(self, task: kinds.Task, frame: pl.DataFrame) -> None:
        self._wanted = frame["output"].to_list()
        if task.kind == "classify":
            self.rows = [Row(text, "") for text in frame["input"]]
            self.measure = Measure("accuracy", self._equal, lambda _: {})
        else:
            split = split_of(task.kind, frame)
            self.rows, self.measure = split.rows, split.measure

    def told(self, ask: Rows, what: str, advance: Advance, ours: Told | None = None) -> Told:
        """How sure the answers are, and how good; of those that are missing as `ours`, which stand
        then, or 0."""
        total = len(self.rows)
        found = ask(self.rows, lambda done: advance(what, done, total))
        sure = np.array([one.probability if one else 0.0 for one in found])
        good = self.measure.each([str(one) if one else None for one in found])
        if ours:
            good = np.where([one is None for one in found], ours[1], good)
        return sure, good

    def _equal(self, answers: Sequence[str | None]) -> NDArray[np.float64]:
        return np.array([float(a == w) for a, w in zip(answers, self._wanted, strict=True)])


@dataclass(frozen=True)
class _Larger:
    ask: Rows
    milliseconds: Callable[[Sequence[Row], str, Advance], float]  # the median of a request


@contextmanager
def _larger(other: Path | Line, task: kinds.Task) -> Iterator[_Larger]:
    if isinstance(other, Line):
        taken: list[float] = []

        def there(rows: Sequence[Row], progress: Progress) -> list[Reply | None]:
            found = elsewhere.answers(other, task, rows, progress)
            taken.extend(milliseconds for _, milliseconds in found)
            return [reply for reply, _ in found]

        yield _Larger(there, lambda *_: float(np.median(taken)))
        return

    def ask(model: Model, rows: Sequence[Row]) -> list[Reply | None]:
        return larger.answers(model, task, rows)

    with crowds.crowd(other, context=CONTEXT) as share:
        yield _Larger(_crowd(share, ask), partial(_milliseconds, other, ask))


def _crowd(share: crowds.Share, ask: Ask) -> Rows:
    return lambda rows, progress: shared(share, ask, rows, progress)


def _ours(task: kinds.Task) -> Ask:
    def ask(model: Model, rows: Sequence[Row]) -> list[Reply | None]:
        if task.kind == "classify":
            return list(model.batch([row.text for row in rows]))
        return [answered(model, task, row) for row in rows]

    return ask


def curve(
    sure: NDArray[np.float64], ours: NDArray[np.float64], theirs: NDArray[np.float64]
) -> Curve:
    """For each threshold that makes a difference: it, which share of the rows it hands over, and
    the mean score of both together. All are [rows]; the first one hands nothing over."""
    order = np.argsort(sure, kind="stable")
    told, count = sure[order], len(sure)
    gained = np.append(0.0, np.cumsum((theirs - ours)[order]))
    # Equal confidences go together; 1 hands over all but what is certain.
    cuts = np.flatnonzero(np.append(True, told[1:] > told[:-1]))
    bounds = [0.0, *told[cuts[1:]].tolist()]
    if told[-1] < 1:
        cuts, bounds = np.append(cuts, count), [*bounds, 1.0]
    base = float(ours.mean())
    return [
        (bound, float(cut / count), base + float(gained[cut]) / count)
        for bound, cut in zip(bounds, cuts, strict=True)
    ]


def best(points: Curve) -> float:
    """The threshold with the best score, of equally good ones that which hands over the least."""
    top = max(score for _, _, score in points)
    return min(bound for bound, _, score in points if score >= top - 1e-12)


def _on(ours: Told, both: NDArray[np.float64], bound: float) -> dict[str, Any]:
    handed = ours[0] < bound
    return {
        "rows": len(handed),
        "kept": float(1 - handed.mean()),
        "score": float(both.mean()),
        "ours": float(ours[1].mean()),
        "ours_handed": float(ours[1][handed].mean()) if handed.any() else None,
        "larger_handed": float(both[handed].mean()) if handed.any() else None,
    }


def _milliseconds(path: Path, ask: Ask, rows: Sequence[Row], what: str, advance: Advance) -> float:
    with Model(path, threads=1, context=CONTEXT) as model:
        taken = latencies(what, lambda row: ask(model, [row]), rows, advance)
    return quantiles(taken)["latency_p50_ms"]


def sentence(found: dict[str, Any]) -> str:
    """What was found, in plain words."""
    test, name = found["test"], found["model"]
    where = "picked on validation" if found["picked"] else "the recipe's"
    if test["ours_handed"] is None:
        return (
            f"Nothing is worth handing over to {name}: below the threshold, "
            f"{found['threshold']:.3g} ({where}), the model has no answer among the test rows."
        )
    return (
        f"With answers below a confidence of {found['threshold']:.3g} ({where}) handed over to "
        f"{name}, {test['kept']:.1%} of the test rows stay with the model; both together score "
        f"{test['score']:.1%}, the model alone {test['ours']:.1%} "
        f"({100 * test['difference']:+.1f} points, {100 * test['difference_low']:+.1f} to "
        f"{100 * test['difference_high']:+.1f}). An answer takes {found['mean_ms']:.0f} ms on the "
        f"mean in place of {found['ours_ms']:.0f}."
    )
