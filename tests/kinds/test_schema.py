"""Schemas: those that answers cannot be held to, those made from examples and from functions."""

import json
import re
import time
from contextlib import suppress
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bantam.errors import BadInput
from bantam.kinds import closing, declarations, grammar, schema
from bantam.kinds.grammar import shortest


def closed(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


def deep(levels: int) -> dict[str, Any]:
    node: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        node = {"type": "array", "items": node}
    return node


LINK = {"$ref": "#/$defs/node"}
BAD: dict[str, Any] = {
    "a list": [],
    "a text": "string",
    "no type of JSON's": {"type": "text"},
    "an empty enum": {"enum": []},
    "more least than most": {"type": "number", "minimum": 3, "maximum": 2},
    "longer least than most": {"type": "string", "minLength": 3, "maxLength": 2},
    "more items least than most": {"type": "array", "minItems": 3, "maxItems": 2},
    "what cannot be": closed({"a": False}, required=["a"]),
    "required and not there": closed({"a": {"type": "string"}}, required=["b"]),
    "a reference elsewhere": {"$ref": "https://example.org/schema.json"},
    "a reference to nothing": {"$ref": "#/$defs/nothing"},
    "no end": {"$defs": {"node": closed({"next": LINK}, required=["next"])}, **LINK},
    "no end through a list": {
        "$defs": {"node": {"type": "array", "items": LINK, "minItems": 1}},
        **LINK,
    },
    "itself": {"$defs": {"node": LINK}, **LINK},
    "look-ahead": {"type": "string", "pattern": "(?=a)b"},
    "an unknown format": {"type": "string", "format": "colour"},
    "a format without its pattern": {"type": "string", "format": "jwt"},
    "no number that can be written": {"type": "integer", "minimum": 10**16},
    "too large a constant": {"const": 10**16},
    "uniqueItems": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
    "not": {"not": {"type": "string"}},
    "if": {"if": {"type": "string"}, "then": {"minLength": 2}},
    "contains": {"type": "array", "contains": {"type": "string"}},
    "propertyNames": {"type": "object", "propertyNames": {"pattern": "a"}},
    "dependentRequired": closed({"a": {}, "b": {}}, dependentRequired={"a": ["b"]}),
    "a decimal fraction's multiples": {"type": "number", "multipleOf": 0.01},
    "letters that only some readers have": {"type": "string", "pattern": r"^\W$"},
    "all but digits": {"type": "string", "pattern": r"^[^\d]+$"},
    "an anchor": {"$defs": {"a": {"$anchor": "q", "type": "string"}}, "$ref": "#q"},
    "a name of its own": {"$defs": {"a": {"$id": "http://a/", "type": "null"}}, "type": "null"},
    "the decoder's settings": {"type": "null", "x-guidance": {"lenient": True}},
    "more items than could be written": {
        "type": "array",
        "items": {"type": "integer"},
        "minItems": 100_000,
    },
    "repeats of repeats": {"type": "string", "pattern": "^(((a{1000}){1000}){1000}){9}$"},
    "patterns that meet nowhere": {"type": "string", "pattern": "^a$", "minLength": 2},
    "oneOf that overlaps": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    "minProperties": {**closed({"a": {}, "b": {}, "c": {}}), "minProperties": 2},
    "a huge number": {"type": "integer", "multipleOf": 10**30},
    "a pattern of many characters": {"type": "string", "pattern": "|".join(["ab"] * 1_000)},
    "deep": deep(200),
    "deeper than Python": deep(100_000),
    "wide": closed({f"p{n}": {"type": "string"} for n in range(5_000)}),
    "a long text": {"type": "string", "description": "x" * 300_000},
}


@pytest.mark.parametrize("name", BAD)
def test_schemas_that_answers_cannot_be_held_to(name: str) -> None:
    began = time.process_time()
    with pytest.raises(BadInput, match=r"^task\.schema") as error:
        schema.check(BAD[name], "task.schema")
    assert error.value.mend
    assert time.process_time() - began < 1


@pytest.mark.parametrize("branch", ["(.*)*c{90}", "(a|aa)+c{90}", "(?:a+)+c{90}", "(a*)*b{90}"])
def test_a_pattern_that_python_would_search_for_for_years(branch: str) -> None:
    """It meets a text after trying 2 ** 80 ways in vain."""
    pattern = f"^(?:{branch}|a{{80}})$"
    began = time.perf_counter()
    with suppress(BadInput):
        schema.check({"type": "string", "pattern": pattern}, "task.schema")
    assert time.perf_counter() - began < 10


def test_what_takes_long_to_be_followed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "SECONDS", 0.1)
    parts = {f"k{n}": {"type": "string", "pattern": f"^(a|b)*a(a|b){{{n}}}$"} for n in range(450)}
    began = time.perf_counter()
    with pytest.raises(BadInput, match="it would take too long"):
        schema.check(closed(parts, required=list(parts)), "task.schema")
    assert time.perf_counter() - began < 5


