"""A runtime under watch: what it was doing when it died is remembered and not held against others.

Whatever was being worked on at a death is suspect. When it is asked again it gets a process of its
own, so that its next death, if there is one, hurts nobody else and shows whose it was. What has
died twice is refused for a while, then suspect again: a process may be killed from outside, and
what many ask should not be refused for ever. What came through is trusted.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

from bantam.engine import Completion, Done, Info, Piece, Runtime, Sampling, whole
from bantam.errors import BantamError, JobFailed
from bantam.serve.ask import Refusal

REMEMBERED = 1000  # requests that were under way at a death
REFUSED = 600.0  # seconds, after two
PART = 32  # prompts of one batch at a time: others have their turn between

log = logging.getLogger("bantam.serve")

# Set where a thread works for a request: when the event is, nobody waits for its answer any more.
given_up: ContextVar[threading.Event | None] = ContextVar("given_up", default=None)


class Blame:
    """How many deaths each request was there at: 1 is a suspect, 2 is too much for a while."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._deaths: OrderedDict[bytes, tuple[int, float]] = OrderedDict()  # and since when
        self._lock, self._now = threading.Lock(), now

    def deaths(self, asked: object) -> int:
        if not self._deaths:
            return 0
        deaths, since = self._deaths.get(_fingerprint(asked), (0, 0.0))
        return 1 if deaths > 1 and self._now() - since > REFUSED else deaths

    def set(self, asked: object, deaths: int) -> None:
        key = _fingerprint(asked)
        with self._lock:
            self._deaths.pop(key, None)
            if deaths:
                self._deaths[key] = deaths, self._now()
            if len(self._deaths) > REMEMBERED:
                self._deaths.popitem(last=False)


def _fingerprint(asked: object) -> bytes:
    """Of plain data."""
    return hashlib.blake2b(repr(asked).encode(), digest_size=16).digest()


@dataclass(eq=False)
class _Work:
    """Something that is asked of a runtime."""

    asked: tuple[Any, ...]
    runtime: Runtime
    apart: bool  # the runtime is its own


class Watched:
    """A `Runtime` that `start` starts with room for so many prompts at once. See above.

    Its methods also raise Refusal (422) for what it died of twice, and JobFailed in a thread whose
    request was given up.
    """

    def __init__(self, start: Callable[[int], Runtime], parallel: int, blame: Blame) -> None:
        self._start, self._blame = start, blame
        self._runtime = start(parallel)
        self._adapter: int | None = None  # that is asked
        # All adapters of a process share what follows.
        self._under_way: set[_Work] = set()
        self._lock = threading.Lock()
        self._dead, self._closed = threading.Event(), threading.Event()

    @property
    def info(self) -> Info:
        return self._runtime.info

    @property
    def peak_memory_bytes(self) -> int:
        return self._runtime.peak_memory_bytes

    @property
    def pid(self) -> int:
        return self._runtime.pid

    @property
    def alive(self) -> bool:
        return self._runtime.alive

    def choose(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        rows: list[list[float]] = []
        for part in _parts(max(len(prompts), len(candidates))):
            rows += self._ask("choose", prompts[part], candidates[part])
        return rows

    def generate(self, prompt: Sequence[int], **settings: Any) -> Iterator[str]:
        with self._working(("generate", prompt, settings)) as runtime:
            yield from runtime.generate(prompt, **settings)

    def write(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        tell: Callable[[Piece | Done | BantamError], None],
    ) -> Callable[[], None]:
        work = self._begin(("write", prompt, sampling))

        def hear(what: Piece | Done | BantamError) -> None:
            if isinstance(what, BantamError):
                self._failed(work, what)
            elif isinstance(what, Done):
                self._done(work)
            tell(what)

        try:
            stop = work.runtime.write(prompt, sampling, hear)
        except BaseException as error:
            self._failed(work, error)
            raise

        def stopped() -> None:
            stop()
            self._end(work)

        return stopped

    def likeliest(self, prompt: Sequence[int], count: int) -> list[tuple[int, float]]:
        found: list[tuple[int, float]] = self._ask("likeliest", prompt, count)
        return found

    def complete(
        self, prompt: Sequence[int], max_tokens: int, stop: Sequence[str] = ()
    ) -> Completion:
        return whole.complete(self, prompt, max_tokens, stop, given_up.get())

    def embed(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        rows: list[list[float]] = []
        for part in _parts(len(prompts)):
            rows += self._ask("embed", prompts[part])
        return rows

    def tokenize(self, text: str, special: bool) -> list[int]:
        ids: list[int] = self._ask("tokenize", text, special)
        return ids

    def detokenize(self, ids: Sequence[int]) -> str:
        text: str = self._ask("detokenize", ids)
        return text

    def adapted(self, adapter: int) -> Watched:
        other = copy(self)
        other._adapter = adapter
        return other

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            runtimes = [self._runtime, *(work.runtime for work in self._under_way if work.apart)]
        for runtime in runtimes:
            runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, op: str, *asked: Any) -> Any:
        with self._working((op, *asked)) as runtime:
            return getattr(runtime, op)(*asked)

    @contextmanager
    def _working(self, asked: tuple[Any, ...]) -> Iterator[Runtime]:
        nobody_waits = given_up.get()
        if nobody_waits and nobody_waits.is_set():
            raise JobFailed("the request was given up")
        work = self._begin(asked)
        try:
            yield work.runtime
        except BaseException as error:
            self._failed(work, error)
            raise
        self._done(work)

    def _begin(self, asked: tuple[Any, ...]) -> _Work:
        if self._adapter is not None:  # the same of another adapter is another request
            asked = (self._adapter, *asked)
        deaths = self._blame.deaths(asked)
        if deaths > 1:
            raise Refusal(
                422,
                "the model's process died twice while it worked on this request alone or with "
                "others: it is not tried again for ten minutes; change the prompt or its settings",
                code="crashes_model",
            )
        runtime = self._start(1) if deaths else self._runtime
        if self._adapter is not None:
            runtime = runtime.adapted(self._adapter)
        work = _Work(asked, runtime, apart=bool(deaths))
        with self._lock:
            self._under_way.add(work)
            closed = self._closed.is_set()
        if closed and work.apart:
            runtime.close()
        return work

    def _done(self, work: _Work) -> None:
        if work.apart:
            self._blame.set(work.asked, 0)
        self._end(work)

    def _failed(self, work: _Work, error: BaseException) -> None:
        if isinstance(error, JobFailed) and not work.runtime.alive:
            self._died(work, error)
        self._end(work)

    def _died(self, work: _Work, error: JobFailed) -> None:
        with self._lock:
            known = self._closed.is_set() or (self._dead.is_set() and not work.apart)
            if work.apart:
                there, deaths = [work], 2
            else:
                there, deaths = [one for one in self._under_way if not one.apart], 1
                self._dead.set()
        if known:
            return
        log.error("%s", error.message)
        for one in there:
            self._blame.set(one.asked, deaths)

    def _end(self, work: _Work) -> None:
        with self._lock:
            there = work in self._under_way
            self._under_way.discard(work)
        if there and work.apart:
            work.runtime.close()


def _parts(count: int) -> Iterable[slice]:
    return (slice(at, at + PART) for at in range(0, count, PART))
