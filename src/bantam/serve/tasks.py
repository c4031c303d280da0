"""Task endpoints: a text or many in, labels, objects or texts out, each with how sure it is.

Many texts are answered in pieces of which a few are under way at once, so that the engine always
has work and others get their turn between them. A stream of lines is answered while it comes in:
no more of it is held than is being worked on.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from bantam import kinds
from bantam.answer import Answer, Written
from bantam.errors import BadInput
from bantam.kinds import Row, texts
from bantam.model import Model, TooLong, declared
from bantam.serve import feedback, handover, metrics, prompt, wire
from bantam.serve.ask import Refusal
from bantam.serve.duplex import Duplex, ordered
from bantam.serve.lent import Book
from bantam.serve.lines import Numbered, csv_rows, json_rows
from bantam.serve.shelf import Shelf
from bantam.serve.task_forms import (
    BODY,
    CSV,
    LINES,
    NDJSON,
    WRONG,
    All,
    Asked,
    Extracted,
    Generated,
    Known,
    Labelled,
    Many,
    One,
    row,
)

PIECE = 32  # texts that a model which chooses labels is given at a time
AHEAD = 2  # of these pieces under way
PATIENCE = 60  # times that work which has begun asks for its turn
BUSY = ("queue_full", "busy")  # why there is no turn now


@dataclass(frozen=True)
class Told:
    """A model's answer to a row, and how it came about."""

    row: Row
    reply: Answer | Written
    prompt_tokens: int
    handed_to: str | None = None


