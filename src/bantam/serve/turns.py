"""Turns at a model: so many requests at once, a bounded number that wait, and none for ever."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bantam.serve.ask import Refusal

LONGEST_WAIT = 60  # seconds that a client is told to wait at most
NEWEST = 0.1  # how much the newest turn counts in how long turns usually take


class Turns:
    """`at_once` turns; `queue` may wait for one, each for `patience` seconds, first come first."""

    def __init__(self, at_once: int, queue: int, patience: float) -> None:
        self.at_once, self.queue, self.patience = at_once, queue, patience
        self.taken: Counter[str] = Counter()  # by the names that turns were asked for
        self.waiting: Counter[str] = Counter()
        self._free = asyncio.Semaphore(at_once)
        self._usual = 1.0  # seconds of a turn

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Hold a turn. Raises Refusal: 429 when too many wait already, 503 when patience ends."""
        await self._take(name)
        self.taken[name] += 1
        begun = time.monotonic()
        try:
            yield
        finally:
            self._usual += NEWEST * (time.monotonic() - begun - self._usual)
            self.taken[name] -= 1
            self._free.release()

    async def _take(self, name: str) -> None:
        waiting = self.waiting.total()
        if self._free.locked() and waiting >= self.queue:
            raise Refusal(
                429,
                f"{waiting} requests wait for {name} already, more may not: try again later",
                code="queue_full",
                retry_after=self._soon(),
            )
        self.waiting[name] += 1
        try:
            async with asyncio.timeout(self.patience):
                await self._free.acquire()
        except TimeoutError:
            raise Refusal(
                503,
                f"{name} is busy: no turn came within {self.patience:g} s; try again later",
                code="busy",
                retry_after=self._soon(),
            ) from None
        finally:
            self.waiting[name] -= 1

    def _soon(self) -> int:
        """Seconds until there is likely room."""
        likely = self._usual * (self.waiting.total() + 1) / self.at_once
        return max(1, min(math.ceil(likely), LONGEST_WAIT))
