"""Anthropic's interface: messages, whole or as events, their tokens, and its list of models."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Literal, NotRequired

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from bantam.serve import handover, reply, wire
from bantam.serve.anthropic_request import UNTHREADED, Asked, Counted, ask, caches
from bantam.serve.ask import Begun, CallBegun, CallPart, Ended, Event, Refusal, Text
from bantam.serve.bodies import Route
from bantam.serve.lent import Book
from bantam.serve.openai_reply import Extension, extension, new_id
from bantam.serve.shelf import Shelf

ERRORS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class Block(TypedDict):
    """A piece of what a model wrote: a text, or the call of a tool."""

    type: Literal["text", "tool_use"]
    text: NotRequired[str]
    id: NotRequired[str]
    name: NotRequired[str]
    input: NotRequired[dict[str, Any]]


class Usage(TypedDict):
    """Tokens; those of the prompt that were known already are counted apart if that is asked."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class Message(TypedDict):
    """A model's message."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Block]
    stop_reason: str | None
    stop_sequence: str | None
    usage: Usage
    bantam: NotRequired[Extension]


class Tokens(TypedDict):
    input_tokens: int


def routes(shelf: Shelf) -> APIRouter:
    """The endpoints, but for /v1/models: OpenAI's list of models is at the same address."""
    router = APIRouter(route_class=Route, tags=["Anthropic"])

    @router.post(
        "/v1/messages",
        response_model=None,
        responses={200: {"model": Message, "content": {"text/event-stream": {}}}},
    )
    async def messages(body: Asked, request: Request) -> Response:
        """The next message of a conversation, whole or as it is written (`stream`)."""
        events = reply.answer(shelf, ask(body, shelf.book(body.model)), handover.of(request))
        if body.stream:
            pieces = wire.begun(_pieces(body, events))
            return wire.streamed(await wire.unless_gone(request, pieces))
        return JSONResponse(await wire.unless_gone(request, _message(body, events)))

    @router.post(
        "/v1/messages/count_tokens", response_model=None, responses={200: {"model": Tokens}}
    )
    async def count_tokens(body: Counted, request: Request) -> Response:
        """How many tokens the prompt of a conversation has."""
        asked = ask(body, shelf.book(body.model))
        tokens = await wire.unless_gone(request, reply.count(shelf, asked))
        return JSONResponse({"input_tokens": tokens})

    return router


def wrong(refusal: Refusal) -> dict[str, Any]:
    """The body of an error."""
    usual = "invalid_request_error" if refusal.status < 500 else "api_error"
    kind = ERRORS.get(refusal.status, usual)
    error: dict[str, Any] = {"type": kind, "message": refusal.message}
    if refusal.code == UNTHREADED:
        error["details"] = {"error_code": UNTHREADED, "unsupported": ["thread"]}
    return {"type": "error", "error": error, "request_id": new_id("req_")}


def models_list(
    shelf: Shelf, limit: int = 20, after_id: str | None = None, before_id: str | None = None
) -> dict[str, Any]:
    """The models as a page of Anthropic's list: `limit` of them, after or before one of them.

    Raises Refusal for a limit that is not from 1 to 1000, or an id that no model has.
    """
    if not 1 <= limit <= 1000:
        raise Refusal(400, "limit: it is from 1 to 1000", param="limit")
    books = shelf.books()
    names = [book.name for book in books]
    for where, id in (("after_id", after_id), ("before_id", before_id)):
        if id is not None and id not in names:
            raise Refusal(400, f"{where}: no model has the id {id!r:.100}", param=where)
    if before_id is not None:
        left = books[: names.index(before_id)]
        page = left[-limit:]
    else:
        left = books if after_id is None else books[names.index(after_id) + 1 :]
        page = left[:limit]
    return {
        "data": [_info(book) for book in page],
        "first_id": page[0].name if page else None,
        "last_id": page[-1].name if page else None,
        "has_more": len(left) > len(page),
    }


def model_info(shelf: Shelf, name: str) -> dict[str, Any]:
    """What Anthropic tells of one model. Raises Refusal 404."""
    return _info(shelf.book(name))


