"""JSON: objects one a line, or in a list, are rows; any other JSON is text as it stands."""

import io
import json
import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import IO, Any, cast

from bantam.documents.parts import Fault, Part, Wanted
from bantam.documents.readers import plain
from bantam.documents.readers.column import SAMPLE, text_column

LARGEST = 64 << 20  # characters of a row
CHUNK = 1 << 20
_decode = json.JSONDecoder().raw_decode
_BETWEEN = re.compile(r"[ \t\r\n,]*")

Row = dict[str, Any] | Fault


def read(file: IO[bytes], form: str, wanted: Wanted) -> Iterator[Part | Fault]:
    text = plain.decoded(file)
    start = text.read(CHUNK).lstrip()
    text.seek(0)
    if form == "json" and not _rows_of_objects(start):
        yield from plain.read(file, form, wanted)
        return
    rows = _lines(text) if form == "jsonl" else _items(text)
    sample = list(islice(rows, SAMPLE))
    letters: dict[str, int] = {}
    for row in sample:
        for key, value in row.items() if isinstance(row, dict) else ():
            if isinstance(value, str):
                letters[key] = letters.get(key, 0) + len(value)
    column = text_column(letters, wanted.text)
    for number, row in enumerate(chain(sample, rows), 1):
        if isinstance(row, Fault):
            yield row._replace(name=f"row {number}")
        elif isinstance(said := row.get(column), str):
            licence = row.get(wanted.licence) if wanted.licence else None
            yield Part(said, f"row {number}", licence if isinstance(licence, str) else None)


def _rows_of_objects(start: str) -> bool:
    return start[:1] == "[" and start[1:].lstrip()[:1] == "{"


def _lines(text: io.TextIOWrapper) -> Iterator[Row]:
    for line in plain.lines(text, LARGEST):
        if line is None:
            yield Fault("", f"a line of more than {LARGEST:,} characters")
        elif line.strip():
            try:
                row = json.loads(line)
                yield row if isinstance(row, dict) else Fault("", "it is no JSON object")
            except (ValueError, RecursionError) as error:
                yield _bad(error)


def _items(text: io.TextIOWrapper) -> Iterator[Row]:
    """The items of a list, one after the other; only what is not read yet is held."""
    held, at, wanted = text.read(CHUNK), 0, CHUNK
    at = held.index("[") + 1
    while True:
        at = cast(re.Match[str], _BETWEEN.match(held, at)).end()
        try:
            item, at = _decode(held, at)
            wanted = CHUNK
            yield item if isinstance(item, dict) else Fault("", "it is no JSON object")
        except RecursionError as error:
            yield _bad(error)
            return
        except ValueError as error:
            if held[at : at + 1] == "]":
                return
            more = text.read(wanted)
            if not more or len(held) - at > LARGEST:
                yield _bad(error)
                return
            held, at = held[at:] + more, 0
            wanted = 2 * wanted  # so that a long item is not parsed too often


def _bad(error: Exception) -> Fault:
    deep = isinstance(error, RecursionError)
    return Fault("", "nested too deeply" if deep else f"not JSON: {error}"[:200])
