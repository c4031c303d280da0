"""What a set of answers scored: accuracy, F1, calibration, confusions. Plain NumPy, plain dicts."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bantam.errors import BadInput
from bantam.kinds import multi_hot, several

BINS = 15
FEWEST_SURE = 20  # answers: the share of fewer that are right is mostly luck
POINTS = 100  # of a curve, about
LEAST_PROBABILITY = 1e-15  # a wrong answer given with certainty costs 34.5 nats, not infinity


def classification(
    expected: Sequence[str],
    answers: Sequence[str],
    probabilities: NDArray[np.float64] | None,
    labels: Sequence[str],
) -> dict[str, Any]:
    """Score `answers` against `expected`; both have one label a row.

    `probabilities` is `[rows, labels]` in the order of `labels`; without it, or if one of its
    numbers is not finite, `ece`, `log_loss` and `reliability` are None. An answer that is not one
    of `labels` is wrong and stands in no column of `confusion`. What is undefined (the precision of
    a label never answered) is None, and `macro_f1` is the mean over the labels that occur.

    `ece` is the expected calibration error of Guo et al. 2017 (arXiv 1706.04599): 15 bins of equal
    width, by the probability of the given answer. Bins of equal mass would tear apart rows of equal
    confidence, as those of the majority rival all are.

    Raises BadInput for no rows, or an expected label that is not one of `labels`.
    """
    _check(expected, set(expected), labels)
    place = {label: index for index, label in enumerate(labels)}
    wanted = np.array([place[label] for label in expected])
    answered = np.array([place.get(answer, -1) for answer in answers])
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, (wanted[answered >= 0], answered[answered >= 0]), 1)
    support = np.bincount(wanted, minlength=len(labels))
    per_class = _per_class(confusion.diagonal(), confusion.sum(axis=0), support, labels)
    if probabilities is not None and not np.isfinite(probabilities).all():
        probabilities = None
    bins = None
    if probabilities is not None:
        confidence = probabilities[np.arange(len(answered)), answered]
        bins = reliability(np.where(answered >= 0, confidence, 0.0), wanted == answered)
    return {
        "accuracy": float(np.mean(wanted == answered)),
        "macro_f1": _macro_f1(per_class),
        "micro_f1": None,
        "ece": None if bins is None else expected_error(bins),
        "log_loss": None if probabilities is None else log_loss(wanted, probabilities),
        "per_class": per_class,
        "confusion": confusion.tolist(),
        "reliability": bins,
    }


def label_sets(
    expected: Sequence[str],
    answers: Sequence[str],
    probabilities: NDArray[np.float64] | None,
    labels: Sequence[str],
) -> dict[str, Any]:
    """Score sets of labels, as `kinds.several.joined` writes them, with the keys of
    `classification`.

    `accuracy` is the share of rows whose whole set is right. `log_loss` is the mean over rows of
    the summed binary cross-entropy. `reliability` and `ece` are over each label of each row: its
    probability, and whether it applies. `confusion` is empty: no label stands in another's place.

    Raises BadInput for no rows, or an expected label that is not one of `labels`.
    """
    _check(expected, {label for one in set(expected) for label in several.parted(one)}, labels)
    wanted, given = multi_hot.of(expected, labels), multi_hot.of(answers, labels)
    support = wanted.sum(axis=0)
    per_class = _per_class((wanted & given).sum(axis=0), given.sum(axis=0), support, labels)
    if probabilities is not None and not np.isfinite(probabilities).all():
        probabilities = None
    bins = None
    if probabilities is not None:
        bins = reliability(probabilities.ravel(), wanted.ravel())
    return {
        "accuracy": float((wanted == given).all(axis=1).mean()),
        "macro_f1": _macro_f1(per_class),
        "micro_f1": multi_hot.micro_f1(given, wanted),
        "ece": None if bins is None else expected_error(bins),
        "log_loss": None
        if probabilities is None
        else float(multi_hot.log_loss(probabilities, wanted).mean()),
        "per_class": per_class,
        "confusion": [],
        "reliability": bins,
    }


def best_thresholds(
    shares: NDArray[np.float64], wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], float]:
    """A rival's thresholds [labels], and the share of rows whose whole set they give right.

    Each label's best for F1, as our own model has them, or a half for all, if that gives more whole
    sets: these are what the verdict counts, and a rival that knows little gets few of them by F1.
    """
    ways = multi_hot.thresholds(shares, wanted), np.full(shares.shape[1], several.EVEN)
    rights = [float(((shares >= way) == wanted).all(axis=1).mean()) for way in ways]
    best = int(np.argmax(rights))
    return ways[best], rights[best]


def coverage(probability: NDArray[np.float64], right: NDArray[Any]) -> list[tuple[float, float]]:
    """The risk-coverage curve (Geifman and El-Yaniv 2017, arXiv 1705.08500), as accuracy: which
    share of the rows the surest answers are, and which share of these is right.

    Both are [rows], of the given answer. In the order of the share, from FEWEST_SURE answers to all
    of them; answers of equal probability come together.
    """
    order = np.argsort(-probability, kind="stable")
    told, hits = probability[order], np.cumsum(right[order])
    given = np.arange(1, len(told) + 1)
    ends = given[np.append(told[1:] < told[:-1], True)]  # how many there are with each probability
    ends = ends[ends >= min(FEWEST_SURE, len(told))]
    step = math.ceil(len(ends) / POINTS)
    kept = ends[::-1][::step][::-1]  # the last one always
    return [(float(n / len(told)), float(hits[n - 1] / n)) for n in kept]


def log_loss(wanted: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Mean of -ln P(wanted), in nats; `wanted` [rows] are columns of `probabilities`."""
    chosen = probabilities[np.arange(len(wanted)), wanted]
    return float(-np.log(np.maximum(chosen, LEAST_PROBABILITY)).mean())


