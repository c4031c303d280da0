import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from bantam.errors import BadInput
from bantam.judge.overlap import generation, row_chrf

# sacrebleu's documentation, "Variable Number of References": None where a sentence has fewer.
COLUMNS = [
    [None, "It was not unexpected.", "The man bit him first."],
    ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."],
]
SYSTEM = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
ROWS = [[one for one in row if one is not None] for row in zip(*COLUMNS, strict=True)]


def test_agrees_with_the_example_of_sacrebleu() -> None:
    scores = generation(ROWS, SYSTEM, [""] * 3)
    assert scores["bleu"] == pytest.approx(BLEU().corpus_score(SYSTEM, COLUMNS).score / 100)
    assert scores["bleu"] == pytest.approx(0.2944, abs=1e-3)
    assert scores["chrf"] == pytest.approx(CHRF().corpus_score(SYSTEM, COLUMNS).score / 100)


def random_rows(seed: int, rows: int = 60) -> tuple[list[list[str]], list[str]]:
    """Sentences of few words, with 1 to 4 references each."""
    dice = random.Random(seed)
    vocabulary = ["the", "a", "dog", "man", "saw", "it,", "ran.", "home!", "Twice", "_x_", "don't"]

    def sentence() -> str:
        return " ".join(dice.choices(vocabulary, k=dice.randint(0, 12)))

    references = [[sentence() for _ in range(dice.randint(1, 4))] for _ in range(rows)]
    answers = [
        dice.choice(here) if dice.random() < 0.2 else f"{dice.choice(here)} {sentence()}"
        for here in references
    ]
    return references, answers


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_sacrebleu_and_rouge_score(seed: int) -> None:
    references, answers = random_rows(seed)
    most = max(map(len, references))
    columns = [[row[n] if n < len(row) else None for row in references] for n in range(most)]
    scores = generation(references, answers, [""] * len(answers))
    assert scores["bleu"] == pytest.approx(BLEU().corpus_score(answers, columns).score / 100)
    assert scores["chrf"] == pytest.approx(CHRF().corpus_score(answers, columns).score / 100)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    rows = [scorer.score_multi(here, one) for here, one in zip(references, answers, strict=True)]
    for name in ("rouge1", "rouge2", "rougeL"):
        assert scores[name] == pytest.approx(np.mean([row[name].fmeasure for row in rows]))

    chrf = row_chrf(references, answers)
    assert chrf.shape == (len(answers),)
    assert chrf.dtype == np.float64
    for score, here, answer in zip(chrf, references, answers, strict=True):
        if answer.strip() or all(here):
            assert score * 100 == pytest.approx(CHRF().sentence_score(answer, here).score)
            best = max(CHRF().sentence_score(answer, [one]).score for one in here)
            assert score * 100 == pytest.approx(best)


def test_shares_counted_by_hand() -> None:
    scores = generation(
        [["The cat sat."], ["One two three four", "One two"], ["gone"]],
        ["the CAT slept on", "One two", None],
        ["A cat slept, I think", "two", "here"],
    )
    assert scores["exact_match"] == pytest.approx(1 / 3)
    assert scores["length_ratio"] == pytest.approx((4 + 2 + 0) / (3 + 3 + 1))
    assert scores["copied"] == pytest.approx(3 / 6)  # cat, slept, two
    assert scores["invented"] == pytest.approx(1 / 6)  # on
    # Two of three words, two of four; all; nothing. The pair is the cat's.
    assert scores["rouge1"] == pytest.approx((2 * 2 / (3 + 4) + 1 + 0) / 3)
    assert scores["rouge2"] == pytest.approx((2 * 1 / (2 + 3) + 1 + 0) / 3)
    assert scores["rougeL"] == pytest.approx((2 * 2 / (3 + 4) + 1 + 0) / 3)


