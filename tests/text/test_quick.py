"""The quick model is asked about rows that it has not learned from, and is quick."""

import random
import time

import numpy as np
import pytest

from bantam.documents.folds import FOLDS
from bantam.text import quick

WORDS = [f"word{n}" for n in range(3000)]


def talk(rows: int, labels: int, seed: int = 0) -> tuple[list[str], list[int]]:
    """Texts of 30 words, four of which tell their label."""
    dice = random.Random(seed)
    given = [n % labels for n in range(rows)]
    texts = [
        " ".join(
            [
                *(f"mark{label}x{dice.randrange(20)}" for _ in range(4)),
                *dice.choices(WORDS, k=26),
            ]
        )
        for label in given
    ]
    return texts, given


def test_labels_are_learned_from_other_rows_only() -> None:
    """Texts of which each has words of its own alone: whoever saw the row would know it."""
    texts = [f"alone{n} sole{n} single{n}" for n in range(200)]
    given = np.random.default_rng(0).integers(0, 2, 200)
    shares = quick.labels(texts, given, np.arange(200) % FOLDS, 0)
    assert shares.shape == (200, 2) and shares.sum(axis=1) == pytest.approx(1)
    assert 0.3 < np.mean(shares.argmax(axis=1) == given) < 0.65
    sets = quick.sets(texts, np.eye(2, dtype=bool)[given], np.arange(200) % FOLDS, 0)
    assert 0.3 < np.mean((sets > 0.5)[:, 1] == given) < 0.65


def test_words_that_tell_the_label_are_learned() -> None:
    texts, labels = talk(400, 4)
    given, fold = np.array(labels), np.arange(400) // 4 % FOLDS
    assert np.mean(quick.labels(texts, given, fold, 0).argmax(axis=1) == given) > 0.95
    sets = quick.sets(texts, np.eye(4, dtype=bool)[given], fold, 0)
    assert np.mean(sets.argmax(axis=1) == given) > 0.95


def test_scripts_without_spaces_are_read_too() -> None:
    dice = random.Random(0)
    letters = "的一是不了人我在有他这为之大来以个中上们"
    texts = [
        "".join(dice.choices(letters, k=12)) + ("好货" if n % 2 else "坏品") for n in range(200)
    ]
    given = np.arange(200) % 2
    shares = quick.labels(texts, given, np.arange(200) // 2 % FOLDS, 0)
    assert np.mean(shares.argmax(axis=1) == given) > 0.95


def test_a_label_that_a_fold_holds_all_of_is_unlikely_there_and_no_error() -> None:
    given = np.array([0, 1] * 10 + [2, 2])
    texts = [f"some text {n}" for n in range(22)]
    shares = quick.labels(texts, given, np.array([0, 1] * 10 + [4, 4]), 0)
    assert (shares[20:, 2] == 0).all()
    everything = np.ones((22, 1), dtype=bool)
    assert (quick.sets(texts, everything, np.arange(22) % 5, 0) == 1).all()


def test_five_thousand_rows_are_asked_about_in_seconds() -> None:
    texts, labels = talk(5000, 5)
    began = time.process_time()
    quick.labels(texts, np.array(labels), np.arange(5000) // 10 % FOLDS, 0)
    assert time.process_time() - began < 20
