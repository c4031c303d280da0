"""A JSON Schema as the grammar that llguidance holds answers to.

Numbers are kept to what every reader of JSON takes, also where the schema lets them be anything:
without exponents, and no larger than 1e15.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bantam.kinds import least, text_formats

LARGEST_NUMBER = 1e15
LONGEST = 2_000  # characters of a text that meets a pattern
LEAST = 1e-9  # how far a number stays from a bound that it may not reach, for each 1 that it is
ANY = "any-value"  # a definition of this name stands for what has no schema
KINDS = ["string", "number", "boolean", "null", "array", "object"]
ONE = ("items", "additionalProperties")
MANY = ("anyOf", "oneOf", "allOf", "prefixItems")
NAMED = ("properties", "$defs", "definitions", "patternProperties")
TYPED = ("type", "enum", "const", "$ref", *MANY[:3])
REF = {"$ref": f"#/$defs/{ANY}"}


@dataclass(frozen=True)
class Grammar:
    """What holds answers to a schema, as llguidance has it, texts that meet its patterns, and the
    shortest objects of its parts as JSON."""

    text: str
    endings: tuple[str, ...]
    objects: tuple[str, ...] = ()


def grammar(schema: dict[str, Any]) -> Grammar:
    """What holds an answer to a schema: JSON with the white space that `schema.text` writes."""
    from llguidance import LLMatcher

    held = dict(_held(schema))  # what has no schema is one object for all
    held["$defs"] = held.get("$defs", {}) | {ANY: _typed({"type": KINDS})}
    text = LLMatcher.grammar_from_json_schema(
        json.dumps(held),
        overrides={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "},
    )
    endings = tuple(dict.fromkeys(map(shortest, _patterns(schema))))
    return Grammar(text, endings, least.objects(schema))


def shortest(pattern: str) -> str:
    """A text of the fewest characters that a pattern is found in; "" for what Python cannot read.

    With it an answer that has to end can meet a pattern that may stand anywhere in a text.
    """
    from re import _parser  # type: ignore[attr-defined]

    try:
        return _least(_parser.parse(pattern))
    except (re.error, RecursionError, OverflowError):
        return ""


def width(pattern: str) -> int:
    """How many characters a text that meets a pattern has at least; 0 for what Python cannot
    read."""
    from re import _parser  # type: ignore[attr-defined]

    try:
        return int(_parser.parse(pattern).getwidth()[0])
    except (re.error, RecursionError, OverflowError):
        return 0


def _least(parts: Any) -> str:
    found = ""
    for kind, held in parts:
        match str(kind):
            case "LITERAL":
                found += chr(held)
            case "NOT_LITERAL":
                found += "a" if held != ord("a") else "b"
            case "ANY":
                found += "a"
            case "IN":
                found += _member(held)
            case "BRANCH":
                found += min(map(_least, held[1]), key=len)
            case "SUBPATTERN":
                found += _least(held[-1])
            case "ATOMIC_GROUP":
                found += _least(held)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                found += _least(held[2]) * min(held[0], LONGEST)
        found = found[:LONGEST]  # repeats of repeats would fill the memory
    return found


def _member(members: Any) -> str:
    """A character of a class."""
    classes = {"CATEGORY_DIGIT": "0", "CATEGORY_SPACE": " ", "CATEGORY_NOT_SPACE": "a"}
    (first, held), *rest = members
    match str(first):
        case "NEGATE":
            taken = re.compile("[" + "".join(map(_written, rest)) + "]")
            return next((c for c in "a0 Z-_é" if not taken.match(c)), "a")
        case "RANGE":
            return chr(held[0])
        case "CATEGORY":
            return classes.get(str(held), "a")
    return chr(held)


def _written(member: Any) -> str:
    kind, held = member
    if str(kind) == "RANGE":
        return f"{re.escape(chr(held[0]))}-{re.escape(chr(held[1]))}"
    if str(kind) == "CATEGORY":
        name = str(held).removeprefix("CATEGORY_")
        letter = name.removeprefix("NOT_")[0].lower()
        return "\\" + (letter.upper() if name.startswith("NOT_") else letter)
    return re.escape(chr(held))


def _patterns(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node["pattern"]
        for one in node.values():
            yield from _patterns(one)
    elif isinstance(node, list):
        for one in node:
            yield from _patterns(one)


def _held(node: Any) -> Any:
    if node is True or node == {}:
        return REF
    if not isinstance(node, dict):
        return node
    found = dict(text_formats.held(node))
    if found.get("propertyNames") in (True, {}, {"type": "string"}):  # as all names are
        del found["propertyNames"]
    for key in ONE:
        if key in found:
            found[key] = _held(found[key])
    for key in MANY:
        if isinstance(found.get(key), list):
            found[key] = [_held(one) for one in found[key]]
    for key in NAMED:
        if isinstance(found.get(key), dict):
            found[key] = {name: _held(one) for name, one in found[key].items()}
    if not any(key in found for key in TYPED):
        found["type"] = KINDS
    return _typed(found)


def _typed(node: dict[str, Any]) -> dict[str, Any]:
    """A node whose numbers have bounds, and whose lists and objects hold nothing without one."""
    told = node.get("type", [])
    kinds = [told] if isinstance(told, str) else told
    found = dict(node)
    if "array" in kinds:
        found.setdefault("items", REF)
    if "object" in kinds:
        found.setdefault("additionalProperties", REF)
    if "number" in kinds or "integer" in kinds:
        whole = "number" not in kinds
        low, high = found.pop("exclusiveMinimum", None), found.pop("exclusiveMaximum", None)
        lows = [-LARGEST_NUMBER, *_bound(found.get("minimum")), *_beside(low, 1, whole)]
        highs = [LARGEST_NUMBER, *_bound(found.get("maximum")), *_beside(high, -1, whole)]
        found |= {"minimum": max(lows), "maximum": min(highs)}
    return found


def _bound(value: Any) -> list[float]:
    return [value] if value is not None else []


def _beside(bound: float | None, side: int, whole: bool) -> list[float]:
    """The nearest number that is kept from a bound which it may not reach."""
    if bound is None:
        return []
    if whole:
        return [bound // 1 + 1 if side > 0 else -(-bound // 1) - 1]
    return [bound + side * LEAST * max(1.0, abs(bound))]
