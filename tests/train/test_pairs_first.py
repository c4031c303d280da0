"""What follows each token: counted rightly, smoothed, drawn fairly, and known by the decoder."""

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import tiny_corpus
from bantam.corpus.shards import Corpus
from bantam.nets import fresh
from bantam.nets.decoder import Decoder
from bantam.train import held_out, pairs
from bantam.train.optimizers import optimizers

SHAPE = fresh.config(tiny_corpus.SIZE, 32, 64)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Corpus]:
    """To learn from, in two shards, and to be judged by."""
    folder = tmp_path_factory.mktemp("pairs")
    made = tiny_corpus.tokenizer()
    learned = tiny_corpus.corpus(
        folder / "train", made, tiny_corpus.texts(300, 1), tiny_corpus.texts(200, 2)
    )
    return learned, tiny_corpus.corpus(folder / "held", made, tiny_corpus.texts(80, 3))


@pytest.fixture(scope="module")
def found(corpora: tuple[Corpus, Corpus]) -> pairs.Followers:
    return pairs.followers(corpora[0], np.arange(len(corpora[0])), tiny_corpus.SIZE)


@pytest.mark.parametrize("at_once", [1 << 22, 900])
def test_neighbours_are_counted(
    corpora: tuple[Corpus, Corpus], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned, _ = corpora
    monkeypatch.setattr(pairs, "AT_ONCE", at_once)
    numbers = np.array([0, 7, *range(290, 420)])
    made = pairs.followers(learned, numbers, tiny_corpus.SIZE)
    documents = [learned.document(number).tolist() for number in numbers]
    inside = Counter(pair for ids in documents for pair in pairwise(ids))
    dense = made.counts.toarray()
    edges = dense[:, learned.edge].sum()
    for (before, after), count in inside.items():
        assert dense[before, after] == count
    assert dense.sum() - sum(inside.values()) == edges  # each document's end, told by the next one
    assert len(documents) - 20 <= edges < len(documents)


def test_no_more_is_counted_than_there_is_time_for(
    corpora: tuple[Corpus, Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    learned, _ = corpora
    monkeypatch.setattr(pairs, "MOST", 1000)
    made = pairs.followers(learned, np.arange(len(learned)), tiny_corpus.SIZE)
    assert 700 < made.counts.sum() < 1300


def test_counts_are_trusted_as_far_as_they_predict(
    corpora: tuple[Corpus, Corpus], found: pairs.Followers
) -> None:
    learned, held = corpora
    assert found.shares(np.arange(5)).sum(1) == pytest.approx(np.ones(5), abs=1e-5)
    few = pairs.followers(learned, np.arange(6), tiny_corpus.SIZE)
    assert few.trust > found.trust  # what was seen a few times tells little

    def surprise(made: pairs.Followers) -> float:
        ids = np.concatenate([held.document(n).astype(int) for n in range(len(held))])
        rows = made.shares(ids[:-1])
        return float(-np.log(rows[np.arange(len(rows)), ids[1:]]).mean())

    # By documents that neither was chosen by.
    for made, near in ((found, 0.01), (few, 0.1)):
        others = [surprise(made._replace(trust=trust)) for trust in pairs.TRUST]
        assert surprise(made) == pytest.approx(min(others), rel=near)


@given(st.lists(st.floats(0.001, 1000), min_size=3, max_size=60), st.data())
def test_each_is_drawn_as_often_as_it_should_be(wish: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(wish)))
    chances = pairs._inclusion(np.array(wish), count)
    assert chances.sum() == pytest.approx(count)
    assert (chances <= 1 + 1e-12).all()
    below = chances < 1
    ratio = chances[below] / np.array(wish)[below]
    assert ratio == pytest.approx(np.full(below.sum(), ratio[0] if below.any() else 0))
    drawn = pairs._drawn(np.random.default_rng(0), chances)
    assert len(drawn) == len(set(drawn.tolist())) == count
    assert set(np.flatnonzero(chances >= 1).tolist()) <= set(drawn.tolist())


def test_the_mean_over_steps_is_the_loss_over_the_text() -> None:
    chance = np.random.default_rng(1)
    share = chance.dirichlet(np.full(50, 0.3))
    value = chance.normal(size=50)
    inclusion = pairs._inclusion(np.sqrt(share), 12)
    told = []
    for _ in range(4000):
        drawn = pairs._drawn(chance, inclusion)
        told.append((share[drawn] / inclusion[drawn] * value[drawn]).sum())
    error = np.std(told) / len(told) ** 0.5
    assert np.mean(told) == pytest.approx(share @ value, abs=4 * error)


def test_it_knows_what_counts_know_and_no_context(
    corpora: tuple[Corpus, Corpus], found: pairs.Followers
) -> None:
    _, held = corpora
    decoder = fresh.fresh(SHAPE)
    before = held_out.bits_per_byte(decoder, held, SHAPE.context)
    told: list[tuple[int, float]] = []
    pairs.learn(decoder, found, 80, "float32", report=lambda *line: told.append(line))
    after = held_out.bits_per_byte(decoder, held, SHAPE.context)
    ids = np.concatenate([held.document(n).astype(int) for n in range(len(held))])
    inside = ids[1:] != held.edge
    rows = found.shares(ids[:-1])[inside]
    counted = -np.log2(rows[np.arange(len(rows)), ids[1:][inside]]).sum() / held.sizes.sum()
    assert [done for done, _ in told] == list(range(1, 81))
    assert after < before / 2
    assert after == pytest.approx(counted, rel=0.04)
    # The other layers still change nothing: whatever came before, the last token says it all.
    several = torch.randint(0, tiny_corpus.SIZE, (3, 9))
    with torch.no_grad():
        torch.testing.assert_close(
            decoder.states(several), pairs.states(decoder, several), atol=1e-5, rtol=1e-4
        )


def test_the_seed_decides(found: pairs.Followers) -> None:
    def learned(seed: int) -> torch.Tensor:
        decoder = fresh.fresh(SHAPE)
        pairs.learn(decoder, found, 3, "float32", seed)
        return decoder.lm_head.weight.detach()

    assert torch.equal(learned(0), learned(0))
    assert not torch.equal(learned(0), learned(1))


def test_a_step_is_timed() -> None:
    assert 0 < pairs.seconds(fresh.fresh(SHAPE), "float32") < 5


def test_operations_are_those_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def adamw(decoder: Decoder, name: str, *how: Any) -> Any:  # Muon has products of its own
        return optimizers(decoder, "adamw", *how)

    monkeypatch.setattr(pairs, "optimizers", adamw)
    decoder = fresh.fresh(SHAPE)
    take = pairs.step_of(decoder, "float32")
    ids = np.arange(100)
    shares = np.full((100, tiny_corpus.SIZE), 1 / tiny_corpus.SIZE, "f4")
    with FlopCounterMode(display=False) as counted:
        take(ids, shares, np.full(100, 0.01, "f4"), 0.0)
    assert counted.get_total_flops() == pairs.operations(SHAPE) * 100 / pairs.ROWS
