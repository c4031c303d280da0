"""The scanner against tomllib: the same keys, and on each line the key that was written there."""

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.toml_lines import key_lines


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, below in value.items():
            yield from paths(below, (*path, key))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from paths(below, (*path, index))


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


NASTY = st.text(alphabet="ab\"'\\[]{}=,.# \t\né\U0001f600", max_size=8)
SCALARS = st.one_of(
    st.integers(-99, 99).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["true", "inf", "1979-05-27T07:32:00Z", "07:32:00", "1979-05-27 07:32:00"]),
    NASTY.map(quoted),
    st.sampled_from(["'a=\"b'", "'''\n[x]\ny = 1'''", '"""\na = "1"\n\\"""\n"""', "'''it''''"]),
    st.sampled_from(['"""""two"""""', '"#no"', "''", '""']),
)
KEYS = st.one_of(
    st.sampled_from(["a", "b", "c-d", "1", "1_2", "'q.u'", '"[x]"', '"="', '"\\u00e9"']),
    NASTY.map(quoted),
)
SPACE = st.sampled_from(["", " ", "\t"])


@st.composite
def values(draw: st.DrawFn, depth: int = 0) -> str:
    shape = draw(st.sampled_from("ssslt" if depth < 3 else "s"))
    if shape == "s":
        return draw(SCALARS)
    if shape == "l":
        gap = draw(st.sampled_from(["", " ", "\n", " # ] a = 1\n"]))
        items = draw(st.lists(values(depth + 1), max_size=3))
        return "[" + gap + f"{gap},{gap}".join(items) + gap + "]"
    names = draw(st.lists(KEYS, max_size=3, unique_by=tomllib_key))
    pairs = [f"{key} = {draw(values(depth + 1))}" for key in names]
    return "{" + ", ".join(pairs) + "}"


def tomllib_key(key: str) -> str:
    return next(iter(tomllib.loads(f"{key} = 1")))


@st.composite
def documents(draw: st.DrawFn) -> str:
    lines = []
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from("kkkkhac"))
        names = f"{draw(SPACE)}.{draw(SPACE)}".join(draw(st.lists(KEYS, min_size=1, max_size=3)))
        if kind == "h":
            lines.append(f"{draw(SPACE)}[{draw(SPACE)}{names}{draw(SPACE)}] # a = 1")
        elif kind == "a":
            lines.append(f"[[{names}]]")
        elif kind == "c":
            lines.append("# [a] b = 'c")
        else:
            lines.append(f"{draw(SPACE)}{names}{draw(SPACE)}={draw(SPACE)}{draw(values())}")
    return "\n".join(lines) + draw(st.sampled_from(["", "\n", "\n\n#"]))


@settings(max_examples=150)
@given(documents())
def test_it_finds_the_keys_that_tomllib_finds(text: str) -> None:
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # names drawn twice; the scanner only promises anything for valid texts
    lines = key_lines(text)
    assert set(lines) == set(paths(parsed))
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


@settings(max_examples=100)
@given(st.lists(st.tuples(st.booleans(), values()), max_size=8))
def test_each_key_is_on_the_line_where_it_was_written(drawn: list[tuple[bool, str]]) -> None:
    text, wanted, table = "", {}, ()
    for index, (as_table, value) in enumerate(drawn):
        line = text.count("\n") + 1
        if as_table:
            table = (f"t{index}",)
            text += f"[t{index}]\n"
            wanted[table] = line
        else:
            text += f"k{index} = {value}\n"
            wanted[(*table, f"k{index}")] = line
    lines = key_lines(text)
    assert {path: lines[path] for path in wanted} == wanted


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ('a = """\n\n"""\nb = 1', ("b",), 4),
        ("[x]\r\ny = 1\r\nz = [\r\n 1,\r\n 2 ]\r\n", ("x", "z", 1), 5),
        ("a.b = 1\na.c = 2", ("a",), 1),
        ("a.b = 1\na.c = 2", ("a", "c"), 2),
        ("[[r]]\nn = 1\n[[r]]\nn = 2\n[r.s]\nt = 3", ("r", 1, "s", "t"), 6),
        ("d = {e = [\n1], f = 2}\n", ("d", "f"), 2),
    ],
)
def test_lines(text: str, path: tuple[str | int, ...], line: int) -> None:
    assert key_lines(text)[path] == line
