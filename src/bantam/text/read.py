"""Labelled files, as people have them, to a frame of text: csv, tsv, jsonl, json, parquet.

Python's csv and json readers are used rather than polars' own: they take a stray quotation mark
as people do, say on which row a file is broken, read every encoding, and keep `1`, `1.0` and `1e3`
apart as they were written. They read a million short rows in about a second.
"""

import csv
import difflib
import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from bantam.documents import encoding
from bantam.documents.separator import said, separator
from bantam.errors import BadInput
from bantam.sources.door import suggest

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
CHUNK = 50_000  # rows that are Python objects at one time
ITEM = "\x1f"  # ends each item of a list, as ASCII's unit separator was meant to
LARGEST_CELL = 10_000_000  # characters; a larger one is a quotation mark that is never closed
LARGEST_JSON = 2**30  # bytes; .json must be parsed whole
NO_TEXT = "not text"  # ends the reason of a row whose cell is something else
MOST_UNREADABLE = 0.1  # of the rows; beyond, the file is not what it seems to be

csv.field_size_limit(LARGEST_CELL)
_END = "\x1eend of file\x1e"


class _Number(str):
    """A number of a JSON file, as it is written there."""


_decode = json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=_Number).decode
_encode = json.JSONEncoder(ensure_ascii=False).encode


class Table(NamedTuple):
    """Rows of text. `frame` has the columns asked for (str, null where there is nothing), `row`
    (i64, from 1, the header not counted) and `reason` (why a row is unreadable, else null)."""

    frame: pl.DataFrame
    notes: list[str]


def names(path: Path) -> list[str]:
    """The names of a file's columns, for JSON the keys of its first rows. BadInput: unreadable."""
    return _open(path).names


def table(
    path: Path,
    columns: Mapping[str, str],
    limit: int | None = None,
    lists: Collection[str] = (),
    values: Collection[str] = (),
) -> Table:
    """Read columns of a file, given as {name in the frame: name in the file}.

    Numbers and booleans become the text that was written. Cells of the columns `lists` (names in
    the frame) may be lists: an ITEM then ends each of their items. Cells of the columns `values`
    may be anything: what is neither text nor such a list becomes JSON text, numbers within it as
    they were written. Rows that cannot be read are kept as empty ones with their reason. `limit`
    stops after about as many rows. BadInput: no such file, format or column, an empty file, or more
    than a tenth of the rows unreadable.
    """
    opened = _open(path)
    for name in columns.values():
        _check_column(path, name, opened.names)
    frames, rows = [], 0
    for frame in opened.frames(columns, Shapes(lists, values)):
        frames.append(frame)
        rows += frame.height
        if limit is not None and rows >= limit:
            break
    if rows == 0:
        raise BadInput(f"{path} has no rows", "it needs a header and labelled rows below it")
    whole = pl.concat(frames)
    unreadable = whole.filter(pl.col("reason").is_not_null())
    if unreadable.height > MOST_UNREADABLE * rows:
        why: str = unreadable["reason"][0]
        mend = "mend the file: every row needs the same columns, cells with commas stand in quotes"
        if why.endswith(NO_TEXT):
            mend = 'name a column of texts, or take kind = "extract" for answers that are JSON'
        raise BadInput(
            f"{path}: {unreadable.height} of {rows} rows cannot be read; "
            f"row {unreadable['row'][0]}: {why}",
            mend,
        )
    return Table(whole, opened.notes)


class Shapes(NamedTuple):
    """Which columns may hold more than plain text."""

    lists: Collection[str]
    values: Collection[str]


Frames = Callable[[Mapping[str, str], Shapes], Iterator[pl.DataFrame]]


class _Opened(NamedTuple):
    names: list[str]
    frames: Frames
    notes: list[str]


def _open(path: Path) -> _Opened:
    try:
        if not path.is_file():
            raise _no_file(path)
        kind = SUFFIXES.get(path.suffix.lower())
        if kind is None:
            raise _unknown(path)
        if path.stat().st_size == 0:
            raise BadInput(f"{path} is empty", "it needs a header and labelled rows below it")
        return _OPENERS[kind](path)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}", "check its permissions") from None


def only_tables(folder: Path) -> bool:
    """Whether a folder holds files of rows and nothing else."""
    inside = list(folder.iterdir())
    return bool(inside) and all(path.suffix.lower() in SUFFIXES for path in inside)


