"""Text predicted by compression: what zstd needs for a document when it knows the training text."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEVEL = 19  # the strongest that needs no more memory to unpack
MOST = 64_000_000  # bytes of training text that it is given


def bits(training: Iterable[str], texts: Sequence[str]) -> NDArray[np.float64]:
    """The bits of each text, packed alone, with the training text as its dictionary."""
    known = bytearray()
    for text in training:
        known += text.encode()
        if len(known) >= MOST:
            break
    options = {int(zstd.CompressionParameter.compression_level): LEVEL}
    dictionary = zstd.ZstdDict(bytes(known), is_raw=True) if len(known) > 8 else None
    packed = [
        zstd.compress(
            text.encode(),
            options=options,
            zstd_dict=dictionary.as_digested_dict if dictionary else None,
        )
        for text in texts
    ]
    return np.array([8.0 * len(one) for one in packed])
