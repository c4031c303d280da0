"""The whole app: every interface behind the guard, and what those who run it ask."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Any, cast

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.routing import Match

from bantam.serve import (
    anthropic,
    keys,
    metrics,
    ollama,
    openai,
    page,
    refusals,
    responses,
    tasks,
)
from bantam.serve.ask import Refusal
from bantam.serve.bodies import meant
from bantam.serve.guard import STOPPING, Guard, Settings, Traffic
from bantam.serve.lent import Book, Lent
from bantam.serve.shelf import Shelf

ERRORS = {
    "openai": {"error": {"message": "", "type": "", "param": None, "code": None}},
    "anthropic": {"type": "error", "error": {"type": "", "message": ""}},
    "ollama": {"error": ""},
}


def app(shelf: Shelf, settings: Settings) -> FastAPI:
    """The server for the models on `shelf`; whoever starts it closes the shelf."""
    api = FastAPI(
        title="Bantam",
        version=version("bantam-lm"),
        docs_url=None,  # their pages fetch scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    api.state.settings, api.state.traffic = settings, Traffic()
    seen = cast(Shelf, _Seen(shelf))
    for interface in (openai, responses, anthropic, ollama, tasks, page):
        api.include_router(interface.routes(seen))
    api.include_router(_own(shelf, api.state.traffic))
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _unrouted)
    api.add_middleware(Guard, settings=settings, traffic=api.state.traffic)
    described = api.openapi
    api.openapi = lambda: _true(described())  # type: ignore[method-assign]
    return api


class _Seen:
    """The shelf as the key of a request sees it: what it may not ask is not there."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def books(self) -> list[Book]:
        return [self._shelf.book(name) for name in self.names()]

    def names(self) -> list[str]:
        return [name for name in self._shelf.names() if keys.allowed(name)]

    def book(self, name: str) -> Book:
        self._look(name)
        return self._shelf.book(name)

    def lent(self, name: str) -> AbstractAsyncContextManager[Lent]:
        self._look(name)
        return self._shelf.lent(name)

    def state(self) -> list[dict[str, Any]]:
        return [one for one in self._shelf.state() if keys.allowed(one["name"])]

    def _look(self, name: str) -> None:
        there = self.names()
        if name not in there:
            raise Refusal(
                404,
                f"there is no model {name!r:.80}; there are: {', '.join(there) or 'none'}",
                param="model",
                code="model_not_found",
            )


def _own(shelf: Shelf, traffic: Traffic) -> APIRouter:
    router = APIRouter(tags=["server"])

    @router.get("/health")
    async def health() -> dict[str, str]:
        """The process lives."""
        return {"status": "ok"}

    @router.get("/ready")
    async def ready() -> dict[str, str]:
        """At least one model can answer; one is loaded if none is."""
        if traffic.draining:
            raise STOPPING
        if any(state["loaded"] for state in shelf.state()):
            return {"status": "ready"}
        for book in shelf.books():
            try:
                async with shelf.lent(book.name):
                    return {"status": "ready"}
            except Refusal:
                continue
        raise Refusal(503, "no model can answer now; the log says why", code="not_ready")

    @router.get(
        "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}}
    )
    async def counted() -> Response:
        """What is counted, for Prometheus."""
        return Response(metrics.told(shelf.state()), media_type=CONTENT_TYPE_LATEST)

    return router


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """A request that is not in the form it should have; what was sent is not repeated."""
    assert isinstance(error, RequestValidationError)
    place, first = meant(error.errors())
    if first["type"] == "json_invalid":
        told = f"the body is no JSON: {first['ctx']['error']} at character {first['loc'][-1]}"
        refusal = Refusal(400, told, code="invalid_json")
    else:
        where = place or "the body"
        refusal = Refusal(400, f"{where}: {first['msg']:.500}", param=where)
    return refusals.response(refusals.asked(request.scope), refusal)


async def _unrouted(request: Request, error: Exception) -> JSONResponse:
    """No such path, no such method, or a body that could not be read."""
    assert isinstance(error, HTTPException)
    told = {
        404: f"there is nothing at {request.url.path!r:.200}",
        405: f"{request.method:.20} is not possible here",
        400: "the body could not be read: send JSON",
    }.get(error.status_code, str(error.detail))
    sent = refusals.response(refusals.asked(request.scope), Refusal(error.status_code, told))
    for name, value in (error.headers or {}).items():
        sent.headers[name] = value
    if error.status_code == 405:
        sent.headers["Allow"] = ", ".join(_methods(request))
    return sent


def _methods(request: Request) -> list[str]:
    """What a path can be asked by. Starlette tells the methods of its first endpoint alone."""
    return [
        method
        for method in ("GET", "HEAD", "POST", "DELETE")
        for scope in [{**request.scope, "method": method}]
        if any(route.matches(scope)[0] == Match.FULL for route in request.app.router.routes)
    ]


def _true(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with what is really sent to who is refused, and with the keys."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name, example in ERRORS.items():
        schemas[f"Refused_{name}"] = _schema(example)
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    document["security"] = [{}, {"bearer": []}, {"header": []}]
    for path, operations in document["paths"].items():
        interface = refusals.interface(path)
        name = interface if interface in ERRORS else "openai"
        refused = {
            "description": "Refused, or failed.",
            "content": {
                "application/json": {"schema": {"$ref": f"#/components/schemas/Refused_{name}"}}
            },
        }
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"].setdefault("default", refused)
    return document


def _schema(example: Any) -> dict[str, Any]:
    """The JSON Schema of what is shaped as an example: texts, None for a text or none, objects."""
    if isinstance(example, dict):
        inner = {key: _schema(value) for key, value in example.items()}
        return {"type": "object", "properties": inner, "required": list(inner)}
    return {"type": "string" if example is not None else ["string", "null"]}
