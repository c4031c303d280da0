"""Tables whose rows are documents: csv and tsv. In bounded memory, whatever stands in them."""

import csv
import io
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import IO, Any, Self

from bantam.documents.parts import Fault, Part, Unreadable, Wanted
from bantam.documents.readers.column import SAMPLE, text_column
from bantam.documents.readers.plain import decoded, lines
from bantam.documents.separator import separator

LARGEST_CELL = 10_000_000  # characters; a larger one is a quotation mark that is never closed
UNCLOSED = 20  # quotation marks that are never closed; after so many the rest is not read
LINE = 50  # bytes that a line costs beside its letters
_END = "\x1eend of file\x1e"
_NEVER = "a quotation mark that is never closed"

csv.field_size_limit(LARGEST_CELL)


def read(file: IO[bytes], form: str, wanted: Wanted) -> Iterator[Part | Fault]:
    rows = _rows(decoded(file, newline=""), form)
    header = next((row for row in rows if not isinstance(row, Fault)), None)
    if header is None:
        raise Unreadable("a table without rows")
    names = [name.strip() for name in header]
    sample = list(islice(rows, SAMPLE))
    letters = dict.fromkeys(names, 0)
    for row in sample:
        if not isinstance(row, Fault):
            for name, cell in zip(names, row, strict=False):
                letters[name] += len(cell)
    column = names.index(text_column(letters, wanted.text))
    licence = names.index(wanted.licence) if wanted.licence in names else None
    for number, row in enumerate(chain(sample, rows), 1):
        if isinstance(row, Fault):
            yield row._replace(name=f"row {number}")
        elif column < len(row):
            stated = row[licence] if licence is not None and licence < len(row) else ""
            yield Part(row[column], f"row {number}", stated.strip() or None)


def _rows(text: io.TextIOWrapper, form: str) -> Iterator[list[str] | Fault]:
    """The rows of a table, empty ones left out.

    Where a quotation mark opens a cell that never ends, its line is passed over and the rows go on
    below it.
    """
    start = text.read(1 << 20).lstrip("\r\n")
    text.seek(0)
    source = _Lines(text)
    for _ in range(UNCLOSED):
        try:
            for row in csv.reader(source, **_dialect(start, form)):
                if row and row[-1].endswith(_END) and row != [_END]:
                    raise csv.Error(_NEVER)
                source.taken()
                if row and row != [_END]:
                    yield row
            return
        except csv.Error as error:
            yield Fault("", f"{error}, in line {source.first}")
            source.again()
    raise Unreadable(f"more than {UNCLOSED} rows have a quotation mark that is never closed")


def _dialect(start: str, form: str) -> dict[str, Any]:
    """The separator, and whether quotation marks enclose."""
    if form == "csv":
        return {"delimiter": separator(start.partition("\n")[0][:100_000])}
    # Many tab-separated files do not quote. Where each line has its tabs, a lone mark is only text.
    rows = [line for line in start.split("\n")[:-1] if line]
    plain = len({row.count("\t") for row in rows}) == 1
    lone = any(row.count('"') % 2 for row in rows)
    return {"delimiter": "\t", "quoting": csv.QUOTE_NONE if plain and lone else csv.QUOTE_MINIMAL}


class _Lines:
    """The lines of a table, of which those of the row that is open can be had again."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.first = 1  # where the open row begins
        self._source = chain(lines(text, LARGEST_CELL), [_END])
        self._row: list[str] = []
        self._size = 0
        self._back: deque[str] = deque()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else next(self._source)
        self._row.append(line or "")
        if line is None:
            raise csv.Error(f"a line of more than {LARGEST_CELL:,} characters")
        self._size += len(line) + LINE
        if self._size > LARGEST_CELL:
            raise csv.Error(_NEVER)
        return line

    def taken(self) -> None:
        """The row is complete."""
        self.first += len(self._row)
        self._row, self._size = [], 0

    def again(self) -> None:
        """All but the first line of the open row come again."""
        self._back.extendleft(reversed(self._row[1:]))
        self.first += 1
        self._row, self._size = [], 0
