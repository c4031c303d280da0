"""How sure a written answer is: how likely its tokens were tells whether it is right.

Platt's sigmoid (1999, with his smoothed targets): the log-probability of an answer tells how likely
it is right. Of a text it tells which chrF to expect.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from bantam import crowd as crowds
from bantam import kinds
from bantam.answer import Written
from bantam.judge.written import CONTEXT, Split, answered, shared
from bantam.kinds import Row, sure, texts
from bantam.model import Model
from bantam.progress import Advance

FEWEST = 20  # validation rows


@dataclass(frozen=True)
class Certainty:
    certainty: tuple[float, ...]  # see `kinds.Task`
    thresholds: tuple[float, ...]


def learned(
    path: Path, task: kinds.Task, val: Split, wanted: float | None, advance: Advance
) -> Certainty:
    """Answer the validation rows with the packed file, and learn from it.

    `wanted` is which share of the sure answers should be right; without it none is sure.
    """

    def ask(model: Model, rows: Sequence[Row]) -> list[Written | None]:
        return [answered(model, task, row) for row in rows]

    total = len(val.rows)
    with crowds.crowd(path, context=CONTEXT) as share:
        told = shared(share, ask, val.rows, lambda done: advance(done, total, ""))
    scores = val.measure.each([one.text if one else None for one in told])
    scores = scores[[one is not None for one in told]]
    known = [one for one in told if one is not None]
    evidence = np.array([texts.evidence(task, one.log_probability, one.tokens) for one in known])
    if len(scores) < FEWEST:
        return Certainty((), () if wanted is None else (sure.NEVER,))
    slope, offset = sigmoid(evidence, scores)
    if wanted is None:
        return Certainty((slope, offset), ())
    likely = expit(slope * evidence + offset)
    bounds = sure.thresholds(likely[:, None], (scores < 1).astype(np.int64), wanted)
    return Certainty((slope, offset), tuple(bounds.tolist()))


def sigmoid(evidence: NDArray[np.float64], scores: NDArray[np.float64]) -> tuple[float, float]:
    """Slope (never negative) and offset of the sigmoid that tells the scores best, [rows] both.

    The targets are drawn in by half a row to each side, as Platt has it, so that a validation set
    that is all right is no proof of certainty.
    """
    rows = len(scores)
    targets = (scores * rows + 1) / (rows + 2)
    scale = max(1e-9, float(np.std(evidence)))
    centre = float(np.mean(evidence))
    at = (evidence - centre) / scale

    def loss(way: NDArray[np.float64]) -> float:
        told = np.clip(expit(np.exp(way[0]) * at + way[1]), 1e-12, 1 - 1e-12)
        return float(-np.mean(targets * np.log(told) + (1 - targets) * np.log(1 - told)))

    found = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(-6, 6), (-20, 20)])
    slope = float(np.exp(found.x[0])) / scale
    return slope, float(found.x[1]) - slope * centre
