"""What a set of answers scored: accuracy, F1, calibration, confusions. Plain NumPy, plain dicts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bantam.errors import BadInput

BINS = 15
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
    if not expected:
        raise BadInput("there are no test rows to judge", "give more examples or a test file")
    place = {label: index for index, label in enumerate(labels)}
    unknown = next((label for label in expected if label not in place), None)
    if unknown is not None:
        raise BadInput(
            f"the test rows hold the label {unknown!r}, which the model does not know",
            "train on examples of it, or leave those rows out",
        )
    wanted = np.array([place[label] for label in expected])
    answered = np.array([place.get(answer, -1) for answer in answers])
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, (wanted[answered >= 0], answered[answered >= 0]), 1)
    per_class = _per_class(confusion, np.bincount(wanted, minlength=len(labels)), labels)
    occurring = [row["f1"] for row in per_class if row["f1"] is not None]
    if probabilities is not None and not np.isfinite(probabilities).all():
        probabilities = None
    bins = None if probabilities is None else _reliability(wanted, answered, probabilities)
    return {
        "accuracy": float(np.mean(wanted == answered)),
        "macro_f1": float(np.mean(occurring)),
        "ece": None if bins is None else _ece(bins),
        "log_loss": None if probabilities is None else log_loss(wanted, probabilities),
        "per_class": per_class,
        "confusion": confusion.tolist(),
        "reliability": bins,
    }


def log_loss(wanted: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Mean of -ln P(wanted), in nats; `wanted` [rows] are columns of `probabilities`."""
    chosen = probabilities[np.arange(len(wanted)), wanted]
    return float(-np.log(np.maximum(chosen, LEAST_PROBABILITY)).mean())


def _per_class(
    confusion: NDArray[np.int64], support: NDArray[np.int64], labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Precision, recall, F1 and expected rows (support) of each label."""
    return [
        {
            "label": label,
            "precision": float(right / answered) if answered else None,
            "recall": float(right / rows) if rows else None,
            "f1": float(2 * right / (answered + rows)) if answered + rows else None,
            "support": int(rows),
        }
        for label, right, answered, rows in zip(
            labels, confusion.diagonal(), confusion.sum(axis=0), support, strict=True
        )
    ]


def _reliability(
    wanted: NDArray[np.int64], answered: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> list[dict[str, Any]]:
    """The bins (low, high] that hold rows: how sure the answers were and how many were right."""
    confidence = probabilities[np.arange(len(answered)), answered]
    confidence = np.where(answered >= 0, confidence, 0.0)
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return [
        {
            "low": index / BINS,
            "high": (index + 1) / BINS,
            "rows": int(here.sum()),
            "confidence": float(confidence[here].mean()),
            "accuracy": float((wanted == answered)[here].mean()),
        }
        for index in range(BINS)
        if (here := bins == index).any()
    ]


def _ece(bins: list[dict[str, Any]]) -> float:
    rows = sum(b["rows"] for b in bins)
    return float(sum(b["rows"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / rows)