def test_words_of_any_script() -> None:
    texts = ["Größe über alles Maß", "Это не то слово", "γιατί όχι αυτό εδώ"]
    scores = generation([[text] for text in texts], texts, texts)
    assert scores["rouge1"] == scores["rougeL"] == scores["copied"] == 1
    scores = generation([["Größe"]], ["Groß"], ["Maß"])
    assert (scores["rouge1"], scores["invented"]) == (0, 1)


def test_nothing_written() -> None:
    scores = generation([["some words here"], [""]], [None, ""], ["x", "x"])
    assert scores["exact_match"] == 0.5
    assert scores["copied"] is scores["invented"] is None
    for name in ("chrf", "bleu", "rouge1", "rouge2", "rougeL", "length_ratio"):
        assert scores[name] == 0
    assert row_chrf([["some"], [""], ["a", " "], [""]], [None, "", None, "x"]).tolist() == [
        *(0, 1, 1, 0)
    ]
    assert generation([[""]], ["x"], ["x"])["length_ratio"] is None


def test_a_warning_of_sacrebleu_does_not_reach_the_user(caplog: pytest.LogCaptureFixture) -> None:
    generation([["It is so ."]] * 120, ["It is so ."] * 120, [""] * 120)
    assert not caplog.records


def test_bad_input() -> None:
    for score in (lambda *a: generation(*a, ["x"] * len(a[0])), row_chrf):
        with pytest.raises(BadInput, match="no test rows"):
            score([], [])
        with pytest.raises(BadInput, match="row 2 has no reference"):
            score([["a"], []], ["a", "b"])


WORDS = ["ab", "cd", "ef", "Gh", "über", "12", "x-y", "."]
SENTENCES = st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join)
TEXTS = SENTENCES | st.text(max_size=12)
MANY = st.lists(
    st.tuples(st.lists(TEXTS, min_size=1, max_size=3), st.none() | TEXTS, TEXTS),
    min_size=1,
    max_size=5,
)
SHARES = ("exact_match", "chrf", "bleu", "rouge1", "rouge2", "rougeL", "copied", "invented")


@settings(deadline=None)  # the first example imports sacrebleu and rouge-score
@given(MANY, st.randoms())
def test_shares_are_shares_and_the_order_of_rows_is_none_of_theirs(
    rows: list[tuple[list[str], str | None, str]], order: random.Random
) -> None:
    scores = generation(*zip(*rows, strict=True))
    assert all(scores[name] is None or 0 <= scores[name] <= 1 for name in SHARES)
    if scores["copied"] is not None:
        assert scores["copied"] + scores["invented"] <= 1 + 1e-9
    chrf = row_chrf([row[0] for row in rows], [row[1] for row in rows])
    assert ((chrf >= 0) & (chrf <= 1)).all()
    places = list(range(len(rows)))
    order.shuffle(places)
    moved = [rows[place] for place in places]
    assert generation(*zip(*moved, strict=True)) == pytest.approx(scores)
    assert row_chrf([row[0] for row in moved], [row[1] for row in moved]).tolist() == [
        chrf[place] for place in places
    ]


LONG = st.lists(st.sampled_from(WORDS[:6]), min_size=4, max_size=9)


@settings(deadline=None)
@given(st.lists(st.tuples(LONG.map(" ".join), SENTENCES), min_size=1, max_size=5))
def test_perfect_answers_score_one(rows: list[tuple[str, str]]) -> None:
    answers = [answer for answer, _ in rows]
    references = [[other, answer] for answer, other in rows]
    scores = generation(references, answers, answers)
    assert [scores[name] for name in SHARES] == pytest.approx([1, 1, 1, 1, 1, 1, 1, 0])
    assert row_chrf(references, answers) == pytest.approx(np.ones(len(rows)))


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_the_row_chrf_of_a_text_with_itself_is_one(texts: list[str]) -> None:
    assert row_chrf([[text] for text in texts], texts) == pytest.approx(np.ones(len(texts)))
