"""Confident learning: which labels are likely wrong, by the probabilities of a model that has not
learned from these rows (Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating
Uncertainty in Dataset Labels", JAIR 70).

A row counts as *confidently* of a label if its probability is at least the mean over the rows that
bear the label. How many rows bear label i and are confidently of j tells how many labels i should
be j; so many of the likeliest are picked.
"""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]
Flags = NDArray[np.bool_]

EQUAL = 1e-6  # two probabilities that are as near as this are one
LEAST = 1e-3  # probability that a label counts as, however unlikely: one row must not decide


def tells(given: Ints, shares: Floats) -> bool:
    """Whether the probabilities say more of the labels than how common each is, in log loss. Those
    that do not give no reason to doubt a label."""
    common = np.bincount(given) / len(given)
    own = shares[np.arange(len(given)), given]
    return bool(np.log(own.clip(LEAST)).sum() > np.log(common[given]).sum())


def joint(given: Ints, shares: Floats) -> Ints:
    """About how many rows bear label i and are of label j, [labels, labels]; a row of the matrix
    adds up to the rows that bear its label.

    `given` [rows] are the labels that stand there, `shares` [rows, labels] their probabilities. A
    row that is confidently of several labels counts for the likeliest, as in the authors' library.
    """
    labels = shares.shape[1]
    rows = np.bincount(given, minlength=labels)
    usual = np.array([shares[given == i, i].mean() if rows[i] else np.inf for i in range(labels)])
    sure = shares >= usual - EQUAL
    meant = np.where(sure.sum(axis=1) > 1, shares.argmax(axis=1), sure.argmax(axis=1))
    counted = sure.any(axis=1)
    counts = np.zeros((labels, labels))
    np.add.at(counts, (given[counted], meant[counted]), 1)
    np.fill_diagonal(counts, counts.diagonal().clip(min=1))
    return _rounded(counts / counts.sum(axis=1, keepdims=True) * rows[:, None])


def wrong(given: Ints, shares: Floats) -> Flags:
    """Which labels are likely wrong, [rows]: those that are both among the least likely of their
    label and among the likeliest to be one other label, as many as `joint` counts, and that are not
    the likeliest label of their row.

    Labels with a single row are never wrong.
    """
    counts = joint(given, shares)
    unlikely, another = np.zeros((2, len(given)), dtype=bool)
    for label in np.flatnonzero(np.bincount(given, minlength=len(counts)) > 1):
        rows = np.flatnonzero(given == label)
        mine = shares[rows, label]
        unlikely[rows[np.argsort(mine, kind="stable")][: len(rows) - counts[label, label]]] = True
        for other in np.flatnonzero(counts[label]):
            if other != label:
                nearest = np.argsort(mine - shares[rows, other], kind="stable")
                another[rows[nearest[: counts[label, other]]]] = True
    own = np.take_along_axis(shares, given[:, None], axis=1)[:, 0]
    found: Flags = unlikely & another & (shares.max(axis=1) > own + EQUAL)
    return found


def _rounded(counts: Floats) -> Ints:
    """Whole numbers with the same sum in each row: the largest remainders are rounded up."""
    whole = np.floor(counts + 1e-9)
    missing = np.rint(counts.sum(axis=1) - whole.sum(axis=1))
    rank = np.argsort(np.argsort(whole - counts, axis=1, kind="stable"), axis=1)
    found: Ints = (whole + (rank < missing[:, None])).astype(np.int64)
    return found
