"""Which rows train, which choose (val), which judge (test)."""

import hashlib

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, hstack
from scipy.sparse.csgraph import connected_components

from bantam.kinds import several

NAMES = ("train", "val", "test")
TOGETHER = ("key", "group", "cluster")  # equal texts, the user's groups, near copies
SWEEPS = 3

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]


def split(
    frame: pl.DataFrame, val: float, test: float, seed: int, multi: bool = False
) -> pl.Series:
    """Give each row "train", "val" or "test": a str series, as long as the frame.

    `frame` has `id` (16 hex digits), `output` and what `units` keeps together. Each label is spread
    over the splits in the asked shares as far as that allows; a label with too few rows for all
    goes to train. With `multi` an output is a set of labels, of which each is spread, and the empty
    set as if it were a label. The result depends on the ids and the seed, not on the order of the
    rows, and a few new rows move few old ones.
    """
    shares = np.array([1 - val - test, val, test])
    unit = units(frame)
    each = pl.DataFrame({"unit": unit, "label": frame["output"]})
    if multi:
        each = each.with_columns(pl.col("label").str.split(several.SEPARATOR)).explode("label")
    labels = each["label"].cast(pl.Enum(each["label"].unique().sort())).to_physical()
    places = each["unit"].to_numpy(), labels.to_numpy().astype(np.int64)
    # How many rows of each label [units, labels]; duplicates in the list are summed.
    counts = csr_array((np.ones(each.height, dtype=np.int64), places))
    sizes = csr_array(np.bincount(unit)[:, None])
    wanted = hstack([counts, sizes], format="csr")  # the last column: how many rows in all
    order = _scatter(_smallest_id(frame["id"], unit, counts.shape[0]), seed)
    chosen = _alike(wanted, order, shares)
    _greedy(wanted, order, chosen, shares)
    return pl.Series(np.array(NAMES)[chosen][unit], dtype=pl.String)


def by_time(frame: pl.DataFrame, val: float, test: float) -> pl.Series:
    """The newest rows "test", the next newest "val", the others "train": a series as `split`'s.

    `frame` has `id`, `when` (a datetime, never null) and what `units` keeps together. A unit goes
    by its newest row, so nothing is learned that is newer than what judges; of equally new ones the
    ids decide.
    """
    unit = units(frame)
    times = frame.select(pl.col("when").dt.epoch("us")).to_series().to_numpy()
    count = int(unit.max(initial=-1)) + 1
    newest = np.full(count, np.iinfo(np.int64).min)
    np.maximum.at(newest, unit, times)
    sequence = np.lexsort((_smallest_id(frame["id"], unit, count), newest))[::-1]
    sizes = np.bincount(unit, minlength=count)[sequence]
    middles = np.cumsum(sizes) - sizes / 2  # a unit lies where most of it does
    chosen = np.empty(count, dtype=np.int64)
    bounds = frame.height * np.array([test, test + val])
    chosen[sequence] = 2 - np.searchsorted(bounds, middles, side="right")
    return pl.Series(np.array(NAMES)[chosen][unit], dtype=pl.String)


def split_hash(splits: dict[str, pl.DataFrame]) -> str:
    """sha256 of the sorted lines "split id": the same for the same rows in the same splits."""
    digest = hashlib.sha256()
    for name in sorted(splits):
        for row_id in splits[name]["id"].sort():
            digest.update(f"{name} {row_id}\n".encode())
    return digest.hexdigest()


def units(frame: pl.DataFrame) -> Ints:
    """The unit of each row, from 0: rows that share a value of a column of `TOGETHER`, also through
    others, are one. Nothing is shared by nulls.

    Rows and values are the nodes of a graph, its connected components are the units.
    """
    rows = np.arange(frame.height)
    starts, ends, nodes = [], [], frame.height
    for column in (frame[name] for name in TOGETHER if name in frame.columns):
        starts.append(rows[column.is_not_null().to_numpy()])
        ends.append(nodes + _dense(column.drop_nulls()))
        nodes += column.n_unique()
    edges = np.concatenate(starts), np.concatenate(ends)
    graph = coo_array((np.ones(len(edges[0]), dtype=np.int8), edges), shape=(nodes, nodes))
    component = connected_components(graph, directed=False)[1]
    return _dense(pl.Series(component[: frame.height]))


def _dense(values: pl.Series) -> Ints:
    return values.rank("dense").to_numpy().astype(np.int64) - 1


def _smallest_id(ids: pl.Series, unit: Ints, units: int) -> Hashes:
    numbers = np.frombuffer(bytes.fromhex("".join(ids)), dtype=">u8").astype(np.uint64)
    smallest = np.full(units, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(smallest, unit, numbers)
    return smallest


def _scatter(numbers: Hashes, seed: int) -> Hashes:
    """The splitmix64 finaliser (Steele, Lea and Flood 2014): other numbers for every seed."""
    mixed = numbers + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _alike(counts: csr_array, order: Hashes, shares: NDArray[np.float64]) -> Ints:
    """Units with the same labels are interchangeable: of each kind every split gets its share,
    rounded down. Gives the split of each unit, -1 for those left over (a few of each kind)."""
    # The kind of a unit: the sum of a random number for each row and each label of it.
    kind = counts.astype(np.uint64) @ _scatter(np.arange(counts.shape[1], dtype=np.uint64), 0)
    sequence = np.lexsort((order, kind))
    _, first, size = np.unique(kind[sequence], return_index=True, return_counts=True)
    place = np.arange(len(sequence)) - np.repeat(first, size)
    ends = np.cumsum(np.floor(size[:, None] * shares + 1e-9), axis=1)
    chosen = np.empty(len(sequence), dtype=np.int64)
    chosen[sequence] = (place[:, None] >= np.repeat(ends, size, axis=0)).sum(axis=1)
    chosen[chosen == len(shares)] = -1
    return chosen


def _greedy(wanted: csr_array, order: Hashes, chosen: Ints, shares: NDArray[np.float64]) -> None:
    """Fill in the units left over, large before small, each to the split that wants it most.

    That is where the squared distance from the targets (rows of each label, and rows in all),
    relative to the targets, falls most or grows least. Then each is taken out and placed again,
    SWEEPS times. Sizes within a fifth of each other count as equal, so that the seed still has a
    say where the large ones go.
    """
    have = np.stack([wanted[chosen == at].sum(axis=0) for at in range(len(shares))]).astype(float)
    targets = shares[:, None] * wanted.sum(axis=0)
    weights = 1 / np.maximum(targets, 1e-9)
    rest = np.flatnonzero(chosen < 0)
    magnitude = np.floor(4 * np.log2(wanted[rest, -1].toarray().ravel()))
    sequence = rest[np.lexsort((order[rest], -magnitude))]
    for unit in np.tile(sequence, 1 + SWEEPS):
        mine = slice(wanted.indptr[unit], wanted.indptr[unit + 1])
        labels, more = wanted.indices[mine], wanted.data[mine]
        if chosen[unit] >= 0:
            have[chosen[unit], labels] -= more
        gap = have[:, labels] - targets[:, labels]
        worse = ((2 * gap + more) * more * weights[:, labels]).sum(axis=1)
        chosen[unit] = np.argmin(np.where(shares > 0, worse, np.inf))
        have[chosen[unit], labels] += more
