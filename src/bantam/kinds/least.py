"""The shortest values of the parts of a schema: with them an answer that has to end can.

Where a choice remains, one branch may lead ever deeper. A short value that is written as a whole
does not.
"""

import json
from collections.abc import Iterator
from typing import Any

LONGEST = 4_000  # characters of a value
MOST_ROUNDS = 50  # how often values of parts are put together to values of what holds them
PLAIN = {"string": "", "integer": 0, "number": 0, "boolean": True, "null": None}


def objects(schema: dict[str, Any]) -> tuple[str, ...]:
    """JSON texts of short objects that parts of a schema allow, the shortest first.

    They are proposals: not all that a part asks for is seen to, and for some parts there is none.
    """
    parts = list(_parts(schema))
    found: dict[int, str] = {}
    for _ in range(MOST_ROUNDS):
        changed = False
        for part in parts:
            told = _least(schema, part, found)
            if told is not None and len(told) < len(found.get(id(part), " " * LONGEST)):
                found[id(part)] = told
                changed = True
        if not changed:
            break
    texts = {text for text in found.values() if text.startswith("{")}
    return tuple(sorted(texts, key=lambda text: (len(text), text)))


def target(root: dict[str, Any], ref: str) -> Any:
    """What a reference within the schema means; None if it is nothing."""
    node: Any = root
    if ref != "#" and not ref.startswith("#/"):
        return None
    for step in ref.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and step.isdigit() and int(step) < len(node):
            node = node[int(step)]
        else:
            node = node.get(step) if isinstance(node, dict) else None
    return node


def _parts(node: Any) -> Iterator[dict[str, Any]]:
    """Every object within a schema, the innermost first."""
    if isinstance(node, dict | list):
        for one in node.values() if isinstance(node, dict) else node:
            yield from _parts(one)
    if isinstance(node, dict):
        yield node


def _least(root: dict[str, Any], part: dict[str, Any], found: dict[int, str]) -> str | None:
    """The shortest text of a part by what was found of those that it is made of."""
    if "const" in part:
        return _text(part["const"])
    if isinstance(fixed := part.get("enum"), list) and fixed:
        return min(map(_text, fixed), key=len)
    if isinstance(ref := part.get("$ref"), str):
        return found.get(id(target(root, ref)))
    for key in ("anyOf", "oneOf"):
        if isinstance(branches := part.get(key), list):
            known = [found[id(one)] for one in branches if id(one) in found]
            return min(known, key=len, default=None)
    told = part.get("type")
    kinds = [kind for kind in (told if isinstance(told, list) else [told]) if isinstance(kind, str)]
    texts = (_of_type(part, kind, found) for kind in kinds)
    return min((text for text in texts if text is not None), key=len, default=None)


def _of_type(part: dict[str, Any], kind: str, found: dict[int, str]) -> str | None:
    if kind == "object":
        properties = part.get("properties")
        required = part.get("required", [])
        if not isinstance(required, list) or not isinstance(properties, dict | None):
            return None
        # In the order of the properties, as the decoder writes them.
        names = [name for name in properties or {} if name in required]
        held = [found.get(id((properties or {})[name])) for name in names]
        if len(names) < len(required) or None in held:
            return None
        pairs = (f"{_text(name)}: {text}" for name, text in zip(names, held, strict=True))
        return "{" + ", ".join(pairs) + "}"
    if kind == "array":
        fixed, least = part.get("prefixItems", []), part.get("minItems", 0)
        if not isinstance(least, int) or not isinstance(fixed, list) or least > LONGEST:
            return None
        items = [*fixed, *[part.get("items")] * (least - len(fixed))][:least]
        texts = [found.get(id(one)) for one in items]
        return None if None in texts else "[" + ", ".join(text or "" for text in texts) + "]"
    if kind == "string":
        least = part.get("minLength", 0)
        return _text("a" * least) if isinstance(least, int) and least <= LONGEST else None
    if kind in ("integer", "number"):
        bounds = [part[key] for key in ("minimum", "maximum") if key in part]
        fits = all(isinstance(bound, int | float) for bound in bounds)
        if fits and not part.get("minimum", 0) <= 0 <= part.get("maximum", 0):
            return _text(bounds[0])
    return _text(PLAIN[kind]) if kind in PLAIN else None


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
