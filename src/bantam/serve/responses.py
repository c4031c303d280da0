"""`/v1/responses`, as OpenAI has it. Nothing is kept: each request brings its conversation."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from itertools import count
from typing import Any, Literal, NotRequired

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from bantam.engine import Token
from bantam.serve import handover, wire
from bantam.serve import reply as replying
from bantam.serve.ask import Ask, Begun, CallBegun, CallPart, Ended, Refusal, Text
from bantam.serve.openai_reply import (
    Extension,
    TokenLogprob,
    extension,
    fingerprint,
    logprobs,
    new_id,
)
from bantam.serve.openai_route import Route
from bantam.serve.responses_request import ResponseRequest, ask_of
from bantam.serve.shelf import Shelf

Event = dict[str, Any]


class ResponseUsage(TypedDict):
    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponseObject(TypedDict):
    """An answer: in `output` a message, or the calls that the model makes."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None
    model: str
    output: list[dict[str, Any]]
    usage: ResponseUsage | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: None
    reasoning: dict[str, Any]
    store: Literal[False]
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    bantam: NotRequired[Extension]


def routes(shelf: Shelf) -> APIRouter:
    """The endpoint for responses."""
    router = APIRouter(route_class=Route, tags=["OpenAI"])

    @router.post(
        "/v1/responses",
        response_model=None,
        responses={200: {"model": ResponseObject, "content": {"text/event-stream": {}}}},
    )
    async def responses(request: Request, asked: ResponseRequest) -> Response:
        """An answer to a text or a conversation, whole or as events (`stream`)."""
        ask = ask_of(asked, shelf.book(asked.model))
        name, _ = fingerprint(shelf, asked.model)
        begun = _begun(asked, name, ask.sampling.temperature)
        events = _events(shelf, ask, begun, handover.of(request))
        if asked.stream:
            pieces = _sent(events, begun)
            return wire.streamed(await wire.unless_gone(request, wire.begun(pieces)))
        return JSONResponse(await wire.unless_gone(request, _last(events)))

    return router


def _begun(asked: ResponseRequest, model: str, temperature: float) -> ResponseObject:
    """The response before anything is written: mostly what was asked for."""
    choice: str | dict[str, Any] = "auto"
    if asked.tool_choice:
        told = asked.tool_choice.model_dump(exclude_unset=True)
        choice = told if len(told) > 1 else asked.tool_choice.type
    form = asked.text.format if asked.text else None
    shown = form.model_dump(by_alias=True, exclude_unset=True) if form else {"type": "text"}
    functions = [tool.model_dump(exclude_unset=True) for tool in asked.tools or []]
    return {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "usage": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "metadata": asked.metadata or {},
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": temperature,
        "text": {"format": shown, "verbosity": "medium"},
        "tool_choice": choice,
        "tools": [{"strict": True, **function} for function in functions],
        "top_logprobs": asked.top_logprobs or 0,
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "truncation": "disabled",
    }


class Said:
    """A message of the output, and the events that tell of it."""

    def __init__(self, index: int, most: int) -> None:
        self.id, self.index, self.most = new_id("msg_"), index, most
        self.texts: list[str] = []
        self.logs: list[TokenLogprob] = []
        self.place = {"item_id": self.id, "output_index": index, "content_index": 0}

    def begun(self) -> Iterator[Event]:
        item = {**self.item("in_progress"), "content": []}
        yield {"type": "response.output_item.added", "output_index": self.index, "item": item}
        yield {"type": "response.content_part.added", **self.place, "part": self._part()}

    def more(self, text: str, tokens: tuple[Token, ...]) -> Event:
        logs = logprobs(tokens, self.most)
        self.texts.append(text)
        self.logs += logs
        told = {"delta": text, "logprobs": logs}
        return {"type": "response.output_text.delta", **self.place, **told}

    def ended(self, status: str) -> Iterator[Event]:
        part = self._part()
        told = {"text": part["text"], "logprobs": self.logs}
        yield {"type": "response.output_text.done", **self.place, **told}
        yield {"type": "response.content_part.done", **self.place, "part": part}
        item = self.item(status)
        yield {"type": "response.output_item.done", "output_index": self.index, "item": item}

    def item(self, status: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [self._part()],
        }

    def _part(self) -> dict[str, Any]:
        text = "".join(self.texts)
        return {"type": "output_text", "annotations": [], "text": text, "logprobs": self.logs}


