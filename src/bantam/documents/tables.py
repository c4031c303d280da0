"""A small hash table for compiled loops: arrays of keys and of counts, the latter 0 where free."""

import secrets

import numpy as np
import numpy.typing as npt

from bantam.documents.compiled import compiled

Hashes = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int32]

# What keys are multiplied by, another one in every process: nobody can write a text whose words
# all fall into one place. Results do not depend on it.
ODD = np.uint64(secrets.randbits(64) | 1)


@compiled
def bits_for(entries: int) -> int:
    """So many bits number the places of a table that is at most half full."""
    bits = 4
    while 1 << bits < 2 * entries:
        bits += 1
    return bits


@compiled
def place(keys: Hashes, counts: Counts, bits: int, odd: np.uint64, key: np.uint64) -> int:
    """Where a key stands in a table of 2**bits places, or the free place where it belongs."""
    mask = (1 << bits) - 1
    at = int(np.int64((key * odd) >> np.uint64(64 - bits)))
    while counts[at] != 0 and keys[at] != key:
        at = (at + 1) & mask
    return at
