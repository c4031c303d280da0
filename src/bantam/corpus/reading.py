"""What training reads in which step: a pure function of the seed, so that a run can be resumed.

The documents of a pass are laid end to end and cut into rows of `context` tokens; each row has one
more token, which is only predicted. Every pass has another order. Rows are shuffled too, all of
them, or within fiftieths of the pass where the order of documents means something.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bantam.corpus.shards import Corpus, Numbers

NEIGHBOURS = 50  # parts of a pass within which rows are shuffled when documents keep their order


@dataclass(frozen=True)
class Reading:
    """How a corpus is read. `order` are document numbers, one a reading (None: each once)."""

    corpus: Corpus
    context: int
    seed: int = 0
    order: Numbers | None = None
    kept: bool = False  # documents keep `order` in every pass

    @property
    def _numbers(self) -> Numbers:
        return np.arange(len(self.corpus)) if self.order is None else self.order

    @property
    def tokens(self) -> int:
        """Of a pass."""
        return int(self.corpus.lengths[self._numbers].sum())

    @property
    def rows(self) -> int:
        """Of a pass; what is left at its end is shorter than a row."""
        return (self.tokens - 1) // self.context

    def batches(self, size: int, begin: int = 0) -> Iterator[NDArray[np.int64]]:
        """Endless batches of `size` rows, [size, context + 1], from batch number `begin` on."""
        rows = self.rows
        at, current, laid = begin * size, -1, None
        while True:
            batch = np.empty((size, self.context + 1), np.int64)
            for row in batch:
                if at // rows != current or laid is None:
                    current = at // rows
                    laid = self._laid(current)
                documents, ends, shuffled = laid
                row[:] = self._row(documents, ends, int(shuffled[at % rows]))
                at += 1
            yield batch

    def _laid(self, number: int) -> tuple[Numbers, Numbers, Numbers]:
        """The documents of a pass in order, where each ends, and the order of rows."""
        chance = np.random.default_rng([self.seed, number])
        documents = self._numbers if self.kept else chance.permutation(self._numbers)
        parts = np.array_split(np.arange(self.rows), NEIGHBOURS if self.kept else 1)
        shuffled = np.concatenate([chance.permutation(part) for part in parts])
        return documents, np.cumsum(self.corpus.lengths[documents]), shuffled

    def _row(self, documents: Numbers, ends: Numbers, number: int) -> NDArray[Any]:
        begin = number * self.context
        end = begin + self.context + 1
        pieces, at = [], int(np.searchsorted(ends, begin, side="right"))
        while begin < end:
            document = int(documents[at])
            left = int(ends[at]) - begin
            start = int(self.corpus.lengths[document]) - left
            pieces.append(self.corpus.document(document)[start : start + end - begin])
            begin += min(left, end - begin)
            at += 1
        return np.concatenate(pieces)


def positions(ids: NDArray[np.int64], edge: int) -> NDArray[np.int64]:
    """Of the tokens in rows [rows, tokens], counted from the beginning of each document: none
    attends into another. What a row begins within counts from the row's beginning."""
    place = np.arange(ids.shape[1])
    begun = np.maximum.accumulate(np.where(ids == edge, place, 0), axis=1)
    return place - begun
