"""The models by name: opened at first use, lent to requests, closed when memory asks.

A model that is lent stays open. A file that has changed is opened anew for new requests, while
those under way finish with the old one; files should be replaced by renaming, as `bantam make`
does, since what is mapped must not change. A process that has died is started again by the next
request.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import psutil

from bantam import engine
from bantam.errors import BantamError
from bantam.model import Model
from bantam.serve import memory as reckoned
from bantam.serve.ask import Refusal
from bantam.serve.lent import Book, Lent, ending, refusing, submit, worded
from bantam.serve.turns import Turns
from bantam.serve.watched import Blame, Watched

P = ParamSpec("P")
T = TypeVar("T")

SHARE = 0.8  # of the memory that is free at the start
AGAIN = 5.0  # seconds until a file that could not be opened is tried again

log = logging.getLogger("bantam.serve")

Identity = tuple[int, int, int]  # of a file: when it was changed (ns), its bytes, its inode


@dataclass(eq=False)
class _Copy:
    """A file as it was found, and the processes that run it."""

    book: Book
    identity: Identity
    model: Model
    blame: Blame
    bytes: int  # of memory, as reckoned
    lent: int = 0
    used: float = 0.0  # when it was last given back
    watched: Watched | None = None
    embedder: asyncio.Task[Watched] | None = None
    embeds: bool = False  # room for that has been taken
    closed: bool = False

    @property
    def alive(self) -> bool:
        return self.watched is not None and self.watched.alive

    def start(self) -> None:
        """Start the process and, meanwhile, build the tokenizer."""
        with ThreadPoolExecutor(1) as pool:
            building = pool.submit(lambda: self.model.tokenizer)
            self.watched = Watched(partial(_run, self.model), self.model.parallel, self.blame)
            try:
                building.result()
            except BaseException:
                self.watched.close()
                raise
        self.model.runtime = self.watched

    def start_embedder(self) -> Watched:
        start = partial(_run, self.model, embeddings=True)
        embedder = Watched(start, 1, self.blame)
        if self.closed or _identity(self.book.path) != self.identity:
            embedder.close()
            raise Refusal(503, f"{self.book.name} has just changed: ask again", retry_after=1)
        return embedder

    def close(self) -> None:
        self.closed = True
        for watched in self.processes():
            watched.close()

    def processes(self) -> Iterator[Watched]:
        if self.watched:
            yield self.watched
        if self.embedder and _succeeded(self.embedder):
            yield self.embedder.result()


def _succeeded(task: asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _run(model: Model, parallel: int, embeddings: bool = False) -> engine.Runtime:
    return engine.start(
        model.path,
        threads=model.threads,
        context=model.context,
        parallel=parallel,
        embeddings=embeddings,
    )


@dataclass
class _Failure:
    """A file that could not be opened."""

    identity: Identity | None
    at: float
    refusal: Refusal
    lasting: bool  # until it changes


class _Place:
    """A name on the shelf."""

    def __init__(self, name: str, path: Path, turns: Turns) -> None:
        self.name, self.path, self.turns = name, path, turns
        # What takes its time must not keep others from beginning or from being stopped, and what
        # was given up may hold its thread for a moment longer.
        self.quick = ThreadPoolExecutor(turns.at_once + 2, "bantam-quick")
        self.slow = ThreadPoolExecutor(2 * turns.at_once, "bantam-slow")
        self.book: Book | None = None
        self.read: Identity | None = None  # the file whose head was last read
        self.hashed: tuple[Identity, str] | None = None
        self.copy: _Copy | None = None
        self.opening: asyncio.Task[_Copy] | None = None
        self.failure: _Failure | None = None
        self.opened = self.restarts = 0

    def usable(self) -> _Copy | None:
        """The copy, when it lives and nothing better can be had now. Raises Refusal when there is
        none and the file has only just failed."""
        identity, failed, copy = _identity(self.path), self.failure, self.copy
        alive = copy is not None and copy.alive
        if failed and failed.identity == identity:
            recent = time.monotonic() - failed.at < AGAIN
            if alive and (recent or failed.lasting):
                return copy
            if recent and not alive:
                raise failed.refusal
        return copy if copy and alive and copy.identity == identity else None


class Shelf:
    """GGUF files by name. Names are only looked up; they never become paths.

    `parallel` requests are worked on at once by each model, each within `context` tokens (None: as
    many as its task or a conversation takes); `queue` more may wait, each for `patience` seconds.
    `memory` are the bytes that all models together may take as `serve.memory` reckons them; None:
    four fifths of what is free now. Raises BadInput for a file that cannot be read.
    """

    def __init__(
        self,
        places: Mapping[str, Path],
        *,
        threads: int | None = None,
        parallel: int = 4,
        context: int | None = None,
        memory: int | None = None,
        queue: int = 64,
        patience: float = 30.0,
    ) -> None:
        self._threads, self._parallel, self._context = threads, parallel, context
        self._memory = memory or int(SHARE * psutil.virtual_memory().available)
        self._places = {
            name: _Place(name, path, Turns(parallel, queue, patience))
            for name, path in places.items()
        }
        self._open: set[_Copy] = set()
        self._making_room = asyncio.Lock()
        self._pool = ThreadPoolExecutor(4, "bantam-shelf")  # opens, closes and hashes
        self._closed = threading.Event()
        for place in self._places.values():
            place.read = _identity(place.path)
            place.book = _book(place.name, self._model(place.path))

    def books(self) -> list[Book]:
        """All models, in the order given."""
        return [self._book(place) for place in self._places.values()]

    def book(self, name: str) -> Book:
        """Raises Refusal (404) for a name that is not on the shelf."""
        return self._book(self._place(name))

    def state(self) -> list[dict[str, Any]]:
        """What there is to count, by model; `memory` are bytes that its processes hold."""
        return [
            {
                "name": place.name,
                "loaded": place.copy is not None and place.copy.alive,
                "in_flight": place.turns.taken,
                "waiting": place.turns.waiting,
                "loads": place.opened,
                "restarts": place.restarts,
                "memory": sum(map(_resident, place.copy.processes())) if place.copy else 0,
            }
            for place in self._places.values()
        ]

    @asynccontextmanager
    async def lent(self, name: str) -> AsyncIterator[Lent]:
        """A model for one request, when its turn has come; opened if need be.

        Raises Refusal: 404 for an unknown name, 429 and 503 with `retry_after`. What the core
        raises within becomes a Refusal too.
        """
        place = self._place(name)
        async with place.turns.turn(name):
            copy = await self._copy(place)
            copy.lent += 1
            embedder = partial(self._embedder, place, copy)
            lent = Lent(copy.book, copy.model, place.quick, place.slow, embedder)
            try:
                with refusing(copy.book):
                    yield lent
            finally:
                lent.end()
                copy.lent -= 1
                copy.used = time.monotonic()
                if copy is not place.copy and not copy.lent:
                    self._discard(copy)
                elif not copy.book.sha:
                    self._hash(place, copy)

    async def close(self) -> None:
        """End all processes; what is under way is refused."""
        self._closed.set()
        opening = [place.opening for place in self._places.values() if place.opening]
        await asyncio.gather(*opening, return_exceptions=True)
        for copy in tuple(self._open):
            if copy.embedder:
                await asyncio.gather(copy.embedder, return_exceptions=True)
            await self._apart(copy.close)
        self._open.clear()
        for place in self._places.values():
            for pool in (place.quick, place.slow):
                pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._pool.shutdown)  # when what it still closes is closed

    def _place(self, name: str) -> _Place:
        if name not in self._places:
            raise Refusal(
                404,
                f"there is no model {name!r:.80}; there are: {', '.join(self._places) or 'none'}",
                param="model",
                code="model_not_found",
            )
        return self._places[name]

    def _model(self, path: Path) -> Model:
        return Model(path, threads=self._threads, parallel=self._parallel, context=self._context)

    def _book(self, place: _Place) -> Book:
        identity = _identity(place.path)
        if identity and identity != place.read:
            place.read = identity
            with suppress(BantamError):  # what cannot be read is told when it is to be opened
                place.book = _book(place.name, self._model(place.path))
        assert place.book
        known = place.hashed and place.hashed[0] == identity
        return replace(place.book, sha=place.hashed[1]) if known and place.hashed else place.book

    async def _apart(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    async def _copy(self, place: _Place) -> _Copy:
        """The copy to use. Many may wait for it to be opened, and any of them may go."""
        if self._closed.is_set():
            raise ending()
        if usable := place.usable():
            return usable
        if place.opening is None:
            place.opening = asyncio.create_task(self._opened(place))
            place.opening.add_done_callback(partial(_ended, place))
        return await asyncio.shield(place.opening)

    async def _opened(self, place: _Place) -> _Copy:
        """A new copy of the file, or the old one when that lives and the file is no use."""
        old, identity = place.copy, _identity(place.path)
        if old and not old.alive:
            place.restarts += 1
            old.bytes = 0
            log.warning("%s: its process has died and is started again", place.name)
        try:
            new = await self._open_file(place, old, identity)
        except (BantamError, Refusal) as error:
            refusal = error if isinstance(error, Refusal) else _unusable(place, error)
            alive = old is not None and old.alive
            if alive or isinstance(error, BantamError):
                lasting = alive and isinstance(error, BantamError)
                place.failure = _Failure(identity, time.monotonic(), refusal, lasting)
            if old and alive:
                log.warning(
                    "%s: the file has changed, but the old one serves on: %s", place.name, error
                )
                return old
            raise refusal from None
        place.copy, place.failure = new, None
        place.opened += 1
        if old and not old.lent:
            self._discard(old)
        return new

    async def _open_file(
        self, place: _Place, old: _Copy | None, identity: Identity | None
    ) -> _Copy:
        model = await self._apart(partial(self._model, place.path))
        book = _book(place.name, model)
        blame = old.blame if old and old.identity == identity else Blame()
        bytes = reckoned.needed(model.file, book.bytes, model.context, self._parallel)
        copy = _Copy(book, identity or (0, 0, 0), model, blame, 0)
        await self._take_room(place, copy, bytes)
        try:
            await self._apart(copy.start)
        except BaseException:
            self._open.discard(copy)
            raise
        return copy

    async def _take_room(self, place: _Place, copy: _Copy, bytes: int) -> None:
        """Reserve memory for `copy`, closing the longest unused models if need be.

        Raises Refusal when that is not enough.
        """
        async with self._making_room:
            while sum(one.bytes for one in self._open) + bytes > self._memory:
                idle = [one for one in self._places.values() if _is_idle(one, place)]
                if not idle:
                    taken = sum(one.bytes for one in self._open)
                    raise Refusal(
                        503,
                        f"{place.name} needs about {_mb(bytes)} of memory; the models may take "
                        f"{_mb(self._memory)}, and {_mb(taken)} are in use: try again later, or "
                        "start the server with more memory or a smaller context",
                        code="no_memory",
                        retry_after=5 if bytes <= self._memory else None,
                    )
                longest = min(idle, key=lambda one: (one is place, one.copy and one.copy.used))
                unused, longest.copy = longest.copy, None
                assert unused
                log.info("%s is closed to make room for %s", longest.name, place.name)
                await self._apart(unused.close)
                self._open.discard(unused)
            copy.bytes += bytes
            self._open.add(copy)

    async def _embedder(self, place: _Place, copy: _Copy) -> Watched:
        """The second process of a copy, for embeddings; as `_copy`."""
        task = copy.embedder
        if task and _succeeded(task) and not task.result().alive:
            place.restarts += 1
            submit(self._pool, task.result().close)
            task = None
        if task is None or (task.done() and not _succeeded(task)):
            copy.embedder = task = asyncio.create_task(self._start_embedder(place, copy))
        return await asyncio.shield(task)

    async def _start_embedder(self, place: _Place, copy: _Copy) -> Watched:
        if not copy.embeds:
            # The file is mapped once.
            bytes = reckoned.needed(copy.model.file, 0, copy.model.context, 1)
            await self._take_room(place, copy, bytes)
            copy.embeds = True
        return await self._apart(copy.start_embedder)

    def _discard(self, copy: _Copy) -> None:
        self._open.discard(copy)
        with suppress(Refusal):  # the shelf is closed, and all copies are
            submit(self._pool, copy.close)

    def _hash(self, place: _Place, copy: _Copy) -> None:
        """Learn the file's sha256, in the background and once."""
        if place.hashed and place.hashed[0] == copy.identity:
            return
        place.hashed = (copy.identity, "")

        def work() -> None:
            sha = hashlib.sha256()
            with place.path.open("rb") as file:
                while (piece := file.read(1 << 20)) and not self._closed.is_set():
                    sha.update(piece)
            if _identity(place.path) == copy.identity and not self._closed.is_set():
                place.hashed = (copy.identity, sha.hexdigest())
                copy.book = replace(copy.book, sha=sha.hexdigest())

        with suppress(Refusal):
            submit(self._pool, work)


