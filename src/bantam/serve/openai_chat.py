"""`/v1/chat/completions`, as OpenAI has it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal, NotRequired

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from bantam.serve import handover, wire
from bantam.serve import reply as replying
from bantam.serve.ask import (
    MOST_MESSAGES,
    MOST_TOOLS,
    Ask,
    Begun,
    CallBegun,
    CallPart,
    Ended,
    Event,
    Refusal,
    Text,
)
from bantam.serve.lent import Book
from bantam.serve.openai_ask import checked, messages, sampling, shape_of, tools
from bantam.serve.openai_reply import (
    Extension,
    Reply,
    TokenLogprob,
    Usage,
    extension,
    fingerprint,
    gathered,
    logprobs,
    new_id,
    usage,
    wrong,
)
from bantam.serve.openai_request import (
    MOST_ALTERNATIVES,
    MOST_REPLIES,
    ChatMessage,
    Choice,
    Format,
    Function,
    Named,
    Sampled,
    StreamOptions,
    Tool,
    ToolChoice,
    Unsupported,
)
from bantam.serve.openai_route import Route
from bantam.serve.shelf import Shelf


class ChatRequest(Sampled):
    """A conversation to be continued."""

    messages: Annotated[
        list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)
    ]
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    n: Annotated[int | None, Field(ge=1, le=MOST_REPLIES)] = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=MOST_ALTERNATIVES)] = None
    response_format: Format | None = None
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = None
    tool_choice: Choice = None
    parallel_tool_calls: bool | None = None
    # The older words for tools.
    functions: Annotated[list[Function], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = None
    function_call: Literal["none", "auto"] | Named | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=2, fail_fast=True)] | None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None
    prediction: Any = None  # would only make it quicker
    audio: Unsupported = None
    web_search_options: Unsupported = None


class CalledFunction(TypedDict):
    name: str
    arguments: str


class MadeCall(TypedDict):
    id: str
    type: Literal["function"]
    function: CalledFunction


class Said(TypedDict):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: NotRequired[list[MadeCall]]
    function_call: NotRequired[CalledFunction]


class Logprobs(TypedDict):
    content: list[TokenLogprob]
    refusal: list[TokenLogprob] | None


class ChatChoice(TypedDict):
    index: int
    message: Said
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length", "tool_calls", "function_call"]
    bantam: NotRequired[Extension]


class ChatCompletion(TypedDict):
    """Replies to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[ChatChoice]
    usage: Usage


def routes(shelf: Shelf) -> APIRouter:
    """The endpoint for conversations."""
    router = APIRouter(route_class=Route)

    @router.post(
        "/v1/chat/completions",
        response_model=None,
        responses={200: {"model": ChatCompletion, "content": {"text/event-stream": {}}}},
    )
    async def chat_completions(request: Request, asked: ChatRequest) -> Response:
        """The next turn of a conversation, whole or as it is written (`stream`)."""
        ask = _ask(asked, shelf.book(asked.model))
        older = bool(asked.functions)
        name, print_ = fingerprint(shelf, asked.model)
        head = {"created": int(time.time()), "model": name, "system_fingerprint": print_}
        answers = replying.answer(shelf, ask, handover.of(request))
        if asked.stream:
            counted = bool(asked.stream_options and asked.stream_options.include_usage)
            pieces = _chunks(answers, ask, head, older, counted)
            return wire.streamed(await wire.unless_gone(request, wire.begun(pieces)))
        work = gathered(answers, ask.n)
        prompt_tokens, replies = await wire.unless_gone(request, work)
        told = {
            "id": new_id("chatcmpl-"),
            "object": "chat.completion",
            **head,
            "choices": [_choice(n, one, ask, older) for n, one in enumerate(replies)],
            "usage": usage(prompt_tokens, [one.ended for one in replies], ask.n),
        }
        return JSONResponse(told)

    return router


def _ask(asked: ChatRequest, book: Book) -> Ask:
    """The request in the server's own words. Raises Refusal for what contradicts itself."""
    if asked.max_tokens is not None and asked.max_completion_tokens is not None:
        raise Refusal(
            400,
            "'max_tokens' and 'max_completion_tokens' cannot be set at the same time; "
            "use 'max_completion_tokens'.",
            param="max_tokens",
        )
    if asked.top_logprobs is not None and not asked.logprobs:
        raise Refusal(
            400,
            "Invalid value for 'top_logprobs': it is only allowed when 'logprobs' is true.",
            param="top_logprobs",
        )
    if asked.stream_options is not None and not asked.stream:
        raise Refusal(
            400,
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )
    if asked.functions and asked.tools:
        raise Refusal(400, "'functions' are the older 'tools'; send one of them", param="functions")
    declared, choice, parallel = asked.tools, asked.tool_choice, asked.parallel_tool_calls
    if asked.functions:
        declared = [Tool(type="function", function=one) for one in asked.functions]
        choice, parallel = _older(asked.function_call), False
    most = asked.max_completion_tokens or asked.max_tokens
    alternatives = (asked.top_logprobs or 0) if asked.logprobs else None
    ask = Ask(
        asked.model,
        messages(asked.messages),
        sampling(asked, book, most, alternatives),
        tools(declared, choice, parallel),
        shape_of(asked.response_format, "response_format.json_schema.schema"),
        asked.n or 1,
    )
    return checked(asked, ask)


