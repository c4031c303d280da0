"""`/v1/embeddings`, as OpenAI has it."""

from __future__ import annotations

import array
import base64
import math
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from bantam.serve import reply as replying
from bantam.serve import wire
from bantam.serve.ask import Refusal
from bantam.serve.bodies import Body
from bantam.serve.openai_route import Route
from bantam.serve.shelf import Shelf

MOST_TEXTS = 2048
Said = Annotated[str, Field(min_length=1)]
Several = Annotated[list[Said], Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True)]


def _texts(value: Any) -> Any:
    """A list of texts. Token ids, which some clients send, are those of another vocabulary."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and any(isinstance(one, int | list) for one in value):
        raise PydanticCustomError(
            "invalid_type",
            "it is texts, no token ids: those of another model mean nothing here "
            "(langchain-openai sends texts with check_embedding_ctx_length=False)",
        )
    return value


class EmbeddingRequest(Body):
    """Texts whose meaning is wanted as vectors."""

    model: str
    input: Annotated[Several, BeforeValidator(_texts, json_schema_input_type=Said | Several)]
    dimensions: Annotated[int | None, Field(ge=1)] = None
    encoding_format: Literal["float", "base64"] | None = None
    user: Any = None


class Embedding(TypedDict):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


class Embeddings(TypedDict):
    """A vector of length 1 for each text."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


def routes(shelf: Shelf) -> APIRouter:
    """The endpoint for vectors."""
    router = APIRouter(route_class=Route)

    @router.post("/v1/embeddings", response_model=None, responses={200: {"model": Embeddings}})
    async def embeddings(request: Request, asked: EmbeddingRequest) -> Response:
        """A vector for each text, as numbers or as float32, little-endian, in base64."""
        name = shelf.book(asked.model).name
        work = replying.embed(shelf, asked.model, asked.input)
        rows, tokens = await wire.unless_gone(request, work)
        if asked.dimensions is not None:
            rows = [_shortened(row, asked.dimensions) for row in rows]
        plain = asked.encoding_format != "base64"
        data: list[Embedding] = [
            {"object": "embedding", "index": index, "embedding": row if plain else _packed(row)}
            for index, row in enumerate(rows)
        ]
        counted: EmbeddingUsage = {"prompt_tokens": tokens, "total_tokens": tokens}
        told: Embeddings = {"object": "list", "data": data, "model": name, "usage": counted}
        return JSONResponse(told)

    return router


def _shortened(row: Sequence[float], dimensions: int) -> list[float]:
    """The first numbers, scaled to length 1 again. Raises Refusal when there are fewer."""
    if dimensions > len(row):
        raise Refusal(
            400,
            f"Invalid 'dimensions': vectors have {len(row)} numbers here, not {dimensions}.",
            param="dimensions",
            code="invalid_value",
        )
    kept = row[:dimensions]
    length = math.sqrt(sum(number * number for number in kept)) or 1.0
    return [number / length for number in kept]


def _packed(row: Sequence[float]) -> str:
    numbers = array.array("f", row)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
