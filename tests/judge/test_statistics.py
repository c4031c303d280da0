import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bantam.judge.statistics import (
    bootstrap_interval,
    holm,
    paired,
    smallest_detectable_difference,
)


def answers_in_groups(rng, groups, rate, apart=0.0, spread=2.0):
    """Two models' right and wrong rows. The rows of a group are alike: each group has a rate of its
    own, drawn around `rate` (ours `apart` higher), and 1 to 20 rows."""
    sizes = rng.integers(1, 21, groups)
    names = np.repeat(np.arange(groups).astype(str), sizes)
    drawn = [rng.beta(spread * mean, spread * (1 - mean), groups) for mean in (rate + apart, rate)]
    ours, theirs = (rng.random(len(names)) < np.repeat(rates, sizes) for rates in drawn)
    return ours.astype(int), theirs.astype(int), names


def test_interval_agrees_with_scipy_without_groups() -> None:
    correct = np.random.default_rng(0).random(400) < 0.8
    ours = bootstrap_interval(correct, seed=1, repeats=20_000)
    theirs = stats.bootstrap(
        (correct,), np.mean, n_resamples=5_000, method="percentile", rng=1
    ).confidence_interval
    assert ours == pytest.approx(tuple(theirs), abs=0.005)


def test_paired_interval_agrees_with_scipy_over_groups() -> None:
    ours, theirs, names = answers_in_groups(np.random.default_rng(3), 200, 0.7, apart=0.1)
    sums = np.array([(ours - theirs)[names == name].sum() for name in np.unique(names)])
    sizes = np.array([(names == name).sum() for name in np.unique(names)])
    reference = stats.bootstrap(
        (sums, sizes),
        lambda s, n, axis=-1: s.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        n_resamples=4_000,
        method="percentile",
        rng=1,
    ).confidence_interval
    found = paired(ours, theirs, names, seed=1, repeats=20_000)
    assert (found.low, found.high) == pytest.approx(tuple(reference), abs=0.006)
    assert found.difference == pytest.approx(ours.mean() - theirs.mean())


def test_intervals_cover_the_truth_and_rows_alone_would_not() -> None:
    rng = np.random.default_rng(5)
    trials, covered, pair_covered, naive = 400, 0, 0, 0
    for trial in range(trials):
        ours, theirs, names = answers_in_groups(rng, 30, 0.7)
        low, high = bootstrap_interval(ours, names, seed=trial, repeats=500)
        covered += low <= 0.7 <= high
        found = paired(ours, theirs, names, seed=trial, repeats=500)
        pair_covered += found.low <= 0 <= found.high
        low, high = bootstrap_interval(ours, seed=trial, repeats=500)
        naive += low <= 0.7 <= high
    assert 0.92 < covered / trials < 0.98
    assert 0.92 < pair_covered / trials < 0.98
    assert naive / trials < 0.75


def test_all_right_is_not_certain() -> None:
    low, high = bootstrap_interval(np.ones(20), seed=0)
    exact = stats.binomtest(20, 20).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((exact.low, exact.high))
    low, high = bootstrap_interval(np.ones(20), ["one"] * 20, seed=0)
    assert low < 0.05
    same = paired([1, 0, 1, 1], [1, 0, 1, 1], seed=0)
    assert same.low < -0.5 and same.high > 0.5 and same.p_value == 1.0


@pytest.mark.parametrize("seed", range(6))
def test_p_value_counts_every_swap(seed: int) -> None:
    ours, theirs, names = answers_in_groups(np.random.default_rng(seed), 10, 0.6, apart=0.2)
    sums = np.array([(ours - theirs)[names == name].sum() for name in np.unique(names)])
    swaps = np.array(list(itertools.product([1, -1], repeat=len(sums))))
    by_hand = np.mean(np.abs(swaps @ sums) >= abs(sums.sum()))
    assert paired(ours, theirs, names, seed=0).p_value == pytest.approx(by_hand)


def test_p_value_is_mcnemars_without_groups() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.random(500) < 0.75, rng.random(500) < 0.68
    only_ours, only_theirs = (ours & ~theirs).sum(), (theirs & ~ours).sum()
    exact = stats.binomtest(only_ours, only_ours + only_theirs).pvalue
    assert paired(ours, theirs, seed=0).p_value == pytest.approx(exact)


def test_p_value_agrees_with_scipys_permutations() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = (rng.random(60) < 0.8).astype(int), (rng.random(60) < 0.65).astype(int)
    reference = stats.permutation_test(
        (ours, theirs),
        lambda a, b, axis: (a - b).mean(axis=axis),
        permutation_type="samples",
        n_resamples=20_000,
        vectorized=True,
        rng=3,
    )
    assert paired(ours, theirs, seed=0).p_value == pytest.approx(reference.pvalue, abs=0.01)


