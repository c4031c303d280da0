"""The split against a plain reference for what belongs together, and scikit-learn for balance."""

import random
import warnings
from collections import Counter
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from bantam.text import clean
from bantam.text.split import by_time, split, split_hash

Row = tuple[str, str, str | None]


def frame(rows: list[Row]) -> pl.DataFrame:
    schema = dict.fromkeys(("input", "output", "group"), pl.String)
    return clean.identify(pl.DataFrame(rows, schema=schema, orient="row"))


def made(seed: int, groups: int, labels: int = 3) -> list[Row]:
    """Groups of very unequal sizes, each leaning to one label, as reviews and customers do."""
    dice = random.Random(seed)
    rows: list[Row] = []
    for group in range(groups):
        lean = dice.randrange(labels)
        for _ in range(int(dice.paretovariate(1.1)) % 80 + 1):
            label = (
                lean if dice.random() < 0.6 else min(dice.randrange(labels), dice.randrange(labels))
            )
            rows.append((f"text {len(rows)}", f"label {label}", f"group {group}"))
    return rows


@settings(max_examples=80)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([f"t{n}" for n in range(25)]),
            st.sampled_from("xyz"),
            st.none() | st.sampled_from([f"g{n}" for n in range(12)]),
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(0, 5),
    st.sampled_from([(0.1, 0.15), (0.0, 0.3), (0.3, 0.0), (0.0, 0.0), (0.4, 0.4)]),
)
def test_no_text_and_no_group_is_on_two_sides(
    rows: list[Row], seed: int, shares: tuple[float, float]
) -> None:
    data = frame(rows)
    sides = split(data, *shares, seed)
    assert len(sides) == len(rows)
    placed = data.with_columns(side=sides)
    for column in ("key", "group"):
        spread = placed.drop_nulls(column).group_by(column).agg(pl.col("side").n_unique())
        assert (spread["side"] == 1).all()
    allowed = {"train"} | {
        name for name, share in zip(["val", "test"], shares, strict=True) if share
    }
    assert set(sides) <= allowed


@given(st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=20)
def test_the_order_of_the_rows_does_not_matter(dice: random.Random, grouped: bool) -> None:
    rows = [(text, label, group if grouped else None) for text, label, group in made(3, 40)]
    mixed = rows.copy()
    dice.shuffle(mixed)
    one, other = frame(rows), frame(mixed)
    there = dict(zip(one["id"], split(one, 0.1, 0.2, 7), strict=True))
    here = dict(zip(other["id"], split(other, 0.1, 0.2, 7), strict=True))
    assert there == here


def test_the_same_rows_are_split_the_same_in_every_version() -> None:
    data = frame(made(0, 30))
    parts = data.with_columns(side=split(data, 0.1, 0.15, 0)).partition_by("side", as_dict=True)
    pinned = "ddd8cbbd9aa417437588446c1d3af30ebfa17014d61b143cc7b0418f4b5b2fa0"
    assert split_hash({str(name[0]): part for name, part in parts.items()}) == pinned


def test_each_seed_gives_another_split() -> None:
    for rows in ([(f"t{n}", "ab"[n % 2], None) for n in range(400)], made(1, 200)):
        data = frame(rows)
        tests = [split(data, 0.1, 0.2, seed) == "test" for seed in range(6)]
        pairs = [(a, b) for a in range(6) for b in range(a)]
        same = [(tests[a] & tests[b]).sum() / tests[a].sum() for a, b in pairs]
        assert np.mean(same) < 0.35  # 0.2 were chance; a few large groups go to train each time


def test_rows_without_groups_are_stratified_to_the_row() -> None:
    rows: list[Row] = [(f"t{n}", "common" if n % 10 else "rare", None) for n in range(2000)]
    data = frame(rows).with_columns(side=split(frame(rows), 0.1, 0.15, 5))
    counts = Counter(data.select("side", "output").iter_rows())
    assert counts == {
        ("train", "common"): 1350,
        ("val", "common"): 180,
        ("test", "common"): 270,
        ("train", "rare"): 150,
        ("val", "rare"): 20,
        ("test", "rare"): 30,
    }


def test_many_rare_labels_still_fill_the_splits() -> None:
    rows: list[Row] = [(f"t{n}", f"label {n % 150}", None) for n in range(900)]
    sides = Counter(split(frame(rows), 0.1, 0.15, 0))
    assert sides["val"] == pytest.approx(90, abs=20) and sides["test"] == pytest.approx(135, abs=20)
    train = frame(rows).filter(split(frame(rows), 0.1, 0.15, 0) == "train")
    assert train["output"].n_unique() == 150


