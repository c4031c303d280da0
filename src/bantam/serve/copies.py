"""A file with its adapters as they were found, and the processes that run them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from bantam import engine
from bantam.model import Model
from bantam.serve import memory as reckoned
from bantam.serve.ask import Refusal
from bantam.serve.lent import Book
from bantam.serve.watched import Blame, Watched

Identity = tuple[int, int, int]  # of a file: when it was changed (ns), its bytes, its inode


@dataclass(eq=False)
class Copy:
    """One process runs the file for all its names; an adapter is each request's own."""

    models: dict[str, Model]  # by name
    books: dict[str, Book]
    adapters: list[Path]
    identities: list[Identity | None]  # of the file and of the adapters
    blame: Blame = field(default_factory=Blame)
    bytes: int = 0  # of memory, as reckoned
    lent: int = 0
    used: float = 0.0  # when it was last given back
    watched: Watched | None = None
    embedder: asyncio.Task[Watched] | None = None
    embeds: bool = False  # room for that has been taken
    closed: bool = False

    @property
    def alive(self) -> bool:
        return self.watched is not None and self.watched.alive

    def needed(self) -> int:
        """Bytes of memory, as reckoned."""
        size = sum(one[1] for one in self.identities if one)
        return reckoned.needed(self._any.file, size, self._context, self._any.parallel)

    def needed_to_embed(self) -> int:
        """More bytes, for a second process: the file is mapped once."""
        return reckoned.needed(self._any.file, 0, self._context, 1)

    def start(self) -> None:
        """Start the process and, meanwhile, build the tokenizer."""
        with ThreadPoolExecutor(1) as pool:
            building = pool.submit(lambda: self._any.tokenizer)
            start = partial(self._run(), adapters=self.adapters)
            self.watched = Watched(start, self._any.parallel, self.blame)
            try:
                tokenizer = building.result()
            except BaseException:
                self.watched.close()
                raise
        for model in self.models.values():
            model.tokenizer, model.runtime = tokenizer, self.watched
            if model.adapter:
                model.runtime = self.watched.adapted(self.adapters.index(model.adapter.path))

    def start_embedder(self) -> Watched:
        embedder = Watched(partial(self._run(), embeddings=True), 1, self.blame)
        if self.closed or identity(self._any.path) != self.identities[0]:
            embedder.close()
            raise Refusal(503, "the model has just changed: ask again", retry_after=1)
        return embedder

    def close(self) -> None:
        self.closed = True
        for watched in self.processes():
            watched.close()

    def processes(self) -> Iterator[Watched]:
        if self.watched:
            yield self.watched
        if self.embedder and succeeded(self.embedder):
            yield self.embedder.result()

    def resident(self) -> int:
        """Bytes of memory that the processes hold."""
        return sum(map(_resident, self.processes()))

    @property
    def _any(self) -> Model:
        """One of the models: their file is the same."""
        return next(iter(self.models.values()))

    @property
    def _context(self) -> int:
        return max(model.context for model in self.models.values())

    def _run(self) -> Callable[..., engine.Runtime]:
        """What starts a process. It does not hold this copy, which holds what calls it: a copy in a
        circle would keep its vocabularies until Python looks for circles, which it hardly does."""
        path, threads, context = self._any.path, self._any.threads, self._context

        def start(parallel: int, **how: Any) -> engine.Runtime:
            return engine.start(path, threads=threads, context=context, parallel=parallel, **how)

        return start


def identity(path: Path) -> Identity | None:
    """None when there is no such file."""
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_mtime_ns, told.st_size, told.st_ino


def succeeded(task: asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _resident(watched: Watched) -> int:
    try:
        return int(psutil.Process(watched.pid).memory_info().rss)
    except psutil.Error:
        return 0
