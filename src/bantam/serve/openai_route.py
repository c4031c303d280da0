"""What is no valid request, in OpenAI's words: which parameter, why, and status 400."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from bantam.serve.ask import Refusal
from bantam.serve.bodies import check_characters

CODES = {
    "extra_forbidden": "unknown_parameter",
    "unsupported_parameter": "unsupported_parameter",
}
# What may stand in a path beside these is the name of a type, of those that a value may have.
FIELD = re.compile(r"(?!(?:str|int|float|bool|list|dict)$)[a-z0-9_]+")


class Route(APIRoute):
    """Says in OpenAI's words, with status 400, what is no valid request."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            check_characters(await request.body())
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise invalid(error.errors()) from None

        return handled


def invalid(errors: Sequence[Any]) -> Refusal:
    """The refusal for what pydantic found wrong with a request; the first thing is told."""
    found = errors[0]
    kind, place = found["type"], list(found["loc"])[1:]
    if kind == "json_invalid" or not place:
        return Refusal(400, "The body of the request is no JSON object, sent as application/json.")
    param = str(place[0])
    for step in place[1:]:
        if isinstance(step, int):
            param += f"[{step}]"
        elif FIELD.fullmatch(step):
            param += f".{step}"
    if kind == "missing":
        return missing(param)
    if kind == "extra_forbidden":
        message = f"Unknown parameter: '{param:.80}'."
    else:
        said = found["msg"]
        message = f"Invalid '{param:.200}': {said[:1].lower()}{said[1:]:.300}."
    code = CODES.get(kind) or ("invalid_type" if kind.endswith("_type") else "invalid_value")
    return Refusal(400, message, param=param[:200], code=code)


def missing(param: str) -> Refusal:
    """The refusal of a request without something that it needs."""
    return Refusal(
        400,
        f"Missing required parameter: '{param}'.",
        param=param,
        code="missing_required_parameter",
    )
