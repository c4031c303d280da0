"""The same work on many shards at once, on this machine's cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from bantam.engine import cores

T = TypeVar("T")
R = TypeVar("R")


class Map(Protocol):
    """What `work` makes of each item, as it is ready, in no order."""

    def __call__(self, work: Callable[[T], R], items: Sequence[T], /) -> Iterator[R]: ...


def mapped(work: Callable[[T], R], items: Sequence[T], workers: int | None = None) -> Iterator[R]:
    """What `work` makes of each item, as it is ready, in no order.

    `workers` processes (None: one a core; 1: none beside this one).
    """
    count = min(workers or cores(), len(items))
    return _here(work, items, count) if count > 1 else map(work, items)


def _here(work: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[R]:
    from joblib import Parallel, delayed  # type: ignore[import-untyped]
    from joblib.externals.loky import get_reusable_executor  # type: ignore[import-untyped]

    # polars and numba have threads of their own: the processes share the cores as it is.
    with environment(POLARS_MAX_THREADS="1", NUMBA_NUM_THREADS="1"):
        parallel = Parallel(
            workers, return_as="generator_unordered", batch_size=1, pre_dispatch=2 * workers
        )
        try:
            yield from parallel(delayed(work)(item) for item in items)
        finally:  # they would keep their memory while shards are compared
            get_reusable_executor().shutdown(wait=True)


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Variables for processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
