"""Thumbs and corrections: kept on this machine, and only if the server was started with a file.

The rows become examples for the next `make`: a corrected answer, or one with its thumb up, is an
output to learn. Whoever gave a row can have it deleted.
"""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
import sqlite3
import threading
import time
from asyncio import to_thread
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, JsonValue

from bantam import kinds
from bantam.errors import BadInput
from bantam.kinds import several
from bantam.serve import keys
from bantam.serve.ask import Refusal
from bantam.serve.shelf import Shelf
from bantam.serve.task_forms import Functions

VERSION = 1  # of the table
MOST_BYTES = 1 << 30  # of the file
LONGEST = 100_000  # characters of a text, of an answer, of functions
REMEMBERED = 10_000  # answers that a thumb may name by their id
REMEMBERED_CHARACTERS = 20_000_000
PAGE = 500  # rows that are read at a time
TABLE = """CREATE TABLE feedback (
    id TEXT PRIMARY KEY, at INTEGER NOT NULL, model TEXT NOT NULL, kind TEXT NOT NULL,
    text TEXT NOT NULL, tools TEXT NOT NULL, answer TEXT NOT NULL, thumb TEXT NOT NULL,
    correction TEXT
)"""
PUT = "INSERT OR REPLACE INTO feedback VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

Format = Literal["jsonl", "csv"]
FORMATS: dict[str, Format] = {".jsonl": "jsonl", ".csv": "csv"}
MEDIA = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}


@dataclass(frozen=True)
class Given:
    """An answer, and what it was the answer to. Answers and functions are written as `make` reads
    them in a cell: a label, labels as "a|b", JSON, or a text."""

    model: str
    kind: str  # of the task; "chat" for a model without one
    text: str
    tools: str  # as JSON, "" for none
    answer: str


@dataclass(frozen=True)
class Row:
    """What was said of an answer."""

    id: str
    at: int  # unix seconds
    given: Given
    thumb: str  # "up", "down" or ""
    correction: str | None  # "" is one too: no label applies

    @property
    def output(self) -> str | None:
        """The right answer as far as it is known."""
        if self.correction is None and self.thumb == "up":
            return self.given.answer
        return self.correction


class Store:
    """The rows in a SQLite file. What `add` returned from is on the disk."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        """Raises BadInput for a file that cannot be written or that holds something else."""
        self._lock = threading.Lock()
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # texts are nobody else's
            self._rows = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._rows.execute("PRAGMA journal_mode = WAL")
            self._rows.execute("PRAGMA synchronous = FULL")  # every commit waits for the disk
            self._rows.execute("PRAGMA secure_delete = ON")
            (size,) = self._rows.execute("PRAGMA page_size").fetchone()
            self._rows.execute(f"PRAGMA max_page_count = {max(1, most_bytes // size)}")
            self._rows.execute("BEGIN IMMEDIATE")
            (version,) = self._rows.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._rows.execute(TABLE)
                self._rows.execute(f"PRAGMA user_version = {VERSION}")
            self._rows.execute("COMMIT")
        except OSError as error:
            raise BadInput(
                f"{path} cannot be written: {error.strerror}", "name a file in a folder of yours"
            ) from None
        except sqlite3.Error as error:
            raise BadInput(f"{path} is no feedback file: {error}", "name another file") from None
        if version not in (0, VERSION):
            raise BadInput(
                f"{path} was written by another version of Bantam (format {version})",
                "install the newest bantam-lm, or name another file",
            )

    def add(self, row: Row) -> None:
        """Keep a row, in place of what was said of the same answer before.

        Raises Refusal when the file is as large as it may be, or the disk is full.
        """
        values = (row.id, row.at, *astuple(row.given), row.thumb, row.correction)
        try:
            with self._lock:
                self._rows.execute(PUT, values)
        except sqlite3.Error as error:
            raise Refusal(507, f"the feedback could not be kept: {error}") from None

    def rows(self, model: str) -> Iterator[Row]:
        """The rows of a model in the order in which they were given."""
        last = 0
        while True:
            with self._lock:
                page = self._rows.execute(
                    "SELECT rowid, * FROM feedback WHERE model = ? AND rowid > ? "
                    "ORDER BY rowid LIMIT ?",
                    (model, last, PAGE),
                ).fetchall()
            for last, id, at, *given, thumb, correction in page:  # noqa: B007
                yield Row(id, at, Given(*given), thumb, correction)
            if len(page) < PAGE:
                return

    def models(self) -> list[str]:
        with self._lock:
            found = self._rows.execute("SELECT DISTINCT model FROM feedback ORDER BY 1").fetchall()
        return [model for (model,) in found]

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._rows.execute("SELECT count(*) FROM feedback").fetchone()
        assert isinstance(count, int)
        return count

    def forget(self, id: str | None = None) -> int:
        """Delete one row or all, so that nothing of them is left in the file; returns how many."""
        with self._lock:
            asked = "DELETE FROM feedback WHERE ?1 IS NULL OR id = ?1"
            gone = self._rows.execute(asked, (id,)).rowcount
            self._rows.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log still has their texts
        return gone

    def close(self) -> None:
        with self._lock:
            self._rows.close()


@dataclass
class Feedback:
    """The store, and the latest answers in memory, so that a thumb need only name one."""

    store: Store
    _answers: OrderedDict[str, Given] = field(default_factory=OrderedDict)
    _characters: int = 0

    def remember(self, id: str, given: Given) -> None:
        self._answers[id] = given
        self._characters += _size(given)
        while len(self._answers) > REMEMBERED or self._characters > REMEMBERED_CHARACTERS:
            self._characters -= _size(self._answers.popitem(last=False)[1])

    def answer(self, id: str) -> Given:
        if id not in self._answers:
            raise Refusal(
                404,
                f"no answer {id:.80} is remembered: it is too old, or another server gave it; "
                "send its model, text and answer instead",
                param="answer_id",
            )
        return self._answers[id]


def _size(given: Given) -> int:
    return len(given.text) + len(given.tools) + len(given.answer)


@lru_cache(8)
def opened(path: Path) -> Feedback:
    """The feedback in a file. Raises BadInput as `Store` does."""
    return Feedback(Store(path))


def of(request: Request) -> Feedback | None:
    """The server's feedback; None where it was started without: then nothing is remembered."""
    path = getattr(getattr(request.app.state, "settings", None), "feedback", None)
    return None if path is None else opened(path)