def _check(expected: Sequence[str], held: set[str], labels: Sequence[str]) -> None:
    """There must be rows, and no label among those that they hold may be unknown."""
    if not expected:
        raise BadInput("there are no test rows to judge", "give more examples or a test file")
    if unknown := held - set(labels):
        raise BadInput(
            f"the test rows hold the label {min(unknown)!r}, which the model does not know",
            "train on examples of it, or leave those rows out",
        )


def _macro_f1(per_class: Sequence[dict[str, Any]]) -> float:
    return float(np.mean([row["f1"] for row in per_class if row["f1"] is not None] or [0.0]))


def _per_class(
    right: NDArray[np.int64],
    answered: NDArray[np.int64],
    support: NDArray[np.int64],
    labels: Sequence[str],
) -> list[dict[str, Any]]:
    """Precision, recall, F1 and expected rows (support) of each label, from counts [labels]."""
    return [
        {
            "label": label,
            "precision": float(hits / given) if given else None,
            "recall": float(hits / rows) if rows else None,
            "f1": float(2 * hits / (given + rows)) if given + rows else None,
            "support": int(rows),
        }
        for label, hits, given, rows in zip(labels, right, answered, support, strict=True)
    ]


def reliability(confidence: NDArray[np.float64], right: NDArray[Any]) -> list[dict[str, Any]]:
    """The bins (low, high] that hold rows: how sure the answers were and how many were right, or
    how good they were on the mean, where `right` [rows] are scores."""
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return [
        {
            "low": index / BINS,
            "high": (index + 1) / BINS,
            "rows": int(here.sum()),
            "confidence": float(confidence[here].mean()),
            "accuracy": float(right[here].mean()),
        }
        for index in range(BINS)
        if (here := bins == index).any()
    ]


def expected_error(bins: list[dict[str, Any]]) -> float:
    """The expected calibration error of `reliability`'s bins."""
    rows = sum(b["rows"] for b in bins)
    return float(sum(b["rows"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / rows)
