"""What finds a field's value in a text: known values, numbers, dates and learned patterns.

Patterns are learned from data that may be hostile. A text is seen as pieces (runs of letters, runs
of digits, space, single signs), and a pattern is a sequence of pieces. Its runs are possessive, so
nothing is ever tried twice at one place, and a text is looked at up to `MOST_TEXT` characters only.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_TEXT = 20_000  # characters
MOST_VALUE = 200  # characters of a value that is looked for
MOST_PIECES = 24  # of a value; longer ones are found by what stands around them only
MOST_WORDS = 12  # of a known value
MOST_KNOWN = 50_000  # known values of a field
MOST_CANDIDATES = 120  # patterns of a field that are tried on the training rows
MOST_PATTERNS = 16  # patterns of a field that are kept
MOST_LEARNED = 1000  # rows that the patterns of a field are learned from
LEAST_PRECISION = 0.4  # of a pattern, on the rows that those before it leave

# A finder gives what it finds in a text, or `NOTHING`.
NOTHING = object()
Finder = Callable[[str], Any]
Reader = Callable[[str], Any]  # a stretch of the text to a value

_WORD = re.compile(r"\w+|[^\w\s]")
_PIECE = re.compile(r"\d+|[^\W\d_]+|\s+|_|[^\w\s]")

NUMBER = r"(?<![\w.,])-?\d{1,15}+(?:[.,]\d{1,15}+){0,4}+(?!\d)"
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_MONTH = rf"(?:{_MONTHS})[a-z]{{0,6}}\.?"
DATE = (
    r"(?<!\d)(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}"
    r"|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})"
    rf"|(?i:\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH},? \d{{4}}"
    rf"|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}}))(?!\d)"
)


def read_number(written: str) -> Any:
    """A number as it is written in a text: of several marks the last is the decimal one, and a
    comma before three digits stands for thousands."""
    marks = re.findall(r"[.,]", written)
    if not marks:
        return int(written)
    head, tail = written[: written.rindex(marks[-1])], written[written.rindex(marks[-1]) + 1 :]
    thousands = len(tail) == 3 and (marks[-1] == "," or len(marks) > 1)
    if thousands and len(set(marks)) == 1:
        return int(re.sub(r"[.,]", "", written))
    return float(re.sub(r"[.,]", "", head) + "." + tail)


def read_whole(written: str) -> Any:
    """A number where all known values are whole; `NOTHING` for others."""
    found = read_number(written)
    return int(found) if found == int(found) else NOTHING


def read_date(written: str, day_first: bool) -> Any:
    """A date as ISO writes it; `NOTHING` if there is no such day."""
    numbers = [int(digits) for digits in re.findall(r"\d+", written)]
    named = re.search(rf"(?<![a-z])(?:{_MONTHS})", written.casefold())
    try:
        if named:
            day, year = numbers
            month = _MONTHS.split("|").index(named[0]) + 1
        elif numbers[0] > 31:
            year, month, day = numbers
        else:
            day, month, year = numbers if day_first else (numbers[1], numbers[0], numbers[2])
        return date(year + 2000 if year < 100 else year, month, day).isoformat()
    except ValueError:
        return NOTHING


def read_as_is(written: str) -> Any:
    return written.strip()


def all_matches(pattern: str, read: Reader) -> Callable[[str], list[Any]]:
    compiled = re.compile(pattern)

    def found(text: str) -> list[Any]:
        values = [read(match[0]) for match in compiled.finditer(text[:MOST_TEXT])]
        return [value for value in values if value is not NOTHING]

    return found


def nth(pattern: str, read: Reader, place: int) -> Finder:
    """The first (0) or the last (-1) match."""
    matches = all_matches(pattern, read)

    def find(text: str) -> Any:
        found = matches(text)
        return found[place] if found else NOTHING

    return find


def largest(pattern: str, read: Reader) -> Finder:
    matches = all_matches(pattern, read)
    return lambda text: max(matches(text), default=NOTHING)


# Known values


class Known:
    """The strings of the training rows, to be found word by word whatever their case.

    Those of which less than `least` of what is found in the training texts was meant are left out.
    """

    def __init__(
        self, texts: Sequence[str], values: Sequence[Sequence[str]], least: float = 0.0
    ) -> None:
        written: dict[tuple[str, ...], Counter[str]] = {}
        for row in values:
            for value in row:
                words = _words(value[:MOST_VALUE])
                if 0 < len(words) <= MOST_WORDS and (words in written or len(written) < MOST_KNOWN):
                    written.setdefault(words, Counter())[value] += 1
        self.values = {words: counts.most_common(1)[0][0] for words, counts in written.items()}
        self.longest = max(map(len, self.values), default=0)
        if least > 0:
            meant, seen = Counter[str](), Counter[str]()
            for text, row in zip(texts, values, strict=True):
                found = set(self.all(text))
                seen.update(found)
                meant.update(found.intersection(row))
            self.values = {
                words: value
                for words, value in self.values.items()
                if not seen[value] or meant[value] / seen[value] >= least
            }

    def all(self, text: str) -> list[str]:
        """What the text holds, in its order, each once; where some overlap, the longest from the
        left."""
        words = _words(text[:MOST_TEXT])
        found: dict[str, None] = {}
        place = 0
        while place < len(words):
            for length in range(min(self.longest, len(words) - place), 0, -1):
                value = self.values.get(words[place : place + length])
                if value is not None:
                    found.setdefault(value)
                    place += length - 1
                    break
            place += 1
        return list(found)

    def some(self, text: str) -> Any:
        """All as a list, if there are any."""
        return self.all(text) or NOTHING

    def longest_in(self, text: str) -> Any:
        return max(self.all(text), key=len, default=NOTHING)

    def first_in(self, text: str) -> Any:
        return next(iter(self.all(text)), NOTHING)


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.casefold()))


# Patterns


@dataclass(frozen=True)
class Pattern:
    """A regular expression whose one group is what is read."""

    source: str
    compiled: re.Pattern[str]
    read: Reader

    def find(self, text: str) -> Any:
        match = self.compiled.search(text[:MOST_TEXT])
        return self.read(match[1]) if match else NOTHING


class Patterns:
    """Patterns in order; the first that finds something answers."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self.patterns = list(patterns)

    def find(self, text: str) -> Any:
        for pattern in self.patterns:
            found = pattern.find(text)
            if found is not NOTHING and found != "":
                return found
        return NOTHING


