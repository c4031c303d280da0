"""Stretches of a text that are to go, and what a text is without them."""

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import NamedTuple


class Span(NamedTuple):
    """`text[start:end]` is of this kind."""

    start: int
    end: int
    kind: str


def settled(spans: Iterable[Span]) -> list[Span]:
    """In order, none over another: those that overlap become one, of the longest one's kind.

    So nothing of what any rule found stays behind. Of equally long ones the first decides.
    """
    apart: list[Span] = []
    longest = 0
    for span in sorted(spans, key=itemgetter(0)):  # stable: the order of the kinds stays
        length = span.end - span.start
        if not apart or span.start >= apart[-1].end:
            apart.append(span)
            longest = length
            continue
        last = apart[-1]
        kind = last.kind
        if length > longest:
            kind, longest = span.kind, length
        apart[-1] = Span(last.start, max(last.end, span.end), kind)
    return apart


def replaced(text: str, spans: Iterable[Span], by: Callable[[str, str], str]) -> str:
    """The text with `by(kind, original)` in the place of each span; spans as from `settled`."""
    parts: list[str] = []
    place = 0
    for span in spans:
        parts += text[place : span.start], by(span.kind, text[span.start : span.end])
        place = span.end
    return "".join((*parts, text[place:]))
