"""JSON Schemas of answers: checked, and inferred from examples.

A schema is one that `constrain` can hold a model to: what llguidance refuses is refused here, with
the place where no value would ever end.
"""

import datetime
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from bantam.errors import BadInput, JobFailed
from bantam.kinds import grammar, least
from bantam.kinds.validator import mistake, validator

__all__ = [
    "Schema",
    "check",
    "closed",
    "infer",
    "mistake",
    "ordered",
    "sound",
    "text",
    "unwritable",
]

Schema = dict[str, Any]

LARGEST = 200_000  # characters of a schema as JSON
MOST_NODES, DEEPEST = 2_000, 40
LONGEST_PATTERN = 2_000  # characters
SECONDS = 5.0  # that it may take to find out whether a schema can be followed
# A field's values are a fixed set when many rows share few of them.
ENUM_ROWS, ENUM_VALUES, ENUM_TIMES = 40, 30, 3
# Classes of characters that Python counts over all of Unicode and the decoder does not.
OTHERWISE = re.compile(r"(?<!\\)(?:\\\\)*\\[DSW]|\[\^[^\]]*\\[dsw]")
# Where a number of any size says no more than one that answers may hold: zod gives each integer
# the bounds of a double.
ANY_SIZE = re.compile(r"/((exclusiveM|m)(in|ax)imum|default|examples/\d+)$")
MEND = (
    "mend the schema there; known are type, enum, const, properties, required, "
    "additionalProperties, patternProperties, items, prefixItems, anyOf, oneOf, allOf, $ref within "
    "the schema, multipleOf whole numbers, bounds of lengths, numbers and items, pattern (without "
    "look-around) and the common formats"
)


def check(schema: object, origin: str) -> Schema:
    """The schema, if answers can be held to it.

    Raises BadInput for what is not `sound`, has a keyword that the decoder does not know or reads
    otherwise than `mistake` does, that no finite value satisfies, or of which the decoder can end
    no answer within seconds.
    """
    found = sound(schema, origin)
    try:
        return _followed(found, origin)
    except RecursionError:
        raise BadInput(f"{origin}: its parts refer to each other too deeply", MEND) from None