def _no_file(path: Path) -> BadInput:
    what, folder = ("is a folder", path) if path.is_dir() else ("is not there", path.parent)
    inside = folder.iterdir() if folder.is_dir() else ()
    held = [str(file) for file in inside if file.suffix.lower() in SUFFIXES]
    mend = suggest(str(path), held) if held else f"it must end in one of {', '.join(SUFFIXES)}"
    return BadInput(f"{path} {what}", f"name a data file; {mend}")


def _unknown(path: Path) -> BadInput:
    mend = f"it must end in one of {', '.join(SUFFIXES)}; call it .csv if its rows have columns"
    if path.suffix.lower() in SPREADSHEETS:
        mend = 'open it in its program, save it as "CSV UTF-8" and name that file'
    return BadInput(f"{path}: unknown kind of data file", mend)


def _check_column(path: Path, name: str, known: Sequence[str]) -> None:
    if known.count(name) == 1:
        return
    if name in known:
        raise BadInput(f'{path} has several columns "{name}"', "rename all but one")
    folded = {other.casefold().strip(): other for other in known}
    close = difflib.get_close_matches(name.casefold().strip(), folded, n=1)
    shown = ", ".join(known[:30]) + (", ..." if len(known) > 30 else "")
    raise BadInput(
        f'{path} has no column "{name}"; it has {shown}',
        f'did you mean "{folded[close[0]]}"?' if close else "name one of these in [data]",
    )


def _open_csv(path: Path) -> _Opened:
    found = encoding.detect(path)
    options = _dialect(path, found)
    header = next((row for row in _csv_rows(path, found, options) if row), None)
    if header is None:
        raise BadInput(f"{path} is empty", "it needs a header and labelled rows below it")
    header = [name.strip() for name in header]

    def frames(columns: Mapping[str, str], _: Shapes) -> Iterator[pl.DataFrame]:
        rows = itertools.dropwhile(lambda row: not row, _csv_rows(path, found, options))
        next(rows)
        places = {new: header.index(name) for new, name in columns.items()}
        first = 1
        while chunk := list(itertools.islice(rows, CHUNK)):
            yield _csv_frame(chunk, first, len(header), places)
            first += len(chunk)

    return _Opened(header, frames, [found.note] if found.note else [])


def _csv_rows(path: Path, found: encoding.Encoding, options: dict[str, Any]) -> Iterator[list[str]]:
    with path.open(encoding=found.name, errors=found.errors, newline="") as file:
        first = next(file, "")
        before = 1 if path.suffix.lower() == ".csv" and said(first) else 0
        reader = csv.reader(itertools.chain([first][before:], file, [_END]), **options)
        started = before + 1
        try:
            for row in reader:
                if row and row[-1].endswith(_END):
                    if row == [_END]:
                        return
                    break
                yield row
                started = before + reader.line_num + 1
        except csv.Error as error:
            if "field limit" not in str(error):
                raise BadInput(f"{path}, line {started}: {error}", "mend that line") from None
    raise BadInput(
        f"{path}, line {started}: a quotation mark opens a cell that never ends",
        'close it, or write each quotation mark inside a quoted cell twice: ""',
    )


def _csv_frame(
    chunk: list[list[str]], first: int, width: int, places: Mapping[str, int]
) -> pl.DataFrame:
    numbers: Sequence[int] = range(first, first + len(chunk))
    reasons: list[str | None] = [None] * len(chunk)
    if set(map(len, chunk)) != {width}:
        numbers = [number for number, row in zip(numbers, chunk, strict=True) if row]
        chunk = [row for row in chunk if row]  # blank lines count as rows but are none
        reasons = [_ragged(row, width) for row in chunk]
        chunk = [
            row if reason is None else [""] * width
            for row, reason in zip(chunk, reasons, strict=True)
        ]
    cells = {new: list(map(itemgetter(place), chunk)) for new, place in places.items()}
    return _frame(cells, numbers, reasons)


def _ragged(row: list[str], width: int) -> str | None:
    if len(row) == width or (len(row) > width and not any(row[width:])):
        return None
    return f"unreadable: {len(row)} cells where the header has {width}"