def new_id() -> str:
    return f"ans-{secrets.token_hex(12)}"


def cell(task: kinds.Task | None, value: Any, tools: Any, param: str) -> str:
    """An answer as `Given` has it. Raises Refusal for one that the task cannot have."""
    if task is None or task.kind == "generate":
        if not isinstance(value, str):
            raise Refusal(400, "the answers of this model are texts", param=param)
        return _bounded(value, param)
    if task.kind == "classify":
        labels = [value] if isinstance(value, str) and not task.multi else value
        if isinstance(value, str) and task.multi:
            labels = several.parted(value)
        if not isinstance(labels, list) or not all(one in task.labels for one in labels):
            known = ", ".join(task.labels[:20])
            raise Refusal(400, f"there is no such label; the labels are {known}", param=param)
        return several.joined(labels) if task.multi else str(labels[0])
    return _json_cell(task, value, tools, param)


def _json_cell(task: kinds.Task, value: Any, tools: Any, param: str) -> str:
    from bantam.kinds import declarations, schema, texts

    written = _bounded(json.dumps(value, ensure_ascii=False), param)
    declared = ""
    if task.most_calls:
        try:
            declared = json.dumps(declarations.tools(tools, "tools"), ensure_ascii=False)
        except BadInput as error:
            raise Refusal(400, f"{error.message}: {error.mend}", param="tools") from None
    wrong = schema.mistake(texts.schema_of(task, declared), value)
    if wrong is not None:
        raise Refusal(400, f"this does not follow the schema of the task: {wrong}", param=param)
    return written


def _bounded(text: str, param: str) -> str:
    if len(text) > LONGEST:
        raise Refusal(413, f"{len(text):,} characters: at most {LONGEST:,} are kept", param=param)
    return text


class Said(BaseModel):
    """What is said of an answer: a thumb, a correction, or both."""

    answer_id: str | None = Field(None, description="of an answer that this server gave lately")
    model: str | None = Field(None, description="with text and answer, in place of answer_id")
    text: Annotated[str, Field(max_length=LONGEST)] | None = None
    answer: JsonValue = Field(None, description="a label, labels, an object, calls, or a text")
    tools: Functions | None = Field(None, description="of a task with functions")
    thumb: Literal["up", "down"] | None = None
    correction: JsonValue = Field(None, description="the right answer, in the form of an answer")


class Noted(BaseModel):
    id: str = Field(description="deletes this row again")


class State(BaseModel):
    kept: bool = Field(description="whether this server keeps feedback")
    rows: int


class Forgotten(BaseModel):
    deleted: int


