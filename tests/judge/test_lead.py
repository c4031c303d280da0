import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.errors import BadInput
from bantam.judge.lead import lead


def overlap(expected, answers) -> float:
    """Jaccard of the words; a difference in writing costs a little."""
    total = 0.0
    for one, other in zip(expected, answers, strict=True):
        a, b = set(one.split()), set(other.split())
        total += len(a & b) / max(1, len(a | b))
    return total / len(expected)


def exact(expected, answers) -> float:
    return sum(a == b for a, b in zip(expected, answers, strict=True)) / len(expected)


NEWS = [
    "Mr. Smith has bought a boat. He paid with shells.\nMore at ten.",
    "Rain falls on J. R. Town! Nobody minds it.\nMore at ten.",
    "Prices rose by 3.5 percent. Bakers are glad.\nMore at ten.",
    "“We won.” So said the team.\nMore at ten.",
]
FIRST = [
    "Mr. Smith has bought a boat.",
    "Rain falls on J. R. Town!",
    "Prices rose by 3.5 percent.",
    "“We won.”",
]


def variant(texts, outputs):
    rival = lead(texts, outputs, texts, outputs, exact)
    assert rival.validation_score == 1.0
    return rival


def test_the_first_sentence_is_found() -> None:
    rival = variant(NEWS, FIRST)
    assert rival.choice["start"] == "sentence"
    assert rival.choice["words"] is None
    assert rival.answer(["One. Two."]) == ["One."]
    assert rival.answer(["今天下雨。明天晴。", "no end", "", " \n "]) == [
        "今天下雨。",
        "no end",
        "",
        "",
    ]


def test_the_first_line_the_whole_text_and_the_first_words() -> None:
    assert variant(NEWS, [text.split("\n")[0] for text in NEWS]).choice["start"] == "line"
    assert variant(NEWS, NEWS).choice["start"] == "text"
    rival = variant(NEWS, [" ".join(text.split()[:4]) for text in NEWS])
    assert rival.choice["words"] == 4
    assert rival.answer(["a b  c d e f"]) == ["a b  c d"]


def test_the_full_stop_and_the_first_letter() -> None:
    rival = variant(NEWS, [text.removesuffix(".") for text in FIRST])
    assert rival.choice["drop_stop"]
    assert not rival.choice["lower_first"]
    rival = variant(NEWS, [text[:1].lower() + text[1:] for text in FIRST])
    assert rival.choice["lower_first"]
    assert rival.answer(["Go home. Now."]) == ["go home."]


def test_the_length_is_that_of_all_references() -> None:
    texts = ["a b c d e f g h"] * 3
    rival = lead(texts, ["a b"] * 3, texts, ["a b c d"] * 3, overlap)
    assert rival.choice["rows"] == 6
    assert rival.choice["words"] is None or 2 <= rival.choice["words"] <= 4


def test_the_best_is_chosen_by_the_score_given() -> None:
    def shortest(expected, answers) -> float:
        return -float(sum(map(len, answers)))

    rival = lead(NEWS, FIRST, NEWS, FIRST, shortest)
    assert rival.validation_score == shortest([], rival.answer(NEWS))


def test_what_cannot_be_fitted_says_so() -> None:
    with pytest.raises(BadInput, match="no training rows"):
        lead([], [], NEWS, FIRST, exact)
    with pytest.raises(BadInput, match="no validation rows"):
        lead(NEWS, FIRST, [], [], exact)


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=4), st.text())
@settings(deadline=None, max_examples=100)
def test_any_text_is_answered(rows, other) -> None:
    texts, outputs = [text for text, _ in rows], [output for _, output in rows]
    rival = lead(texts, outputs, texts, outputs, overlap)
    for text, answer in zip([*texts, other], rival.answer([*texts, other]), strict=True):
        assert len(answer) <= len(text) + 2  # a letter may grow when it is written small
