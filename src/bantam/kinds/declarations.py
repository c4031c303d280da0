"""Declarations of functions: checked, as the schema of the calls to them, and in words."""

import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

from bantam.errors import BadInput
from bantam.kinds.schema import DEEPEST, OTHERWISE, SECONDS, Schema, check, text

MOST_TOOLS = 128
LARGEST_TOOLS = 400_000  # characters of all declarations as JSON
KEPT = 10_000  # characters of what is remembered as sound: much of it would fill the memory
NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
# What only tightens a schema and cannot be held to; and patterns that readers take differently, or
# that look around. Functions that are not said to be strict do without.
TIGHTENING = {"uniqueItems", "not", "if", "then", "else", "contains", "minContains", "maxContains"}
TIGHTENING |= {"propertyNames", "dependentRequired", "dependentSchemas"}
TIGHTENING |= {"unevaluatedItems", "unevaluatedProperties"}
AROUND = re.compile(r"\(\?<?[=!]")
# The types of the Berkeley leaderboard's declarations.
TYPES = {
    "dict": "object",
    "float": "number",
    "tuple": "array",
    "double": "number",
    "int": "integer",
}
TYPES |= {"str": "string", "bool": "boolean", "list": "array"}
ANY: Schema = {
    "anyOf": [{"type": kind} for kind in ("string", "number", "boolean", "null")]
    + [{"type": "array", "items": {"type": ["string", "number", "boolean", "null"]}}]
}


def tools(value: object, origin: str) -> list[Schema]:
    """Function declarations in OpenAI's form, checked: [{"type": "function", "function": ...}].

    A bare function is taken too, and the names that the Berkeley leaderboard has for types. Raises
    BadInput for what is no list of functions, for names that are none or stand twice, and for
    parameters that answers cannot be held to; unless a function is strict, without what only
    tightens them.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    mend = 'give [{"type": "function", "function": {"name": ..., "parameters": {...}}}, ...]'
    size, until = 0, time.monotonic() + SECONDS
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_TOOLS:
        raise BadInput(f"{origin}: no list of 1 to {MOST_TOOLS} function declarations", mend)
    found: list[Schema] = []
    for number, one in enumerate(value, 1):
        function = one.get("function", one) if isinstance(one, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str):
            raise BadInput(f"{origin}: declaration {number} has no name", mend)
        if not NAME.fullmatch(name):
            raise BadInput(
                f"{origin}: {name!r:.80} is no name for a function",
                "use up to 128 letters, digits, _ . and -",
            )
        told = function.get("parameters") or {"type": "object", "properties": {}}
        parameters = _plain(told, strict=function.get("strict") is True)
        description = function.get("description")
        described = {"description": description} if isinstance(description, str) else {}
        declared = {"name": name, **described, "parameters": parameters}
        size += len(json.dumps(declared))
        if size > LARGEST_TOOLS or time.monotonic() > until:
            raise BadInput(
                f"{origin}: the declarations have over {LARGEST_TOOLS:,} characters, or take too "
                "long to look at",
                "declare fewer functions, or simpler ones",
            )
        _check_parameters(parameters, f"{origin}, {name}")
        if parameters.get("type") != "object":
            raise BadInput(f"{origin}, {name}: parameters are no object", mend)
        found.append({"type": "function", "function": declared})
    names = Counter(one["function"]["name"] for one in found)
    if twice := [name for name, count in names.items() if count > 1]:
        raise BadInput(f"{origin}: the function {twice[0]} is declared twice", "rename one of them")
    return found


def _check_parameters(schema: Any, origin: str) -> None:
    """Raises BadInput as `check`: many rows declare the same functions, and a check takes 5 ms."""
    told = json.dumps(schema)
    try:
        if len(told) <= KEPT:
            return _sound(told)
    except BadInput:
        pass  # it is told below, with its place
    check(schema, origin)
    return None


@lru_cache(4096)
def _sound(schema: str) -> None:
    check(json.loads(schema), "the schema")


def of_tools(tools: Sequence[Schema], most_calls: int) -> Schema:
    """The schema of the answer to declarations that `tools` checked: a list of calls."""
    defs: Schema = {}
    calls = []
    for number, one in enumerate(tools):
        function = one["function"]
        parameters = _apart(function["parameters"], f"f{number}", defs)
        call = {"name": {"const": function["name"]}, "arguments": parameters}
        calls.append(_closed({"type": "object", "properties": call, "required": list(call)}))
    items = calls[0] if len(calls) == 1 else {"anyOf": calls}
    answer: Schema = {"type": "array", "items": items, "maxItems": most_calls}
    return answer | ({"$defs": defs} if defs else {})


def declared(tools: Sequence[Schema]) -> str:
    """The declarations for a prompt, a line each: `name(a: string /* what */, b?: 1|2) - what`."""
    lines = []
    for one in tools:
        function = one["function"]
        said = _line(function.get("description", ""))
        head = f"{function['name']}({_parameters(function['parameters'])})"
        lines.append(f"{head} - {said}" if said else head)
    return "\n".join(lines)


def _parameters(schema: Schema) -> str:
    required = schema.get("required", [])
    told = []
    for name, part in schema.get("properties", {}).items():
        part = part if isinstance(part, dict) else {}
        default = f" = {text(part['default'])}" if part.get("default") not in (None, "") else ""
        said = _line(part.get("description", ""))
        comment = f" /* {said} */" if said else ""
        told.append(f"{name}{'' if name in required else '?'}: {_type(part)}{default}{comment}")
    return ", ".join(told)


def _type(schema: Schema) -> str:
    """A schema as a type, in TypeScript's manner."""
    if "enum" in schema:
        return "|".join(text(value) for value in schema["enum"])
    if "const" in schema:
        return text(schema["const"])
    if parts := schema.get("anyOf") or schema.get("oneOf"):
        return "|".join(dict.fromkeys(_type(part) for part in parts))
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        return "|".join(kind)
    if kind == "array":
        items = schema.get("items")
        return f"{_type(items)}[]" if isinstance(items, dict) else "any[]"
    if kind == "object" and schema.get("properties"):
        return f"{{{_parameters(schema)}}}"
    return str(schema["$ref"]).rpartition("/")[2] if "$ref" in schema else str(kind)