def test_p_value_keeps_its_promise_where_rows_are_alike() -> None:
    rng = np.random.default_rng(11)
    by_group, by_row = [], []
    for _ in range(1000):
        ours, theirs, names = answers_in_groups(rng, 40, 0.7)
        by_group.append(paired(ours, theirs, names, seed=0, repeats=2).p_value)
        by_row.append(paired(ours, theirs, seed=0, repeats=2).p_value)
    assert stats.kstest(by_group, "uniform").statistic < 0.06
    assert 0.03 < np.mean(np.array(by_group) < 0.05) < 0.07
    assert np.mean(np.array(by_row) < 0.05) > 0.2


def test_same_seed_same_answer_whatever_the_order_of_the_rows() -> None:
    ours, theirs, names = answers_in_groups(np.random.default_rng(8), 40, 0.7)
    shuffled = np.random.default_rng(9).permutation(len(ours))
    first = paired(ours, theirs, names, seed=4)
    assert paired(ours[shuffled], theirs[shuffled], names[shuffled], seed=4) == first
    assert paired(theirs, ours, names, seed=4).difference == -first.difference
    assert paired(theirs, ours, names, seed=4).p_value == first.p_value


@pytest.mark.parametrize("grouped", [False, True])
def test_fast_and_sane_for_many_rows(grouped: bool) -> None:
    rng = np.random.default_rng(0)
    rows = 5_000
    ours, theirs = rng.random(rows) < 0.9, rng.random(rows) < 0.5
    groups = np.repeat(np.arange(rows // 10).astype(str), 10) if grouped else None
    start = time.process_time()
    found = paired(ours, theirs, groups, seed=0)
    assert time.process_time() - start < 1
    assert 0 < found.p_value <= 1e-9
    assert 0.35 < found.low < found.difference < found.high < 0.45


def test_holm_on_known_examples() -> None:
    # The example of Wikipedia's "Holm-Bonferroni method", and R's p.adjust(1:5 / 100, "holm").
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, level) -> None:
    rejected = set()
    for index in sorted(range(len(p_values)), key=lambda i: p_values[i]):
        if (len(p_values) - len(rejected)) * p_values[index] >= level:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(holm(p_values)) if p < level} == rejected


def test_the_smallest_detectable_difference_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(21)
    typical = np.mean(
        [smallest_detectable_difference(*answers_in_groups(rng, 60, 0.6)) for _ in range(50)]
    )
    found = [
        paired(*answers_in_groups(rng, 60, 0.6, apart=typical), seed=0, repeats=2).p_value < 0.05
        for _ in range(500)
    ]
    assert 0.73 < np.mean(found) < 0.87


def test_the_smallest_detectable_difference_of_too_few_groups_is_none() -> None:
    ours, theirs = [1, 1, 1, 1, 1, 0] * 2, [0, 1, 1, 0, 1, 1] * 2
    assert smallest_detectable_difference(ours, theirs, ["a", "b", "c"] * 4) is None
    assert smallest_detectable_difference([1] * 5, [0] * 5) is None
    # Six rows are the fewest that can show anything, and all of them must differ.
    assert (
        paired([1] * 6, [0] * 6, seed=0).p_value < 0.05 < paired([1] * 5, [0] * 5, seed=0).p_value
    )
    assert smallest_detectable_difference([1] * 600, [1] * 600) == pytest.approx(0.01)


def test_small_differences_count_as_large_ones_do() -> None:
    """Scores between 0 and 1, and bits: what is ever so little better on every row is better."""
    theirs = np.random.default_rng(2).random(2_000)
    for gain in (0.004, 0.0045, 1e-6):
        found = paired(theirs + gain, theirs, seed=0)
        assert found.p_value < 1e-9
        assert 0 < found.low <= found.difference <= found.high
    # Much on few rows against little on many: it is the mean that is asked for.
    gain = np.full(2_000, -0.004)
    gain[:20] = 0.1
    found = paired(theirs + gain, theirs, seed=0)
    assert found.difference < found.high < 0
    assert found.p_value < 0.01


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_and_p_values_of_scores_that_are_not_whole(grouped: bool) -> None:
    rng = np.random.default_rng(4)
    change = rng.normal(0.002, 0.05, 600)
    theirs = rng.random(600)
    names = np.repeat(np.arange(200).astype(str), 3) if grouped else None
    found = paired(theirs + change, theirs, names, seed=1, repeats=4_000)
    sums = change.reshape(200, 3).sum(axis=1) if grouped else change
    error = sums.std(ddof=1) * math.sqrt(len(sums)) / 600
    assert found.difference == pytest.approx(change.mean())
    assert found.low == pytest.approx(change.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(change.mean() + 1.96 * error, abs=0.15 * error)
    reference = stats.permutation_test(
        (sums, np.zeros_like(sums)),
        lambda a, b, axis=-1: (a - b).sum(axis=axis),
        permutation_type="samples",
        n_resamples=20_000,
        rng=1,
    )
    assert found.p_value == pytest.approx(reference.pvalue, abs=0.015)


def test_many_groups_of_any_score_take_little_time() -> None:
    rng = np.random.default_rng(6)
    theirs = rng.random(8_000)
    start = time.process_time()
    found = paired(theirs + rng.normal(0, 0.1, 8_000), theirs, seed=0, repeats=200)
    assert time.process_time() - start < 12  # 132 s for 3,000 when each sum was exact
    assert found.low < found.difference < found.high
