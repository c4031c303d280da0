"""The models by name: opened at first use, lent to requests, closed when memory asks.

A model that is lent stays open. A file that has changed is opened anew for new requests, while
those under way finish with the old one; files should be replaced by renaming, as `bantam make`
does, since what is mapped must not change. A process that has died is started again by the next
request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil

from bantam.errors import BantamError
from bantam.model import Model
from bantam.serve.ask import Refusal
from bantam.serve.copies import Copy, succeeded
from bantam.serve.lent import Book, Lent, ending, refusing, submit
from bantam.serve.place import Failure, Place
from bantam.serve.turns import Turns
from bantam.serve.watched import Watched

T = TypeVar("T")

SHARE = 0.8  # of the memory that is free at the start

log = logging.getLogger("bantam.serve")


class Shelf:
    """GGUF files by name. Names are only looked up; they never become paths.

    `parallel` requests are worked on at once by each model, each within `context` tokens (None: as
    many as its task or a conversation takes); `queue` more may wait, each for `patience` seconds.
    `memory` are the bytes that all models together may take as `serve.memory` reckons them; None:
    four fifths of what is free now. Raises BadInput for a file that cannot be read, and for an
    adapter of another one.
    """

    def __init__(
        self,
        places: Mapping[str, Path],
        *,
        adapters: Mapping[str, Path] | None = None,
        threads: int | None = None,
        parallel: int = 4,
        context: int | None = None,
        memory: int | None = None,
        queue: int = 64,
        patience: float = 30.0,
    ) -> None:
        self._threads, self._parallel, self._context = threads, parallel, context
        self._memory = memory or int(SHARE * psutil.virtual_memory().available)
        self._open: set[Copy] = set()
        self._making_room = asyncio.Lock()
        self._pool = ThreadPoolExecutor(4, "bantam-shelf")  # opens, closes and hashes
        self._closed = False
        names: dict[Path, dict[str, Path | None]] = {}
        for name, path in places.items():
            names.setdefault(path.absolute(), {})[name] = (adapters or {}).get(name)
        given = {path.absolute(): path for path in places.values()}
        turns = partial(Turns, parallel, queue, patience)
        made = {at: Place(given[at], told, turns(), self._model) for at, told in names.items()}
        self._places = {name: made[path.absolute()] for name, path in places.items()}

    def names(self) -> list[str]:
        """Of all models, in the order given; unlike their books they cost no look at files."""
        return list(self._places)

    def books(self) -> list[Book]:
        """All models, in the order given."""
        return [place.book(name) for name, place in self._places.items()]

    def book(self, name: str) -> Book:
        """Raises Refusal (404) for a name that is not on the shelf."""
        return self._place(name).book(name)

    def state(self) -> list[dict[str, Any]]:
        """What there is to count, by model; `memory` are bytes that its processes hold, divided by
        the models that share them."""
        return [
            {
                "name": name,
                "loaded": place.copy is not None and place.copy.alive,
                "in_flight": place.turns.taken[name],
                "waiting": place.turns.waiting[name],
                "loads": place.opened,
                "restarts": place.restarts,
                "memory": place.copy.resident() // len(place.names) if place.copy else 0,
            }
            for name, place in self._places.items()
        ]

    @asynccontextmanager
    async def lent(self, name: str) -> AsyncIterator[Lent]:
        """A model for one request, when its turn has come; opened if need be.

        Raises Refusal: 404 for an unknown name, 429 and 503 with `retry_after`. What the core
        raises within becomes a Refusal too.
        """
        place = self._place(name)
        async with place.turns.turn(name):
            copy = await self._copy(place, name)
            copy.lent += 1
            book, embedder = copy.books[name], partial(self._embedder, place, copy, name)
            lent = Lent(book, copy.models[name], place.quick, place.slow, embedder)
            try:
                with refusing(book):
                    yield lent
            finally:
                lent.end()
                copy.lent -= 1
                copy.used = time.monotonic()
                if copy is not place.copy and not copy.lent:
                    self._discard(copy)
                else:
                    self._hash(place, copy)

    async def close(self) -> None:
        """End all processes; what is under way is refused."""
        self._closed = True
        places = {*self._places.values()}
        opening = [place.opening for place in places if place.opening]
        await asyncio.gather(*opening, return_exceptions=True)
        for copy in tuple(self._open):
            if copy.embedder:
                await asyncio.gather(copy.embedder, return_exceptions=True)
            await self._apart(copy.close)
        self._open.clear()
        for place in places:
            place.close()
        await asyncio.to_thread(self._pool.shutdown)  # when what it still closes is closed

    def _place(self, name: str) -> Place:
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

    async def _apart(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    async def _copy(self, place: Place, name: str) -> Copy:
        """The copy to use. Many may wait for it to be opened, and any of them may go."""
        if self._closed:
            raise ending()
        try:
            if usable := place.usable():
                return usable
            if place.opening is None:
                place.opening = asyncio.create_task(self._opened(place))
                place.opening.add_done_callback(partial(_ended, place))
            return await asyncio.shield(place.opening)
        except BantamError as error:
            raise place.refusal(name, error) from None

    async def _opened(self, place: Place) -> Copy:
        """A new copy of the files, or the old one when that lives and they are no use."""
        old, identities = place.copy, place.identities()
        if old and not old.alive:
            place.restarts += 1
            old.bytes = 0
            log.warning("%s: its process has died and is started again", place.title)
        try:
            new = await self._open_files(place, old)
        except (BantamError, Refusal) as error:
            broken = isinstance(error, BantamError)
            if broken:
                log.error("%s cannot be opened: %s", place.title, error)
            alive = old is not None and old.alive
            if alive or broken:
                lasting = alive and broken
                place.failure = Failure(identities, time.monotonic(), error, lasting)
            if old and alive:
                log.warning(
                    "%s: a file has changed, but the old one serves on: %s", place.title, error
                )
                return old
            raise
        place.copy, place.failure = new, None
        place.opened += 1
        if old and not old.lent:
            self._discard(old)
        return new

    async def _open_files(self, place: Place, old: Copy | None) -> Copy:
        copy = await self._apart(place.checked)
        if old and old.identities == copy.identities:
            copy.blame = old.blame
        await self._take_room(place, copy, copy.needed())
        try:
            await self._apart(copy.start)
        except BaseException:
            self._open.discard(copy)
            raise
        return copy

    async def _take_room(self, place: Place, copy: Copy, bytes: int) -> None:
        """Reserve memory for `copy`, closing the longest unused models if need be.

        Raises Refusal when that is not enough.
        """
        async with self._making_room:
            while sum(one.bytes for one in self._open) + bytes > self._memory:
                idle = [one for one in {*self._places.values()} if _is_idle(one, place)]
                if not idle:
                    taken = sum(one.bytes for one in self._open)
                    raise Refusal(
                        503,
                        f"the model needs about {_mb(bytes)} of memory; all may take "
                        f"{_mb(self._memory)}, and {_mb(taken)} are in use: try again later, or "
                        "start the server with more memory or a smaller context",
                        code="no_memory",
                        retry_after=5 if bytes <= self._memory else None,
                    )
                longest = min(idle, key=lambda one: (one is place, one.copy and one.copy.used))
                unused, longest.copy = longest.copy, None
                assert unused
                log.info("%s is closed to make room for %s", longest.title, place.title)
                await self._apart(unused.close)
                self._open.discard(unused)
            if copy.closed:  # while its embedder waited here, and its client had gone
                raise Refusal(503, "the model was closed to make room: ask again", retry_after=1)
            copy.bytes += bytes
            self._open.add(copy)

    async def _embedder(self, place: Place, copy: Copy, name: str) -> Watched:
        """The second process of a copy, for embeddings; as `_copy`."""
        if copy.models[name].adapter:
            raise Refusal(
                400,
                f"{name} is a model with an adapter, which gives no embeddings; ask one without",
                param="model",
            )
        task = copy.embedder
        if task and succeeded(task) and not task.result().alive:
            place.restarts += 1
            submit(self._pool, task.result().close)
            task = None
        if task is None or (task.done() and not succeeded(task)):
            copy.embedder = task = asyncio.create_task(self._start_embedder(place, copy))
        return await asyncio.shield(task)

    async def _start_embedder(self, place: Place, copy: Copy) -> Watched:
        if not copy.embeds:
            await self._take_room(place, copy, copy.needed_to_embed())
            copy.embeds = True
        return await self._apart(copy.start_embedder)

    def _discard(self, copy: Copy) -> None:
        self._open.discard(copy)
        with suppress(Refusal):  # the shelf is closed, and all copies are
            submit(self._pool, copy.close)

    def _hash(self, place: Place, copy: Copy) -> None:
        """Learn what the files hash to, in the background and once."""
        if place.hashing != copy.identities:
            place.hashing = copy.identities
            with suppress(Refusal):
                submit(self._pool, place.hash)


def _ended(place: Place, opening: asyncio.Task[Copy]) -> None:
    place.opening = None
    if not opening.cancelled():
        opening.exception()  # whoever waited has had it


def _is_idle(other: Place, place: Place) -> bool:
    """Whether `other` may be closed for the sake of `place`, which has a turn itself."""
    copy = other.copy
    return copy is not None and not copy.lent and (other is place or not other.turns.taken.total())


def _mb(bytes: int) -> str:
    return f"{bytes / 1e6:,.0f} MB"
