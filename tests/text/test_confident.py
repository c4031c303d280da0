"""Confident learning against its authors' library, and against labels that were made wrong."""

import numpy as np
import pytest
from cleanlab.count import compute_confident_joint
from cleanlab.filter import find_label_issues
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bantam.text import confident

Made = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def made(seed: int, rows: int, labels: int, noise: float, skill: float) -> Made:
    """True labels, labels of which some are wrong, and the probabilities of a model that sees more
    or less of the true ones. No label is rare."""
    chance = np.random.default_rng(seed)
    true = np.concatenate([np.repeat(np.arange(labels), 8), chance.integers(0, labels, rows)])
    given = true.copy()
    flipped = chance.random(len(true)) < noise
    given[flipped] = chance.integers(0, labels, flipped.sum())
    given[: labels * 8] = true[: labels * 8]
    logits = chance.normal(size=(len(true), labels))
    logits[np.arange(len(true)), true] += skill
    shares = np.exp(logits)
    return true, given, shares / shares.sum(axis=1, keepdims=True)


anything = given(
    st.integers(0, 10_000),
    st.integers(50, 1500),
    st.integers(2, 12),
    st.sampled_from([0.0, 0.05, 0.3, 0.6]),
    st.sampled_from([0.0, 1.0, 3.0]),
)


@settings(max_examples=40)
@anything
def test_counts_are_those_of_the_authors_but_for_what_is_rounded(
    seed: int, rows: int, labels: int, noise: float, skill: float
) -> None:
    """Their remainders that are equal are rounded up in no order."""
    _, given, shares = made(seed, rows, labels, noise, skill)
    ours, theirs = confident.joint(given, shares), compute_confident_joint(given, shares)
    assert abs(ours - theirs).max() <= 1
    assert (ours.sum(axis=1) == np.bincount(given)).all()
    if labels == 2:  # two remainders are equal only at a half
        raw = compute_confident_joint(given, shares, calibrate=False)
        exact = raw / raw.sum(axis=1, keepdims=True) * np.bincount(given)[:, None]
        clear = (abs(exact % 1 - 0.5) > 1e-9).all(axis=1)
        assert (ours[clear] == theirs[clear]).all()


@settings(max_examples=40)
@anything
def test_the_same_labels_are_wrong_as_the_authors_say(
    seed: int, rows: int, labels: int, noise: float, skill: float
) -> None:
    _, given, shares = made(seed, rows, labels, noise, skill)
    joint = confident.joint(given, shares)
    # Of a label that none of its rows is counted for they take one of each count back.
    assume(joint.diagonal().all())
    theirs = find_label_issues(given, shares, filter_by="both", confident_joint=joint, n_jobs=1)
    assert (confident.wrong(given, shares) == theirs).all()


def test_labels_made_wrong_are_found_and_right_ones_left() -> None:
    true, given, shares = made(0, 3000, 5, 0.1, 6.0)
    found = confident.wrong(given, shares)
    wrong = true != given
    assert (found & wrong).sum() > 0.95 * wrong.sum()
    assert (found & wrong).sum() > 0.85 * found.sum()


def test_a_model_that_agrees_with_all_doubts_none() -> None:
    given = np.arange(40) % 4
    assert not confident.wrong(given, np.eye(4)[given] * 0.9 + 0.025).any()


def test_what_says_less_than_the_shares_of_the_labels_tells_nothing() -> None:
    _, given, shares = made(0, 1000, 3, 0.3, 2.0)
    assert confident.tells(given, shares)
    assert not confident.tells(np.random.default_rng(0).permutation(given), shares)
    rare = (np.arange(1000) % 50 == 0).astype(np.int64)
    knows = np.where(rare, 0.2, 0.01)  # never above a half, and yet it tells
    assert confident.tells(rare, np.stack([1 - knows, knows], axis=1))
    assert not confident.tells(rare, np.tile([0.98, 0.02], (1000, 1)) @ np.diag([1, 0.9]))


@pytest.mark.parametrize("labels", [1, 3])
def test_a_model_that_knows_nothing_doubts_none(labels: int) -> None:
    given = np.arange(30) % labels
    assert not confident.wrong(given, np.full((30, labels), 1 / labels)).any()
