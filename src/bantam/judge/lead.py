"""A simple rival for text to text: the beginning of the text, cut as the references are long.

For summaries of news this is hard to beat; for other jobs it shows what copying alone would give.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from bantam.judge.plain import Plain, Score, check_rows

STARTS = ("sentence", "line", "text")
# The lengths tried, as shares of the references that are no longer than that; None cuts nothing.
QUANTILES = (None, 0.5, 0.25, 0.75, 0.9)
MOST_TEXT = 20_000  # characters of a text that are looked at

# A sentence ends with its mark before a space; the marks of Chinese and Japanese need none.
_END = re.compile(r"[.!?…]{1,3}[\"'’”»)\]]{0,3}(?=\s|$)|[。！？]|\n")
_NO_END = re.compile(
    r"(?<!\w)(?:[^\W\d_]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|No|Inc|Ltd|Co|approx|ca)\.$",
    re.IGNORECASE,
)
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class _Way:
    """One way to begin: `quantile` of the references' lengths is where it is cut."""

    start: str
    quantile: float | None
    drop_stop: bool
    lower_first: bool

    def answers(self, texts: Sequence[str], lengths: Sequence[int]) -> list[str]:
        words = self.words(lengths)
        return [self._answer(text, words) for text in texts]

    def words(self, lengths: Sequence[int]) -> int | None:
        if self.quantile is None:
            return None
        return max(1, round(float(np.quantile(lengths, self.quantile))))

    def _answer(self, text: str, words: int | None) -> str:
        found = _start(text[:MOST_TEXT].strip(), self.start)
        if words is not None:
            found = _first_words(found, words)
        if self.drop_stop:
            found = found.rstrip(".。").rstrip()
        return found[:1].lower() + found[1:] if self.lower_first else found


def lead(
    texts: Sequence[str],
    outputs: Sequence[str],
    val_texts: Sequence[str],
    val_outputs: Sequence[str],
    score: Score,
) -> Plain:
    """The first sentence, the first line or the whole text, whole or cut to so many words.

    Chosen on validation by `score`: where it begins and ends, the number of words among quantiles
    of the references' lengths, whether the full stop is dropped and whether the first letter is
    written small. The simpler of equals is taken.

    Raises BadInput if there is no training or no validation row.
    """
    check_rows(texts, val_texts)
    lengths = [len(output.split()) for output in outputs]
    scores: dict[tuple[str, ...], float] = {}  # many ways answer alike, and `score` may be slow
    best, best_score = None, -np.inf
    for parts in product(STARTS, QUANTILES, (False, True), (False, True)):
        way = _Way(*parts)
        answers = tuple(way.answers(val_texts, lengths))
        if answers not in scores:
            scores[answers] = score(val_outputs, answers)
        if best is None or scores[answers] > best_score:
            best, best_score = way, scores[answers]
    assert best is not None
    chosen = best
    lengths += [len(output.split()) for output in val_outputs]
    return Plain(
        name="lead",
        choice={
            "start": chosen.start,
            "words": chosen.words(lengths),
            "drop_stop": chosen.drop_stop,
            "lower_first": chosen.lower_first,
            "rows": len(lengths),
        },
        validation_score=float(best_score),
        answer=lambda texts: chosen.answers(texts, lengths),
        bytes=4,
    )


def _start(text: str, start: str) -> str:
    """The first sentence or line of a text without space around it, or all of it."""
    if start == "sentence":
        for end in _END.finditer(text):
            # Enough to see an abbreviation by.
            if not _NO_END.search(text[max(0, end.start() - 12) : end.end()]):
                return text[: end.end()].strip()
        return text
    return text.partition("\n")[0].strip() if start == "line" else text


def _first_words(text: str, most: int) -> str:
    for count, word in enumerate(_WORD.finditer(text), start=1):
        if count == most:
            return text[: word.end()]
    return text
