"""Chance that goes by a document's id: the same on every machine, in any order, with any others."""

from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import polars as pl

from bantam.documents.compiled import compiled
from bantam.documents.words import Hashes, stirred


def drawn(ids: pl.Series, seed: int, what: str) -> Hashes:
    """A number below 2^64 for each id (16 hex digits), another for each seed and purpose."""
    salt = blake2b(f"{seed} {what}".encode(), digest_size=8).digest()
    high, low = (
        ids.str.slice(begin, 8).str.to_integer(base=16).to_numpy().astype(np.uint64)
        for begin in (0, 8)
    )
    return _stir(high << np.uint64(32) | low, np.uint64(int.from_bytes(salt, "big")))


def sample(ids: pl.Series, count: int, seed: int, what: str) -> npt.NDArray[np.int64]:
    """The rows of so many ids, drawn by chance, in the order drawn; of all when there are fewer."""
    numbers = drawn(ids, seed, what)
    if count < len(numbers):
        among = np.argpartition(numbers, count)[:count]
        return among[np.argsort(numbers[among], kind="stable")]
    return np.argsort(numbers, kind="stable")


@compiled
def _stir(numbers: Hashes, salt: np.uint64) -> Hashes:
    for at in range(len(numbers)):
        numbers[at] = stirred(stirred(numbers[at] ^ salt) + salt)
    return numbers
