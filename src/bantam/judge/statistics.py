"""How sure a score or a difference is, from the test rows alone.

Rows of one group (the sentences of one review, the tickets of one customer) are not independent, so
whole groups are what is resampled and what is swapped; without groups each row is its own group.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

GRAIN = 100  # parts of a score that is neither 0 nor 1


@dataclass(frozen=True)
class Paired:
    """Ours minus theirs on the same rows, its interval, and the chance of such a gap by luck."""

    difference: float
    low: float
    high: float
    p_value: float


def bootstrap_interval(
    correct: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    seed: int,
    repeats: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Interval of the mean score; `correct` is `[rows]` of 0 or 1, or between.

    Cluster bootstrap, percentiles widened for few groups (see `_interval`). Depends on the seed
    but not on the order of the rows.
    """
    values, grain = _whole(correct)
    sums, sizes = _by_group(values, groups)
    low, high = _interval(sums, sizes, (0.0, float(grain)), seed, repeats, level)
    return low / grain, high / grain


def paired(
    ours: ArrayLike,
    theirs: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    seed: int,
    repeats: int = 2000,
    level: float = 0.95,
) -> Paired:
    """Compare two models on the same rows; `ours` and `theirs` are `[rows]` of 0 or 1, or between.

    The interval is the paired cluster bootstrap's. The p-value is two-sided, of the sign-flip
    permutation test: if the models were alike, swapping their answers on a whole group would change
    nothing. All 2^groups swaps are counted, so it needs no seed; with every row its own group it is
    the exact McNemar test.
    """
    exact = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    change, grain = _whole(exact)
    sums, sizes = _by_group(change, groups)
    low, high = _interval(sums, sizes, (-float(grain), float(grain)), seed, repeats, level)
    mean = float(exact.mean())
    return Paired(mean, low / grain, high / grain, _sign_flip_p_value(sums))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for being several (Holm 1979), in the order given."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for done, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, (len(p_values) - done) * p_values[index])
        corrected[index] = min(1.0, largest)
    return corrected


def smallest_detectable_difference(
    ours: ArrayLike,
    theirs: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    level: float = 0.05,
    power: float = 0.8,
) -> float | None:
    """The smallest true difference in score that these rows would show `power` of the time.

    "Show" is a two-sided p below `level` for one comparison. From the observed paired standard
    error over groups and Student's t: (t[1 - level/2] + t[power]) * error. None where no difference
    could show: the sign-flip test of n groups that differ never gives less than 2^(1 - n).
    """
    change, grain = _whole(np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float))
    sums, sizes = _by_group(change, groups)
    count, rows = len(sums), sizes.sum()
    must_differ = math.floor(1 - math.log2(level)) + 1
    if count < must_differ:
        return None
    spread = sums - sizes * (sums.sum() / rows)
    error = math.sqrt(count / (count - 1) * float(spread @ spread)) / rows
    freedom = count - 1
    shown = (stats.t.ppf(1 - level / 2, freedom) + stats.t.ppf(power, freedom)) * error
    # Two models that agree everywhere have no spread, yet this many rows would have to change.
    smallest = max(float(shown), must_differ / rows) / grain
    return float(smallest) if smallest <= 1 else None


def _whole(values: ArrayLike) -> tuple[NDArray[np.int64], int]:
    """Scores or their differences as whole numbers, and how many of these make one."""
    array = np.asarray(values, dtype=float)
    grain = 1 if np.array_equal(array, np.rint(array)) else GRAIN
    return np.rint(array * grain).astype(np.int64), grain


def _by_group(
    values: NDArray[np.int64], groups: Sequence[str] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sum of the values and number of rows of each group."""
    if groups is None:
        return values, np.ones_like(values)
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros(int(member.max()) + 1, dtype=np.int64)
    np.add.at(sums, member, values)
    return sums, np.bincount(member)


def _interval(
    sums: NDArray[np.int64],
    sizes: NDArray[np.int64],
    bounds: tuple[float, float],
    seed: int,
    repeats: int,
    level: float,
) -> tuple[float, float]:
    """Bootstrap interval of sum(sums) / sum(sizes), groups drawn with replacement.

    Groups of the same sum and size are alike, so only how often each such sort is drawn matters:
    one multinomial draw a repeat, however many rows there are. The percentiles are Hesterberg's
    expanded ones (2015, arXiv 1411.5279), which give Student's t its due with few groups.
    """
    count, tail = len(sums), (1 - level) / 2
    shares = sums / sizes
    if shares.min() == shares.max():
        # All groups alike: the bootstrap would claim certainty. A sort of group as common as
        # `unseen` is missed by all the draws with probability `tail` (Clopper and Pearson).
        unseen = 1 - tail ** (1 / count)
        share = float(shares[0])
        return share - unseen * (share - bounds[0]), share + unseen * (bounds[1] - share)
    sorts, often = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(count, often / count, size=repeats)
    means = (drawn @ sorts[:, 0]) / (drawn @ sorts[:, 1])
    wide = math.sqrt(count / (count - 1)) * stats.t.ppf(tail, count - 1)
    low, high = np.quantile(means, [stats.norm.cdf(wide), stats.norm.cdf(-wide)])
    return float(low), float(high)


def _sign_flip_p_value(sums: NDArray[np.int64]) -> float:
    """P(|S| >= |sum(sums)|) where S adds up |sums| with fair random signs.

    S is whole and its characteristic function is the product of cos(|sums| * t), so one Fourier
    transform gives the chance of every value of S.
    """
    reach, observed = int(np.abs(sums).sum()), abs(int(sums.sum()))
    values = 2 * reach + 1
    angles = 2 * np.pi * np.arange(values) / values
    spectrum = np.ones(values)
    for size, often in zip(*np.unique(np.abs(sums), return_counts=True), strict=True):
        spectrum *= np.cos(size * angles) ** often
    chances = np.fft.ifft(spectrum).real  # chances[s] is P(S = s); negative s count from the end
    # Rounding is about 1e-15, so nothing below 1e-12 is claimed.
    return float(np.clip(chances[observed : values - observed + 1].sum(), 1e-12, 1.0))
