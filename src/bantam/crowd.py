"""One model file in as many single-threaded processes as there are cores.

For small models this answers many texts faster than one process with many threads, whose threads
wait for each other at every layer. Each process works on one prompt at a time: prompts worked on
together are no faster, and each of them would read a few-shot prompt's examples anew.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol, TypeVar

import psutil

from bantam.engine import cores
from bantam.model import Model

PIECE = 8  # texts that a process takes at a time: small, so that all end together
AHEAD = 4  # pieces for each process that are taken before the oldest is answered
# Bytes of a process beside the weights: 77 MB (135M parameters) to 122 MB (270M) were measured
# with 1,024 tokens of context.
OWN = 200_000_000

Part = TypeVar("Part")
Found = TypeVar("Found")


class Share(Protocol):
    """Has the processes share parts of work among them; what they find, in the parts' order."""

    def __call__(
        self, act: Callable[[Model, Part], Found], parts: Iterable[Part], /
    ) -> Iterator[Found]: ...


@contextmanager
def crowd(path: Path, *, threads: int | None = None, context: int | None = None) -> Iterator[Share]:
    """`threads` (all cores by default) as processes, fewer where memory is short.

    When the block ends, by an error or Ctrl-C too, the processes end at once.
    """
    most = threads or cores()
    count = min(most, room(path))
    with ExitStack() as stack:
        models = [
            stack.enter_context(Model(path, threads=most // count, context=context))
            for _ in range(count)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(count))
        free: SimpleQueue[Model] = SimpleQueue()
        for model in models:
            free.put(model)

        def stop() -> None:
            """So that what is under way fails at once and the pool need not wait for it."""
            pool.shutdown(wait=False, cancel_futures=True)
            for model in models:
                model.close()

        stack.callback(stop)

        def share(act: Callable[[Model, Part], Found], parts: Iterable[Part]) -> Iterator[Found]:
            def work(part: Part) -> Found:
                model = free.get()
                try:
                    return act(model, part)
                finally:
                    free.put(model)

            under_way: deque[Future[Found]] = deque()
            for part in parts:
                under_way.append(pool.submit(work, part))
                if len(under_way) > AHEAD * count:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()

        yield share


def room(path: Path) -> int:
    """How many processes of a model the free memory holds, one at least.

    The weights count for each: mapped files are shared, but on some processors llama.cpp copies
    some formats (Q4_0) into an order of its own.
    """
    free = psutil.virtual_memory().available
    return max(1, free // (path.stat().st_size + OWN))