class Called:
    """A call in the output, and the events that tell of it."""

    def __init__(self, index: int, call: CallBegun) -> None:
        self.id, self.index, self.call = new_id("fc_"), index, call
        self.parts: list[str] = []
        self.place = {"item_id": self.id, "output_index": index}

    def begun(self) -> Iterator[Event]:
        item = self.item("in_progress")
        yield {"type": "response.output_item.added", "output_index": self.index, "item": item}

    def more(self, text: str) -> Event:
        self.parts.append(text)
        return {"type": "response.function_call_arguments.delta", **self.place, "delta": text}

    def ended(self, status: str) -> Iterator[Event]:
        item = self.item(status)
        told = {"name": self.call.name, "arguments": item["arguments"]}
        yield {"type": "response.function_call_arguments.done", **self.place, **told}
        yield {"type": "response.output_item.done", "output_index": self.index, "item": item}

    def item(self, status: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "call_id": self.call.id,
            "name": self.call.name,
            "arguments": "".join(self.parts),
        }


async def _events(
    shelf: Shelf, ask: Ask, begun: ResponseObject, larger: handover.Handover | None
) -> AsyncGenerator[Event, None]:
    """What happens, in OpenAI's order; the last event holds the whole response."""
    prompt_tokens, most = 0, ask.sampling.alternatives or 0
    open_: Said | Called | None = None
    output: list[dict[str, Any]] = []

    def closed(status: str) -> Iterator[Event]:
        """The end of the item that is being written, if any."""
        nonlocal open_
        if open_:
            output.append(open_.item(status))
            yield from open_.ended(status)
        open_ = None

    async with aclosing(replying.answer(shelf, ask, larger)) as events:
        async for event in events:
            match event:
                case Begun():
                    prompt_tokens = event.prompt_tokens
                    yield {"type": "response.created", "response": begun}
                    yield {"type": "response.in_progress", "response": begun}
                case Text() if event.text or event.tokens:
                    if not isinstance(open_, Said):
                        for one in closed("completed"):
                            yield one
                        open_ = Said(len(output), most)
                        for one in open_.begun():
                            yield one
                    yield open_.more(event.text, event.tokens)
                case CallBegun():
                    for one in closed("completed"):
                        yield one
                    open_ = Called(len(output), event)
                    for one in open_.begun():
                        yield one
                case CallPart() if isinstance(open_, Called):
                    yield open_.more(event.text)
                case Ended():
                    if not open_ and not output:  # an answer without a word is a message too
                        open_ = Said(0, most)
                        for one in open_.begun():
                            yield one
                    status = "incomplete" if event.reason == "length" else "completed"
                    for one in closed(status):
                        yield one
                    whole = _whole(begun, output, event, prompt_tokens)
                    yield {"type": f"response.{status}", "response": whole}


def _whole(
    begun: ResponseObject, output: list[dict[str, Any]], ended: Ended, prompt_tokens: int
) -> ResponseObject:
    whole = begun.copy()
    whole["output"] = output
    whole["usage"] = {
        "input_tokens": prompt_tokens,
        "input_tokens_details": {"cached_tokens": ended.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": ended.tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt_tokens + ended.tokens,
    }
    if ended.reason == "length":
        whole["status"] = "incomplete"
        whole["incomplete_details"] = {"reason": "max_output_tokens"}
    else:
        whole["status"], whole["completed_at"] = "completed", int(time.time())
    if known := extension(ended):
        whole["bantam"] = known
    return whole


async def _sent(
    events: AsyncGenerator[Event, None], begun: ResponseObject
) -> AsyncGenerator[bytes, None]:
    """Each event with its number, as a server-sent one. Raises Refusal before the first."""
    number = count()

    def sent(event: Event) -> bytes:
        return wire.event({**event, "sequence_number": next(number)}, event["type"])

    output: list[dict[str, Any]] = []
    first = True
    try:
        async with aclosing(events):
            async for event in events:
                if event["type"] == "response.output_item.done":
                    output.append(event["item"])
                yield sent(event)
                first = False
    except Refusal as refusal:
        if first:
            raise  # there is still a status for it
        said = {"code": refusal.code or "server_error", "message": refusal.message}
        yield sent({"type": "error", **said, "param": refusal.param})
        error = {"code": "server_error", "message": refusal.message}
        failed = {**begun, "status": "failed", "error": error, "output": output}
        yield sent({"type": "response.failed", "response": failed})


async def _last(events: AsyncIterator[Event]) -> ResponseObject:
    """The whole response, when it is written."""
    told: dict[str, Any] = {}
    async for event in events:
        told = event
    whole: ResponseObject = told["response"]
    return whole
