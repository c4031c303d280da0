"""Texts made plain: each mend by example, and what always holds."""

import unicodedata

import polars as pl
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from bantam.documents.normalise import MOJIBAKE, normalise

PIECES = ["\r", "\n", "\r\n", "\n\n\n", " ", "\t", "\u00a0", "\u2003", "\x0c", "\x85", "\u2028"]
PIECES += ["\x00", "\x7f", "\u00ad", "\ufeff", "e\u0301", "é", "a", "Ã©", "漢", "&amp;", "<b>"]
TEXTS = st.lists(st.sampled_from(PIECES) | st.characters(codec="utf-8"), max_size=30).map("".join)


def plain(text: str, markup: bool = True) -> str:
    return str(normalise(pl.Series([text]), markup)[0][0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\r\ntwo\rthree\x0cfour\u2028five", "one\ntwo\nthree\nfour\nfive"),
        ("a\x00b\x1b[0m\x9c\x7f\ufeffsoft\u00adhyphen", "ab[0msofthyphen"),
        ("cafe\u0301 \u212b", "café Å"),
        ("  a  \n\tb \t\u00a0\n\n\n\n\n c\u3000\n", "a\n\tb\n\n c"),
        ("cafÃ© naÃ¯ve â€œquotedâ€\x9d", "café naïve “quoted”"),
        ("РџСЂРёРІРµС‚, РјРёСЂ!", "Привет, мир!"),
        ("Größe, déjà vu… «oui», é” — Œuvre", "Größe, déjà vu… «oui», é” — Œuvre"),  # sound
        ("Привет, мир! СССР", "Привет, мир! СССР"),
        ("x &lt; y &amp;&amp; caf&eacute; &#8212; &#x41;", "x < y && café — A"),
        ("AT&T; R&D &c &unknown;", "AT&T; R&D &c &unknown;"),
        ("<p>One</p><p>two <b>bold</b><br/>three</p>", "One\n\ntwo bold\nthree"),
        ("<script>if (a < b) c()</script><p>a</p><!-- gone --><p>b</p>", "a\n\nb"),
        ("Write <b>bold</b> for bold.", "Write <b>bold</b> for bold."),  # speaks of HTML
        (
            "#include <stdio.h> <stdlib.h> <map> <me@x.org>",
            "#include <stdio.h> <stdlib.h> <map> <me@x.org>",
        ),
        ("line&#8232;end &#0;&nbsp;\nnext", "line\nend \ufffd\nnext"),
    ],
)
def test_mends(text: str, expected: str) -> None:
    assert plain(text) == expected


def test_markup_can_be_kept() -> None:
    text = "<p>a</p> <p>b</p> &amp; c"
    assert plain(text, markup=False) == text


def test_each_mend_counts_the_texts_that_it_changed() -> None:
    texts = pl.Series(["plain", "a\r\nb", "x\x00\r\n", "cafe\u0301", "a  \nb", "&amp;", ""])
    found, changed = normalise(texts)
    assert found.to_list() == ["plain", "a\nb", "x", "café", "a\nb", "&", ""]
    assert {name: count for name, count in changed.items() if count} == {
        "HTML": 1,
        "line ends": 2,
        "control characters": 1,
        "NFC": 1,
        "white space": 2,
    }


def test_no_text_is_touched_by_its_neighbours() -> None:
    texts = ["plain", "a\r\nb", "<p>x</p><p>y</p>", "", "cafÃ©", "e\u0301", " z "]
    together = normalise(pl.Series(texts))[0].to_list()
    assert together == [plain(text) for text in texts]
    assert normalise(pl.Series([], dtype=pl.String))[0].to_list() == []


@given(TEXTS)
def test_what_always_holds(text: str) -> None:
    found = plain(text)
    assert unicodedata.is_normalized("NFC", found)
    assert not regex.search(
        r"[\p{Cc}--[\t\n]]|[\u2028\u2029\u00ad\ufeff]", f"(?V1){found}"[5:], regex.V1
    )
    assert not regex.search(r"[^\S\n]\n|\n{3}|^\s|\s$", found)
    # ftfy guesses by what stands around a sign of damage, and other mends change that.
    if not regex.search(MOJIBAKE, found):
        assert plain(found, markup=False) == found


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters="<&")))
def test_plain_ascii_stays(text: str) -> None:
    assert plain(text) == text.strip()
