"""Parts of the texts to learn from, so that each is judged by a model that has not seen it."""

import numpy as np
import numpy.typing as npt

FOLDS = 5

Ints = npt.NDArray[np.int64]


def folds(unit: Ints, kind: Ints, seed: int) -> Ints:
    """One of `FOLDS` parts for each row, [rows]: rows of a unit (numbers from 0) are in one part,
    and each kind of row (a number) is in all parts alike, as far as the units allow."""
    usual = np.bincount(unit, kind) / np.bincount(unit)  # units of two kinds lie between these
    chance = np.random.default_rng(seed).permutation(len(usual))
    part = np.empty(len(usual), np.int64)
    part[np.lexsort((chance, usual))] = np.arange(len(usual)) % FOLDS
    return part[unit]
