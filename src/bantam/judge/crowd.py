"""One model file in as many single-threaded processes as there are cores.

For small models this answers many texts faster than one process with many threads, whose threads
wait for each other at every layer. Each process works on one prompt at a time: prompts worked on
together are no faster, and each of them would read a few-shot prompt's examples anew.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bantam.engine import cores
from bantam.model import Model

CONTEXT = 2048  # tokens that a few-shot prompt may take

Ask = Callable[[Model, Sequence[str]], NDArray[np.float64]]  # texts to [rows, labels]
Crowd = Callable[[Ask, Sequence[str]], NDArray[np.float64]]


@contextmanager
def crowd(path: Path) -> Iterator[Crowd]:
    """A function that has the processes share texts among them, answers in their order."""
    with ExitStack() as stack:
        models = [
            stack.enter_context(Model(path, threads=1, context=CONTEXT)) for _ in range(cores())
        ]
        pool = stack.enter_context(ThreadPoolExecutor(len(models)))

        def share(ask: Ask, texts: Sequence[str]) -> NDArray[np.float64]:
            size = -(-len(texts) // len(models))
            parts = [texts[i * size : (i + 1) * size] for i in range(len(models))]
            busy = [(model, part) for model, part in zip(models, parts, strict=True) if part]
            return np.concatenate(list(pool.map(lambda pair: ask(*pair), busy)))

        yield share