def routes(shelf: Shelf) -> APIRouter:
    router = APIRouter(tags=["feedback"])

    @router.get("/feedback")
    async def state(request: Request) -> State:
        """Whether feedback is kept, and how many rows there are."""
        found = of(request)
        rows = await to_thread(len, found.store) if found else 0
        return State(kept=found is not None, rows=rows)

    @router.post("/feedback")
    async def say(request: Request, said: Said) -> Noted:
        """Keep a thumb or a correction; what is said of one answer later takes its place."""
        feedback = _kept(request)
        if said.thumb is None and said.correction is None:
            raise Refusal(400, "there is neither a thumb nor a correction", param="thumb")
        row = await to_thread(_row, shelf, feedback, said)
        await to_thread(feedback.store.add, row)
        return Noted(id=row.id)

    @router.get(
        "/feedback/export",
        response_class=StreamingResponse,
        responses={200: {"content": {media.partition(";")[0]: {} for media in MEDIA.values()}}},
    )
    async def export(
        request: Request,
        model: str | None = None,
        format: Format = "jsonl",
        input: Annotated[str, Query(min_length=1, max_length=200)] = "text",
        output: Annotated[str, Query(min_length=1, max_length=200)] = "label",
    ) -> StreamingResponse:
        """The rows of a model whose right answer is known, as examples for the next `make`."""
        store = _kept(request).store
        try:
            lines = await to_thread(examples, store, model, format, input, output, keys.allowed)
        except BadInput as error:
            raise Refusal(400, f"{error.message}: {error.mend}") from None
        return StreamingResponse(lines, media_type=MEDIA[format])

    @router.delete("/feedback")
    async def forget_all(request: Request) -> Forgotten:
        """Delete all rows."""
        may_delete_all()
        return Forgotten(deleted=await to_thread(_kept(request).store.forget))

    @router.delete("/feedback/{id}")
    async def forget(request: Request, id: str) -> Forgotten:
        """Delete one row."""
        gone = await to_thread(_kept(request).store.forget, id)
        if not gone:
            raise Refusal(404, f"there is no feedback {id:.80}", param="id")
        return Forgotten(deleted=gone)

    return router


def may_delete_all() -> None:
    """Raises Refusal (403) for a key that is limited to some models."""
    if (key := keys.asking.get()) and key.models is not None:
        raise Refusal(403, "this key may only ask its models", code="key_not_allowed")


def _kept(request: Request) -> Feedback:
    found = of(request)
    if found is None:
        raise Refusal(
            404,
            "this server keeps no feedback; it does when started with `--feedback FILE`",
            code="feedback_off",
        )
    return found


def _row(shelf: Shelf, feedback: Feedback, said: Said) -> Row:
    id = said.answer_id or f"fb-{secrets.token_hex(12)}"
    tools: Any = said.tools
    if said.answer_id is not None:
        given = feedback.answer(said.answer_id)
        task = shelf.book(given.model).task
        tools = json.loads(given.tools) if given.tools else None
    else:
        if said.model is None or said.text is None or said.answer is None:
            raise Refusal(400, "name answer_id, or model, text and answer", param="answer_id")
        task = shelf.book(said.model).task
        given = Given(
            said.model,
            task.kind if task else "chat",
            said.text,
            _bounded(json.dumps(tools, ensure_ascii=False), "tools") if tools else "",
            cell(task, said.answer, tools, "answer"),
        )
    right = None
    if said.correction is not None:
        right = cell(task, said.correction, tools, "correction")
    return Row(id, int(time.time()), given, said.thumb or "", right)


def examples(
    store: Store,
    model: str | None,
    format: Format,
    input: str,
    output: str,
    allowed: Callable[[str], bool] = lambda _: True,
) -> Iterator[str]:
    """The rows whose right answer is known, as lines of a .jsonl or .csv for `data.examples`, with
    `input` and `output` as the names of their columns.

    Raises BadInput when there are no rows, or those of several models and none is named.
    """
    there = [name for name in store.models() if allowed(name)]
    if model is None and len(there) > 1:
        raise BadInput(f"there is feedback on {', '.join(there)}", "name one model")
    if not there or model not in (None, *there):
        raise BadInput(f"there is no feedback on {model or 'any model'}", "give some first")
    if len({input, output, "tools"}) < 3:
        raise BadInput("two columns have one name", "name them apart, and not tools")
    return _lines(store.rows(model or there[0]), format, input, output)


def export(kept: Path, file: Path, model: str | None, input: str, output: str) -> None:
    """Write the examples of a feedback file to a .jsonl or .csv. Raises BadInput as `examples`."""
    from bantam.runs import write_text

    format = FORMATS.get(file.suffix.lower())
    if format is None:
        raise BadInput(f"{file}: examples are written as .jsonl or .csv", "choose one")
    if not kept.is_file():
        raise BadInput(f"there is no file {kept}", "name the one of `bantam serve --feedback`")
    store = Store(kept)
    try:
        write_text(file, "".join(examples(store, model, format, input, output)))
    finally:
        store.close()


def _lines(rows: Iterator[Row], format: Format, input: str, output: str) -> Iterator[str]:
    begun = False
    for row in rows:
        given, right = row.given, row.output
        if right is None:
            continue
        if format == "jsonl":
            said = json.loads(right) if given.kind == "extract" else right
            tools = {"tools": json.loads(given.tools)} if given.tools else {}
            told = {input: given.text, output: said} | tools
            yield json.dumps(told, ensure_ascii=False) + "\n"
            continue
        cells = {input: given.text, output: right}
        cells |= {"tools": given.tools} if given.tools else {}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not begun:
            writer.writerow(cells)
            begun = True
        writer.writerow(cells.values())
        yield text.getvalue()
