"""Ollama's interface: replies as lines of JSON or whole, vectors, and its lists of models."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from time import perf_counter_ns
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from bantam.engine import Token
from bantam.serve import handover, reply, wire
from bantam.serve import ollama_models as models
from bantam.serve import ollama_request as asked
from bantam.serve.ask import Begun, CallBegun, CallPart, Ended, Event, Refusal, Text
from bantam.serve.bodies import AnyTypeRoute
from bantam.serve.openai_reply import extension, logprobs
from bantam.serve.shelf import Shelf

VERSION = "0.12.0"  # of Ollama, whose interface this is: clients ask for it before they use more
LINES = "application/x-ndjson"

Object = dict[str, Any]
Say = Callable[[str, list[Object]], Object]  # a text and calls, as the one or the other says them


def routes(shelf: Shelf) -> APIRouter:
    """The endpoints. GET and HEAD of / are the page's."""
    router = APIRouter(route_class=AnyTypeRoute, prefix="/api", tags=["Ollama"])

    @router.post("/chat", response_model=None, responses={200: {"content": {LINES: {}}}})
    async def chat(body: asked.Chat, request: Request) -> Response:
        """The next message of a conversation, in lines of JSON unless `stream` is false."""
        name = models.found(shelf, body.model)
        if not body.messages:
            return await _loaded(shelf, name, body, _message)
        events = reply.answer(shelf, asked.chat(body, shelf.book(name)), handover.of(request))
        return await _answered(request, body, events, _message)

    @router.post("/generate", response_model=None, responses={200: {"content": {LINES: {}}}})
    async def generate(body: asked.Generate, request: Request) -> Response:
        """The answer to a text, or with `raw` what follows it; as `/api/chat`."""
        name = models.found(shelf, body.model)
        if not body.prompt:
            return await _loaded(shelf, name, body, _response)
        if body.raw:
            text = asked.raw(body)
            events = reply.proceed(shelf, name, text, asked.sampling(body, shelf.book(name)))
        else:
            events = reply.answer(
                shelf, asked.generate(body, shelf.book(name)), handover.of(request)
            )
        return await _answered(request, body, events, _response)

    @router.post("/embed")
    async def embed(body: asked.Embed, request: Request) -> Object:
        """A vector of length 1 for each text."""
        begun = perf_counter_ns()
        texts = [body.input] if isinstance(body.input, str) and body.input else body.input or []
        name = models.found(shelf, body.model)
        vectors: list[list[float]] = []
        tokens = 0
        if texts:
            work = reply.embed(shelf, name, list(texts))
            vectors, tokens = await wire.unless_gone(request, work)
        return {
            "model": body.model,
            "embeddings": [_shortened(vector, body.dimensions) for vector in vectors],
            "total_duration": perf_counter_ns() - begun,
            "load_duration": 0,
            "prompt_eval_count": tokens,
        }

    @router.post("/embeddings")
    async def embeddings(body: asked.Embedding, request: Request) -> Object:
        """A vector of length 1 for a text: older than `/api/embed`."""
        name = models.found(shelf, body.model)
        if not body.prompt:
            return {"embedding": []}
        vectors, _ = await wire.unless_gone(request, reply.embed(shelf, name, [body.prompt]))
        return {"embedding": vectors[0]}

    @router.get("/tags")
    async def tags() -> Object:
        """All models."""
        return await asyncio.to_thread(models.tags, shelf)

    @router.get("/ps")
    async def ps() -> Object:
        """The models that are in memory."""
        return await asyncio.to_thread(models.running, shelf)

    @router.post("/show")
    async def show(body: asked.Named) -> Object:
        """What is known of a model."""
        return await asyncio.to_thread(models.shown, shelf, models.found(shelf, body.model))

    @router.get("/version")
    async def version() -> Object:
        """The version of Ollama whose interface this is."""
        return {"version": VERSION}

    async def unchanged(request: Request) -> None:
        """Refused: models are named on the command line."""
        raise models.refuse_change(request.url.path)

    async def blob(request: Request, digest: str) -> None:
        """Refused likewise."""
        await unchanged(request)

    for path in ("/pull", "/push", "/create", "/copy"):
        router.add_api_route(path, unchanged, methods=["POST"], status_code=501)
    router.add_api_route("/delete", unchanged, methods=["DELETE"], status_code=501)
    for method in ("POST", "HEAD"):
        router.add_api_route("/blobs/{digest}", blob, methods=[method], status_code=501)
    return router


