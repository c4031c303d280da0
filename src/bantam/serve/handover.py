"""Hand-over: what a model is not sure of is asked of a larger one on the same shelf.

Off unless the server was told which model and below which confidence. The larger model is asked as
the judge asks models that are only prompted: it is held to the labels or the schema. If it cannot
answer, our own answer stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Request
from prometheus_client import Counter

from bantam.errors import BadInput
from bantam.kinds import Row
from bantam.model import Answer, Written
from bantam.serve.ask import Refusal
from bantam.serve.lent import Book
from bantam.serve.metrics import REGISTRY
from bantam.serve.shelf import Shelf

Reply = Answer | Written

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
    model: str  # the larger one's name on the shelf
    below: float  # confidence, 0 to 1


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
    weak = [at for at, reply in enumerate(ours) if reply.probability < handover.below]
    if not weak:
        return found
    from bantam.judge import larger  # here, as few servers need it

    asked = [rows[at] for at in weak]
    try:
        async with shelf.lent(handover.model) as lent:
            told = await lent.blocking(larger.answers, lent.model, book.task, asked)
    except (Refusal, BadInput):
        told = [None] * len(weak)
    for at, reply in zip(weak, told, strict=True):
        found[at] = reply
        (FAILED if reply is None else HANDED).labels(book.name, handover.model).inc()
    return found


def _may(handover: Handover, book: Book) -> bool:
    """Not to itself, not sets of labels, as a model that is only prompted has no thresholds, and
    not where a strange file has no words to ask with."""
    task = book.task
    if task is None or task.multi or not task.before:
        return False
    return book.name != handover.model