def _older(call: str | Named | None) -> ToolChoice | None:
    if isinstance(call, Named):
        return ToolChoice(type="function", function=call)
    return ToolChoice(type=call) if call else None


def _choice(index: int, reply: Reply, ask: Ask, older: bool) -> ChatChoice:
    """A whole reply."""
    made = [
        CalledFunction(name=call.name, arguments=arguments)
        for call, arguments in zip(reply.calls, reply.arguments, strict=True)
    ]
    content = reply.text if reply.texts or not made else None
    said: Said = {"role": "assistant", "content": content, "refusal": None}
    if made and older:
        said["function_call"] = made[0]
    elif made:
        said["tool_calls"] = [
            MadeCall(id=call.id, type="function", function=function)
            for call, function in zip(reply.calls, made, strict=True)
        ]
    told: ChatChoice = {
        "index": index,
        "message": said,
        "logprobs": None,
        "finish_reason": _reason(reply.ended, older),
    }
    if (most := ask.sampling.alternatives) is not None:
        told["logprobs"] = {"content": logprobs(reply.tokens, most), "refusal": None}
    if known := extension(reply.ended):
        told["bantam"] = known
    return told


def _reason(
    ended: Ended | None, older: bool
) -> Literal["stop", "length", "tool_calls", "function_call"]:
    match ended.reason if ended else "stop":
        case "calls":
            return "function_call" if older else "tool_calls"
        case "length":
            return "length"
        case _:
            return "stop"


async def _chunks(
    answers: AsyncGenerator[Event, None], ask: Ask, head: dict[str, Any], older: bool, counted: bool
) -> AsyncGenerator[bytes, None]:
    """The replies as they are written, each piece a server-sent event."""
    told = {"id": new_id("chatcmpl-"), "object": "chat.completion.chunk", **head}
    # All that is the same in each chunk, once; in ASCII, as all events are.
    start = f'data: {json.dumps(told)[:-1]}, "choices": ['
    end = '], "usage": null}\n\n' if counted else "]}\n\n"
    most = ask.sampling.alternatives

    def chunk(index: int, delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return f"{start}{json.dumps(choice | more)}{end}".encode()

    prompt_tokens = 0
    ended: list[Ended] = []
    async with aclosing(answers) as events:
        try:
            async for event in events:
                match event:
                    case Begun():
                        prompt_tokens = event.prompt_tokens
                        empty = None if ask.tools.declared else ""
                        said = {"role": "assistant", "content": empty, "refusal": None}
                        for index in range(ask.n):
                            yield chunk(index, said)
                    case Text(index, text, tokens):
                        logs = None
                        if most is not None:
                            logs = {"content": logprobs(tokens, most), "refusal": None}
                        yield chunk(index, {"content": text}, logprobs=logs)
                    case CallBegun(index, number, id, name) if not older:
                        function = {"name": name, "arguments": ""}
                        call = {"index": number, "id": id, "type": "function", "function": function}
                        yield chunk(index, {"tool_calls": [call]})
                    case CallPart(index, number, text) if not older:
                        call = {"index": number, "function": {"arguments": text}}
                        yield chunk(index, {"tool_calls": [call]})
                    case CallBegun(index, _, _, name):
                        yield chunk(index, {"function_call": {"name": name, "arguments": ""}})
                    case CallPart(index, _, text):
                        yield chunk(index, {"function_call": {"arguments": text}})
                    case Ended():
                        ended.append(event)
                        known = extension(event)
                        more: dict[str, Any] = {"bantam": known} if known else {}
                        yield chunk(event.index, {}, _reason(event, older), **more)
        except Refusal as refusal:
            if not prompt_tokens:
                raise  # nothing was sent: there is still a status for it
            yield wire.event(wrong(refusal))
            return
    if counted:
        yield wire.event({**told, "choices": [], "usage": usage(prompt_tokens, ended, ask.n)})
    yield wire.event("[DONE]")
