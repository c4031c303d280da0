"""The rules of C4 (Raffel et al. 2020, section 2.2) that take single lines out of documents.

Patterns say first which documents can hold such a line, so most are not split into lines at all.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from bantam.documents import lines, words
from bantam.documents.compiled import compiled
from bantam.documents.words import Bytes, Places
from bantam.recipe_documents import C4

CITATION = r"\[(?:\d*|edit|citation needed)\]"
POLICIES = ["terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies"]
POLICIES += ["use cookies"]
END = r"""[.?!"']$"""
SPACELESS = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"


def drop(frame: pl.DataFrame, rules: C4) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The documents without the lines that the rules are against, and these (`lines.DROPPED`, with
    reasons such as "c4.policy"). Empty lines stay, and so does the indentation of others. Lines
    mostly of a script without spaces are not asked how many words they have, or how long ones.
    """
    if rules.citations:
        frame = frame.with_columns(_without_citations(frame["text"]))
    touched = _touched(frame["text"], rules).arg_true()
    found = lines.split(frame[touched]).filter(_suspect(rules))
    found = found.with_columns(document=touched.gather(found["document"]))
    return lines.cut(frame, _judge(found, rules))


def _without_citations(texts: pl.Series) -> pl.Series:
    held = texts.str.contains(CITATION).arg_true()
    bare = texts.gather(held).str.replace_all(CITATION, "").str.replace_all(r"[^\S\n]+(\n|$)", "$1")
    return texts.clone().scatter(held, bare.str.strip_chars())


def _said(rules: C4) -> str | None:
    """A pattern of what lines may not say."""
    said = ["javascript"] * rules.javascript + POLICIES * rules.policy
    return f"(?i){'|'.join(said)}" if said else None


def _touched(texts: pl.Series, rules: C4) -> pl.Series:
    """Which texts may hold a line that a rule is against."""
    if rules.line_ends or rules.min_line_words is not None:
        return texts != ""
    touched = pl.repeat(False, len(texts), eager=True)
    if said := _said(rules):
        touched |= texts.str.contains(said)
    if rules.max_word_characters is not None:
        data, starts = words.joined(texts)
        held = np.zeros(len(texts), np.bool_)
        _hold(data, starts, rules.max_word_characters, held)
        touched |= pl.Series(held)
    return touched


def _suspect(rules: C4) -> pl.Expr:
    """Which lines are worth a closer look."""
    text = pl.col("text")
    if rules.line_ends or rules.min_line_words is not None:
        return text != ""
    suspect = pl.lit(False)
    if said := _said(rules):
        suspect |= text.str.contains(said)
    if rules.max_word_characters is not None:
        suspect |= text.str.len_bytes() > rules.max_word_characters
    return suspect


def _judge(found: pl.DataFrame, rules: C4) -> pl.DataFrame:
    """The lines that a rule is against, with `reason` and `value`."""
    text = pl.col("text").str.strip_chars()
    spoken = text.str.count_matches(r"\S+")
    longest = text.str.extract_all(r"\S+").list.eval(pl.element().str.len_chars()).list.max()
    spaced = 2 * text.str.count_matches(SPACELESS) <= text.str.len_chars()
    against: list[tuple[str, pl.Expr, pl.Expr]] = []
    if rules.max_word_characters is not None:
        too_long = (longest > rules.max_word_characters) & spaced
        against.append(("max_word_characters", too_long, longest))
    if rules.line_ends:
        ends = text.str.contains(END) & ~text.str.ends_with("...")
        against.append(("line_ends", ~ends, text.str.tail(1)))
    if rules.min_line_words is not None:
        against.append(("min_line_words", (spoken < rules.min_line_words) & spaced, spoken))
    for name, phrases in (
        ("javascript", ["javascript"] * rules.javascript),
        ("policy", POLICIES * rules.policy),
    ):
        if phrases:
            said = text.str.extract(f"(?i)({'|'.join(phrases)})")
            against.append((name, said.is_not_null(), said))
    told = [
        pl.when(wrong).then(
            pl.struct(pl.lit(f"c4.{name}").alias("reason"), value.cast(pl.String).alias("value"))
        )
        for name, wrong, value in against
    ]
    if not told:
        return found.with_columns(reason=pl.lit(""), value=pl.lit("")).clear()
    judged = found.with_columns(told=pl.coalesce(told)).unnest("told")
    return judged.filter(pl.col("reason").is_not_null())


@compiled
def _hold(data: Bytes, starts: Places, most: int, held: npt.NDArray[np.bool_]) -> None:
    """Say which texts hold more than `most` bytes in a row that are not white space."""
    for text in range(len(held)):
        first = starts[text]
        while first + most < starts[text + 1] and not held[text]:
            at = first + most
            while at >= first and data[at] > 0x20:
                at -= 1
            held[text] = at < first
            first = at + 1
