"""What the lines of a stream ask: NDJSON or a table, a row as soon as it is whole."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Concatenate, ParamSpec, TypeVar

from pydantic import TypeAdapter, ValidationError

from bantam.documents.separator import separator
from bantam.kinds import Row
from bantam.serve.ask import Refusal
from bantam.serve.bodies import check_values
from bantam.serve.task_forms import LONGEST, Line, Text, row

P = ParamSpec("P")
T = TypeVar("T")

PIECE = 32  # lines that are read before others get their turn
LONG = 10_000  # bytes of a line that is read in a thread

Numbered = tuple[int, Row | Refusal]  # a line by its number; a refusal: it cannot be read

TOO_LONG = Refusal(413, f"the line has over {LONGEST:,} bytes")
TEXT: TypeAdapter[str] = TypeAdapter(Text)
csv.field_size_limit(max(csv.field_size_limit(), LONGEST))


async def json_rows(chunks: AsyncIterator[bytes]) -> AsyncGenerator[list[Numbered], None]:
    """The rows of NDJSON, with the numbers of their lines."""
    async for lines in _lines(chunks):
        yield [
            (number, TOO_LONG if line is None else await _aside(_json_row, line))
            for number, line in lines
            if line is None or line.strip()
        ]


async def _aside(
    read: Callable[Concatenate[bytes, P], T], line: bytes, *args: P.args, **how: P.kwargs
) -> T:
    """What is read of a line; of a long one in a thread, so that others are answered meanwhile."""
    if len(line) > LONG:
        return await asyncio.to_thread(read, line, *args, **how)
    return read(line, *args, **how)


def _json_row(line: bytes) -> Row | Refusal:
    try:
        check_values(line, "line")
        if line.lstrip()[:1] == b'"':
            return row(TEXT.validate_json(line), None)
        asked = Line.model_validate_json(line)
    except Refusal as refusal:
        return refusal
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        return Refusal(400, f'{first["msg"]}; a line is {{"text": ...}}', param=place or None)
    return row(asked.text, asked.tools)


async def csv_rows(
    chunks: AsyncIterator[bytes], column: str
) -> AsyncGenerator[list[Numbered], None]:
    """The rows of a table whose first line names its columns. A quoted cell may hold lines."""
    names: list[str] = []
    mark, record, begun, quoted = "", bytearray(), 0, False
    async for lines in _lines(chunks):
        found: list[Numbered] = []
        for number, line in lines:
            begun = begun or number
            record += (line or b"") + b"\n"
            quoted = await _aside(_quoted, line or b"", mark, quoted)
            broken = line is None or len(record) > LONGEST
            if not broken and quoted:
                continue
            if broken or (names and record.strip(b" \r\n")):
                read = await _aside(_csv_row, bytes(record), names, mark, column, broken)
                found.append((begun, read))
            elif not names:
                mark, names = await _aside(_header, bytes(record))
            record, begun, quoted = bytearray(), 0, False
        yield found
    if record.strip():
        yield [(begun, Refusal(400, "the table ends within a quoted cell"))]


def _quoted(line: bytes, mark: str, quoted: bool) -> bool:
    """Whether a line ends within a quoted cell, when it begins in one or not. A quote that does not
    begin its cell is one of its characters. What parts the cells of the header is not known."""
    if not mark:
        return quoted ^ bool(line.count(b'"') % 2)
    at = 0
    while True:
        if not quoted:
            if not line.startswith(b'"', at):
                at = line.find(mark.encode(), at) + 1
                if not at:
                    return False
                continue
            quoted, at = True, at + 1
        at = line.find(b'"', at) + 1
        if not at:
            return True
        if line.startswith(b'"', at):
            at += 1  # two of them are one
            continue
        quoted, at = False, line.find(mark.encode(), at) + 1
        if not at:
            return False


def _header(record: bytes) -> tuple[str, list[str]]:
    """What parts the cells of a table, and the names of its columns."""
    header = record.decode("utf-8-sig", "replace")
    try:
        mark = separator(header)
        return mark, next(csv.reader([header], delimiter=mark))
    except csv.Error:  # a cell of a size that no name has
        return ",", [""]


def _csv_row(
    record: bytes, names: list[str], mark: str, column: str, broken: bool
) -> Row | Refusal:
    if broken:
        return Refusal(413, f"the row has over {LONGEST:,} bytes: is a quote not closed?")
    if column not in names:
        there = ", ".join(names)
        return Refusal(400, f"there is no column {column!r}; there are: {there:.200}")
    try:
        cells = next(csv.reader([record.decode()], delimiter=mark))
    except (UnicodeDecodeError, csv.Error) as error:
        return Refusal(400, f"this row is not sound: {error}")
    if len(cells) != len(names):
        told = f"it has {len(cells)} cells, the header {len(names)}"
        return Refusal(400, f"this row is not sound: {told}")
    found = dict(zip(names, cells, strict=True))
    return Row(found[column], "", found.get("tools", ""))


async def _lines(
    chunks: AsyncIterator[bytes],
) -> AsyncGenerator[list[tuple[int, bytes | None]], None]:
    """Numbered lines as they come, few at a time, so that others get their turn between; None for
    one that is too long, of which nothing is kept."""
    held, lost, number = bytearray(), False, 0
    async for chunk in chunks:
        first, *others = chunk.split(b"\n")
        held += first
        found: list[tuple[int, bytes | None]] = []
        for begun in others:
            number += 1
            found.append((number, None if lost or len(held) > LONGEST else bytes(held)))
            held, lost = bytearray(begun), False
            if len(found) == PIECE:
                yield found
                found = []
                await asyncio.sleep(0)
        if len(held) > LONGEST:
            held, lost = bytearray(), True
        if found:
            yield found
    if held or lost:
        yield [(number + 1, None if lost else bytes(held))]
