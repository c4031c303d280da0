"""Copies: what is found of planted ones, and what is taken for one, by their true similarity."""

import random
from pathlib import Path

import numpy as np
import plain_rules
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.documents import duplicates, words

TEXTS = st.lists(st.sampled_from(["a", "B", "c", "D.", "e"]), max_size=9).map(" ".join)


def found(
    texts: list[str], ids: list[str] | None = None, licences: list[str | None] | None = None
) -> pl.DataFrame:
    split = words.split(pl.Series(texts, dtype=pl.String))
    sketch = duplicates.sketch(split)
    spoken = [sum(map(plain_rules.is_word, plain_rules.tokens(text))) for text in texts]
    documents = pl.DataFrame(
        {
            "id": pl.Series(ids or list(map(str, range(len(texts)))), dtype=pl.String),
            "licence": pl.Series(licences or [None] * len(texts), dtype=pl.String),
            "words": pl.Series(spoken, dtype=pl.Int64),
            "symbols": pl.Series(np.diff(split.first), dtype=pl.Int64) - pl.Series(spoken),
        }
    )
    return duplicates.find(documents, sketch.exact, sketch.signatures)


def written(length: int, seed: int) -> str:
    chosen = random.Random(seed)
    return " ".join(f"w{chosen.randrange(3000)}" for _ in range(length))


def changed(text: str, share: float, seed: int) -> str:
    """With this share of its words replaced."""
    chosen, spoken = random.Random(seed), text.split()
    for at in chosen.sample(range(len(spoken)), round(share * len(spoken))):
        spoken[at] = f"new{chosen.randrange(3000)}"
    return " ".join(spoken)


@pytest.mark.parametrize("length", [12, 60, 400])
@pytest.mark.parametrize("share", [0.02, 0.06, 0.15])
def test_signatures_agree_as_often_as_the_texts_are_alike(length: int, share: float) -> None:
    """In the mean of 200 pairs within four standard errors, and each within what chance allows."""
    ones = [written(length, seed) for seed in range(200)]
    others = [changed(text, max(share, 1 / length), seed) for seed, text in enumerate(ones)]
    drawn = duplicates.sketch(words.split(pl.Series(ones + others))).signatures
    agreed = (drawn[:200] == drawn[200:]).mean(axis=1)
    true = np.array(list(map(plain_rules.jaccard, ones, others)))
    spread = np.sqrt(true * (1 - true) / duplicates.NUMBERS)
    assert abs((agreed - true).mean()) < 4 * np.sqrt((spread**2).mean() / 200)
    assert (np.abs(agreed - true) <= 5 * spread).all()


def test_planted_copies_are_found_by_how_alike_they_are() -> None:
    """Recall by band of true similarity, precision of what goes and of clusters."""
    originals = [written(80 + seed % 300, seed) for seed in range(500)]
    copies = [
        changed(text, 0.001 + 0.06 * (seed % 50) / 50, seed) for seed, text in enumerate(originals)
    ]
    true = np.array(list(map(plain_rules.jaccard, originals, copies)))
    told = found(originals + copies)
    cluster, survivor = told["cluster"].to_numpy(), told["survivor"]
    together = cluster[:500] == cluster[500:]

    def recall(low: float, high: float) -> float:
        band = (true >= low) & (true <= high)
        assert band.sum() > 30
        return float(together[band].mean())

    assert recall(0.95, 1) == 1
    assert recall(0.85, 0.95) > 0.99
    assert recall(0.75, 0.85) > 0.85
    assert recall(0.3, 0.6) < 0.02
    gone = [(at, int(name)) for at, name in enumerate(survivor) if name is not None]
    texts = originals + copies
    alike = [plain_rules.jaccard(texts[one], texts[other]) for one, other in gone]
    assert np.mean(np.array(alike) >= 0.75) > 0.85
    assert min(alike) > 0.6
    assert all(one % 500 == other % 500 for one, other in gone)  # no strangers


