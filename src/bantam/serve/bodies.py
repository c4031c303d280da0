"""The body of a request, and what is wrong with it, as Anthropic and Ollama say it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, model_validator
from starlette.requests import Request
from starlette.responses import Response

from bantam.serve.ask import Refusal

JSON = (b"content-type", b"application/json")
MOST_FIELDS = 100  # of a request, known or not
MOST_VALUES = 100_000  # of a body: each has to be looked at while nobody else is answered
COUNTED = b'"[{,'  # what stands before a value in JSON, and around texts
NOT_COUNTED = bytes(set(range(256)) - set(COUNTED))
# Half of a character, or of a pair, as JSON has it; and as bytes, which Python's reader takes too.
HALF = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F]")
TRIED = re.compile(r"str|\w+\[.*\]")  # a type that was tried, between the names of the fields


class Body(BaseModel):
    """A request whose unknown fields are refused by name, but not thousands of them."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, body: Any) -> Any:
        if isinstance(body, dict) and len(body) > MOST_FIELDS:
            raise Refusal(400, f"the body has over {MOST_FIELDS} fields", code="too_many_fields")
        return body


class Route(APIRoute):
    """An endpoint whose body is checked before it is read, and refused with status 400."""

    any_type = False  # whether a body is JSON whatever type it is said to have

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            check_characters(await request.body())
            if self.any_type:
                headers = [one for one in request.scope["headers"] if one[0] != JSON[0]]
                request.scope["headers"] = [*headers, JSON]
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise _invalid(error.errors()) from None

        return handled


class AnyTypeRoute(Route):
    """The same for bodies that are sent as anything, such as by `curl -d`."""

    any_type = True


def check_characters(body: bytes) -> None:
    """Raises Refusal for halves of characters, which no tokenizer and no reply can hold."""
    if HALF.search(body) and HALF.search(PAIR.sub(b"", body.replace(rb"\\", b"--"))):
        raise Refusal(400, "the body holds half of a character (a lone surrogate)")


def check_encoding(body: bytes) -> None:
    """Raises Refusal for UTF-16 and UTF-32, which Python's reader takes for JSON too: the other
    checks see nothing in them."""
    if not json.detect_encoding(body).startswith("utf-8"):
        raise Refusal(400, "the body is not in UTF-8")


def check_values(body: bytes, what: str = "body") -> None:
    """Raises Refusal for a body, or a line, of more JSON values than may be. They are counted
    without reading it, in milliseconds."""
    if len(body) < MOST_VALUES:
        return
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, NOT_COUNTED)
    # A value has a text or two, its name and itself.
    many = bare.count(b'"') > 4 * (MOST_VALUES + 1)
    if many or len(b"".join(bare.split(b'"')[::2])) > MOST_VALUES:
        raise Refusal(
            413,
            f"the {what} has more than {MOST_VALUES:,} values; send less at once",
            code="too_many_values",
        )


def meant(errors: Sequence[Any]) -> tuple[str, Any]:
    """What pydantic found wrong, by its place. Of the ways to read a value, that which fails
    deepest inside is most likely the one that was meant."""
    found = max(errors, key=lambda error: (error["type"] == "too_long", len(error["loc"])))
    steps = [str(step) for step in found["loc"][1:] if not TRIED.fullmatch(str(step))]
    return ".".join(steps)[:200], found


def _invalid(errors: Sequence[Any]) -> Refusal:
    place, found = meant(errors)
    if found["type"] == "json_invalid" or not place:
        return Refusal(400, "the body is no JSON object, sent as application/json")
    return Refusal(400, f"{place}: {found['msg']:.300}", param=place)
