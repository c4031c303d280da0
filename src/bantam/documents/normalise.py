"""Texts made plain: mojibake and HTML remains mended, NFC, one kind of line end, no control
characters.

A look at the bytes says which texts can need which mend; most need none. Those are looked at again
with patterns, which polars runs over a shard in milliseconds.
"""

import html
import unicodedata
from collections.abc import Callable

import ftfy
import numpy as np
import polars as pl
import regex

from bantam.documents import words
from bantam.documents.compiled import compiled
from bantam.documents.words import Bytes, Places

# UTF-8 read as Windows-1252 ("Ã©", "â€™") or Windows-1251 ("Рџ"): the first byte of a character,
# then one that only continues it.
_LATER = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"  # bytes 80 to 9F in Windows' code pages
MOJIBAKE = f"[Â-ô][\u0080-\u00bf]|[ÂÃÄÅÎÏÐÑ×ØÙâãð][{_LATER}]"
MOJIBAKE += f"|[РС][{_LATER}\u00a0-\u00bf\u0402-\u040f\u0452-\u045f]"
ENTITY = r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"
_BREAKING = "address|article|blockquote|br|center|dd|div|dl|dt|footer|h[1-6]|header|hr|li|main|nav"
_BREAKING += "|ol|option|p|pre|section|table|tbody|td|th|thead|tr|ul"
_FLOWING = "a|abbr|b|big|body|code|em|font|head|html|i|img|small|span|strong|sub|sup|tt|u"
TAG = rf"(?i)</?(?:{_BREAKING}|{_FLOWING})(?:\s[^<>]*)?/?>"
BREAKING_TAG = rf"(?i)</?(?:{_BREAKING})(?:\s[^<>]*)?/?>"
UNSHOWN = r"(?is)<!--.*?-->|<script\b[^>]*>.*?</script\s*>|<style\b[^>]*>.*?</style\s*>"
FEWEST_TAGS = 3  # fewer are somebody writing about HTML
LINE_END = "\r\n?|[\u000b\u000c\u0085\u2028\u2029]"
# Control characters, and some that only say where a line may be broken or in which order bytes are.
CONTROL = "[\u0000-\u0008\u000e-\u001f\u007f-\u0084\u0086-\u009f\u00ad\u200b\u2060\ufeff]"
RARE_SPACE = "[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]"
SPACE = f"[ \t{RARE_SPACE}]"

_MOJIBAKE = regex.compile(MOJIBAKE)

# What the bytes of a text tell of it: it has control characters, or characters beyond ASCII.
CONTROLS, BEYOND, ANY = 1, 2, 4


def normalise(texts: pl.Series, markup: bool = True) -> tuple[pl.Series, dict[str, int]]:
    """The texts (none of them null) made plain, and how many each mend has changed.

    Without outer white space, spaces at line ends, and more than one empty line in a row. Without
    `markup`, entities and tags are left as they are. Tags are taken out of texts with at least
    three; entities are resolved once.
    """
    kinds = _kinds(texts)
    changed = {}
    for name, those, mend in (
        ("mojibake", BEYOND, _encoding),
        ("HTML", ANY if markup else 0, _markup),
        ("line ends", CONTROLS | BEYOND, _replacing(LINE_END, "\n")),
        ("control characters", CONTROLS | BEYOND, _replacing(CONTROL, "")),
        ("NFC", BEYOND, _composed),
        ("rare white space", BEYOND, _replacing(f"{SPACE}*{RARE_SPACE}{SPACE}*\n", "\n")),
        ("white space", ANY, _tidied),
    ):
        at = np.flatnonzero(kinds & those)
        some = texts.gather(at)
        mended = mend(some)
        differ = mended != some
        at = at[differ.to_numpy()]
        changed[name] = len(at)
        if len(at):
            texts = texts.clone().scatter(at, mended.filter(differ))
            kinds[at] = 0xFF  # what an entity stood for may itself need a mend
    return texts, changed


def _kinds(texts: pl.Series) -> Bytes:
    data, starts = words.joined(texts)
    kinds = np.full(len(texts), ANY, np.uint8)
    _look(data, starts, kinds)
    return kinds


@compiled
def _look(data: Bytes, starts: Places, kinds: Bytes) -> None:
    """Say which texts have control characters (but tabs and "\\n"), and which are beyond ASCII."""
    for text in range(len(kinds)):
        controls, beyond = 0, 0
        for byte in data[starts[text] : starts[text + 1]]:
            controls |= ((byte < 0x20) & (byte != 0x09) & (byte != 0x0A)) | (byte == 0x7F)
            beyond |= byte
        kinds[text] |= CONTROLS * (controls > 0) | BEYOND * (beyond > 0x7F)


def _where(texts: pl.Series, held: pl.Series, mend: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """The texts, with those for which `held` is true mended."""
    if not held.any():
        return texts
    return texts.clone().scatter(held.arg_true(), mend(texts.filter(held)))


def _replacing(pattern: str, by: str) -> Callable[[pl.Series], pl.Series]:
    def mend(texts: pl.Series) -> pl.Series:
        held = texts.str.contains(pattern)
        return _where(texts, held, lambda some: some.str.replace_all(pattern, by))

    return mend


def _encoding(texts: pl.Series) -> pl.Series:
    def mend(text: str) -> str:  # ftfy is slow: it gets only the lines with signs of damage
        lines = text.split("\n")
        return "\n".join(
            ftfy.fix_encoding(line) if _MOJIBAKE.search(line) else line for line in lines
        )

    return _where(texts, texts.str.contains(MOJIBAKE), lambda some: _each(some, mend))


def _markup(texts: pl.Series) -> pl.Series:
    tagged = texts.str.contains(TAG)
    tagged &= texts.str.count_matches(TAG) >= FEWEST_TAGS
    bare = _where(texts, tagged, _without_tags)
    return _where(bare, bare.str.contains(ENTITY), lambda some: _each(some, html.unescape))


def _without_tags(texts: pl.Series) -> pl.Series:
    shown = texts.str.replace_all(UNSHOWN, "")
    return shown.str.replace_all(BREAKING_TAG, "\n").str.replace_all(TAG, "")


def _composed(texts: pl.Series) -> pl.Series:
    def compose(text: str) -> str:
        composed = unicodedata.is_normalized("NFC", text)
        return text if composed else unicodedata.normalize("NFC", text)

    return _each(texts, compose)


def _tidied(texts: pl.Series) -> pl.Series:
    held = texts.str.contains("[ \t]\n")
    texts = _where(texts, held, lambda some: some.str.replace_all(f"{SPACE}+\n", "\n"))
    return _replacing("\n{3,}", "\n\n")(texts).str.strip_chars()


def _each(texts: pl.Series, change: Callable[[str], str]) -> pl.Series:
    return pl.Series([change(text) for text in texts], dtype=pl.String)
