"""A model that is a request's for a while: what it does for it ends with it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from bantam import kinds
from bantam.engine import Died, Done, Piece, Refused, Sampling
from bantam.errors import BadInput, BantamError, JobFailed
from bantam.model import Model, TooLong
from bantam.serve.ask import Refusal
from bantam.serve.watched import Watched, given_up

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Book:
    """A model on the shelf, open or not."""

    name: str
    path: Path
    made: int  # unix seconds
    bytes: int
    task: kinds.Task | None
    context: int  # tokens of a prompt and its answer
    parameters: int
    sha: str  # sha256 of the file, "" while it is not known: the first request has it computed
    temperature: float | None  # that the file recommends
    completes: bool = False  # it goes on with a text, and was never made to converse

    def warmth(self, usual: float) -> float:
        """The temperature of a reply where none is asked for."""
        return usual if self.temperature is None else self.temperature


@dataclass
class Lent:
    """A model that is a request's for a while."""

    book: Book
    model: Model
    _quick: ThreadPoolExecutor
    _slow: ThreadPoolExecutor
    _embedder: Callable[[], Coroutine[Any, Any, Watched]]
    _writing: set[Future[Callable[[], None]]] = field(default_factory=set)
    _working: set[threading.Event] = field(default_factory=set)

    async def write(
        self, prompt: list[int], sampling: Sampling
    ) -> AsyncGenerator[Piece | Done, None]:
        """What follows the prompt, as it comes; closing or cancelling it stops the work.

        Raises Refusal: 400 for what cannot be asked, 422, 500 for what the model cannot do, 503
        when its process dies.
        """
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[Piece | Done | BantamError] = asyncio.Queue()

        def tell(what: Piece | Done | BantamError) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(told.put_nowait, what)

        # In a thread, as the process that is asked may be slow to listen.
        begun = submit(self._quick, partial(self.model.runtime.write, prompt, sampling, tell))
        self._writing.add(begun)
        try:
            with refusing(self.book, ValueError):
                await asyncio.wrap_future(begun)
                while True:
                    what = await told.get()
                    if not isinstance(what, Piece):
                        self._writing.discard(begun)
                    if isinstance(what, BantamError):
                        raise what
                    yield what
                    if isinstance(what, Done):
                        return
        finally:
            self._stop(begun)

    async def blocking(self, function: Callable[P, T], *args: P.args, **how: P.kwargs) -> T:
        """What `function` returns, in a thread. Cancelling it gives it up: what it asks of the
        runtime then fails. Raises Refusal for the core's errors."""
        nobody_waits = threading.Event()
        context = copy_context()
        context.run(given_up.set, nobody_waits)
        work = partial(context.run, function, *args, **how)
        self._working.add(nobody_waits)
        try:
            with refusing(self.book):
                return await asyncio.wrap_future(submit(self._slow, work))
        finally:
            nobody_waits.set()
            self._working.discard(nobody_waits)

    async def embed(self, prompts: list[list[int]]) -> list[list[float]]:
        """The last token's state for each prompt, from a process that is started at first use."""
        with refusing(self.book, ValueError):
            embedder = await self._embedder()
            return await self.blocking(embedder.embed, prompts)

    def end(self) -> None:
        """Stop whatever is still under way."""
        for begun in tuple(self._writing):
            self._stop(begun)
        for nobody_waits in self._working:
            nobody_waits.set()

    def _stop(self, begun: Future[Callable[[], None]]) -> None:
        if begun not in self._writing:
            return
        self._writing.discard(begun)

        def stop() -> None:
            with suppress(Exception):  # it never began, or the process is gone
                begun.result()()

        with suppress(Refusal):  # the shelf is closed, and so is the process
            submit(self._quick, stop)


def submit(pool: ThreadPoolExecutor, work: Callable[[], T]) -> Future[T]:
    try:
        return pool.submit(work)
    except RuntimeError:  # it was shut down
        raise ending() from None


def ending() -> Refusal:
    return Refusal(503, "the server is about to end", retry_after=1)


@contextmanager
def refusing(book: Book, *senseless: type[Exception]) -> Iterator[None]:
    """What the core raises, as what a client is told: no paths, no log of the runtime's.

    What it finds `senseless` is the client's mistake.
    """
    try:
        yield
    except TooLong as error:
        raise Refusal(400, worded(book, error), code="context_length_exceeded") from None
    except BadInput as error:
        raise Refusal(400, worded(book, error)) from None
    except Died as error:  # it is started again
        failed = JobFailed(error.message, "ask again in a moment")
        raise Refusal(503, worded(book, failed), retry_after=1) from None
    except JobFailed as error:  # and would fail at it again
        asked = isinstance(error, Refused) and error.asked
        code = None if asked else "model_failed"
        raise Refusal(400 if asked else 500, worded(book, error), code=code) from None
    except senseless as error:
        raise Refusal(400, str(error)) from None


def worded(book: Book, error: BantamError) -> str:
    message = error.message.partition("\n")[0]
    told = f"{message}; {error.mend}" if error.mend else message
    return told.replace(str(book.path), book.name).replace(book.path.name, book.name)
