"""Copies are never on both sides, and each side has texts of all kinds."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from bantam.documents.folds import FOLDS, folds


def test_units_stay_in_one_fold_and_kinds_are_spread() -> None:
    dice = np.random.default_rng(0)
    unit = dice.permutation(np.repeat(np.arange(300), 2))
    kind = unit % 3
    fold = folds(unit, kind, 0)
    assert all(len(set(fold[unit == one])) == 1 for one in range(300))
    for one in range(3):
        assert (np.bincount(fold[kind == one], minlength=FOLDS) == 40).all()
    assert (folds(unit, kind, 0) == fold).all()
    assert (folds(unit, kind, 1) != fold).any()


@given(
    st.lists(st.sampled_from([(1,), (0,), (0, 1), (1, 1, 0)]), min_size=5, max_size=40),
    st.integers(0, 9),
)
def test_every_fold_has_both_kinds_and_copies_are_in_one(
    clusters: list[tuple[int, ...]], seed: int
) -> None:
    kind = np.array([kind for kinds in clusters for kind in kinds])
    cluster = np.array([at for at, kinds in enumerate(clusters) for _ in kinds])
    assume(all(len(set(cluster[kind == one])) >= FOLDS for one in (0, 1)))
    part = folds(cluster, kind, seed)
    assert all(set(kind[part == fold]) == {0, 1} for fold in range(FOLDS))
    assert all(len(set(part[cluster == at])) == 1 for at in range(len(clusters)))
