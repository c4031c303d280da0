"""Whether calls of functions are the right ones.

The rules are those by which the Berkeley Function Calling Leaderboard judges calls in Python
(Patil et al. 2025, "The Berkeley Function Calling Leaderboard"; the syntax-tree checker of
`bfcl-eval` 2026.3.23). A call is `{"name": ..., "arguments": {...}}`. What is accepted of one call
is `{name: {parameter: [values...]}}`, and "" among the values lets the parameter be left out. In an
object each key has its list of values again, at the first level; what is deeper is compared whole.
"""

import re
import reprlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

LEFT_OUT = ""
IGNORED = re.compile(r"[ ,./\-_*^]")  # "April 1, 2024" is "april 1 2024"
SHOWN = 3  # accepted values, in a message

# The types that the leaderboard has, and the two that JSON Schema calls otherwise.
TYPES: dict[str, type] = {
    "string": str,
    "any": str,
    "integer": int,
    "float": float,
    "number": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "object": dict,
}
WORDS: dict[type, str] = {
    str: "text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def mistake(
    answer: Sequence[dict[str, Any]],
    accepted: Sequence[dict[str, Any]] | None,
    tools: Sequence[dict[str, Any]],
) -> str | None:
    """The first thing that is wrong with the calls of an answer, in words; None if they are right.

    Where nothing is accepted, no call is right. Several calls may come in any order; each accepted
    one takes the first that fits it, as in the leaderboard. `tools` are the functions with their
    JSON Schema, bare or wrapped as `{"type": "function", "function": {...}}`. A parameter without a
    type has that of the first accepted value.

    - Texts are compared in lower case, without spaces and , . / - _ * ^, and ' is ". Within objects
      that holds for texts, but not for the texts of a list.
    - An integer will do for a number; in a list of numbers it will not, unless the first accepted
      item is one. true is no integer, except within objects.
    - A value of the type of the first accepted value is right even if the schema names another;
      then it is compared as it is, texts too.
    """
    if not accepted:
        return f"no call is right here, but {_name(answer[0])} was called" if answer else None
    if len(answer) != len(accepted):
        return f"{_calls(len(answer))} instead of {len(accepted)}"
    left = list(answer)
    for one in accepted:
        wrong = [_wrong_call(call, one, tools) for call in left]
        if None not in wrong:
            named = [call for call in left if _name(call) in one]
            return wrong[left.index(named[0])] if named else wrong[0]
        del left[wrong.index(None)]
    return None


