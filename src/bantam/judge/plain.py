"""A rival that answers in text and is no language model, and what all of these have in common."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bantam.errors import BadInput

MOST_ROWS = 50_000  # training rows that a rival learns from

Score = Callable[[Sequence[str], Sequence[str]], float]


@dataclass(frozen=True)
class Plain:
    """A rival ready to answer that is no language model.

    `answer` gives an output for each text, `nearest_call`'s one for each (text, tools).
    `choice` is what validation chose, as plain values. `validation_score` is by the `score` that
    the rival was chosen by, before the last fit, which includes the validation rows. `bytes` is
    about its size if stored.
    """

    name: str
    choice: dict[str, Any]
    validation_score: float
    answer: Callable[[Sequence[Any]], list[str]]
    bytes: int


def check_rows(train: Sequence[Any], val: Sequence[Any]) -> None:
    """Raises BadInput if there is nothing to learn from or nothing to choose by."""
    if not train:
        raise BadInput("there are no training rows", "give more examples")
    if not val:
        raise BadInput("there are no validation rows", "give more examples")


def sample(count: int, most: int = MOST_ROWS) -> list[int]:
    """Which of `count` rows are learned from: all, or `most` of them, always the same."""
    if count <= most:
        return list(range(count))
    chosen = np.random.default_rng(0).choice(count, most, replace=False)
    return sorted(int(row) for row in chosen)


def commonest(values: Sequence[str]) -> str:
    """The value that occurs most often; of several such the least."""
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return min(counts, key=lambda value: (-counts[value], value))


def written_bytes(strings: Iterable[str]) -> int:
    """How long strings are in UTF-8; halves of letters, which JSON may hold, count as one."""
    return sum(len(string.encode("utf-8", "replace")) for string in strings)


def whole(text: str) -> str:
    """A text that can be hashed: halves of letters, which JSON may hold, become `?`."""
    return text.encode("utf-8", "replace").decode()