def test_many_large_declarations_are_refused_at_once() -> None:
    large = closed({f"p{n}": {"type": "string", "description": "x" * 90} for n in range(300)})
    many = [{"name": f"f{n}", "parameters": large} for n in range(100)]
    began = time.perf_counter()
    with pytest.raises(BadInput, match="over 400,000 characters"):
        declarations.tools(many, "tools")
    assert time.perf_counter() - began < 10


def test_the_part_that_is_wrong_is_named() -> None:
    unique = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    for made, place in (
        (closed({"a": {"type": "array", "items": unique}}), "#/properties/a/items"),
        ({"$defs": {"u": unique}, **closed({"a": {"$ref": "#/$defs/u"}})}, "#/$defs/u"),
        (closed({"a": {"anyOf": [{"type": "null"}, unique]}}), "#/properties/a/anyOf/1"),
    ):
        with pytest.raises(BadInput, match=f"task.schema, {re.escape(place)}: .*uniqueItems"):
            schema.check(made, "task.schema")


@pytest.mark.parametrize(
    "good",
    [
        {"$defs": {"node": closed({"next": {"anyOf": [LINK, {"type": "null"}]}})}, **LINK},
        {"$defs": {"node": {"type": "array", "items": LINK}}, **LINK},
        closed({"a": {"type": ["string", "null"]}, "b": {"type": "string", "format": "date"}}),
        closed({name: {"type": "string"} for name in ("$id", "$ref", "enum", "type", "pattern")}),
        {"type": "number", "multipleOf": 0.5},
        {"type": "string", "pattern": r"^\\\\W[\d\w]$"},
        {"title": "T", "description": "D", "type": "object", "properties": {}, "$comment": "c"},
    ],
)
def test_schemas_that_they_can_be_held_to(good: dict[str, Any]) -> None:
    assert schema.check(good, "task.schema") == good


NAMES = st.sampled_from(["a", "b", "anyOf", "properties"])
SCHEMAS = st.recursive(
    st.sampled_from([{"type": "integer"}, {"type": "string"}, {}]),
    lambda inner: (
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(NAMES, inner, max_size=3)},
            optional={
                "required": st.lists(NAMES, max_size=2, unique=True),
                "additionalProperties": inner | st.booleans(),
                "allOf": st.lists(inner, min_size=1, max_size=2),
                "anyOf": st.lists(inner, min_size=1, max_size=2),
            },
        )
        | inner.map(lambda one: {"$defs": {"a": one}, "$ref": "#/$defs/a"})
        | inner.map(lambda one: {"type": "array", "items": one, "maxItems": 2})
    ),
    max_leaves=6,
)


@given(SCHEMAS)
def test_a_closed_schema_asks_for_no_less(asked: dict[str, Any]) -> None:
    """It can be followed where the other can, and what follows it follows the other."""
    try:
        schema.check(asked, "the schema")
    except BadInput:
        return
    made = schema.closed(asked)
    held = grammar.grammar(schema.check(made, "the closed one"))
    answer = json.loads(closing.course(held).rest or b"")
    assert schema.mistake(asked, answer) is None