def learned(
    texts: Sequence[str],
    values: Sequence[Any],
    *,
    careful: bool,
    stretch: str = "",
    read: Reader = read_as_is,
) -> Patterns:
    """Patterns from what stands in the values and around them.

    `values` are `NOTHING` where a row has none. `stretch` is an expression for the values
    themselves, for numbers and dates, where `read` turns what it finds to a value; without it the
    values are generalised. Patterns are ranked by precision times recall on the rows that the ones
    before leave without a value; by precision alone, doubted where it rests on few rows, if
    `careful`.
    """
    texts, values = [text[:MOST_TEXT] for text in texts[:MOST_LEARNED]], values[:MOST_LEARNED]
    counts: Counter[str] = Counter()
    for text, value in zip(texts, values, strict=True):
        if value is not NOTHING:
            places = _read_places(text, value, stretch, read) if stretch else _places(text, value)
            counts.update(
                {source for start, end in places for source in _sources(text, start, end, stretch)}
            )
    ranked = sorted(counts, key=lambda source: (-counts[source], len(source), source))
    candidates = [Pattern(one, re.compile(one), read) for one in ranked[:MOST_CANDIDATES]]
    if not candidates:
        return Patterns([])
    right = np.array(
        [
            [
                -1 if (found := pattern.find(text)) is NOTHING else int(found == value)
                for text, value in zip(texts, values, strict=True)
            ]
            for pattern in candidates
        ]
    )
    has_value = np.array([value is not NOTHING for value in values])
    return Patterns([candidates[place] for place in _covering(right, has_value, careful)])


def _covering(right: NDArray[Any], has_value: NDArray[np.bool_], careful: bool) -> list[int]:
    """Which patterns are kept, in their order. `right` [patterns, rows] is 1 where what a pattern
    finds is right, 0 where it is wrong and -1 where it finds nothing."""
    chosen: list[int] = []
    left = np.ones(right.shape[1], dtype=bool)
    while len(chosen) < MOST_PATTERNS and left.any():
        hits = (right[:, left] == 1).sum(axis=1)
        found = (right[:, left] >= 0).sum(axis=1)
        precision = hits / np.maximum(found, 1)
        recall = hits / max(1, int(has_value[left].sum()))
        worth = (hits + 1) / (found + 2) if careful else precision * recall
        worth = np.where((hits > 0) & (precision >= LEAST_PRECISION), worth, 0)
        best = int(worth.argmax())
        if worth[best] <= 0:
            break
        chosen.append(best)
        left &= right[best] < 0
    return chosen


