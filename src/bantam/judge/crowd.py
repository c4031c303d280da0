"""The crowd as the judge asks it: texts in, one array of all their answers out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bantam import crowd as crowds
from bantam.model import Model

CONTEXT = 2048  # tokens that a few-shot prompt may take

Ask = Callable[[Model, Sequence[str]], NDArray[np.float64]]  # texts to [rows, labels]
Crowd = Callable[[Ask, Sequence[str]], NDArray[np.float64]]


@contextmanager
def crowd(path: Path) -> Iterator[Crowd]:
    """A function that has the processes share texts among them, answers in their order."""
    with crowds.crowd(path, context=CONTEXT) as share:

        def asked(ask: Ask, texts: Sequence[str]) -> NDArray[np.float64]:
            parts = (texts[i : i + crowds.PIECE] for i in range(0, len(texts), crowds.PIECE))
            return np.concatenate(list(share(ask, parts)))

        yield asked
