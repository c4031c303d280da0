"""Several labels a text, as rows of booleans: the thresholds that decide them, loss and F1.

Apart from `several`, since NumPy takes longer to import than a model to answer.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from bantam.kinds.several import EVEN, parted

FEWEST_FOR_THRESHOLD = 5  # rows with the label: of fewer none could tell a better one than EVEN


def of(sets: Iterable[str], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each set holds each label, [rows, labels]. KeyError: another label."""
    place = {label: number for number, label in enumerate(labels)}
    rows = [[place[label] for label in parted(one)] for one in sets]
    found = np.zeros((len(rows), len(labels)), dtype=bool)
    for row, held in zip(found, rows, strict=True):
        row[held] = True
    return found


def thresholds(shares: NDArray[np.float64], wanted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """From which probability on each label is best given, by its F1 on these rows, [labels].

    Both are [rows, labels]. A threshold lies half way between two probabilities; of equally good
    ones the nearest to a half is taken.
    """
    return np.array([_threshold(shares[:, n], wanted[:, n]) for n in range(shares.shape[1])])


def _threshold(shares: NDArray[np.float64], wanted: NDArray[np.bool_]) -> float:
    if wanted.sum() < FEWEST_FOR_THRESHOLD:
        return EVEN
    order = np.argsort(-shares)
    sure, right = shares[order], np.cumsum(wanted[order])
    below = np.append(sure[1:], -1.0)
    given = np.arange(1, len(sure) + 1)
    # A cut between equal probabilities is none.
    f1 = np.where(sure > below, 2 * right / (given + wanted.sum()), -1.0)
    cuts = (sure + np.maximum(below, 0.0)) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(cuts[best[np.abs(cuts[best] - EVEN).argmin()]])


def log_loss(shares: NDArray[np.float64], wanted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The summed binary cross-entropy of each row's labels in nats, [rows]."""
    chosen = np.where(wanted, shares, 1 - shares)
    worst: NDArray[np.float64] = -np.log(np.maximum(chosen, 1e-12)).sum(axis=1)
    return worst


def micro_f1(given: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> float:
    """F1 over all labels of all rows together; 1 where there is no label to give and none given."""
    either = int(given.sum() + wanted.sum())
    return 2 * int((given & wanted).sum()) / either if either else 1.0