def routes(shelf: Shelf) -> APIRouter:
    router = APIRouter(tags=["tasks"], responses=WRONG)

    @router.get("/tasks")
    async def tasks() -> All:
        """The models that were made for a task."""
        return All(tasks=[_known(book, book.task) for book in shelf.books() if book.task])

    # Names may hold slashes, so the longer path is tried first.
    @router.post(
        "/tasks/{name:path}/stream", openapi_extra=BODY, responses=LINES, response_model=None
    )
    async def stream(
        request: Request, name: str, column: Annotated[str, Query(max_length=200)] = "text"
    ) -> Response:
        """Lines in, lines out, in their order and while they come: the answer to each text, or what
        is wrong with it as `{"error": ...}`, beside the number of its `line`. The texts of a CSV
        are in its column `column`."""
        book = _book(shelf, name)
        media = request.headers.get("content-type", NDJSON).partition(";")[0].strip().lower()
        if media not in (NDJSON, CSV):
            raise Refusal(400, f"{media:.80} cannot be read here: send {NDJSON} or {CSV}")
        ahead = await _ready(shelf, book)

        def answered(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
            lines = csv_rows(chunks, column) if media == CSV else json_rows(chunks)
            return _stream(request, shelf, book, lines, ahead)

        return Duplex(answered, NDJSON)

    @router.post("/tasks/{name:path}")
    async def answer(request: Request, name: str, asked: Asked) -> One | Many:
        """The answer to one text, or to many in their order.

        A text that does not fit is refused before any is answered; one that is to be labelled is
        cut, and its answer says so.
        """
        book = _book(shelf, name)
        rows = _rows(asked)
        told = await wire.unless_gone(request, _all(shelf, handover.of(request), book, rows))
        answers = [_shown(request, book, one) for one in told]
        return answers[0] if asked.text is not None else Many(answers=answers)

    router.include_router(feedback.routes(shelf))
    return router


def _book(shelf: Shelf, name: str) -> Book:
    book = shelf.book(name)
    if book.task is None:
        where = "/v1/completions" if book.completes else "/v1/chat/completions"
        raise Refusal(404, f"{book.name} was not made for a task; talk to it at {where}")
    return book


def _known(book: Book, task: kinds.Task) -> Known:
    return Known.model_validate(
        {
            "name": book.name,
            "kind": task.kind,
            "instruction": task.instruction,
            "labels": list(task.labels) or None,
            "several": task.multi,
            "answer_schema": json.loads(task.schema) if task.schema else None,
            "calls": task.most_calls,
        }
    )


def _rows(asked: Asked) -> list[Row]:
    """The texts with their functions. Raises Refusal when not every text has some."""
    read = [asked.text] if asked.text is not None else asked.texts or []
    tools: Sequence[Any] = asked.tools or []
    if tools and isinstance(tools[0], list):
        if len(tools) != len(read):
            raise Refusal(400, f"{len(read)} texts, but functions for {len(tools)}", param="tools")
        return [row(text, its) for text, its in zip(read, tools, strict=True)]
    of_all = row("", asked.tools)  # which are written out once
    return [of_all._replace(text=text) for text in read]


async def _ready(shelf: Shelf, book: Book, rows: Sequence[Row] = ()) -> int:
    """How many pieces may be under way at once. Raises Refusal when the model cannot answer now,
    or one of the rows never."""
    async with shelf.lent(book.name) as lent:
        task = lent.model.asked()
        if task.kind == "classify":
            return AHEAD
        if rows:
            await lent.blocking(_check, lent.model, task, rows)
        return lent.model.parallel


async def _all(
    shelf: Shelf, to: handover.Handover | None, book: Book, rows: list[Row]
) -> list[Told]:
    """The answers to all rows. Raises Refusal when one of them cannot be answered."""
    if len(rows) < 2:
        return await _answered(shelf, to, book, rows) if rows else []
    ahead = await _ready(shelf, book, rows)

    async def pieces() -> AsyncGenerator[list[Row], None]:
        for at in range(0, len(rows), _piece(book)):
            yield rows[at : at + _piece(book)]

    def work(piece: list[Row]) -> Coroutine[Any, Any, list[Told]]:
        return _patiently(shelf, to, book, piece)

    found: list[Told] = []
    async with aclosing(ordered(pieces(), work, ahead)) as told:
        async for some in told:
            found += some
    return found


def _piece(book: Book) -> int:
    return PIECE if book.task and book.task.kind == "classify" else 1


async def _answered(
    shelf: Shelf, to: handover.Handover | None, book: Book, rows: Sequence[Row]
) -> list[Told]:
    """The answers to some rows, those of the larger model where ours is not sure enough."""
    began = time.monotonic()
    async with shelf.lent(book.name) as lent:
        ours = await lent.blocking(_replies, lent.model, rows)
    theirs = await handover.instead(shelf, to, book, rows, [told.reply for told in ours])
    took = time.monotonic() - began
    for told in ours:
        tokens = told.reply.tokens if isinstance(told.reply, Written) else 1
        metrics.answered(book.name, told.prompt_tokens, tokens, 0, took, took)
    return [
        told if other is None or to is None else replace(told, reply=other, handed_to=to.model)
        for told, other in zip(ours, theirs, strict=True)
    ]


async def _patiently(
    shelf: Shelf, to: handover.Handover | None, book: Book, rows: Sequence[Row]
) -> list[Told]:
    """As `_answered`, for work that has begun: it waits longer for its turn."""
    for _ in range(PATIENCE):
        try:
            return await _answered(shelf, to, book, rows)
        except Refusal as refusal:
            if refusal.code not in BUSY:
                raise
            await asyncio.sleep(refusal.retry_after or 1)
    return await _answered(shelf, to, book, rows)


def _replies(model: Model, rows: Sequence[Row]) -> list[Told]:
    """The model's own answers. Raises BadInput."""
    task = model.asked()
    if task.kind != "classify":
        return [_written(model, task, asked) for asked in rows]
    around, most = len(model.prompt(task, "")), task.max_text_tokens
    for asked in rows:
        declared(task, asked.tools or None)  # none are to be
    read = [prompt.readable(model, task, asked.text) for asked in rows]
    lengths = [min(len(model.encode([(text, False)])), most) for text in read]
    return [
        Told(asked, replace(reply, cut=reply.cut or text != asked.text), around + length)
        for asked, text, reply, length in zip(rows, read, model.batch(read), lengths, strict=True)
    ]


def _written(model: Model, task: kinds.Task, asked: Row) -> Told:
    length = _length(model, task, asked)
    return Told(asked, model.write(asked.text, asked.tools or None), length)


def _check(model: Model, task: kinds.Task, rows: Sequence[Row]) -> None:
    """Raises BadInput for rows of which the model would refuse one."""
    for number, asked in enumerate(rows):
        try:
            _length(model, task, asked)
        except BadInput as error:
            raise type(error)(f"texts[{number}]: {error.message}", error.mend) from None


def _length(model: Model, task: kinds.Task, asked: Row) -> int:
    """The tokens of a text with its prompt. Raises TooLong where it would be cut, though its
    answer is to be written from all of it, or where there is no room for it."""
    prompt.check_size(model, len(asked.text) + len(asked.tools))
    length, most = len(model.encode([(asked.text, False)])), task.max_text_tokens
    if length > most:
        raise TooLong(
            f"a text of {length:,} tokens: this task reads {most:,} at most", "shorten it"
        )
    tools = declared(task, asked.tools or None)
    whole = len(model.start) + len(texts.prompt(task, model.encode, asked.text, tools))
    room = model.context - 2
    if whole > room:
        raise TooLong(
            f"a text of {whole:,} tokens with its prompt: this model has room for {room:,}",
            "shorten it" + (", or declare fewer functions" if task.most_calls else ""),
        )
    return whole


def _shown(request: Request, book: Book, told: Told) -> One:
    """An answer as it is sent; where feedback is kept, remembered for a while by its id."""
    reply, id = told.reply, feedback.new_id()
    kept, row = feedback.of(request), told.row
    kind = "classify" if isinstance(reply, Answer) else book.task.kind if book.task else "generate"
    if kept is not None:
        kept.remember(id, feedback.Given(book.name, kind, row.text, row.tools, str(reply)))
    known = told.handed_to is None and (isinstance(reply, Answer) or _calibrated(book))
    shared: dict[str, Any] = {
        "id": id,
        "model": book.name,
        "confidence": round(reply.probability, 6) if known else None,
        "sure": reply.sure if told.handed_to is None else None,
        "cut": reply.cut,
        "handed_to": told.handed_to,
    }
    if isinstance(reply, Answer):
        shares = {label: round(p, 6) for label, p in reply.probabilities.items()}
        return Labelled(
            **shared, whole=True, label=reply.label, labels=[*reply.labels], probabilities=shares
        )
    if kind == "extract":
        return Extracted(**shared, whole=reply.whole, object=reply.value)
    return Generated(**shared, whole=reply.whole, text=reply.text)


def _calibrated(book: Book) -> bool:
    """Whether validation showed how likely a written answer is right."""
    return book.task is not None and bool(book.task.certainty)


async def _stream(
    request: Request, shelf: Shelf, book: Book, lines: AsyncIterator[list[Numbered]], ahead: int
) -> AsyncGenerator[bytes, None]:
    """A line for each line, as their pieces are answered."""
    to, size = handover.of(request), _piece(book)

    async def pieces() -> AsyncGenerator[list[Numbered], None]:
        async for some in lines:
            for at in range(0, len(some), size):
                yield some[at : at + size]

    async def work(piece: list[Numbered]) -> list[Told | Refusal]:
        told = iter(await _each(shelf, to, book, [row for _, row in piece if isinstance(row, Row)]))
        return [next(told) if isinstance(row, Row) else row for _, row in piece]

    async def numbered(piece: list[Numbered]) -> bytes:
        return b"".join(
            wire.line({"line": number} | _line(request, book, one))
            for (number, _), one in zip(piece, await work(piece), strict=True)
        )

    async with aclosing(ordered(pieces(), numbered, ahead)) as answered:
        async for some in answered:
            yield some


def _line(request: Request, book: Book, outcome: Told | Refusal) -> dict[str, Any]:
    if isinstance(outcome, Told):
        return _shown(request, book, outcome).model_dump(mode="json")
    fault = {"message": outcome.message, "status": outcome.status, "param": outcome.param}
    return {"error": fault | {"code": outcome.code}}


async def _each(
    shelf: Shelf, to: handover.Handover | None, book: Book, rows: list[Row]
) -> Sequence[Told | Refusal]:
    """The answers to rows, or why there is none; one that is wrong takes no other with it."""
    try:
        return await _patiently(shelf, to, book, rows) if rows else []
    except Refusal as refusal:
        if len(rows) == 1 or refusal.status != 400:
            return [refusal] * len(rows)
    return [one for row in rows for one in await _each(shelf, to, book, [row])]
