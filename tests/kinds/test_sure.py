"""Thresholds above which answers are sure: against the rule tried on every threshold there could
be, and in the task."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bantam.kinds import classify, sure

Row = tuple[int, float, bool]  # the label answered, its probability, whether it is right
LABELS = 4
ROWS = st.lists(
    st.tuples(
        st.integers(0, LABELS - 1),
        st.sampled_from([0.4, 0.55, 0.7, 0.8, 0.9, 0.99, 1.0]) | st.floats(0.3, 1),
        st.sampled_from([True, True, True, False]),
    ),
    max_size=80,
)
WANTED = st.sampled_from([0.3, 0.5, 0.6, 0.75, 0.9, 0.95])


def frames(rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
    shares = np.array([[(1 - p) / (LABELS - 1)] * LABELS for _, p, _ in rows])
    shares = shares.reshape(len(rows), LABELS)
    for share, (label, p, _) in zip(shares, rows, strict=True):
        share[label] = p
    expected = np.array([x if right else (x + 1) % LABELS for x, _, right in rows], dtype=int)
    return shares, expected


def hair_below(p: float) -> float:
    return math.nextafter(p, 0)


def laplace(rows: list[Row], above: float) -> float | None:
    kept = [right for _, p, right in rows if p > above]
    return (sum(kept) + 1) / (len(kept) + 2) if kept else None


def tried(rows: list[Row], wanted: float) -> float:
    """The lowest of all thresholds that keep the rule."""
    seen = sorted({p for _, p, _ in rows})
    cuts = [hair_below(p) for p in seen[:1]] + seen
    return next((t for t in cuts if (laplace(rows, t) or 0) >= wanted), 1.0)


def parts(rows: list[Row], wanted: float) -> list[tuple[list[int], list[Row]]]:
    """The labels that share a threshold, and their rows."""
    of = [[row for row in rows if row[0] == label] for label in range(LABELS)]
    rare = [n for n in range(LABELS) if (len(of[n]) + 1) / (len(of[n]) + 2) < wanted]
    own = [([n], of[n]) for n in range(LABELS) if n not in rare]
    return [*own, (rare, [row for n in rare for row in of[n]])]


@given(ROWS, WANTED)
def test_the_lowest_of_all_that_keep_the_rule(rows: list[Row], wanted: float) -> None:
    found = sure.thresholds(*frames(rows), wanted)
    assert found.shape == (LABELS,)
    for labels, of_them in parts(rows, wanted):
        assert found[labels].tolist() == [tried(of_them, wanted)] * len(labels)


@given(ROWS, WANTED)
def test_what_is_sure_is_right_as_often_as_asked(rows: list[Row], wanted: float) -> None:
    """On the rows that chose the thresholds, asked of the task as its users ask it."""
    shares, expected = frames(rows)
    bounds = tuple(sure.thresholds(shares, expected, wanted).tolist())
    task = replace(classify.task("t", "", list("abcd")), thresholds=bounds)
    relied = [classify.sure(task, share) for share in shares.tolist()]
    for labels, of_them in parts(rows, wanted):
        right = [r for (n, _, r), yes in zip(rows, relied, strict=True) if yes and n in labels]
        assert not right or (sum(right) + 1) / (len(right) + 2) >= wanted
        if bounds[labels[0] if labels else 0] == sure.NEVER:
            assert not labels or not right
        assert len(of_them) >= len(right)


def test_lucky_rows_prove_nothing() -> None:
    """Seven right answers are too few for 0.9, eight will do; so do few each of several labels."""
    row = (0, 0.9, True)
    assert sure.thresholds(*frames([row] * 7), 0.9).tolist() == [1.0] * 4
    assert sure.thresholds(*frames([row] * 8), 0.9).tolist() == [hair_below(0.9), 1.0, 1.0, 1.0]
    few = [(n, 0.5 + n / 10, True) for n in range(4) for _ in range(2)]
    assert sure.thresholds(*frames(few), 0.9).tolist() == [hair_below(0.5)] * 4
    assert sure.thresholds(*frames([*few, (3, 0.45, False)]), 0.9).tolist() == [0.45] * 4


def test_no_probability_is_above_never() -> None:
    wrong = frames([(0, 1.0, False), *[(0, 0.9, True)] * 5])
    bounds = sure.thresholds(*wrong, 0.9)
    assert bounds.tolist() == [sure.NEVER] * 4
    task = replace(classify.task("t", "", list("abcd")), thresholds=tuple(bounds.tolist()))
    assert classify.sure(task, [1.0, 0.0, 0.0, 0.0]) is False


@pytest.mark.parametrize("p", [0.5, 0.7])
def test_an_answer_at_its_threshold_is_not_sure(p: float) -> None:
    task = replace(classify.task("t", "", ["a", "b"]), thresholds=(0.5, 0.7))
    assert classify.sure(task, [p, 1 - p]) is (p > 0.5)
    assert classify.sure(task, [1 - p, p]) is False


def test_a_task_without_thresholds_or_with_several_labels_does_not_say() -> None:
    assert classify.sure(classify.task("t", "", ["a", "b"]), [0.9, 0.1]) is None
    assert classify.sure(classify.task("t", "", ["a", "b"], multi=True), [0.9, 0.1]) is None
