"""OpenAI's interface: models, conversations, texts and embeddings; `responses` is beside it."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from bantam.serve import anthropic, openai_chat, openai_embeddings, openai_text
from bantam.serve.lent import Book
from bantam.serve.openai_reply import wrong
from bantam.serve.openai_route import Route
from bantam.serve.shelf import Shelf

__all__ = ["routes", "wrong"]


class About(TypedDict):
    """What OpenAI's list has no place for."""

    context: int  # tokens that a prompt and its answer may take
    parameters: int
    bytes: int
    task: str | None  # "classify", "extract" or "generate"; null: it converses
    labels: list[str]


class Listed(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["bantam"]
    bantam: About


class Models(TypedDict):
    """The models that are served."""

    object: Literal["list"]
    data: list[Listed]


def routes(shelf: Shelf) -> APIRouter:
    """All endpoints but `/v1/responses`."""
    router = APIRouter(route_class=Route, tags=["OpenAI"])

    # Anthropic's clients ask at the same address, and tell the version that they speak.
    @router.get("/v1/models", response_model=None, responses={200: {"model": Models}})
    async def models(
        request: Request,
        limit: int = 20,
        after_id: str | None = None,
        before_id: str | None = None,
    ) -> Response:
        """The models that are served. `limit`, `after_id` and `before_id` are Anthropic's."""
        if "anthropic-version" in request.headers:
            return JSONResponse(anthropic.models_list(shelf, limit, after_id, before_id))
        told: Models = {"object": "list", "data": [_listed(book) for book in shelf.books()]}
        return JSONResponse(told)

    @router.get("/v1/models/{name:path}", response_model=None, responses={200: {"model": Listed}})
    async def model(request: Request, name: str) -> Response:
        """One of the models."""
        theirs = "anthropic-version" in request.headers
        told: Any = anthropic.model_info(shelf, name) if theirs else _listed(shelf.book(name))
        return JSONResponse(told)

    for part in (openai_chat, openai_text, openai_embeddings):
        router.include_router(part.routes(shelf))
    return router


def _listed(book: Book) -> Listed:
    return {
        "id": book.name,
        "object": "model",
        "created": book.made,
        "owned_by": "bantam",
        "bantam": {
            "context": book.context,
            "parameters": book.parameters,
            "bytes": book.bytes,
            "task": book.task.kind if book.task else None,
            "labels": list(book.task.labels) if book.task else [],
        },
    }
