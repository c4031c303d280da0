"""Calls are read out of JSON that comes in pieces of any size."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bantam.kinds import declarations, schema
from bantam.serve import calls
from bantam.serve.ask import CallBegun, CallPart

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CALLS = st.lists(
    st.tuples(st.from_regex(declarations.NAME, fullmatch=True), st.dictionaries(st.text(), VALUES)),
    max_size=4,
).map(lambda pairs: [{"name": name, "arguments": arguments} for name, arguments in pairs])


def read(text: str, sizes: list[int], key: str) -> list[dict[str, Any]]:
    """What a reader makes of a text in pieces of these sizes."""
    reader = calls.Reader(0, key)
    found: list[tuple[str, str]] = []
    at = 0
    for size in [*sizes, len(text)]:
        for event in reader.read(text[at : at + size]):
            if isinstance(event, CallBegun):
                assert event.number == len(found)
                found.append((event.name, ""))
            elif isinstance(event, CallPart):
                found[event.number] = (found[event.number][0], found[event.number][1] + event.text)
        at += size
    return [{"name": name, "arguments": json.loads(arguments)} for name, arguments in found]


@given(
    CALLS, st.lists(st.integers(0, 7), max_size=60), st.sampled_from(["arguments", "parameters"])
)
def test_calls_are_read_whatever_the_pieces(
    made: list[dict[str, Any]], sizes: list[int], key: str
) -> None:
    written = [{"name": one["name"], key: one["arguments"]} for one in made]
    assert read(schema.text(written), sizes, key) == made


@given(st.lists(st.sampled_from([*calls.MARKS, "[", "{", '"na', " ", "\n", "a"]), max_size=5))
def test_what_a_reply_is_stays_what_it_is(parts: list[str]) -> None:
    """However it comes: what was told of its beginning is true of the whole."""
    whole = "".join(parts)
    for end in range(len(whole) + 1):
        assert calls.begins(whole[:end]) in (None, calls.begins(whole))


def test_arguments_come_while_they_are_written() -> None:
    reader = calls.Reader(0, "arguments")
    assert reader.read('[{"name": "go", "argum') == []
    begun, part = reader.read('ents": {"to": "Ber')
    assert isinstance(begun, CallBegun) and begun.name == "go"
    assert part == CallPart(0, 0, '{"to": "Ber')
    assert reader.read('lin"}}, ') == [CallPart(0, 0, 'lin"}')]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", None),
        (" [", None),
        ('[ {"na', None),
        ('[{"name": "go"', True),
        ("<tool_call>\n{", True),
        ("<tool", None),
        ("[1] is a source", False),
        ("Hello", False),
        ('{"answer": 1}', False),
    ],
)
def test_what_begins_like_a_call(text: str, told: bool | None) -> None:
    assert calls.begins(text) is told


TOOLS = declarations.tools(
    [
        {"name": "go", "parameters": {"type": "object", "properties": {"to": {"type": "string"}}}},
        {"name": "stop", "parameters": {"type": "object", "properties": {}}},
    ],
    "tools",
)


@pytest.mark.parametrize("style", [calls.PLAIN, calls.Style(listed=False, key="parameters")])
def test_what_is_written_follows_the_functions(style: calls.Style) -> None:
    wanted = calls.answer_schema(TOOLS, style, 2)
    call = {"name": "go", style.key: {"to": "Berlin"}}
    written, none = ([call], []) if style.listed else (call, {})
    assert schema.mistake(wanted, written) is None
    assert schema.mistake(wanted, none) is not None
    wrong = call | {style.key: {"to": 1}}
    assert schema.mistake(wanted, [wrong] if style.listed else wrong) is not None
    schema.check(wanted, "calls")
