"""What written answers are measured by: for each row a score from 0 to 1, and a summary of all.

Records by exact match, function calls as the Berkeley leaderboard matches them, texts by chrF.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bantam.judge import calls, overlap, records
from bantam.text.read import ITEM

Answers = Sequence[str | None]


@dataclass(frozen=True)
class Measure:
    """How answers to the rows of one split are scored."""

    metric: str
    each: Callable[[Answers], NDArray[np.float64]]  # [rows], 0 to 1
    summary: Callable[[Answers], dict[str, Any]]

    def score(self, answers: Answers) -> float:
        return float(self.each(answers).mean())


def measure(kind: str, rows: pl.DataFrame) -> Measure:
    """The measure of a split: its frame has the columns of docs/architecture.md."""
    outputs, inputs = rows["output"].to_list(), rows["input"].to_list()
    if kind == "generate":
        wanted = [references(output) for output in outputs]
        return Measure(
            "chrf",
            lambda answers: overlap.row_chrf(wanted, answers),
            lambda answers: overlap.generation(wanted, answers, inputs),
        )
    if "tools" not in rows.columns:
        found = [json.loads(output) for output in outputs]
        return Measure(
            "exact_match",
            lambda answers: _right(answers, lambda at, said: records.same(found[at], said)),
            lambda answers: records.extraction(outputs, answers),
        )
    tools = [json.loads(one) for one in rows["tools"]]
    told = rows["accepted"].to_list() if "accepted" in rows.columns else [None] * rows.height
    values = [json.loads(output) for output in outputs]
    accepted = [
        calls.of_outputs(value) if one is None else json.loads(one)
        for value, one in zip(values, told, strict=True)
    ]

    def matched(at: int, said: Any) -> bool:
        if told[at] is None and records.same(values[at], said):
            return True  # also where the row itself breaks a rule of the leaderboard's
        return isinstance(said, list) and calls.mistake(said, accepted[at], tools[at]) is None

    def each(answers: Answers) -> NDArray[np.float64]:
        return _right(answers, matched)

    return Measure("call_match", each, lambda answers: _calls(accepted, answers, each(answers)))


def references(output: str) -> list[str]:
    """The texts that an output of the kind "generate" accepts."""
    return output.split(ITEM)[:-1] if ITEM in output else [output]


def _right(answers: Answers, right: Callable[[int, Any], bool]) -> NDArray[np.float64]:
    return np.array([float(right(at, _json(answer))) for at, answer in enumerate(answers)])


def _json(answer: str | None) -> Any:
    """The value of an answer; None, which no row wants, where it is no JSON."""
    try:
        return None if answer is None else json.loads(answer)
    except (ValueError, RecursionError):
        return None


def _calls(
    accepted: Sequence[Sequence[Any]], answers: Answers, right: NDArray[np.float64]
) -> dict[str, Any]:
    """Which share of the calls is right, apart for requests that want a call and that want none."""
    said = [_json(answer) for answer in answers]
    wanted = np.array([bool(one) for one in accepted])
    named = [
        isinstance(calls_, list)
        and [call.get("name") for call in calls_ if isinstance(call, dict)]
        == [name for one in told for name in one]
        for told, calls_ in zip(accepted, said, strict=True)
    ]
    return {
        "call_match": float(right.mean()),
        "function_match": float(np.mean(named)),
        "called_match": float(right[wanted].mean()) if wanted.any() else None,
        "none_match": float(right[~wanted].mean()) if (~wanted).any() else None,
        "parsed": float(np.mean([isinstance(one, list) for one in said])),
    }
