"""Text that remembers which of its characters came from a user."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import SupportsIndex


class Marked(str):
    """A string with a byte for each character: 1 trusted (the template's), 0 not (a user's).

    What templates do with strings (add, slice, strip, split, replace, change case) keeps the marks;
    everything else sees an ordinary string. A plain `str` is trusted as a whole.
    """

    marks: bytes

    def __new__(cls, text: str, marks: bytes) -> Marked:
        marked = super().__new__(cls, text)
        marked.marks = marks
        return marked

    @classmethod
    def from_user(cls, text: str) -> Marked:
        """Untrusted but for the white space around it, which may join the template's tokens."""
        before = len(text) - len(text.lstrip())
        core = len(text.strip())
        return cls(text, b"\1" * before + b"\0" * core + b"\1" * (len(text) - before - core))

    def __str__(self) -> str:  # so that str(marked), as templates call it, loses nothing
        return self

    def __getitem__(self, key: SupportsIndex | slice) -> Marked:
        text = super().__getitem__(key)
        if isinstance(key, slice):
            return Marked(text, self.marks[key])
        return Marked(text, bytes([self.marks[key]]))

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def __add__(self, other: str) -> str:
        return join("", [self, other])

    def __radd__(self, other: str) -> str:
        return join("", [other, self])

    def lstrip(self, chars: str | None = None, /) -> Marked:
        return self[len(self) - len(super().lstrip(chars)) :]

    def rstrip(self, chars: str | None = None, /) -> Marked:
        return self[: len(super().rstrip(chars))]

    def strip(self, chars: str | None = None, /) -> Marked:
        return self.lstrip(chars).rstrip(chars)

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._pieces(super().split(sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._pieces(super().rsplit(sep, maxsplit), sep)

    def _pieces(self, texts: list[str], sep: str | None) -> list[str]:
        pieces: list[str] = []
        place = 0
        for text in texts:
            start = self.find(text, place)
            pieces.append(self[start : start + len(text)])
            place = start + len(text) + len(sep or "")
        return pieces

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        if not old:
            return untrusted(super().replace(old, new, count))
        return join(new, self.split(old, count))

    def lower(self) -> Marked:
        return self._same(super().lower())

    def upper(self) -> Marked:
        return self._same(super().upper())

    def title(self) -> Marked:
        return self._same(super().title())

    def capitalize(self) -> Marked:
        return self._same(super().capitalize())

    def _same(self, text: str) -> Marked:
        return Marked(text, self.marks) if len(text) == len(self) else untrusted(text)


def untrusted(text: str) -> Marked:
    """`text` with no trusted character."""
    return Marked(text, bytes(len(text)))


def join(separator: str, pieces: Iterable[str]) -> str:
    """`separator.join(pieces)` that keeps the marks."""
    pieces = list(pieces)
    text = str.join(separator, pieces)
    if not any(isinstance(piece, Marked) for piece in (separator, *pieces)):
        return text
    return Marked(text, _marks(separator).join(map(_marks, pieces)))


def segments(text: str) -> list[tuple[str, bool]]:
    """The runs of equal trust: text, and whether it is trusted."""
    runs = re.finditer(b"\0+|\1+", _marks(text))
    return [(str.__getitem__(text, slice(*run.span())), run[0][0] == 1) for run in runs]


def _marks(text: str) -> bytes:
    return text.marks if isinstance(text, Marked) else b"\1" * len(text)