def _info(book: Book) -> dict[str, Any]:
    made = datetime.fromtimestamp(book.made, UTC)
    return {
        "type": "model",
        "id": book.name,
        "display_name": book.name,
        "created_at": made.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "lifecycle": "active",
        "max_input_tokens": book.context,
        "max_tokens": book.context,
    }


async def _message(body: Asked, events: AsyncGenerator[Event, None]) -> dict[str, Any]:
    """The whole message."""
    content: list[dict[str, Any]] = []
    prompt, ended = 0, {}
    apart = caches(body)
    async with aclosing(events):
        async for event in events:
            match event:
                case Begun():
                    prompt = event.prompt_tokens
                case Text(text=text) if text:
                    if not content or content[-1]["type"] != "text":
                        content.append({"type": "text", "text": ""})
                    content[-1]["text"] += text
                case CallBegun():
                    content.append(_use(event) | {"input": ""})
                case CallPart():
                    content[-1]["input"] += event.text
                case Ended():
                    ended = _how(event) | {"usage": _usage(prompt, event, apart)} | _known(event)
    for block in content:
        if block["type"] == "tool_use":
            block["input"] = json.loads(block["input"] or "{}")
    return _empty(body) | {"content": content} | ended


async def _pieces(body: Asked, events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    """The message as events, in the order that clients count on: its blocks one after the other,
    each begun and ended, then how it ended."""
    prompt: int | None = None  # its tokens, once the message has begun
    block, kind = -1, ""  # the number and the type of the block that is open
    apart = caches(body)
    try:
        async with aclosing(events):
            async for event in events:
                ends = isinstance(event, CallBegun | Ended)
                if kind and (ends or (kind == "tool_use" and isinstance(event, Text))):
                    kind = ""
                    yield _sent("content_block_stop", index=block)
                match event:
                    case Begun():
                        prompt = event.prompt_tokens
                        begun = _empty(body) | {"usage": _usage(prompt, None, apart)}
                        yield _sent("message_start", message=begun)
                    case Text(text=text) if text:
                        if not kind:
                            block, kind = block + 1, "text"
                            yield _started(block, {"type": "text", "text": ""})
                        yield _grown(block, {"type": "text_delta", "text": text})
                    case CallBegun():
                        block, kind = block + 1, "tool_use"
                        yield _started(block, _use(event))
                    case CallPart():
                        yield _grown(
                            block, {"type": "input_json_delta", "partial_json": event.text}
                        )
                    case Ended():
                        yield _sent(
                            "message_delta",
                            delta=_how(event),
                            usage=_usage(prompt, event, apart),
                            **_known(event),
                        )
                        yield _sent("message_stop")
    except Refusal as refusal:
        if prompt is None:  # nothing is sent yet: it can have its status
            raise
        yield wire.event(wrong(refusal), "error")


def _sent(name: str, **data: Any) -> bytes:
    return wire.event({"type": name} | data, name)


def _started(number: int, block: dict[str, Any]) -> bytes:
    begun = _sent("content_block_start", index=number, content_block=block)
    return begun + _sent("ping") if number == 0 else begun


def _grown(number: int, delta: dict[str, Any]) -> bytes:
    return _sent("content_block_delta", index=number, delta=delta)


def _empty(body: Asked) -> dict[str, Any]:
    """A message of which nothing is written yet."""
    return {
        "id": new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": body.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _use(call: CallBegun) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}


def _how(ended: Ended) -> dict[str, Any]:
    """Why the model stopped."""
    reason = "end_turn"
    if ended.reason == "calls":
        reason = "tool_use"
    elif ended.stop is not None:
        reason = "stop_sequence"
    elif ended.reason == "length":
        reason = "max_tokens"
    return {"stop_reason": reason, "stop_sequence": ended.stop}


def _usage(prompt: int | None, ended: Ended | None, apart: bool) -> Usage:
    """`apart`: what was known of the prompt is told apart, as it is to those who ask for that."""
    cached = ended.cached_tokens if ended and apart else 0
    return {
        "input_tokens": (prompt or 0) - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": ended.tokens if ended else 0,
    }


def _known(ended: Ended) -> dict[str, Extension]:
    """What a task's answer says of itself, which Anthropic has no words for."""
    known = extension(ended)
    return {"bantam": known} if known else {}