@settings(max_examples=60)
@given(st.lists(TEXTS, max_size=12), st.randoms())
def test_exact_copies_and_what_always_holds(texts: list[str], chosen: random.Random) -> None:
    told = found(texts)
    tokens = [tuple(map(plain_rules.folded, plain_rules.tokens(text))) for text in texts]
    by_id = {row["id"]: row for row in told.iter_rows(named=True)}
    for one, row in zip(tokens, told.iter_rows(named=True), strict=True):
        survivor = row["survivor"]
        assert 0 < row["similarity"] <= 1
        if survivor is None:
            assert row["similarity"] == 1
            assert tokens.count(one) == 1 or all(
                other["survivor"] is not None
                for twin, other in zip(tokens, told.iter_rows(named=True), strict=True)
                if twin == one and other["id"] != row["id"]
            )
        else:
            assert by_id[survivor]["survivor"] is None  # what stays in its place stays
            assert by_id[survivor]["cluster"] == row["cluster"]
    for one, first in zip(tokens, told["cluster"], strict=True):
        assert all(c == first for t, c in zip(tokens, told["cluster"], strict=True) if t == one)
    # The order of the documents is no matter.
    order = list(range(len(texts)))
    chosen.shuffle(order)
    again = found([texts[at] for at in order], [str(at) for at in order])
    pairs = ["id", "survivor", "similarity"]
    assert again.select(pairs).sort("id").equals(told.select(pairs).sort("id"))


def test_case_and_white_space_make_no_difference_but_symbols_do() -> None:
    told = found(["One  two\nthree.", "one TWO three.", "one two three!"])
    assert told["survivor"][1] == "0"
    assert told["similarity"].to_list() == [1, 1, 1]
    assert told.filter(pl.col("survivor").is_null()).height == 1  # near: the words are the same


def test_the_best_copy_stays() -> None:
    text = written(300, 1)
    texts = [text, f"{text} and more", f"{text} and more -- !", f"{text} and", text.upper()]
    assert found(texts)["survivor"].to_list() == ["1", None, "1", "1", "1"]
    licences = [None, None, None, "MIT", None]
    assert found(texts, licences=licences)["survivor"].to_list() == ["3", "3", "3", None, "3"]


def test_a_chain_of_small_changes_takes_nothing_along() -> None:
    """Each text is near the next, the first far from the last: what goes is near what stays."""
    chain = [written(400, 3)]
    for seed in range(12):
        chain.append(changed(chain[-1], 0.015, seed))
    assert plain_rules.jaccard(chain[0], chain[-1]) < 0.4
    told = found(chain)
    assert told["cluster"].n_unique() == 1
    stays = told.filter(pl.col("survivor").is_null())
    assert 1 < len(stays) < 8
    for at, name in enumerate(told["survivor"]):
        if name is not None:
            assert plain_rules.jaccard(chain[at], chain[int(name)]) > 0.65


def test_marks_and_earlier_reasons() -> None:
    text = written(200, 5)
    told = found([text, text, changed(text, 0.01, 1), "another text"])
    frame = told.select("id", reason=pl.lit(None, pl.String), value=pl.lit(None, pl.String))
    marked = duplicates.mark(frame, told)
    assert marked["reason"].to_list() == [None, "duplicate", "near duplicate", None]
    alike = round(told["similarity"][2], 2)
    assert marked["value"].to_list() == [None, "0", f"0, {alike} alike", None]
    language = frame.with_columns(reason=pl.lit("language"), value=pl.lit("de 0.9"))
    assert duplicates.mark(language, told).equals(language)


def test_signatures_may_lie_in_a_file(tmp_path: Path) -> None:
    texts = [changed(written(100, at // 3), 0.01, at) for at in range(60)]
    sketch = duplicates.sketch(words.split(pl.Series(texts)))
    sketch.signatures.tofile(tmp_path / "signatures")
    mapped = np.memmap(tmp_path / "signatures", np.uint32, "r", shape=sketch.signatures.shape)
    documents = pl.DataFrame({"id": list(map(str, range(60)))}).with_columns(
        licence=pl.lit(None, pl.String), words=100, symbols=0
    )
    told = duplicates.find(documents, sketch.exact, mapped)
    assert told.equals(duplicates.find(documents, sketch.exact, sketch.signatures))
    assert told["survivor"].is_null().sum() == 20


def test_a_thousand_near_copies_are_quick_and_one_stays() -> None:
    text = written(150, 9)
    texts = [f"{text} number {at}" for at in range(1000)]
    assert found(texts)["survivor"].is_null().sum() == 1


def test_clusters_of_a_small_frame() -> None:
    text = written(60, 7)
    texts = pl.Series(["short", text, "Short", f"{text} more", "", "other words", ""])
    told = duplicates.clusters(texts).to_list()
    assert told[0] == told[2] and told[1] == told[3] and told[4] == told[6]
    assert len(set(told)) == 4
    assert duplicates.clusters(pl.Series([], dtype=pl.String)).to_list() == []