def of_outputs(expected: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `mistake` takes as accepted if the calls of one output are the only right ones.

    An empty text means in this form that the parameter may be left out as well.
    """
    return [
        {call["name"]: {name: [_alone(value)] for name, value in call["arguments"].items()}}
        for call in expected
    ]


def _alone(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: [inner] for key, inner in value.items()}
    return [_alone(item) for item in value] if _all_objects(value) else value


def _all_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _name(call: Any) -> str:
    """The name of a call, which a model may have written anyhow."""
    name = call.get("name") if isinstance(call, dict) else None
    return name if isinstance(name, str) else "something without a name"


def _calls(count: int) -> str:
    return "no call" if not count else "1 call" if count == 1 else f"{count} calls"


def _wrong_call(call: Any, accepted: dict[str, Any], tools: Sequence[dict[str, Any]]) -> str | None:
    ((name, parameters),) = accepted.items()
    if _name(call) != name:
        return f"{_name(call)} was called, not {name}"
    arguments = call.get("arguments")
    if not isinstance(arguments, dict):
        return f"{name} was called without an object of arguments"
    properties, required = _schema(name, parameters, tools)
    for parameter in required:
        if parameter not in arguments:
            return f"{parameter} of {name} is missing"
    for parameter, value in arguments.items():
        if parameter not in properties or parameter not in parameters:
            return f"{parameter} of {name} should not be there"
        if wrong := _wrong_value(value, parameters[parameter], properties[parameter]):
            return f"{parameter} of {name} is {wrong}"
    for parameter, values in parameters.items():
        if parameter not in arguments and LEFT_OUT not in values:
            return f"{parameter} of {name} is missing"
    return None


def _schema(
    name: str, parameters: dict[str, Any], tools: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any], list[str]]:
    """The parameters of a tool, and which must be given; of an unknown one what is accepted."""
    for wrapped in tools:
        tool = wrapped.get("function", wrapped)
        if tool.get("name") == name:
            schema = tool.get("parameters") or {}
            return schema.get("properties") or {}, schema.get("required") or []
    return {parameter: {} for parameter in parameters}, []


def _wrong_value(value: Any, accepted: list[Any], schema: dict[str, Any]) -> str | None:
    first = _first_type(accepted)
    kind = _type(schema) or first or str
    if kind is float and type(value) is int:
        with suppress(OverflowError):
            value = float(value)
    inner = _inner(schema, accepted) if kind is list else None
    if type(value) is kind:
        if inner and not any(_items_fit(value, one, inner) for one in accepted):
            return f"{_shown(value)}, whose items should be {WORDS[inner]}"
        as_it_is = first not in (None, kind)
    elif type(value) is first:
        as_it_is = True
    else:
        return f"{_shown(value)}, which should be {WORDS[kind]}"
    if value in accepted if as_it_is else _fits(value, accepted, inner):
        return None
    options = [_shown(one) for one in accepted if one != LEFT_OUT][:SHOWN]
    return f"{_shown(value)}, not {' or '.join(options) or 'left out'}"


def _first_type(values: list[Any]) -> type | None:
    """The type of the first value that does not stand for leaving out."""
    return next((type(value) for value in values if value != LEFT_OUT), None)


def _type(schema: Any) -> type | None:
    named = schema.get("type") if isinstance(schema, dict) else None
    if isinstance(named, list):  # such as ["string", "null"]
        named = next((one for one in named if one != "null"), None)
    return TYPES.get(named) if isinstance(named, str) else None


def _inner(schema: dict[str, Any], accepted: list[Any]) -> type | None:
    """The type of the items of a list, None where the schema does not say; objects show."""
    named = _type(schema.get("items"))
    return dict if named is None and any(map(_all_objects, accepted)) else named


def _items_fit(value: Any, accepted: Any, inner: type) -> bool:
    """Whether the types of all items will do; anything will where leaving out is accepted."""
    if not isinstance(accepted, list):
        return True
    first = _first_type(accepted)
    return all(type(item) in (inner, first) for item in value)


def _fits(value: Any, accepted: list[Any], inner: type | None) -> bool:
    """Whether a value of the right type is one of those accepted."""
    if isinstance(value, str):
        return _plain(value) in [_plain(one) for one in accepted if isinstance(one, str)]
    if isinstance(value, dict):
        return any(_object_fits(value, one) for one in accepted)
    if isinstance(value, list):
        lists = [one or [] for one in accepted if isinstance(one, list) or one == LEFT_OUT]
        if inner is dict:
            return any(_objects_fit(value, one) for one in lists)
        return list(map(_plain, value)) in [list(map(_plain, one)) for one in lists]
    return value in accepted


def _objects_fit(value: list[Any], accepted: list[Any]) -> bool:
    return len(value) == len(accepted) and all(map(_object_fits, value, accepted))


def _object_fits(value: Any, accepted: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(accepted, dict):
        return False
    return all(
        _plain(inner) in map(_plain, accepted.get(key, ())) for key, inner in value.items()
    ) and all(key in value or LEFT_OUT in values for key, values in accepted.items())


def _plain(value: Any) -> Any:
    """A text without what may differ; anything else as it is."""
    return IGNORED.sub("", value).lower().replace("'", '"') if isinstance(value, str) else value


def _shown(value: Any) -> str:
    return reprlib.repr(value)
