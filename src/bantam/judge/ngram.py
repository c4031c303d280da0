"""Text predicted by counts: the bytes that followed the last few in the training text.

Witten and Bell's interpolation (1991, method C): of a context seen n times with t different bytes
after it, the counts get n / (n + t) and the next shorter context the rest, down to all bytes alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ORDER = 6  # bytes of context and one that follows
MOST = 32_000_000  # bytes that are counted; the memory is some 40 times that
Hashes = NDArray[np.uint64]
_TURN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Counts:
    """Of one length: hashes of what was seen, sorted, with how often; contexts also with how many
    different bytes followed."""

    pairs: Hashes
    pair_counts: NDArray[np.int64]
    contexts: Hashes
    context_counts: NDArray[np.int64]
    kinds: NDArray[np.int64]


def learn(texts: Iterable[str], order: int = ORDER, most: int = MOST) -> list[Counts]:
    """Counts for contexts of 0 to `order` - 1 bytes, from the first `most` bytes of the texts."""
    parts, size = [], 0
    for text in texts:
        parts.append(_bytes(text))
        size += len(parts[-1])
        if size >= most:
            break
    found = []
    for length in range(order):
        pairs, contexts = (np.concatenate(two) for two in zip(*_hashed(parts, length), strict=True))
        seen, first, counts = np.unique(pairs, return_index=True, return_counts=True)
        known, which = np.unique(contexts[first], return_inverse=True)
        totals = np.zeros(len(known), np.int64)
        np.add.at(totals, which, counts)
        kinds = np.bincount(which, minlength=len(known))
        found.append(Counts(seen, counts, known, totals, kinds))
    return found


def bits(counts: Sequence[Counts], texts: Sequence[str]) -> NDArray[np.float64]:
    """The bits that each text takes."""
    return np.array([-np.log2(probabilities(counts, _bytes(text))).sum() for text in texts])


def probabilities(counts: Sequence[Counts], text: NDArray[np.uint8]) -> NDArray[np.float64]:
    """P(byte | those before it), of each byte of a text."""
    likely = np.full(len(text), 1 / 256)
    for length, of_it in enumerate(counts):
        ((pairs, contexts),) = _hashed([text], length)
        skipped = len(text) - len(pairs)  # these have no context of this length
        seen = _found(of_it.pairs, of_it.pair_counts, pairs)
        total = _found(of_it.contexts, of_it.context_counts, contexts)
        kinds = _found(of_it.contexts, of_it.kinds, contexts)
        known = total > 0
        mixed = (seen + kinds * likely[skipped:]) / np.maximum(total + kinds, 1)
        likely[skipped:] = np.where(known, mixed, likely[skipped:])
    return likely


def _found(keys: Hashes, values: NDArray[np.int64], wanted: Hashes) -> NDArray[np.int64]:
    """The values of the wanted keys, 0 where there is none."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


def _hashed(parts: Sequence[NDArray[np.uint8]], length: int) -> list[tuple[Hashes, Hashes]]:
    """Of each byte with `length` others before it: these and it, and these alone."""
    hashed = []
    for part in parts:
        wide = part.astype(np.uint64) + np.uint64(1)
        count = max(0, len(part) - length)
        context = np.zeros(count, np.uint64)
        for place in range(length):  # up to seven bytes fit as they are
            context = (context << np.uint64(9)) | wide[place : place + count]
        pairs = (context << np.uint64(9)) | wide[length : length + count]
        hashed.append((pairs * _TURN, context * _TURN))
    return hashed
