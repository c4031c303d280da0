"""C4's rules on lines, against plain Python line by line."""

import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bantam.documents import c4
from bantam.documents.normalise import normalise
from bantam.recipe_documents import C4

PIECES = [
    "a sentence that ends.",
    "Stop!",
    '"quoted"',
    "no end",
    "and so on...",
    "JavaScript",
    "x" * 12,
]
PIECES += [
    "uses Cookies",
    "Privacy policy",
    "[12]",
    "[edit]",
    "[citation needed]",
    "[]",
    "漢字" * 9,
]
PIECES += ["\n", "\n", "\n", "\n\n", "  - indented", "é" * 11]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=20).map(" ".join)
RULES = st.builds(
    C4,
    line_ends=st.booleans(),
    min_line_words=st.none() | st.just(3),
    max_word_characters=st.none() | st.just(10),
    javascript=st.booleans(),
    policy=st.booleans(),
    citations=st.booleans(),
)


def frame(*texts: str) -> pl.DataFrame:
    ids = [f"{number:016x}" for number in range(len(texts))]
    return pl.DataFrame({"id": ids, "text": pl.Series(texts, dtype=pl.String)})


def against(line: str, rules: C4) -> str | None:
    """The first rule that is against a line without citations."""
    words = line.split()
    low = line.lower().strip()
    spaced = 2 * len(re.findall("[漢字]", low)) <= len(low)
    if not words:
        return None
    if rules.max_word_characters and spaced and max(map(len, words)) > rules.max_word_characters:
        return "max_word_characters"
    if rules.line_ends and (low[-1] not in ".?!\"'" or low.endswith("...")):
        return "line_ends"
    if rules.min_line_words and spaced and len(words) < rules.min_line_words:
        return "min_line_words"
    if rules.javascript and "javascript" in low:
        return "javascript"
    return "policy" if rules.policy and any(words in low for words in c4.POLICIES) else None


@given(st.lists(TEXTS, max_size=4), RULES)
def test_lines_go_as_they_do_in_plain_python(texts: list[str], rules: C4) -> None:
    plain = normalise(pl.Series(texts, dtype=pl.String), markup=False)[0].to_list()
    kept, dropped = c4.drop(frame(*plain), rules)
    told = []
    for number, text in enumerate(plain):
        if rules.citations and re.search(r"\[\d*\]|\[edit\]|\[citation needed\]", text):
            text = re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", text)
            text = "\n".join(line.rstrip() for line in text.split("\n")).strip()
        lines = text.split("\n")
        reasons = [against(line, rules) for line in lines]
        stays = "\n".join(line for line, reason in zip(lines, reasons, strict=True) if not reason)
        if any(reasons):
            stays = re.sub("\n{3,}", "\n\n", stays).strip()
        assert kept["text"][number] == stays
        told += [
            (f"{number:016x}", row, line, f"c4.{reason}")
            for row, (line, reason) in enumerate(zip(lines, reasons, strict=True), 1)
            if reason
        ]
    assert dropped.drop("value").rows() == told


@pytest.mark.parametrize(
    ("line", "reason", "value"),
    [
        ("Please turn on Javascript to see this.", "c4.javascript", "Javascript"),
        ("By going on you accept our Cookie Policy.", "c4.policy", "Cookie Policy"),
        (f"A word of {'w' * 1001} is none.", "c4.max_word_characters", "1001"),
    ],
)
def test_what_goes_by_default(line: str, reason: str, value: str) -> None:
    text = f"A heading\n\n{line}\n\n    indented = code"
    kept, dropped = c4.drop(frame("untouched", text), C4())
    assert kept["text"].to_list() == ["untouched", "A heading\n\n    indented = code"]
    assert dropped.rows() == [(f"{1:016x}", 3, line, reason, value)]


def test_a_long_paragraph_of_chinese_is_no_long_word() -> None:
    kept, dropped = c4.drop(frame("漢字" * 2000), C4(min_line_words=3))
    assert kept["text"][0] == "漢字" * 2000
    assert dropped.is_empty()


def test_all_rules_off_change_nothing() -> None:
    off = C4(max_word_characters=None, javascript=False, policy=False, citations=False)
    texts = frame("JavaScript [1]", "terms of use", "x" * 5000, "")
    kept, dropped = c4.drop(texts, off)
    assert kept.equals(texts)
    assert dropped.is_empty()
