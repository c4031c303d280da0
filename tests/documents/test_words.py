"""Words: what the compiled loop finds is what the definition says."""

import numpy as np
import plain_rules
import polars as pl
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from bantam.documents import words
from bantam.documents.words import LETTER, LETTERS, NUMBER, SYMBOL, WORD

# Letters that meet often in the tricky ways, and any others.
LETTERS_OF_NOTE = "aZß’'_ 1-.\n漢かカーกำ่ख़é\u0301\u00a0\U0001f600Σςİſ"
TEXTS = st.text(st.sampled_from(LETTERS_OF_NOTE) | st.characters(codec="utf-8"), max_size=40)


def spelled(text: str, found: words.Words, at: int) -> list[str]:
    """The tokens that the loop found in a text, cut out of it by their lengths."""
    lengths = found.length[found.first[at] : found.first[at + 1]]
    cut, here = [], 0
    for length in lengths:
        while regex.match(r"\s", text[here]):
            here += 1
        cut.append(text[here : here + length])
        here += length
    assert regex.fullmatch(r"\s*", text[here:])
    return cut


@given(st.lists(TEXTS, max_size=6))
def test_words_are_those_of_the_pattern_and_of_plain_python(texts: list[str]) -> None:
    found = words.split(pl.Series(texts, dtype=pl.String))
    names: dict[int, str] = {}
    folds: dict[int, str] = {}
    assert len(found) == len(texts)
    for at, text in enumerate(texts):
        tokens = WORD.findall(text)
        assert tokens == plain_rules.tokens(text)
        assert spelled(text, found, at) == tokens
        for token, place in zip(tokens, range(found.first[at], found.first[at + 1]), strict=True):
            assert found.length[place] == len(token)
            assert names.setdefault(int(found.exact[place]), token) == token
            assert folds.setdefault(int(found.folded[place]), plain_rules.folded(token)) == (
                plain_rules.folded(token)
            )
            assert (found.kind[place] != SYMBOL) == plain_rules.is_word(token)
    assert len(names) == len(set(names.values()))  # equal words have equal hashes
    assert len(folds) == len(set(folds.values()))


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("don't 3.14 ___", [LETTERS, NUMBER, SYMBOL, NUMBER, SYMBOL]),
        ("漢字 タイ", [LETTER] * 4),
        ("2e5 ½ #!", [LETTERS, NUMBER, SYMBOL, SYMBOL]),
        ("हिन्दी भाषा", [LETTERS, LETTERS]),
        ("한국어는 l’eau rock'n'roll 'quoted'", [LETTERS] * 3 + [SYMBOL, LETTERS, SYMBOL]),
    ],
)
def test_kinds(text: str, kinds: list[int]) -> None:
    assert words.split(pl.Series([text])).kind.tolist() == kinds


def test_hashes_are_the_same_on_every_machine() -> None:
    """They are stored with signatures: another hash would make old and new shards strangers."""
    assert words.hashes(["the", "漢"]).tolist() == [2451088437477253804, 1430049485269617363]
    assert words.hashes(["The"], fold=True) == words.hashes(["the"])


def test_several_words_have_no_hash() -> None:
    with pytest.raises(ValueError, match="not one word"):
        words.hashes(["two words"])


def test_nothing_has_no_words() -> None:
    found = words.split(pl.Series(["", " \n", ""]))
    assert found.first.tolist() == [0, 0, 0, 0]
    assert np.array_equal(found.starts, [0, 0, 2, 2])
    assert len(words.split(pl.Series([], dtype=pl.String))) == 0
