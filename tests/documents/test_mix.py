"""The mix: how often each document is read, in which order, and what each source gives."""

from hashlib import blake2b

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bantam.documents import draw, mix
from bantam.errors import BadInput

WEIGHTS = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 7.3])


def kept(**sources: int) -> pl.DataFrame:
    names = [name for name, count in sources.items() for _ in range(count)]
    ids = [blake2b(f"{at}".encode(), digest_size=8).hexdigest() for at in range(len(names))]
    chance = np.random.default_rng(0)
    return pl.DataFrame({"id": ids, "source": names}).with_columns(
        words=pl.Series(chance.integers(50, 2000, len(names)), dtype=pl.Int64),
        sentences=pl.Series(chance.integers(0, 30, len(names)), dtype=pl.Int64),
        word_length=pl.Series(chance.uniform(3, 8, len(names))),
        score=pl.Series(chance.uniform(0, 1, len(names))),
    )


@given(
    st.integers(1, 30),
    st.integers(0, 30),
    WEIGHTS.filter(bool),
    WEIGHTS,
    st.sampled_from(["shuffled", "quality", "curriculum"]),
    st.integers(0, 3),
)
def test_every_document_is_read_as_often_as_its_weight_says(
    first: int, second: int, one: float, other: float, order: mix.Order, seed: int
) -> None:
    frame = kept(a=first, b=second)
    weights = {"a": one, "b": other} if second else {"a": one}
    expected = {"a": round(one % 1 * first) + int(one) * first}
    expected["b"] = round(other % 1 * second) + int(other) * second
    if not any(expected.values()):
        with pytest.raises(BadInput):
            mix.mix(frame, weights, order, seed)
        return
    read = mix.mix(frame, weights, order, seed)
    assert read.columns == ["id", "source", "copy"]
    counts = read.group_by("id", "source").agg(pl.len(), pl.col("copy").sort())
    for _, source, times, copies in counts.iter_rows():
        weight = {"a": one, "b": other}[source]
        assert times in (int(weight), int(weight) + 1)
        assert copies == list(range(1, times + 1))
    for source, times in expected.items():
        assert len(read.filter(source=source)) == times
    shares = mix.table(frame, weights, seed)
    assert shares["read_documents"].to_list() == [expected[name] for name in shares["source"]]


def test_the_order_is_the_same_whatever_order_the_documents_come_in() -> None:
    frame = kept(a=50, b=50)
    for order in ("shuffled", "quality", "curriculum"):
        read = mix.mix(frame, {"a": 2.5}, order, 1)
        assert read.equals(mix.mix(frame.reverse(), {"a": 2.5}, order, 1))
        assert read.equals(mix.mix(frame, {"a": 2.5}, order, 1))
    assert not read.equals(mix.mix(frame, {"a": 2.5}, "curriculum", 2))


def passes(read: pl.DataFrame, count: int) -> list[pl.DataFrame]:
    """A mix where every document has so many copies, pass by pass."""
    size = len(read) // count
    return [read[at * size : (at + 1) * size] for at in range(count)]


def test_each_pass_of_a_shuffled_mix_is_another_order_of_all() -> None:
    found = passes(mix.mix(kept(a=200), {"a": 3}, "shuffled", 0), 3)
    orders = [tuple(part["id"]) for part in found]
    assert len(set(orders)) == 3
    assert {frozenset(order) for order in orders} == {frozenset(orders[0])}
    assert [set(part["copy"]) for part in found] == [{1}, {2}, {3}]