def _dialect(path: Path, found: encoding.Encoding) -> dict[str, Any]:
    """The separator, and whether quotation marks enclose."""
    with path.open(encoding=found.name, errors=found.errors) as file:
        sample = file.read(4_000_000).lstrip("\n")
    if SUFFIXES[path.suffix.lower()] == "csv":
        header = sample.partition("\n")[0]
        return {"delimiter": said(header) or separator(header)}
    # Many tab-separated files do not quote. Where each line has its tabs, a lone mark is only text.
    lines = [line for line in sample.split("\n")[:-1] if line]
    plain = len({line.count("\t") for line in lines}) == 1
    lone = any(line.count('"') % 2 for line in lines)
    return {
        "delimiter": "\t",
        "quoting": csv.QUOTE_NONE if plain and lone else csv.QUOTE_MINIMAL,
    }


def _open_jsonl(path: Path) -> _Opened:
    found = encoding.detect(path)

    def chunks() -> Iterator[tuple[int, list[Any]]]:
        first = 1
        with path.open(encoding=found.name, errors=found.errors) as file:
            while lines := list(itertools.islice(file, CHUNK)):
                try:
                    yield first, list(map(_decode, lines))
                except (ValueError, RecursionError):
                    yield first, list(map(_decode_or_reason, lines))
                first += len(lines)

    return _open_records(path, chunks, [found.note] if found.note else [])


def _open_json(path: Path) -> _Opened:
    if path.stat().st_size > LARGEST_JSON:
        raise BadInput(f"{path} is over 1 GB", "write it as .jsonl, one object a line")
    found = encoding.detect(path)
    try:
        rows = _decode(path.read_text(encoding=found.name, errors=found.errors))
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}",
            "mend it there; one object a line is a .jsonl file",
        ) from None
    except RecursionError:
        raise BadInput(f"{path} is nested too deeply", "write a list of flat objects") from None
    if not isinstance(rows, list):
        raise BadInput(f"{path} does not hold a list", 'write [{"text": ..., "label": ...}, ...]')

    def chunks() -> Iterator[tuple[int, list[Any]]]:
        for start in range(0, len(rows), CHUNK):
            yield start + 1, rows[start : start + CHUNK]

    return _open_records(path, chunks, [found.note] if found.note else [])


class _Unreadable(str):
    """Why a row could not be read, in the place of the row."""


_BLANK = _Unreadable("")


def _decode_or_reason(line: str) -> Any:
    if not line.strip():
        return _BLANK
    try:
        return _decode(line)
    except RecursionError:
        return _Unreadable("unreadable: nested too deeply")
    except ValueError as error:
        return _Unreadable(f"unreadable: not JSON: {error}")


def _open_records(
    path: Path, chunks: Callable[[], Iterator[tuple[int, list[Any]]]], notes: list[str]
) -> _Opened:
    start = next(chunks(), (1, []))[1][:1000]
    keys = dict.fromkeys(key for row in start if isinstance(row, dict) for key in row)
    if not keys:
        raise BadInput(f"{path} holds no objects", 'write rows such as {"text": ..., "label": ...}')

    def frames(columns: Mapping[str, str], shapes: Shapes) -> Iterator[pl.DataFrame]:
        for first, chunk in chunks():
            yield _record_frame(chunk, first, columns, shapes)

    return _Opened(list(keys), frames, notes)


def _record_frame(
    chunk: list[Any], first: int, columns: Mapping[str, str], shapes: Shapes
) -> pl.DataFrame:
    numbers = [number for number, row in enumerate(chunk, first) if row is not _BLANK]
    chunk = [row for row in chunk if row is not _BLANK]
    reasons: list[str | None] = [None] * len(chunk)
    if set(map(type, chunk)) != {dict}:
        reasons = [_not_an_object(row) for row in chunk]
        chunk = [row if isinstance(row, dict) else {} for row in chunk]
    cells = {}
    for new, name in columns.items():
        values = [row.get(name) for row in chunk]
        if not set(map(type, values)) <= {str, type(None)}:
            for place, value in enumerate(values):
                if isinstance(value, _Number):
                    values[place] = str(value)
                elif new in shapes.lists and isinstance(value, list) and all(map(_is_item, value)):
                    values[place] = "".join(f"{item}{ITEM}" for item in value)
                elif new in shapes.values and not isinstance(value, str | None):
                    try:
                        values[place] = _json(value)
                    except RecursionError:
                        reasons[place] = f'unreadable: "{name}" is nested too deeply'
                        values[place] = None
                elif isinstance(value, list | dict):
                    what = "a list" if isinstance(value, list) else "an object"
                    reasons[place] = f'unreadable: "{name}" holds {what}, {NO_TEXT}'
                    values[place] = None
                elif isinstance(value, bool):
                    values[place] = str(value).lower()
        cells[new] = values
    return _frame(cells, numbers, reasons)


