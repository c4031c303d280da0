"""Lines of a stream are read the same whatever pieces they come in, and as others read them."""

import asyncio
import csv
import io
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bantam.kinds import Row
from bantam.serve import bodies, lines, task_forms
from bantam.serve.ask import Refusal

SHORT = 60  # bytes of a line in these tests; see `short`
SIZES = st.lists(st.integers(0, 9), max_size=40)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
JSON_LINES = st.one_of(
    TEXTS.map(lambda text: json.dumps({"text": text})),
    TEXTS.map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from(["", "  ", "\r", "{", '{"text": 1}', '{"tools": []}', '"' + "x" * 80 + '"']),
).map(str.encode) | st.binary(max_size=70).map(lambda held: held.replace(b"\n", b""))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that lines which are too long need not be long."""
    monkeypatch.setattr(lines, "LONGEST", SHORT)


def in_pieces(body: bytes, sizes: list[int]) -> AsyncIterator[bytes]:
    async def pieces() -> AsyncIterator[bytes]:
        at = 0
        for size in [*sizes, len(body)]:
            yield body[at : at + size]
            at += size

    return pieces()


def found(read: Callable[..., Any], body: bytes, sizes: list[int], *how: str) -> list[Any]:
    """What is read, as plain data."""

    async def work() -> list[Any]:
        return [one async for some in read(in_pieces(body, sizes), *how) for one in some]

    return [
        (number, (row.status, row.message, row.param) if isinstance(row, Refusal) else row)
        for number, row in asyncio.run(work())
    ]


def rows(read: list[Any]) -> list[tuple[int, str]]:
    return [(number, row.text) for number, row in read if isinstance(row, Row)]


@given(st.lists(JSON_LINES, max_size=8), st.booleans(), SIZES)
def test_json_is_read_whatever_the_pieces(held: list[bytes], ended: bool, sizes: list[int]) -> None:
    body = b"\n".join(held) + b"\n" * ended
    read = found(lines.json_rows, body, sizes)
    assert read == found(lines.json_rows, body, [])
    wanted = []
    for number, line in enumerate(held, 1):
        try:
            told = json.loads(line.decode())
        except ValueError:
            continue
        text = told.get("text") if isinstance(told, dict) else told
        if isinstance(text, str) and len(line) <= SHORT:
            wanted.append((number, text))
    assert set(wanted) <= set(rows(read))  # the other reader takes less, such as NaN for a number
    assert {number for number, _ in read} == {
        number for number, line in enumerate(held, 1) if line.strip()
    }


CELLS = st.text(st.sampled_from('ab,;"\n é\t'), max_size=6)


def written(table: list[tuple[str, str]], mark: str, quoting: Any, end: str) -> bytes:
    made = io.StringIO()
    writer = csv.writer(made, delimiter=mark, quoting=quoting, lineterminator=end)
    writer.writerows([("text", "other"), *table])
    return made.getvalue().encode()


@given(
    st.lists(st.tuples(CELLS, CELLS), max_size=6),
    st.sampled_from(",;\t|"),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
    SIZES,
)
def test_a_table_is_read_whatever_the_pieces(
    table: list[tuple[str, str]], mark: str, quoting: Any, end: str, sizes: list[int]
) -> None:
    body = written(table, mark, quoting, end)
    read = found(lines.csv_rows, body, sizes, "text")
    assert [text for _, text in rows(read)] == [text for text, _ in table]
    assert len(read) == len(table)


def test_quotes_within_a_cell_are_only_quotes() -> None:
    """As inches are written; exports of databases quote nothing."""
    body = b'text\tgood\n5" disk\tyes\nan "old" one\tno\nand 3" more\tno\n"6"" disk"\tyes\n'
    read = found(lines.csv_rows, body, [3, 9, 12], "text")
    assert rows(read) == [(2, '5" disk'), (3, 'an "old" one'), (4, 'and 3" more'), (5, '6" disk')]


@given(st.text(st.sampled_from('ab,"\n\r'), max_size=60), SIZES)
def test_any_table_is_read_as_python_reads_it(text: str, sizes: list[int]) -> None:
    body = f"text,other\n{text}".encode()
    read = found(lines.csv_rows, body, sizes, "text")
    assert read == found(lines.csv_rows, body, [], "text")
    if "\r" in text or any(not isinstance(row, Row) and row[0] == 413 for _, row in read):
        return  # a row over the bound is given up, where Python reads on
    there = list(csv.reader(io.StringIO(text)))
    if read and not isinstance(read[-1][1], Row) and "quoted cell" in read[-1][1][1]:
        there.pop()  # it was not ended
    assert [one for _, one in rows(read)] == [row[0] for row in there if len(row) == 2]


@given(st.binary(max_size=200), SIZES)
def test_any_bytes_are_read_whatever_the_pieces(body: bytes, sizes: list[int]) -> None:
    for read, how in ((lines.json_rows, ()), (lines.csv_rows, ("text",))):
        assert found(read, body, sizes, *how) == found(read, body, [], *how)


def test_what_is_too_long_takes_no_other_with_it() -> None:
    long = "x" * SHORT
    body = f'"a"\n"{long}"\n"b"\n"{long}'.encode()
    for sizes in ([], [1] * len(body), [70] * 3):
        read = found(lines.json_rows, body, sizes)
        assert rows(read) == [(1, "a"), (3, "b")]
        assert [(number, row[0]) for number, row in read if not isinstance(row, Row)] == [
            (2, 413),
            (4, 413),
        ]
    body = f'text\na\n"{long}\n\n{long}\nb\n'.encode()
    read = found(lines.csv_rows, body, [5] * 60, "text")
    assert rows(read)[0] == (2, "a") and read[1][1][0] == 413


def test_others_get_their_turn_between_lines() -> None:
    """A chunk may hold hundreds of thousands of lines."""

    async def work(read: Callable[..., Any], *how: str) -> tuple[int, int]:
        turns = longest = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        waiting = asyncio.create_task(others())
        async for some in read(in_pieces(b"1\n" * 3200, []), *how):
            longest = max(longest, len(some))
        waiting.cancel()
        return turns, longest

    for read, how in ((lines.json_rows, ()), (lines.csv_rows, ("text",))):
        turns, longest = asyncio.run(work(read, *how))
        assert turns >= 100
        assert longest == lines.PIECE


def test_a_long_line_is_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a megabyte full of quotes takes seconds."""
    monkeypatch.setattr(lines, "LONG", 20)
    seen: set[tuple[str, bool, bool]] = set()

    def watched(name: str, read: Callable[..., Any]) -> Callable[..., Any]:
        def work(line: bytes, *how: Any) -> Any:
            here = threading.current_thread() is threading.main_thread()
            seen.add((name, len(line) > 20, here))
            return read(line, *how)

        return work

    names = ("_json_row", "_quoted", "_header", "_csv_row")
    for name in names:
        monkeypatch.setattr(lines, name, watched(name, getattr(lines, name)))
    long = b"x" * 30
    assert len(found(lines.json_rows, b'"a"\n"%s"' % long, [])) == 2
    assert len(found(lines.csv_rows, b"text,other\na,b\n%s,b\n" % long, [], "text")) == 2
    assert found(lines.csv_rows, b"text,%s\n" % long, [], "text") == []
    assert seen == {(name, long, not long) for name in names for long in (True, False)}


def test_a_line_has_so_many_values_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST", 1000)
    monkeypatch.setattr(bodies, "MOST_VALUES", 30)
    body = b'{"text": "a", "tools": [{"a": [%s]}]}\n"b"' % b",".join([b"0"] * 31)
    (_, (status, message, _)), other = found(lines.json_rows, body, [])
    assert (status, message) == (413, "the line has more than 30 values; send less at once")
    assert rows([other]) == [(2, "b")]


def test_a_cell_may_be_as_long_as_a_line() -> None:
    """The bound of Python's reader is lower, unless some other part of the program raised it."""
    asked = "import csv, bantam.serve.lines; print(csv.field_size_limit())"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=60)
    assert int(done.stdout) >= task_forms.LONGEST
