"""The body of a request, and what is wrong with it, as Anthropic and Ollama say it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from bantam.serve.ask import Refusal

JSON = (b"content-type", b"application/json")
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # in JSON, half of a character, or of a pair
TRIED = re.compile(r"str|\w+\[.*\]")  # a type that was tried, between the names of the fields


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
    if not SURROGATE.search(body):
        return
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Refusal(400, "the body holds half of a character (a lone surrogate)") from None
    except (ValueError, RecursionError):
        return  # it is told below what is wrong with it


def _invalid(errors: Sequence[Any]) -> Refusal:
    """The refusal for what pydantic found wrong. Of the ways to read a value, that which fails
    deepest inside is most likely the one that was meant."""
    found = max(errors, key=lambda error: len(error["loc"]))
    if found["type"] == "json_invalid" or len(found["loc"]) < 2:
        return Refusal(400, "the body is no JSON object, sent as application/json")
    steps = [str(step) for step in found["loc"][1:] if not TRIED.fullmatch(str(step))]
    place = ".".join(steps)[:200]
    return Refusal(400, f"{place}: {found['msg']:.300}", param=place)