def wrong(refusal: Refusal) -> Object:
    """The body of an error."""
    return {"error": refusal.message}


def _message(text: str, calls: list[Object]) -> Object:
    told = {"role": "assistant", "content": text}
    return {"message": told | ({"tool_calls": calls} if calls else {})}


def _response(text: str, calls: list[Object]) -> Object:
    return {"response": text}  # functions cannot be declared, so there are no calls


async def _loaded(shelf: Shelf, name: str, body: asked.Written, say: Say) -> Response:
    """Opens the model, as a request without a text asks for."""
    if asked.unloads(body):
        raise Refusal(
            501,
            "keep_alive: models are put away when memory asks, not on request; stop the server",
            param="keep_alive",
        )
    async with shelf.lent(name):
        last = {"done": True, "done_reason": "load"}
    return JSONResponse({"model": body.model, "created_at": _now()} | say("", []) | last)


async def _answered(
    request: Request, body: asked.Written, events: AsyncGenerator[Event, None], say: Say
) -> Response:
    told = _told(body, events, say)
    if body.stream is not False:
        pieces = wire.begun(_lines(told))
        return wire.streamed(await wire.unless_gone(request, pieces), LINES)
    return JSONResponse(await wire.unless_gone(request, _whole(told, say)))


async def _told(
    body: asked.Written, events: AsyncGenerator[Event, None], say: Say
) -> AsyncGenerator[Object, None]:
    """One object for each piece of text and for each call, and the last with what it took."""
    start = begun = first = perf_counter_ns()
    prompt, call, arguments = 0, None, ""

    def piece(text: str, calls: list[Object], tokens: tuple[Token, ...] = ()) -> Object:
        head = {"model": body.model, "created_at": _now()} | say(text, calls) | {"done": False}
        logs = logprobs(tokens, body.top_logprobs) if body.logprobs else []
        return head | ({"logprobs": logs} if logs else {})

    async with aclosing(events):
        async for event in events:
            if call and isinstance(event, CallBegun | Ended):
                yield piece("", [_called(call, arguments)])
                call, arguments = None, ""
            match event:
                case Begun():
                    prompt, begun = event.prompt_tokens, perf_counter_ns()
                    first = begun
                case Text(text=text, tokens=tokens):
                    first = perf_counter_ns() if first == begun else first
                    yield piece(text, [], tokens)
                case CallBegun():
                    first = perf_counter_ns() if first == begun else first
                    call = event
                case CallPart():
                    arguments += event.text
                case Ended():
                    now = perf_counter_ns()
                    known = extension(event)
                    yield piece("", []) | {
                        "done": True,
                        "done_reason": "length" if event.reason == "length" else "stop",
                        "total_duration": now - start,
                        "load_duration": begun - start,
                        "prompt_eval_count": prompt,
                        "prompt_eval_duration": first - begun,
                        "eval_count": event.tokens,
                        "eval_duration": now - first,
                        **({"bantam": known} if known else {}),
                    }


def _called(call: CallBegun, arguments: str) -> Object:
    function = {"index": call.number, "name": call.name, "arguments": json.loads(arguments or "{}")}
    return {"id": call.id, "function": function}


async def _lines(told: AsyncGenerator[Object, None]) -> AsyncGenerator[bytes, None]:
    """What is told, and an error that comes when something was sent already."""
    sent = False
    try:
        async with aclosing(told):
            async for one in told:
                yield wire.line(one)
                sent = True
    except Refusal as refusal:
        if not sent:
            raise
        yield wire.line(wrong(refusal))


async def _whole(told: AsyncGenerator[Object, None], say: Say) -> Object:
    """All of it as one object."""
    text, calls, logs, last = "", [], [], {}
    async for last in told:
        said = last.get("message") or {"content": last.get("response", "")}
        text += said["content"]
        calls += said.get("tool_calls", [])
        logs += last.get("logprobs", [])
    return last | say(text, calls) | ({"logprobs": logs} if logs else {})


def _shortened(vector: list[float], dimensions: int | None) -> list[float]:
    if not dimensions or not 0 < dimensions < len(vector):
        return vector
    part = vector[:dimensions]
    length = math.sqrt(sum(number * number for number in part)) or 1.0
    return [number / length for number in part]


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
