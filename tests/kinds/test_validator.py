"""Values held against schemas: as jsonschema does it, but never for hours, nor by network."""

import http.server
import threading
import time
from contextlib import suppress
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from referencing.exceptions import Unresolvable

from bantam.errors import BadInput
from bantam.kinds import schema, validator
from bantam.kinds.validator import mistake

PATTERNS = st.sampled_from(["a", "^a", "b$", "^(a|b)+$", "[0-9]", "^$", "a.b", r"\d", "^.{2}$"])
TEXTS = st.text("ab1\n", max_size=4)
NAMES = st.sampled_from(["a", "ab", "b1", ""])
SCHEMAS = st.recursive(
    st.one_of(
        st.sampled_from([{"type": "integer"}, {"type": "string"}, {}, True, False]),
        PATTERNS.map(lambda one: {"pattern": one}),
    ),
    lambda inner: (
        st.fixed_dictionaries(
            {},
            optional={
                "properties": st.dictionaries(NAMES, inner, max_size=2),
                "patternProperties": st.dictionaries(PATTERNS, inner, max_size=2),
                "additionalProperties": inner,
                "required": st.lists(NAMES, max_size=2, unique=True),
                "anyOf": st.lists(inner, min_size=1, max_size=2),
                "items": inner,
            },
        )
        | inner.map(lambda one: {"$defs": {"x": one}, "$ref": "#/$defs/x"})
    ),
    max_leaves=8,
).filter(lambda one: isinstance(one, dict))
VALUES = st.recursive(
    st.none() | st.integers(0, 3) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(SCHEMAS, VALUES)
def test_the_same_is_found_as_by_jsonschema(asked: dict[str, Any], value: Any) -> None:
    try:
        theirs = jsonschema.Draft202012Validator(asked).is_valid(value)
    except (RecursionError, Unresolvable):
        theirs = False
    assert (mistake(asked, value) is None) == theirs


def test_a_mistake_is_named_with_its_place() -> None:
    asked = {
        "properties": {"a": {"items": {"pattern": "^x"}}},
        "patternProperties": {"^n": {"type": "integer"}},
        "additionalProperties": False,
    }
    assert mistake(asked, {"a": ["x1", "x2"], "n1": 5}) is None
    assert mistake(asked, {"a": ["x1", "y"]}) == "a.1: 'y' does not match '^x'"
    assert "'7' is not of type 'integer'" in str(mistake(asked, {"n2": "7"}))
    assert "'b' is one" in str(mistake(asked, {"b": 1}))
    assert "number that JSON has not" in str(mistake({}, float("nan")))


def doubling(levels: int) -> dict[str, Any]:
    defs: dict[str, Any] = {
        f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)
    }
    return {"$defs": defs | {f"d{levels}": {"type": "integer"}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    ("asked", "value"),
    [
        ({"pattern": "^(a|aa)+$"}, "a" * 60 + "b"),
        ({"pattern": "a.*b.*c.*d.*e.*f"}, "abcde" * 400),
        ({"patternProperties": {"^(a|aa)+$": {}}}, {"a" * 60 + "b": 1}),
        ({"patternProperties": {"^(a|aa)+$": {}}, "additionalProperties": False}, {"a" * 60: 1}),
        ({"allOf": [{"pattern": f"^(a|aa)+{n}$"} for n in range(500)]}, "a" * 60),
        (doubling(35), 5),
    ],
)
def test_what_would_take_for_ever_does_not(
    asked: dict[str, Any], value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's own `re` would let no other thread run meanwhile; here one counts on."""
    monkeypatch.setattr(validator, "SECONDS", 0.5)
    told: list[str | None] = []
    began = time.monotonic()
    thread = threading.Thread(target=lambda: told.append(mistake(asked, value)), daemon=True)
    thread.start()
    longest, last = 0.0, time.monotonic()
    while thread.is_alive():
        time.sleep(0.005)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
        assert last - began < 15
    assert longest < 1
    assert told[0] is None or "too long" in told[0] or "not" in told[0]


def test_nothing_is_fetched() -> None:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/x.json"
        for wanted in (
            {"$ref": address},
            {"$dynamicRef": address},
            {"$id": address, "$ref": "other.json"},
            {"$schema": address, "type": "null"},
            {"properties": {"a": {"$ref": address}}},
        ):
            mistake(wanted, {"a": 1})
            with suppress(BadInput):
                schema.sound(wanted, "the schema")
    finally:
        server.shutdown()
        server.server_close()
    assert asked == []