def test_copies_are_far_apart_and_sources_are_spread_evenly() -> None:
    """A small source that is read four times, another that is read half: at every quarter of the
    mix about a quarter of each."""
    read = mix.mix(kept(small=100, large=4000), {"small": 4, "large": 0.5}, "shuffled", 0)
    read = read.with_row_index("at")
    apart = read.filter(source="small").sort("id", "at").select(pl.col("at").diff().over("id"))
    assert apart.to_series().drop_nulls().min() > 0
    quarters = read.with_columns(quarter=pl.col("at") * 4 // len(read))
    counts = quarters.group_by("quarter").agg(
        small=(pl.col("source") == "small").sum(), large=(pl.col("source") == "large").sum()
    )
    assert counts["small"].min() > 80
    assert counts["small"].max() < 120
    assert counts["large"].min() > 400


def test_quality_has_the_best_last_in_each_pass() -> None:
    frame = kept(a=40, b=40)
    scores = dict(frame.select("id", "score").iter_rows())
    once = [scores[id] for id in mix.mix(frame, {}, "quality", 0)["id"]]
    assert once == sorted(scores.values())
    for part in passes(mix.mix(frame, {"a": 2, "b": 2}, "quality", 0), 2):
        assert [scores[id] for id in part["id"]] == sorted(scores.values())


def test_documents_without_a_score_have_no_order_of_quality() -> None:
    frame = kept(a=3)
    holed = frame.with_columns(score=pl.Series([0.1, None, 0.3]))
    for missing in (frame.drop("score"), holed):
        with pytest.raises(BadInput, match="without a score"):
            mix.mix(missing, {}, "quality", 0)


def test_a_curriculum_begins_with_what_is_short_and_easy() -> None:
    frame = kept(a=4).with_columns(
        words=pl.Series([100, 100, 900, 900]),
        sentences=pl.Series([10, 4, 90, 30]),
        word_length=pl.Series([4.0, 5.0, 4.0, 5.5]),
    )
    read = mix.mix(frame, {}, "curriculum", 0)["id"].to_list()
    places = [read.index(id) for id in frame["id"]]
    assert places[0] == 0
    assert places[3] == 3


def test_texts_without_spaces_go_by_their_length() -> None:
    frame = kept(a=30).with_columns(word_length=pl.lit(None, pl.Float64))
    lengths = dict(frame.select("id", "words").iter_rows())
    read = [lengths[id] for id in mix.mix(frame, {}, "curriculum", 0)["id"]]
    assert read == sorted(lengths.values())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"c": 1.0}, 'weight to "c"'),
        ({"a": -1.0}, "is -1"),
        ({"a": float("nan")}, "is nan"),
        ({"a": float("inf")}, "is inf"),
        ({"a": 0.0, "b": 0.0}, "leave no document"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        mix.mix(kept(a=3, b=3), weights, "shuffled", 0)


def test_the_table_counts_what_is_there_and_what_is_read() -> None:
    frame = kept(a=2, b=2).with_columns(words=pl.Series([10, 20, 30, 40]))
    told = mix.table(frame, {"a": 2}, 0)
    assert told.select("source", "documents", "words", "weight", "read_words").rows() == [
        ("a", 2, 30, 2.0, 60),
        ("b", 2, 70, 1.0, 70),
    ]
    assert told["share"].to_list() == pytest.approx([60 / 130, 70 / 130])


def test_more_than_four_readings_are_warned_of() -> None:
    assert mix.warnings({"a": 4.0, "b": 0.5}) == []
    assert "source a is read 4.5 times" in mix.warnings({"a": 4.5})[0]


def test_chance_goes_by_id_seed_and_purpose() -> None:
    ids = kept(a=5000)["id"]
    one = draw.drawn(ids, 0, "x")
    assert np.array_equal(one[::-1], draw.drawn(ids.reverse(), 0, "x"))
    assert len(np.unique(one)) == 5000
    for other in (draw.drawn(ids, 1, "x"), draw.drawn(ids, 0, "y")):
        assert abs(np.corrcoef(one.astype(float), other.astype(float))[0, 1]) < 0.06
    assert np.histogram(one.astype(float), 10, (0, 2.0**64))[0].min() > 400
    # A number is the same for ever, or half of a mix would change with a new version.
    assert draw.drawn(pl.Series(["0123456789abcdef"]), 7, "pass 0").tolist() == [
        15679574637316242545
    ]


def test_a_sample_is_of_so_many_whatever_their_order() -> None:
    ids = kept(a=300)["id"]
    rows = draw.sample(ids, 40, 0, "x")
    assert len(set(rows)) == 40
    turned = ids.reverse()
    assert ids.gather(rows).to_list() == turned.gather(draw.sample(turned, 40, 0, "x")).to_list()
    assert sorted(draw.sample(ids, 900, 0, "x")) == list(range(300))
    assert draw.sample(ids[:0], 5, 0, "x").tolist() == []