def test_what_is_closed() -> None:
    part = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert schema.closed(part) == closed(part["properties"])
    for nested in (
        {"type": "array", "items": part},
        {"anyOf": [part, {"type": "null"}]},
        {"$defs": {"part": part}, "allOf": [{"$ref": "#/$defs/part"}]},
        part | {"properties": {"properties": part}},
    ):
        made = schema.closed(nested)
        assert json.dumps(made).count('"additionalProperties": false') == (
            json.dumps(nested).count('"type": "object"')
        )
    for open_ in (
        {"type": "object"},
        part | {"additionalProperties": {"type": "null"}},
        part | {"required": ["b"]},
        {"allOf": [part, {"type": "object", "properties": {"b": {}}}]},
        part | {"anyOf": [{"type": "object", "properties": {"b": {}}}]},
        {"$defs": {"part": part}, "$ref": "#/$defs/part", "required": ["b"]},
    ):
        assert schema.closed(open_) == open_


@pytest.mark.parametrize(
    "pattern",
    [
        *("abc", "a|bc", "[0-9]{5}", "^[A-Z]{3}-[0-9]+$", "(ab)*c", "a.c", "[^abc]x", r"\d\d\s\w"),
        *(r"[^\d\s]{2}", "(?:x|yy)+z?", r"\.", "[^-a-z0-9]", "é{2,}"),
    ],
)
def test_shortest_texts_of_patterns(pattern: str) -> None:
    assert re.search(pattern, shortest(pattern))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=5),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=3), parts),
    max_leaves=8,
)


@given(st.lists(JSON, min_size=1, max_size=6))
def test_examples_follow_what_is_inferred_from_them(values: list[Any]) -> None:
    found = schema.infer(values)
    for value in values:
        assert schema.mistake(found, value) is None
        assert schema.ordered(found, value) == value
        assert json.loads(schema.text(value)) == value


def test_what_is_inferred() -> None:
    rows = [
        {
            "vendor": f"Vendor {n}",
            "total": n / 2,
            "currency": ["EUR", "USD", "CHF"][n % 3],
            "due": f"2024-05-{n % 28 + 1:02}",
            "lines": [{"count": n}],
        }
        | ({"note": None if n % 2 else "late"} if n > 5 else {})
        for n in range(50)
    ]
    found = schema.infer(rows)
    assert found["properties"]["vendor"] == {"type": "string"}
    assert found["properties"]["total"] == {"type": "number"}
    assert found["properties"]["currency"] == {"enum": ["EUR", "USD", "CHF"]}
    assert found["properties"]["due"] == {"type": "string", "format": "date"}
    assert found["properties"]["lines"]["items"]["properties"] == {"count": {"type": "integer"}}
    assert found["required"] == ["vendor", "total", "currency", "due", "lines"]
    assert found["additionalProperties"] is False
    assert schema.check(found, "inferred") == found


def test_keys_come_in_the_order_of_the_schema() -> None:
    inner = closed({"x": {"type": "integer"}, "y": {"type": "integer"}})
    made = {
        "$defs": {"inner": inner},
        **closed(
            {
                "a": {"$ref": "#/$defs/inner"},
                "b": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/inner"}]},
                "c": {"type": "array", "items": inner},
            }
        ),
    }
    value = {"c": [{"y": 1, "x": 2}], "b": {"y": 3, "x": 4}, "a": {"y": 5, "x": 6}}
    assert schema.text(schema.ordered(made, value)) == (
        '{"a": {"x": 6, "y": 5}, "b": {"x": 4, "y": 3}, "c": [{"x": 2, "y": 1}]}'
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"total": "12"}, "total: '12' is not of type 'number'"),
        ({"total": 1, "more": 2}, "more"),
        ({}, "'total' is a required property"),
        ({"total": 1, "due": "2024-02-31"}, "due"),
        ([], "not of type 'object'"),
        ({"total": float("nan")}, "number that JSON has not"),
    ],
)
def test_mistakes_in_plain_words(value: Any, said: str) -> None:
    made = closed(
        {"total": {"type": "number"}, "due": {"type": "string", "format": "date"}},
        required=["total"],
    )
    assert said in (schema.mistake(made, value) or "")