def _json(value: Any) -> str:
    """The JSON text of a value that `_decode` gave, its numbers as they were written."""
    if isinstance(value, dict):
        pairs = (f"{_json(key)}: {_json(inner)}" for key, inner in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_json, value))}]"
    return str(value) if isinstance(value, _Number) else _encode(value)


def _is_item(value: Any) -> bool:
    return isinstance(value, str)


def _not_an_object(row: Any) -> str | None:
    if isinstance(row, dict):
        return None
    return str(row) if isinstance(row, _Unreadable) else "unreadable: not an object"


def _open_parquet(path: Path) -> _Opened:
    try:
        schema = pl.read_parquet_schema(path)
    except _POLARS as error:
        raise _broken_parquet(path, error) from None

    def frames(columns: Mapping[str, str], shapes: Shapes) -> Iterator[pl.DataFrame]:
        lists = [new for new in columns if new in shapes.lists and _is_list(schema[columns[new]])]
        nested = [
            new
            for new, name in columns.items()
            if new in shapes.values and new not in lists and schema[name].is_nested()
        ]
        for new, name in columns.items():
            if new in nested or new in lists:
                continue
            if schema[name].is_nested() or schema[name] in (pl.Binary, pl.Object):
                raise BadInput(
                    f'{path}: column "{name}" holds {schema[name]}, not text', "name another"
                )
        text = [
            (pl.col(name) if new in nested else _text_of(name, schema[name])).alias(new)
            for new, name in columns.items()
        ]
        try:
            frame = pl.scan_parquet(path, glob=False).select(text).collect()
        except _POLARS as error:
            raise _broken_parquet(path, error) from None
        frame = frame.with_columns(_nested_json(frame[new]) for new in nested)
        row = pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("row")
        yield frame.with_columns(_no_nul(), row, pl.lit(None, pl.String).alias("reason"))

    return _Opened(list(schema), frames, [])


def _nested_json(cells: pl.Series) -> pl.Series:
    """Lists and structs as JSON text. What a struct does not hold is null in it."""
    texts = [
        None if cell is None else json.dumps(cell, ensure_ascii=False, default=str)
        for cell in cells.to_list()
    ]
    return pl.Series(cells.name, texts, pl.String)


def _is_list(type: pl.DataType) -> bool:
    return isinstance(type, pl.List) and not type.inner.is_nested()


def _text_of(name: str, type: pl.DataType) -> pl.Expr:
    if not _is_list(type):
        return pl.col(name).cast(pl.String)
    items = pl.col(name).cast(pl.List(pl.String)).list.drop_nulls()
    return items.list.eval(pl.element() + ITEM).list.join("")


_POLARS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)


def _broken_parquet(path: Path, error: BaseException) -> BadInput:
    return BadInput(f"{path} is not a readable parquet file: {error}", "write it again")


_OPENERS: dict[str, Callable[[Path], _Opened]] = {
    "csv": _open_csv,
    "tsv": _open_csv,
    "jsonl": _open_jsonl,
    "json": _open_json,
    "parquet": _open_parquet,
}


def _frame(
    cells: dict[str, list[str | None]], numbers: Sequence[int], reasons: list[str | None]
) -> pl.DataFrame:
    schema = dict.fromkeys(cells, pl.String)
    try:
        frame = pl.DataFrame(cells, schema=schema)
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, which is no character
        whole = {name: list(map(_no_surrogates, column)) for name, column in cells.items()}
        frame = pl.DataFrame(whole, schema=schema)
    return frame.with_columns(
        _no_nul(),
        pl.Series("row", numbers, pl.Int64),
        pl.Series("reason", reasons, pl.String),
    )


def _no_nul() -> pl.Expr:
    """NUL bytes are no text, and C programs end a string at them."""
    return pl.all().str.replace_all("\0", "", literal=True)


def _no_surrogates(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")
