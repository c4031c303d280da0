"""Hand-over: what a model is not sure of is asked of a larger one, on the same shelf or elsewhere.

Off unless the server was told which model and below which confidence. The larger model is asked as
the judge asks models that are only prompted: it is held to the labels or the schema. If it cannot
answer, our own answer stands.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from fastapi import Request
from prometheus_client import Counter

from bantam.answer import Answer, Written
from bantam.errors import BadInput, BantamError
from bantam.kinds import Row, Task
from bantam.serve import keys
from bantam.serve.ask import Refusal
from bantam.serve.lent import Book
from bantam.serve.metrics import REGISTRY
from bantam.serve.prompt import WIDEST
from bantam.serve.shelf import Shelf

if TYPE_CHECKING:
    from bantam.sources.endpoint import Line

Reply = Answer | Written

AT_ONCE = 8  # questions to an endpoint
PATIENCE = 30.0  # seconds that it is waited for, its turn included

log = logging.getLogger("bantam.serve")

HANDED = Counter(
    "bantam_handed_over",
    "Answers that a larger model gave instead.",
    ["model", "handed_to"],
    registry=REGISTRY,
)
FAILED = Counter(
    "bantam_handovers_failed",
    "Answers that a larger model should have given and could not.",
    ["model", "handed_to"],
    registry=REGISTRY,
)


@dataclass(frozen=True)
class Handover:
    """`below` is a confidence from 0 to 1, the same for all models or each model's own."""

    model: str  # the larger one's name on the shelf, or the endpoint's
    below: float | Mapping[str, float]
    line: Line | None = None  # to the endpoint
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    def bound(self, name: str) -> float:
        """Below which confidence answers of a model are handed over."""
        return self.below.get(name, 0.0) if isinstance(self.below, Mapping) else self.below


def of(request: Request) -> Handover | None:
    """What the server was told to hand over; None: nothing."""
    found = getattr(getattr(request.app.state, "settings", None), "handover", None)
    assert found is None or isinstance(found, Handover)
    return found


async def instead(
    shelf: Shelf, handover: Handover | None, book: Book, rows: Sequence[Row], ours: Sequence[Reply]
) -> list[Reply | None]:
    """The larger model's answers to those rows of which ours is not sure enough, None for others.

    Nothing may be lent to the caller meanwhile: two that wait for each other's model would wait
    for ever.
    """
    found: list[Reply | None] = [None] * len(rows)
    if handover is None or book.task is None or not _may(handover, book):
        return found
    weak = [at for at, reply in enumerate(ours) if reply.probability < handover.bound(book.name)]
    if not weak:
        return found
    asked = [rows[at] for at in weak]
    if handover.line:
        told = await _elsewhere(handover, handover.line, book.task, asked)
    else:
        told = await _here(shelf, handover, book.task, asked)
    for at, reply in zip(weak, told, strict=True):
        found[at] = reply
        (FAILED if reply is None else HANDED).labels(book.name, handover.model).inc()
    return found


async def _here(
    shelf: Shelf, handover: Handover, task: Task, rows: Sequence[Row]
) -> Sequence[Reply | None]:
    from bantam.judge import larger  # here, as few servers need it

    if task.kind == "classify":  # of which no more is read; ours may have had to read all of others
        rows = [row._replace(text=row.text[: WIDEST * task.max_text_tokens]) for row in rows]
    try:
        async with shelf.lent(handover.model) as lent:
            return await lent.blocking(larger.answers, lent.model, task, rows)
    except (Refusal, BadInput):
        return [None] * len(rows)


async def _elsewhere(
    handover: Handover, line: Line, task: Task, rows: Sequence[Row]
) -> Sequence[Reply | None]:
    from bantam.judge import elsewhere

    async def one(row: Row) -> Reply | None:
        try:
            async with asyncio.timeout(PATIENCE), handover.turns:
                return await _threaded(partial(elsewhere.answer, line, task, row))
        except TimeoutError:
            log.warning("%s did not answer in %g s", handover.model, PATIENCE)
        except BantamError as error:  # its second line may hold a text of somebody's
            log.warning("%s", error.message.partition("\n")[0])
        return None

    return await asyncio.gather(*map(one, rows))


async def _threaded(work: Callable[[], Reply | None]) -> Reply | None:
    """What `work` returns, from a thread that nobody has to wait for, not even the end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Reply | None] = loop.create_future()

    def settle(act: Callable[[], None]) -> None:
        if not done.done():
            act()

    def run() -> None:
        act: Callable[[], None]
        try:
            act = partial(done.set_result, work())
        except Exception as error:
            act = partial(done.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, act)

    threading.Thread(target=run, daemon=True).start()
    return await done


def _may(handover: Handover, book: Book) -> bool:
    """Not to itself, not sets of labels, as a model that is only prompted has no thresholds, not
    where a strange file has no words to ask with, and not to an endpoint for a key that is for some
    models only."""
    task = book.task
    if task is None or task.multi or not task.before:
        return False
    if handover.line and not keys.allowed(handover.model):
        return False
    return book.name != handover.model
