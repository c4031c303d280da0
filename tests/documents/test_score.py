"""The learned score: what it learns, that length is nothing it learns, and what is told of it."""

import math
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from bantam.documents import score, words
from bantam.documents.score import BITS, DOUBT, Scorer
from bantam.errors import BadInput

LINKS = "the of and to a in is that it for on with as was at by this from or have"
COMMON = LINKS.split(" ")
GARDEN = [f"{plant}{part}" for plant in ("rose", "fern", "oak", "moss") for part in range(40)]
KITCHEN = [f"{dish}{part}" for dish in ("soup", "cake", "bread", "stew") for part in range(40)]


def prose(chance: random.Random, topic: list[str], length: int, share: float = 0.1) -> str:
    return " ".join(
        chance.choice(topic) if chance.random() < share else chance.choice(COMMON)
        for _ in range(length)
    )


def column(chance: random.Random, count: int, topic: list[str], length: int) -> pl.Series:
    return pl.Series([prose(chance, topic, length) for _ in range(count)], dtype=pl.String)


def scored(texts: pl.Series, scorer: Scorer) -> list[float]:
    return score.scores(words.split(texts), scorer).to_list()


def told(good: pl.Series, bad: pl.Series, scorer: Scorer) -> float:
    """The AUC of a scorer on texts that it has not seen."""
    kind = [1] * len(good) + [0] * len(bad)
    return float(roc_auc_score(kind, scored(pl.concat([good, bad]), scorer)))


def test_fifty_thumbs_tell_one_topic_from_another() -> None:
    chance = random.Random(1)
    scorer = score.learn(column(chance, 25, GARDEN, 120), column(chance, 25, KITCHEN, 120), 0)
    fresh = column(chance, 100, GARDEN, 120), column(chance, 100, KITCHEN, 120)
    assert (scorer.good, scorer.background) == (25, 25)
    assert told(*fresh, scorer) > 0.9
    assert scorer.auc > 0.8
    assert score.warnings(scorer) == []
    assert np.mean(scored(fresh[0], scorer)) > 0.55 > 0.45 > np.mean(scored(fresh[1], scorer))


def test_the_score_is_the_mean_weight_of_words_and_of_pairs() -> None:
    weights = np.random.default_rng(5).normal(size=1 << BITS).astype(np.float32)
    scorer = Scorer(weights, -0.25, 0.9, 0.1, 5, 5)
    texts = ["", "One", "one two, Two one", "Über 3 don't"]
    expected = []
    for text in texts:
        found = [int(hash) for hash in words.hashes(words.WORD.findall(text), fold=True)]
        pairs = []
        for before, word in pairwise(found):
            pair = (before * 0x100000001B3 + word) % 2**64
            pair ^= pair >> 33
            pair = pair * 0xFF51AFD7ED558CCD % 2**64
            pairs.append(pair ^ pair >> 29)
        halves = [[float(weights[hash >> 64 - BITS]) for hash in half] for half in (found, pairs)]
        mean = sum(sum(half) / max(len(half), 1) for half in halves) / 2
        grams = len(found) + len(pairs)
        expected.append(1 / (1 + math.exp(0.25 - mean * grams / (grams + DOUBT))))
    assert scored(pl.Series(texts), scorer) == pytest.approx(expected, abs=1e-9)


def test_nothing_is_learned_from_length_alone() -> None:
    """Texts of the same words, the good ones seven times as long."""
    chance = random.Random(2)
    topic = GARDEN + KITCHEN
    scorer = score.learn(column(chance, 300, topic, 280), column(chance, 300, topic, 40), 0)
    assert abs(scorer.auc - 0.5) < 0.1
    fresh = column(chance, 200, topic, 280), column(chance, 200, topic, 40)
    assert abs(told(*fresh, scorer) - 0.5) < 0.15


def test_what_was_learned_from_long_good_texts_holds_for_short_ones() -> None:
    chance = random.Random(3)
    scorer = score.learn(column(chance, 200, GARDEN, 300), column(chance, 200, KITCHEN, 60), 0)
    assert told(column(chance, 200, GARDEN, 60), column(chance, 200, KITCHEN, 300), scorer) > 0.95


def test_a_text_written_down_twice_moves_away_from_the_middle_a_little() -> None:
    chance = random.Random(4)
    scorer = score.learn(column(chance, 50, GARDEN, 100), column(chance, 50, KITCHEN, 100), 0)
    once = prose(chance, GARDEN, 200)
    one, two, shortest = scored(pl.Series([once, f"{once} {once}", once[:20]]), scorer)
    assert one <= two < one + 0.1
    assert shortest < one


def test_texts_drawn_at_random_are_told_to_say_nothing() -> None:
    chance = random.Random(5)
    topic = GARDEN + KITCHEN
    scorer = score.learn(column(chance, 40, topic, 100), column(chance, 40, topic, 100), 0)
    assert scorer.auc < 0.7
    assert len(score.warnings(scorer)) == 1


