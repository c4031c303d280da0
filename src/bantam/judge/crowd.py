"""One model file in as many single-threaded processes as there are cores.

For small models this answers many texts faster than one process with many threads, whose threads
wait for each other at every layer. Each process works on one prompt at a time: prompts worked on
together are no faster, and each of them would read a few-shot prompt's examples anew.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from bantam.engine import cores
from bantam.model import Model

PIECE = 8  # texts that a process takes at a time: small, so that all end together
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
        free: SimpleQueue[Model] = SimpleQueue()
        for model in models:
            free.put(model)

        def share(ask: Ask, texts: Sequence[str]) -> NDArray[np.float64]:
            def work(part: Sequence[str]) -> NDArray[np.float64]:
                model = free.get()
                try:
                    return ask(model, part)
                finally:
                    free.put(model)

            parts = [texts[i : i + PIECE] for i in range(0, len(texts), PIECE)]
            return np.concatenate(list(pool.map(work, parts)))

        yield share