def test_a_few_new_rows_move_few_old_ones() -> None:
    rows: list[Row] = [(f"t{n}", "abc"[n % 3], None) for n in range(3000)]
    before, after = frame(rows[:2970]), frame(rows)
    old = dict(zip(before["id"], split(before, 0.1, 0.15, 0), strict=True))
    new = dict(zip(after["id"], split(after, 0.1, 0.15, 0), strict=True))
    assert sum(new[row] != side for row, side in old.items()) < 30


def imbalance(data: pl.DataFrame, held_out: pl.Series, share: float) -> float:
    """How far the label counts of the held-out rows are from their share, in rows per row."""
    all_rows = Counter(data["output"])
    chosen = Counter(data.filter(held_out)["output"])
    missed = sum(abs(chosen[label] - share * count) for label, count in all_rows.items())
    return missed / (share * data.height)


@pytest.mark.parametrize("groups", [30, 60, 150, 400])
def test_groups_are_balanced_at_least_as_well_as_by_scikit_learn(groups: int) -> None:
    ours, theirs = [], []
    for seed in range(6):
        data = frame(made(seed, groups))
        ours.append(imbalance(data, split(data, 0.0, 0.2, seed) == "test", 0.2))
        folds = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, test = next(folds.split(data["input"], data["output"], data["group"]))
        mask = np.zeros(data.height, dtype=bool)
        mask[test] = True
        theirs.append(imbalance(data, pl.Series(mask), 0.2))
    assert np.mean(ours) <= np.mean(theirs)
    if groups >= 60:  # below, one large group can be a third of the test split
        assert np.mean(ours) < 0.06


@settings(max_examples=80)
@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.none() | st.integers(0, 12)), min_size=1, max_size=80
    ),
    st.sampled_from([(0.1, 0.15), (0.0, 0.3), (0.3, 0.0), (0.4, 0.4)]),
)
def test_what_judges_is_newer_than_what_is_learned_from(
    rows: list[tuple[int, int | None]], shares: tuple[float, float]
) -> None:
    data = frame(
        [(f"t{n}", "x", f"g{group}" if group else None) for n, (_, group) in enumerate(rows)]
    )
    when = pl.Series([datetime(2024, 1, 1) + timedelta(days=day) for day, _ in rows])
    placed = data.with_columns(when=when).with_columns(
        side=by_time(data.with_columns(when=when), *shares)
    )
    grouped = placed.drop_nulls("group").group_by("group").agg(pl.col("side").n_unique())
    assert (grouped["side"] == 1).all()
    for older, newer in (("train", "val"), ("train", "test"), ("val", "test")):
        last = placed.filter(side=older)["when"].max()
        units = placed.filter(side=newer).with_columns(
            pl.when(pl.col("group").is_null()).then("id").otherwise("group").alias("unit")
        )
        first = units.group_by("unit").agg(pl.col("when").max())["when"].min()
        assert last is None or first is None or last <= first
    if not any(group for _, group in rows):
        sizes = [placed.filter(side=name).height for name in ("train", "val", "test")]
        assert abs(sizes[2] - shares[1] * len(rows)) <= 1
        assert abs(sizes[1] - shares[0] * len(rows)) <= 1


def test_the_newest_rows_judge_and_the_order_of_the_rows_does_not_matter() -> None:
    rows: list[Row] = [(f"t{n}", "ab"[n % 2], None) for n in range(200)]
    days = [datetime(2024, 1, 1) + timedelta(days=n // 2) for n in range(200)]
    data = frame(rows).with_columns(when=pl.Series(days))
    sides = by_time(data, 0.1, 0.2)
    assert sides.to_list() == ["train"] * 140 + ["val"] * 20 + ["test"] * 40
    mixed = data.sample(fraction=1, shuffle=True, seed=0)
    there = dict(zip(data["id"], sides, strict=True))
    assert dict(zip(mixed["id"], by_time(mixed, 0.1, 0.2), strict=True)) == there


def test_near_copies_count_as_groups_do() -> None:
    rows: list[Row] = [(f"t{n}", "ab"[n % 2], None) for n in range(100)]
    data = frame(rows).with_columns(cluster=pl.Series([n // 5 for n in range(100)]))
    placed = data.with_columns(side=split(data, 0.2, 0.2, 0))
    assert (placed.group_by("cluster").agg(pl.col("side").n_unique())["side"] == 1).all()
    assert Counter(placed["side"]) == {"train": 60, "val": 20, "test": 20}