def _places(text: str, value: Any) -> Iterator[tuple[int, int]]:
    """Where a string stands in a text and cuts no run in two, up to three times."""
    if not isinstance(value, str) or not value.strip() or len(value) > MOST_VALUE:
        return
    start, found = text.find(value), 0
    while start >= 0 and found < 3:
        end = start + len(value)
        if not _runs_on(text, start) and not _runs_on(text, end):
            found += 1
            yield start, end
        start = text.find(value, start + 1)


def _runs_on(text: str, place: int) -> bool:
    """Whether the characters before and after a place belong to one run."""
    two = text[max(0, place - 1) : place + 1]
    return 0 < place < len(text) and _PIECE.fullmatch(two) is not None


def _read_places(text: str, value: Any, stretch: str, read: Reader) -> Iterator[tuple[int, int]]:
    found = 0
    for match in re.finditer(stretch, text):
        if found < 3 and read(match[0]) == value:
            found += 1
            yield match.span()


def _sources(text: str, start: int, end: int, stretch: str) -> set[str]:
    """The patterns that one place of a value suggests."""
    before = [match[0] for match in _PIECE.finditer(text[max(0, start - 80) : start])]
    after = [match[0] for match in _PIECE.finditer(text[end : end + 40])]
    values = [stretch] if stretch else _generalised(text[start:end])
    lefts = _lefts(before, start <= 80)
    rights = ["", _right(after)]
    sources = {f"{left}({value}){right}" for left in lefts for value in values for right in rights}
    # Everything up to the sign or the end of the line that follows, if something is before it.
    sign = after[0][0] if after and not after[0][0].isalnum() else "\n"
    stop = rf"[^\n{re.escape(sign)}]" if not sign.isspace() else r"[^\n]"
    if not stretch and re.fullmatch(f"{stop}+", text[start:end]):
        sources |= {f"{left}({stop}{{1,{MOST_VALUE}}}+)" for left in lefts[1:]}
    return sources


def _generalised(value: str) -> list[str]:
    """A value as patterns: letters kept, letters and digits by their kind and number, by kind."""
    pieces = _PIECE.findall(value)
    if len(pieces) > MOST_PIECES:
        return []
    kept, close, loose = ("".join(_general(piece, how) for piece in pieces) for how in range(3))
    return list(dict.fromkeys((_edged(kept, value), _edged(close, value), _edged(loose, value))))


def _general(piece: str, how: int) -> str:
    """One piece as an expression: with 0 letters stay, with 1 case and counts of digits stay."""
    if piece.isspace():
        return r"\s++"
    if piece.isdecimal():
        return rf"\d{{{len(piece)}}}(?!\d)" if how == 1 else r"\d++"
    if not piece.isalpha() or how == 0:
        return re.escape(piece) + (r"(?![^\W\d_])" if piece[-1].isalpha() else "")
    if how == 1 and piece.isascii():
        if piece.isupper():
            return r"[A-Z]++(?![^\W\d_])"
        if piece.islower():
            return r"[a-z]++(?![^\W\d_])"
        return r"(?=[A-Z])[^\W\d_]++" if piece[0].isupper() else r"[^\W\d_]++"
    return r"[^\W\d_]++"


def _edged(source: str, value: str) -> str:
    """Nothing begins within a run, so that each run of the text is read once."""
    edge = r"(?<!\d)" if value[0].isdecimal() else r"(?<![^\W\d_])" if value[0].isalpha() else ""
    return edge + source


def _lefts(before: list[str], from_start: bool) -> list[str]:
    """Nothing, and the one to three pieces before, as they are but for digits and case; or the
    start of the text."""
    lefts, source, count = [""], "", 0
    for piece in reversed(before):
        source = _context(piece) + source
        if not piece.isspace():
            count += 1
            edge = r"(?<!\d)" if piece.isdecimal() else r"(?<![^\W\d_])" if piece.isalpha() else ""
            lefts.append(edge + source)
        if count == 3:
            break
    if count == 0 and from_start:
        lefts.append(r"\A" + source)
    return lefts


def _right(after: list[str]) -> str:
    source = ""
    for piece in after:
        source += _context(piece)
        if not piece.isspace():
            return f"(?={source})"
    return rf"(?={source}\Z)"


def _context(piece: str) -> str:
    if piece.isspace():
        return r"\s++"
    if piece.isdecimal():
        return r"\d++"
    end = r"(?![^\W\d_])" if piece[-1].isalpha() else ""
    return f"(?i:{re.escape(piece)}){end}"
