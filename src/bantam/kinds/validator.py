"""Values held against a JSON Schema by jsonschema, in bounded time and without fetching anything.

Python's own `re` can take hours over a short text, and lets no other thread run meanwhile: patterns
are searched for by `regex`, which stops in time. References that branch are followed for so long.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache
from typing import Any

import regex

SECONDS = 2.0

Schema = dict[str, Any]

_until: ContextVar[float | None] = ContextVar("until", default=None)


def validator(schema: Schema) -> Any:
    """One of jsonschema's for draft 2020-12."""
    from jsonschema import FormatChecker
    from referencing import Registry

    # A registry of our own: the usual one would fetch what a reference names.
    registry: Registry[Any] = Registry()
    return _kind()(schema, format_checker=FormatChecker(["date"]), registry=registry)


def mistake(schema: Schema, value: Any) -> str | None:
    """The first way in which a value breaks a schema, None if it follows it."""
    from referencing.exceptions import Unresolvable

    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return "it holds a number that JSON has not, or is nested too deeply"
    began = _until.set(time.monotonic() + SECONDS)
    try:
        error = next(validator(schema).iter_errors(value), None)
    except TimeoutError:
        return "it takes too long to tell whether it follows the schema"
    except RecursionError:
        return "the schema refers to itself too deeply"
    except Unresolvable:
        return "the schema refers to what is not in it"
    finally:
        _until.reset(began)
    if error is None:
        return None
    place = ".".join(map(str, error.absolute_path))
    return f"{place}: {error.message:.200}" if place else f"{error.message:.200}"


def _left() -> float:
    """Seconds. Raises TimeoutError when there are none."""
    until = _until.get()
    left = SECONDS if until is None else until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _found(pattern: str, text: str) -> bool:
    try:
        return regex.search(pattern, text, timeout=_left()) is not None
    except regex.error:  # which Python's own reader takes
        return False


def _pattern(validator: Any, pattern: str, value: Any, schema: Schema) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(value, str) and not _found(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _by_pattern(validator: Any, parts: Schema, value: Any, schema: Schema) -> Iterator[Any]:
    if not isinstance(value, dict):
        return
    for pattern, part in parts.items():
        for name, one in value.items():
            if _found(pattern, name):
                yield from validator.descend(one, part, path=name, schema_path=pattern)


def _others(validator: Any, part: Any, value: Any, schema: Schema) -> Iterator[Any]:
    """`additionalProperties`."""
    from jsonschema import ValidationError

    if not isinstance(value, dict):
        return
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, one in value.items():
        if name in named or any(_found(pattern, name) for pattern in patterns):
            continue
        if part is False:
            yield ValidationError(f"Additional properties are not allowed ({name!r} is one)")
        else:
            yield from validator.descend(one, part, path=name)


@cache
def _kind() -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    follow = Draft202012Validator.VALIDATORS["$ref"]

    def reference(validator: Any, ref: str, value: Any, schema: Schema) -> Iterator[Any]:
        _left()
        yield from follow(validator, ref, value, schema) or ()

    ours = {
        "pattern": _pattern,
        "patternProperties": _by_pattern,
        "additionalProperties": _others,
        "$ref": reference,
    }
    return extend(Draft202012Validator, ours)  # type: ignore[no-untyped-call]
