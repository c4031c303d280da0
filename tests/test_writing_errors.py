"""What is wrong or odd in the kinds that write their answers: told, or borne, never a traceback."""

from typing import Any

import pytest

from bantam.errors import BadInput
from bantam.kinds import schema


def closed(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


def chain(link: Any, last: Any) -> dict[str, Any]:
    """A schema of 40 definitions, each of which refers to the next twice."""
    refs = [{"$ref": f"#/$defs/d{number + 1}"} for number in range(40)]
    defs = {f"d{number}": link(ref) for number, ref in enumerate(refs)}
    return closed({"a": {"$ref": "#/$defs/d0"}}, **{"$defs": defs | {"d40": last}})


UNSOUND: dict[str, dict[str, Any]] = {
    "too large": chain(lambda ref: closed({"left": ref, "right": ref}), {"type": "null"}),
    "without an end": chain(
        lambda ref: {"anyOf": [ref, ref]}, closed({"a": {"$ref": "#/$defs/d40"}})
    ),
    "no number": closed({"a": {"type": "number", "default": float("nan")}}),
    "half of a character": closed({"a": {"enum": ["\ud800", "b"]}}),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_unsound_schemas_are_refused_at_once(name: str) -> None:
    with pytest.raises(BadInput) as error:
        schema.check(UNSOUND[name], "task.schema")
    assert error.value.mend


def test_a_schema_that_says_nothing_leaves_the_next_one_alone() -> None:
    schema.check({}, "task.schema")
    assert schema.check(closed({"a": True}), "task.schema")


def test_keys_are_ordered_through_references_of_all_sorts() -> None:
    tree = closed(
        {
            "name": {"type": "string"},
            "kind": {"anyOf": [{"$ref": "#/definitions/kind"}, {"type": "null"}]},
            "child": {"anyOf": [{"$ref": "#"}, {"$ref": "#/properties/kind"}]},
        },
        definitions={"kind": {"enum": ["leaf", "twig"]}},
    )
    leaf = {"child": None, "kind": "leaf", "name": "b"}
    told = schema.ordered(schema.check(tree, "task.schema"), {**leaf, "child": leaf})
    assert list(told) == list(told["child"]) == ["name", "kind", "child"]


def test_references_of_functions_mean_their_own_parts() -> None:
    def function(name: str, kind: str, **more: Any) -> dict[str, Any]:
        properties = {
            "value": {"$ref": "#/definitions/value"},
            "more": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        }
        parts = {"definitions": {"value": {"type": kind}}, **more}
        return {"name": name, "parameters": closed(properties, **parts)}

    some = [function("f", "string", **{"$id": "https://example.org/f"}), function("g", "integer")]
    tools = schema.tools(some, "tools")
    answer = schema.check(schema.of_tools(tools, 1), "answer")

    def call(name: str, value: Any, more: Any) -> Any:
        return [{"name": name, "arguments": {"value": value, "more": more}}]

    assert schema.mistake(answer, call("f", "x", {"value": "y", "more": None})) is None
    assert schema.mistake(answer, call("g", 1, {"value": 2, "more": None})) is None
    assert schema.mistake(answer, call("g", 1, {"value": "y", "more": None}))
    assert schema.mistake(answer, call("f", "x", []))