def _ended(place: _Place, opening: asyncio.Task[_Copy]) -> None:
    place.opening = None
    if not opening.cancelled():
        opening.exception()  # whoever waited has had it


def _is_idle(other: _Place, place: _Place) -> bool:
    """Whether `other` may be closed for the sake of `place`, which has a turn itself."""
    copy = other.copy
    return copy is not None and not copy.lent and (other is place or not other.turns.taken)


def _book(name: str, model: Model) -> Book:
    told = model.path.stat()
    parameters = sum(prod(tensor.shape) for tensor in model.file.tensors.values())
    made, size = int(told.st_mtime), told.st_size
    return Book(name, model.path, made, size, model.task, model.context, parameters, "")


def _identity(path: Path) -> Identity | None:
    """None when there is no such file."""
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_mtime_ns, told.st_size, told.st_ino


def _unusable(place: _Place, error: BantamError) -> Refusal:
    log.error("%s cannot be opened: %s", place.name, error)
    assert place.book
    return Refusal(
        503, f"{place.name} cannot be opened: {worded(place.book, error)}", retry_after=5
    )


def _resident(watched: Watched) -> int:
    try:
        return int(psutil.Process(watched.pid).memory_info().rss)
    except psutil.Error:
        return 0


def _mb(bytes: int) -> str:
    return f"{bytes / 1e6:,.0f} MB"