WEATHER = {
    "name": "get_weather",
    "description": "Current\nweather",
    "parameters": {
        "type": "dict",
        "properties": {
            "city": {"type": "string", "description": "City, State"},
            "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
            "at": {"type": "tuple", "items": {"type": "float"}},
        },
        "required": ["city"],
    },
}


def test_declarations_in_either_form() -> None:
    (one,) = declarations.tools([WEATHER], "tools")
    assert declarations.tools([{"type": "function", "function": WEATHER}], "tools") == [one]
    assert declarations.tools(json.dumps([WEATHER]), "tools") == [one]
    assert declarations.tools([one], "tools") == [one]
    assert one["function"]["parameters"]["properties"]["at"]["items"] == {"type": "number"}
    assert declarations.declared([one]) == (
        'get_weather(city: string /* City, State */, unit?: "c"|"f" = "c", at?: number[])'
        " - Current weather"
    )


def test_answers_to_declarations() -> None:
    tools = declarations.tools([WEATHER, {"name": "stop"}], "tools")
    answer = schema.check(declarations.of_tools(tools, 2), "answer")
    call = {"name": "get_weather", "arguments": {"city": "Rome"}}
    for good in ([], [call], [call, {"name": "stop", "arguments": {}}]):
        jsonschema.validate(good, answer)
    for bad in (
        [call] * 3,
        [{"name": "get_weather", "arguments": {}}],
        [{"name": "other", "arguments": {}}],
        [{"name": "get_weather", "arguments": {"city": "Rome", "more": 1}}],
        {},
    ):
        assert schema.mistake(answer, bad)


def test_objects_in_definitions_of_functions_are_closed() -> None:
    point = {"type": "object", "properties": {"x": {"type": "int"}}, "required": ["x"]}
    parameters = {"type": "object", "properties": {"at": {"$ref": "#/$defs/point"}}}
    (one,) = declarations.tools(
        [{"name": "go", "parameters": parameters | {"$defs": {"point": point}}}], ""
    )
    answer = declarations.of_tools([one], 1)
    assert schema.mistake(answer, [{"name": "go", "arguments": {"at": {"x": 1}}}]) is None
    assert schema.mistake(answer, [{"name": "go", "arguments": {"at": {"x": 1, "more": 2}}}])


def test_definitions_of_functions_stay_apart() -> None:
    def function(name: str, kind: str) -> dict[str, Any]:
        return {
            "name": name,
            "parameters": closed({"a": {"$ref": "#/$defs/x"}}, **{"$defs": {"x": {"type": kind}}}),
        }

    tools = declarations.tools([function("f", "string"), function("g", "integer")], "tools")
    answer = schema.check(declarations.of_tools(tools, 1), "answer")
    assert schema.mistake(answer, [{"name": "f", "arguments": {"a": "x"}}]) is None
    assert schema.mistake(answer, [{"name": "g", "arguments": {"a": 1}}]) is None
    assert schema.mistake(answer, [{"name": "g", "arguments": {"a": "x"}}])


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        "no JSON",
        "[" * 100_000,
        [1],
        [{"name": "two words"}],
        [{"name": "a" * 129}],
        [{"name": "f"}, {"name": "f"}],
        [{"name": "f", "parameters": {"type": "string"}}],
        [{"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "what"}}}}],
        [{"name": f"f{n}"} for n in range(200)],
        [{"function": {"description": "no name"}}],
    ],
)
def test_declarations_that_are_none(bad: Any) -> None:
    with pytest.raises(BadInput) as error:
        declarations.tools(bad, "row 3")
    assert error.value.message.startswith("row 3")
    assert error.value.mend