def _line(said: object) -> str:
    return " ".join(str(said).split()).replace("*/", "* /")


def _plain(schema: Any, depth: int = 0, *, strict: bool) -> Any:
    """A declaration's schema in JSON Schema's own words; `additionalProperties` are closed."""
    if depth > DEEPEST or not isinstance(schema, dict):
        return schema
    plain = partial(_plain, depth=depth + 1, strict=strict)
    kind = schema.get("type")
    if kind == "any":
        return ANY | {key: schema[key] for key in ("description", "default") if key in schema}
    found = dict(schema) if strict else _loosened(schema)
    if isinstance(kind, str):
        found["type"] = TYPES.get(kind, kind)
    for key in ("properties", "$defs", "definitions"):
        if isinstance(held := found.get(key), dict):
            found[key] = {name: plain(one) for name, one in held.items()}
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = plain(found[key])
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        if isinstance(found.get(key), list):
            found[key] = [plain(one) for one in found[key]]
    if found.get("type") == "object" and found.get("properties"):
        found.setdefault("additionalProperties", False)
    return found


def _loosened(schema: Schema) -> Schema:
    """A part of a schema without what only tightens it and cannot be held to."""
    found = {key: one for key, one in schema.items() if key not in TIGHTENING}
    pattern = found.get("pattern")
    if isinstance(pattern, str) and (AROUND.search(pattern) or OTHERWISE.search(pattern)):
        del found["pattern"]
    return found


def _apart(schema: Schema, name: str, defs: Schema) -> Schema:
    """A function's parameters inside the schema of all. If they refer to parts of themselves they
    stand among the definitions, so that nobody else's are meant."""

    def moved(node: Any) -> Any:
        if isinstance(node, list):
            return [moved(one) for one in node]
        if not isinstance(node, dict):
            return node
        found = {key: moved(one) for key, one in node.items()}
        if isinstance(ref := found.get("$ref"), str):
            found["$ref"] = f"#/$defs/{name}{ref.removeprefix('#')}"
        return found

    schema = {key: one for key, one in schema.items() if key not in ("$id", "$schema")}
    found = moved(schema)
    assert isinstance(found, dict)
    if found == schema:
        return _closed(schema)
    defs[name] = _closed(found)
    return {"$ref": f"#/$defs/{name}"}


def _closed(schema: Schema) -> Schema:
    return schema | {"additionalProperties": False}