def test_warnings_go_by_the_auc_and_what_it_may_err() -> None:
    weights = np.zeros(1 << BITS, np.float32)
    scorer = Scorer(weights, 0.0, 0.55, 0.01, 500, 500)
    assert "next to nothing" in score.warnings(scorer)[0]
    scorer = Scorer(weights, 0.0, 0.65, score._error(0.65, 25, 25), 25, 25)
    assert "chance" in score.warnings(scorer)[0]
    assert score.warnings(Scorer(weights, 0.0, 0.65, score._error(0.65, 500, 500), 500, 500)) == []


def test_the_error_of_an_auc_is_what_hanley_and_mcneil_have() -> None:
    """By pairs, counted one by one, of many draws from two normal distributions."""
    chance = np.random.default_rng(6)
    one, other = chance.normal(1, 1, (2000, 30)), chance.normal(0, 1, (2000, 20))
    drawn = (one[:, :, None] > other[:, None, :]).mean((1, 2))
    assert score._error(float(drawn.mean()), 30, 20) == pytest.approx(drawn.std(), rel=0.15)


def test_copies_across_folds_do_not_make_an_auc() -> None:
    """Each side is few texts, each nearly the same many times: nothing that holds for others."""
    chance = random.Random(7)
    topic = [f"word{number}" for number in range(2000)]
    sides = []
    for _ in range(2):
        texts = [prose(chance, topic, 150, 0.5) for _ in range(10)]
        sides.append(pl.Series([f"{text} {copy}" for text in texts for copy in range(20)]))
    assert score.learn(*sides, 0).auc < 0.75


def test_what_is_called_good_is_no_background() -> None:
    chance = random.Random(8)
    good, bad = column(chance, 20, GARDEN, 80), column(chance, 20, KITCHEN, 80)
    assert score.learn(good, pl.concat([bad, good, bad]), 0).background == 20


def test_too_few_texts_are_refused() -> None:
    chance = random.Random(9)
    many, few = column(chance, 20, GARDEN, 80), column(chance, 1, KITCHEN, 80)
    copies = pl.Series([f"{few[0]} {number}" for number in range(10)])
    with pytest.raises(BadInput, match="1 different texts to hold against them"):
        score.learn(many, copies, 0)
    with pytest.raises(BadInput, match="0 different texts called good"):
        score.learn(pl.Series([], dtype=pl.String), many, 0)


def test_the_same_seed_learns_the_same_and_a_file_holds_it(tmp_path: Path) -> None:
    chance = random.Random(10)
    good, bad = column(chance, 20, GARDEN, 80), column(chance, 20, KITCHEN, 80)
    one, two = score.learn(good, bad, 3), score.learn(good, bad, 3)
    path = tmp_path / "scorer.npz"
    score.save(one, path)
    for other in (two, score.load(path)):
        assert np.array_equal(one.weights, other.weights)
        assert (one.bias, one.auc, one.good) == (other.bias, other.auc, other.good)


@pytest.mark.parametrize("change", ["pickle", "shape", "version", "nan", "torn", "large", "text"])
def test_a_file_that_is_no_scorer_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "scorer.npz"
    arrays = {
        "version": np.array(1),
        "weights": np.zeros(1 << BITS, np.float32),
        "numbers": np.zeros(3),
        "counts": np.zeros(2, np.int64),
    }
    arrays |= {
        "pickle": {"numbers": np.array([{}, {}, {}], object)},
        "shape": {"weights": np.zeros(7, np.float32)},
        "version": {"version": np.array(2)},
        "nan": {"numbers": np.array([np.nan, 0, 0])},
        "large": {"more": np.zeros(20_000_000, np.uint8)},
    }.get(change, {})
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    if change == "torn":
        path.write_bytes(path.read_bytes()[:-100])
    if change == "text":
        path.write_text("a scorer")
    with pytest.raises(BadInput):
        score.load(path)


def test_the_share_that_is_kept_is_the_dial() -> None:
    drawn = pl.Series("score", np.random.default_rng(11).permutation(1000) / 1000)
    frame = pl.DataFrame({"score": drawn}).with_columns(
        reason=pl.lit(None, pl.String), value=pl.lit(None, pl.String)
    )
    for share, kept in ((0.1, 100), (0.5, 500), (1.0, 1000)):
        marked = score.mark(frame, score.threshold(drawn, share))
        assert abs(marked["reason"].null_count() - kept) <= 1
    assert marked["reason"].null_count() == 1000
    row = score.mark(frame, 0.5).filter(pl.col("score") == 0.499)
    assert row.select("reason", "value").row(0) == ("score", "0.499")
    assert score.threshold(pl.Series([], dtype=pl.Float64), 0.5) == 0


def test_a_reason_that_was_there_stays() -> None:
    frame = pl.DataFrame({"score": [0.1], "reason": ["language"], "value": ["de 0.9"]})
    assert score.mark(frame, 0.5).equals(frame)