def sound(schema: object, origin: str) -> Schema:
    """The schema, if values can be held against it.

    Raises BadInput for what is no JSON Schema (draft 2020-12), is over 200 kB, 2,000 nodes or 40
    levels, refers to elsewhere, or means different things to different readers.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    if not isinstance(schema, dict):
        raise BadInput(f"{origin}: a schema is a JSON object", 'such as {"type": "object", ...}')
    for count, (path, node, depth) in enumerate(_walk(schema)):
        if count > MOST_NODES or depth > DEEPEST:
            raise BadInput(
                f"{origin}: the schema has over {MOST_NODES} parts or {DEEPEST} levels",
                "ask for less at a time",
            )
        _check_ref(schema, node, f"{origin}, {path}")
        _check_part(node, f"{origin}, {path}")
        large = isinstance(node, int | float) and abs(node) > grammar.LARGEST_NUMBER
        if large and not ANY_SIZE.search(path):
            raise BadInput(f"{origin}, {path}: {node!r:.40} is too large a number", MEND)
    if len(_encoded(schema, origin)) > LARGEST:
        raise BadInput(f"{origin}: the schema is over 200 kB", "ask for less at a time")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        place = "/".join(map(str, error.absolute_path)) or "the schema"
        raise BadInput(f"{origin}, {place}: {error.message:.200}", MEND) from None
    return schema


def _followed(schema: Schema, origin: str) -> Schema:
    """The rest of `check`."""
    from llguidance import LLMatcher

    from bantam.kinds import closing

    until = time.monotonic() + SECONDS

    def look() -> None:
        if time.monotonic() > until:
            raise closing.TooMuch("it would take too long")

    held = grammar.grammar(schema)
    wrong, said = LLMatcher.validate_grammar_with_warnings(held.text)
    if wrong or said:
        place = _refused_at(schema, said, until)
        raise BadInput(f"{origin}, {place}: {' '.join(said):.300}", MEND)
    if not _ends(schema):
        raise BadInput(
            f"{origin}: no finite value follows this schema: a required part holds itself",
            'let it be null or leave it out of "required"',
        )
    # A failure here is cheaper than in the middle of an answer.
    try:
        answer = json.loads(closing.course(held, look).rest or b"")
    except JobFailed as error:
        raise BadInput(
            f"{origin}: no answer to this schema could be ended: {error.message:.150}",
            "ask for fewer items, shorter texts or simpler patterns",
        ) from None
    if wrong_there := mistake(schema, answer):
        raise BadInput(f"{origin}: the decoder reads it otherwise: {wrong_there}", MEND)
    return schema


def _check_ref(schema: Schema, node: Any, place: str) -> None:
    """Raises BadInput for a reference to what is not in the schema."""
    ref = node.get("$ref") if isinstance(node, dict) else None
    if isinstance(ref, str) and (not ref.startswith("#") or least.target(schema, ref) is None):
        raise BadInput(
            f"{place}: $ref {ref!r:.80} is not in the schema",
            "put what it means under $defs and refer to it as #/$defs/NAME",
        )


def _encoded(schema: Schema, origin: str) -> bytes:
    """A schema as JSON in UTF-8. Raises BadInput for numbers and characters that it has not."""
    try:
        return json.dumps(schema, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:  # UnicodeEncodeError is one
        raise BadInput(
            f"{origin}: the schema holds NaN, infinity or half of a character",
            "write numbers and texts that JSON has",
        ) from None


def _check_part(node: Any, place: str) -> None:
    """Raises BadInput for what the decoder and a validator take for different things."""
    if not isinstance(node, dict):
        return
    pattern, step = node.get("pattern"), node.get("multipleOf")
    if isinstance(pattern, str) and len(pattern) > LONGEST_PATTERN:
        raise BadInput(
            f"{place}: the pattern has over {LONGEST_PATTERN:,} characters", "ask for less of it"
        )
    if isinstance(pattern, str) and OTHERWISE.search(pattern):
        raise BadInput(
            f"{place}: readers differ in what the pattern {pattern!r:.80} means",
            r"write [^0-9] for \D, [^A-Za-z0-9_] for \W, and name what may stand for \S",
        )
    if isinstance(pattern, str) and grammar.width(pattern) > grammar.LONGEST:
        raise BadInput(
            f"{place}: the pattern {pattern!r:.80} asks for over {grammar.LONGEST} characters",
            "ask for a shorter text",
        )
    # As binary fractions 4.01 is no multiple of 0.01, though it is as decimal ones.
    if isinstance(step, float) and not (step * 1024).is_integer():
        raise BadInput(
            f"{place}: multipleOf {step!r:.40} cannot be told exactly",
            'use a smaller unit, such as cents as "integer", or leave it out',
        )
    for key in ("x-guidance", "$anchor", "$dynamicAnchor", "$dynamicRef", "$id"):
        if key != "$id" or not place.endswith("#"):
            value = node.get(key)
            told = isinstance(value, dict) if key == "x-guidance" else isinstance(value, str)
            if told and not place.endswith("/properties"):
                raise BadInput(
                    f"{place}: {key} is not known", "leave it out, and refer by #/$defs/NAME"
                )


def closed(schema: Schema) -> Schema:
    """A sound schema whose objects have no properties but those that it names, unless it says that
    others may come: small models would go on inventing some.

    One that puts an object together of several parts is returned as it is: each of these leaves
    room for the others.
    """
    mixed = False

    def part(node: Any) -> Any:
        nonlocal mixed
        if not isinstance(node, dict):
            return node
        found = dict(node)
        for key in grammar.ONE:
            if key in found:
                found[key] = part(found[key])
        for key in grammar.MANY:
            if key in found:
                found[key] = [part(one) for one in found[key]]
        for key in grammar.NAMED:
            if key in found:
                found[key] = {name: part(one) for name, one in found[key].items()}
        others = found.keys() & {"$ref", "anyOf", "oneOf", "allOf"}
        mixed |= len(found.get("allOf", ())) > 1
        mixed |= bool(others and found.keys() & {"properties", "required"})
        names = found.get("properties", {})
        if names and set(found.get("required", ())) <= names.keys():
            found.setdefault("additionalProperties", False)
        return found

    made: Schema = part(schema)
    return schema if mixed else made


def infer(values: Sequence[Any]) -> Schema:
    """A schema that all the values follow.

    Properties stand in the order of their first appearance, those that all objects have are
    required, others may not come. Texts of which few recur in many rows become an enum.
    """
    kinds = {_kind(value) for value in values}
    found: list[Schema] = []
    if "object" in kinds:
        found.append(_object([value for value in values if isinstance(value, dict)]))
    if "array" in kinds:
        items = [item for value in values if isinstance(value, list) for item in value]
        found.append({"type": "array", "items": infer(items)} if items else {"type": "array"})
    if "string" in kinds:
        found.append(_string([value for value in values if isinstance(value, str)]))
    if "number" in kinds:
        found.append({"type": "number"})
    elif "integer" in kinds:
        found.append({"type": "integer"})
    found += [{"type": kind} for kind in ("boolean", "null") if kind in kinds]
    return found[0] if len(found) == 1 else {"anyOf": found} if found else {"type": "null"}


def ordered(schema: Schema, value: Any) -> Any:
    """A value that follows the schema with its keys in the order of the schema's properties, which
    is that in which the decoder writes them."""
    return _ordered(validator(schema), schema, value)


def text(value: Any) -> str:
    """The JSON text of a value as models write it. ValueError: NaN or infinite."""
    written = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return written.replace("\x7f", "\\u007f")  # as the decoder writes it


def unwritable(value: Any) -> bool:
    """Whether a value holds a number that the decoder never writes: see `grammar`."""
    if isinstance(value, dict | list):
        return any(map(unwritable, value.values() if isinstance(value, dict) else value))
    number = isinstance(value, int | float)
    return number and (abs(value) > grammar.LARGEST_NUMBER or "e" in json.dumps(float(value)))


def _refused_at(root: Schema, said: Sequence[str], until: float) -> str:
    """The innermost part of a schema of which the decoder says the same as of the whole; an outer
    one where there is no time left to look."""
    from llguidance import LLMatcher

    def same(part: Any) -> bool:
        if not isinstance(part, dict):
            return False
        alone = {"$defs": root.get("$defs", {}), **part}
        return LLMatcher.validate_grammar_with_warnings(grammar.grammar(alone).text)[1] == said

    path, node, seen = "#", root, {"#"}
    while True:
        parts = [(f"{path}/{key}", node[key]) for key in grammar.ONE if key in node]
        parts += [
            (f"{path}/{key}/{name}", one)
            for key in (*grammar.MANY, "properties", "patternProperties")
            if isinstance(held := node.get(key), dict | list)
            for name, one in (held.items() if isinstance(held, dict) else enumerate(held))
        ]
        if isinstance(ref := node.get("$ref"), str):
            parts.append((ref, least.target(root, ref)))
        for place, part in parts:
            if place not in seen and time.monotonic() < until and same(part):
                path, node = place, part
                seen.add(place)
                break
        else:
            return path


def _walk(schema: Schema) -> Iterator[tuple[str, Any, int]]:
    """Every part of a schema with its path and depth, without recursion, one at a time."""
    inner = [iter([("#", schema, 0)])]
    while inner:
        if (found := next(inner[-1], None)) is None:
            inner.pop()
        else:
            yield found
            inner.append(_inner(*found))


def _inner(path: str, node: Any, depth: int) -> Iterator[tuple[str, Any, int]]:
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, dict):
        parts = node.items()
    elif isinstance(node, list):
        parts = enumerate(node)
    return ((f"{path}/{key}", one, depth + 1) for key, one in parts)


def _ends(root: Schema) -> bool:
    """Whether some finite value follows a schema."""
    finite: set[int] = set()
    while True:
        known = len(finite)
        if _finite(root, root, set(), finite):
            return True
        if len(finite) == known:
            return False


def _finite(root: Schema, node: Any, seen: set[int], finite: set[int]) -> bool:
    """Whether a part of a schema is known to have a finite value; `finite`, which grows, are the
    parts that have one. Each part is looked at once: what it waits for may be known next time."""
    if not isinstance(node, dict):
        return node is not False
    if id(node) in seen or id(node) in finite:
        return id(node) in finite
    seen.add(id(node))

    def ends(part: Any) -> bool:
        return _finite(root, part, seen, finite)

    if _waits(root, node, ends):
        return False
    finite.add(id(node))
    return True


def _waits(root: Schema, node: Schema, ends: Callable[[Any], bool]) -> bool:
    """Whether a part asks for one that does not end."""
    if isinstance(ref := node.get("$ref"), str) and not ends(least.target(root, ref)):
        return True
    if not all(map(ends, node.get("allOf", []))):
        return True
    if any(key in node and not any(map(ends, node[key])) for key in ("anyOf", "oneOf")):
        return True
    kinds = node.get("type")
    if isinstance(kinds, list) and set(kinds) - {"object", "array"}:
        return False
    properties = node.get("properties", {})
    if not all(ends(properties.get(name)) for name in node.get("required", [])):
        return True
    fixed = node.get("prefixItems", [])[: node.get("minItems", 0)]
    if not all(map(ends, fixed)):
        return True
    return node.get("minItems", 0) > len(fixed) and not ends(node.get("items", True))


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (str, "string"),
        (list, "array"),
        (dict, "object"),
    )
    return next(name for kind, name in kinds if isinstance(value, kind))


def _object(values: Sequence[Mapping[str, Any]]) -> Schema:
    names = dict.fromkeys(name for value in values for name in value)
    held = {name: [value[name] for value in values if name in value] for name in names}
    return {
        "type": "object",
        "properties": {name: infer(some) for name, some in held.items()},
        "required": [name for name, some in held.items() if len(some) == len(values)],
        "additionalProperties": False,
    }


def _string(values: Sequence[str]) -> Schema:
    counts = Counter(values)
    few = len(values) >= ENUM_ROWS and len(counts) <= ENUM_VALUES
    if few and min(counts.values()) >= ENUM_TIMES:
        return {"enum": sorted(counts, key=lambda value: (-counts[value], value))}
    return {"type": "string"} | ({"format": "date"} if all(map(_is_date, values)) else {})


def _is_date(value: str) -> bool:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        return False
    try:
        datetime.date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _ordered(whole: Any, schema: Any, value: Any) -> Any:
    """`whole` is the validator of the schema that this one is a part of."""
    if not isinstance(schema, dict):
        return value
    if isinstance(ref := schema.get("$ref"), str):
        return _ordered(whole, least.target(whole.schema, ref), value)
    for part in (*schema.get("anyOf", []), *schema.get("oneOf", [])):
        if whole.evolve(schema=part).is_valid(value):
            return _ordered(whole, part, value)
    for part in schema.get("allOf", []):
        value = _ordered(whole, part, value)
    if isinstance(value, list):
        items = schema.get("items")
        fixed = schema.get("prefixItems", [])
        return [
            _ordered(whole, fixed[at] if at < len(fixed) else items, one)
            for at, one in enumerate(value)
        ]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    names = [name for name in properties if name in value]
    names += [name for name in value if name not in properties]
    more = schema.get("additionalProperties")
    return {name: _ordered(whole, properties.get(name, more), value[name]) for name in names}
