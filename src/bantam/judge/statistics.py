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

SMALL = 0.01  # the least change that counts of a score which may be between 0 and 1
# The sign-flip test counts in whole steps. Where differences are none, all of them together are so
# many steps, and a group's 16 at least on the mean: rounding then moves its sum by a fiftieth of
# what chance does, or less.
REACH, A_GROUP = 1 << 15, 16
AT_ONCE = 1 << 24  # numbers of bootstrap draws that are held


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

    Cluster bootstrap, percentiles widened for few groups (`ratio_interval`). Depends on the seed
    but not on the order of the rows.
    """
    sums, sizes = _by_group(np.asarray(correct, dtype=float), groups)
    return ratio_interval(sums, sizes, (0.0, 1.0), seed=seed, repeats=repeats, level=level)


def ratio_interval(
    sums: NDArray[np.float64],
    sizes: NDArray[np.int64],
    bounds: tuple[float, float],
    *,
    seed: int,
    repeats: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Bootstrap interval of sum(sums) / sum(sizes), groups drawn with replacement; `bounds` are
    what it can be at all.

    Groups of the same sum and size are alike, so only how often each such sort is drawn matters:
    one multinomial draw a repeat, where there are few sorts. The percentiles are Hesterberg's
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
    chance, at_once = np.random.default_rng(seed), max(1, AT_ONCE // len(sorts))
    means = np.empty(repeats)
    for begin in range(0, repeats, at_once):
        piece = means[begin : begin + at_once]
        drawn = chance.multinomial(count, often / count, size=len(piece))
        piece[:] = (drawn @ sorts[:, 0]) / (drawn @ sorts[:, 1])
    wide = math.sqrt(count / (count - 1)) * stats.t.ppf(tail, count - 1)
    low, high = np.quantile(means, [stats.norm.cdf(wide), stats.norm.cdf(-wide)])
    return float(low), float(high)


def paired(
    ours: ArrayLike,
    theirs: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    seed: int,
    repeats: int = 2000,
    level: float = 0.95,
) -> Paired:
    """Compare two models on the same rows; `ours` and `theirs` are `[rows]` of 0 or 1, or between,
    or of any other measure.

    The interval is the paired cluster bootstrap's. The p-value is two-sided, of the sign-flip
    permutation test: if the models were alike, swapping their answers on a whole group would change
    nothing. All 2^groups swaps are counted, so it needs no seed; with every row its own group it is
    the exact McNemar test.
    """
    change = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    sums, sizes = _by_group(change, groups)
    low, high = ratio_interval(sums, sizes, (-1.0, 1.0), seed=seed, repeats=repeats, level=level)
    return Paired(float(change.mean()), low, high, _sign_flip_p_value(_steps(sums)))


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
    change = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    sums, sizes = _by_group(change, groups)
    count, rows = len(sums), sizes.sum()
    must_differ = fewest(level)
    if count < must_differ:
        return None
    spread = sums - sizes * (sums.sum() / rows)
    error = math.sqrt(count / (count - 1) * float(spread @ spread)) / rows
    freedom = count - 1
    shown = (stats.t.ppf(1 - level / 2, freedom) + stats.t.ppf(power, freedom)) * error
    # Two models that agree everywhere have no spread, yet this many rows would have to change.
    least = 1.0 if _whole(change) else SMALL
    smallest = max(float(shown), least * must_differ / rows)
    return float(smallest) if smallest <= 1 else None


def fewest(level: float) -> int:
    """How many groups must differ, all one way, before the sign-flip test gives a p below this."""
    return math.floor(1 - math.log2(level)) + 1


def _whole(values: NDArray[np.float64]) -> bool:
    return np.array_equal(values, np.rint(values))


def _by_group(
    values: NDArray[np.float64], groups: Sequence[str] | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum of the values and number of rows of each group."""
    if groups is None:
        return values, np.ones(len(values), dtype=np.int64)
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(member, weights=values)
    return np.round(sums, 12), np.bincount(member)  # the same in whatever order they are added


def _steps(sums: NDArray[np.float64]) -> NDArray[np.int64]:
    """The sums in whole steps of one size."""
    total = np.abs(sums).sum()
    scale = 1.0 if _whole(sums) else max(REACH, A_GROUP * len(sums)) / total
    return np.rint(sums * scale).astype(np.int64)


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
