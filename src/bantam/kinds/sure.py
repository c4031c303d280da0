"""Answer only when sure: above which probability the answers of a label are right often enough.

An answer is sure when its probability is above, not at, the threshold of its label. So 1 is for a
label that is never sure, since no probability is above it.
"""

import numpy as np
from numpy.typing import NDArray

NEVER = 1.0


def thresholds(
    shares: NDArray[np.float64], expected: NDArray[np.int64], wanted: float
) -> NDArray[np.float64]:
    """Above which probability the answers of each label are right `wanted` of the time, [labels].

    `shares` [rows, labels] are calibrated probabilities of rows that the model has not learned
    from, `expected` [rows] the numbers of the right labels, `wanted` is between 0 and 1. Of the
    thresholds above which (right + 1) / (given + 2), Laplace's rule of succession, is at least
    `wanted` the lowest is taken; where there is none the label is never sure. An answer less sure
    than all that were seen is not sure: of such nothing is known.

    A label with so few answers that not even all of them right would do (fewer than 8 for 0.9)
    has no threshold of its own: all such labels are counted as if they were one.
    """
    answers, labels = shares.argmax(axis=1), np.arange(shares.shape[1])
    given = np.bincount(answers, minlength=len(labels))
    rare = (given + 1) / (given + 2) < wanted
    counted_as = np.where(rare, len(labels), labels)
    found = np.full(len(labels), NEVER)
    for one in set(counted_as.tolist()):
        here = counted_as[answers] == one
        found[counted_as == one] = _threshold(
            shares[here].max(axis=1), (answers == expected)[here], wanted
        )
    return found


def _threshold(surest: NDArray[np.float64], right: NDArray[np.bool_], wanted: float) -> float:
    order = np.argsort(-surest)
    told, hits = surest[order], np.cumsum(right[order])
    # The surest answer that each cut leaves out; the last leaves out none, so it is a hair lower.
    below = np.append(told[1:], np.nextafter(told[-1:], 0.0))
    laplace = (hits + 1) / (np.arange(len(told)) + 3)
    # A cut between equal probabilities is none.
    good = np.flatnonzero((told > below) & (laplace >= wanted))
    return float(below[good[-1]]) if len(good) else NEVER
