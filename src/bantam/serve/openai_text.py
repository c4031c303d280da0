"""`/v1/completions`, as OpenAI has it: texts that are continued, without a conversation."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BeforeValidator, Field
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from bantam.engine import Sampling, Token
from bantam.serve import reply as replying
from bantam.serve import wire
from bantam.serve.ask import Begun, Ended, Event, Refusal, Text
from bantam.serve.openai_ask import sampling
from bantam.serve.openai_reply import (
    LEAST_LOG,
    Usage,
    fingerprint,
    gathered,
    new_id,
    usage,
    wrong,
)
from bantam.serve.openai_request import (
    MOST_REPLIES,
    Sampled,
    StreamOptions,
    Unsupported,
)
from bantam.serve.openai_route import Route
from bantam.serve.shelf import Shelf

MOST_PROMPTS, MOST_LOGPROBS = 128, 5
DEFAULT_TOKENS = 16


def _prompts(value: Any) -> Any:
    """A list of prompts, whichever way they are sent."""
    if isinstance(value, str):
        return [value]
    ids = isinstance(value, list) and value and all(isinstance(one, int) for one in value)
    return [value] if ids else value


Ids = Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], Field(fail_fast=True)]
Some = Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)
Several = Annotated[list[str], Some] | Annotated[list[Ids], Some]
Prompts = Annotated[
    Several,
    BeforeValidator(
        _prompts, json_schema_input_type=str | Annotated[Ids, Field(min_length=1)] | Several
    ),
]


class TextRequest(Sampled):
    """Texts to be continued."""

    prompt: Prompts
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    n: Annotated[int | None, Field(ge=1, le=MOST_REPLIES)] = None
    best_of: Annotated[int | None, Field(ge=1, le=MOST_REPLIES)] = None
    echo: bool | None = None
    logprobs: Annotated[int | None, Field(ge=0, le=MOST_LOGPROBS)] = None
    stream_options: StreamOptions | None = None
    suffix: Unsupported = None


class TextLogprobs(TypedDict):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(TypedDict):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


class TextCompletion(TypedDict):
    """What follows each text."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[TextChoice]
    usage: Usage


def routes(shelf: Shelf) -> APIRouter:
    """The endpoint for raw texts."""
    router = APIRouter(route_class=Route)

    @router.post(
        "/v1/completions",
        response_model=None,
        responses={200: {"model": TextCompletion, "content": {"text/event-stream": {}}}},
    )
    async def completions(request: Request, asked: TextRequest) -> Response:
        """What follows a text, or each of several, whole or as it is written (`stream`)."""
        _check(asked)
        most = DEFAULT_TOKENS if asked.max_tokens is None else asked.max_tokens
        drawn = sampling(asked, shelf.book(asked.model), most, asked.logprobs)
        name, print_ = fingerprint(shelf, asked.model)
        count = asked.n or 1
        told = {
            "id": new_id("cmpl-"),
            "object": "text_completion",
            "created": int(time.time()),
            "model": name,
            "system_fingerprint": print_,
        }
        if asked.stream:
            pieces = _chunks(shelf, asked, drawn, count, told)
            return wire.streamed(await wire.unless_gone(request, wire.begun(pieces)))
        work = _whole(shelf, asked, drawn, count)
        choices, counted = await wire.unless_gone(request, work)
        return JSONResponse({**told, "choices": choices, "usage": counted})

    return router


def _check(asked: TextRequest) -> None:
    """Raises Refusal for what contradicts itself or cannot be done."""
    if asked.best_of is not None and asked.best_of != (asked.n or 1):
        raise _refused("best_of", "only as many replies are written as are returned; use 'n'")
    if asked.echo and not isinstance(asked.prompt[0], str):
        raise _refused("echo", "prompts of token ids are not written out; send texts")
    if asked.echo and asked.logprobs is not None:
        raise _refused("echo", "log-probabilities of the prompt are not known; leave one out")
    if asked.stream_options is not None and not asked.stream:
        raise _refused("stream_options", "it is only allowed when 'stream' is enabled")


def _refused(param: str, why: str) -> Refusal:
    return Refusal(400, f"Invalid '{param}': {why}.", param=param, code="unsupported_parameter")


async def _events(
    shelf: Shelf, asked: TextRequest, drawn: Sampling, count: int
) -> AsyncGenerator[Event, None]:
    """What happens to all prompts, one after the other, with the replies numbered through."""
    prompts: list[str | list[int]] = [*asked.prompt]
    for number, prompt in enumerate(prompts):
        first = number * count
        async with aclosing(replying.proceed(shelf, asked.model, prompt, drawn, count)) as steps:
            async for event in steps:
                match event:
                    case Begun():
                        yield event
                        for index in range(count if asked.echo else 0):
                            yield Text(first + index, str(prompt))
                    case Text() | Ended():
                        yield replace(event, index=first + event.index)


async def _whole(
    shelf: Shelf, asked: TextRequest, drawn: Sampling, count: int
) -> tuple[list[TextChoice], Usage]:
    events, most = _events(shelf, asked, drawn, count), asked.logprobs
    prompt_tokens, replies = await gathered(events, len(asked.prompt) * count)
    choices: list[TextChoice] = [
        {
            "index": index,
            "text": one.text,
            "logprobs": None if most is None else _logprobs(one.tokens, 0, most),
            "finish_reason": _reason(one.ended),
        }
        for index, one in enumerate(replies)
    ]
    return choices, usage(prompt_tokens, [one.ended for one in replies], count)


def _reason(ended: Ended | None) -> Literal["stop", "length"]:
    return "length" if ended and ended.reason == "length" else "stop"


def _logprobs(tokens: Sequence[Token], offset: int, most: int) -> TextLogprobs:
    """The tokens, of which the first begins `offset` characters into the text, each with the `most`
    likeliest in its place."""
    found: TextLogprobs = {
        "tokens": [],
        "token_logprobs": [],
        "top_logprobs": [],
        "text_offset": [],
    }
    for token in tokens:
        found["tokens"].append(token.text)
        found["token_logprobs"].append(max(token.log_probability, LEAST_LOG))
        there = {text: max(log, LEAST_LOG) for _, text, log in token.alternatives[:most]}
        found["top_logprobs"].append({token.text: found["token_logprobs"][-1]} | there)
        found["text_offset"].append(offset)
        offset += len(token.text)
    return found


async def _chunks(
    shelf: Shelf, asked: TextRequest, drawn: Sampling, count: int, told: dict[str, Any]
) -> AsyncGenerator[bytes, None]:
    """What follows as it is written, each piece a server-sent event."""
    counted = bool(asked.stream_options and asked.stream_options.include_usage)
    # All that is the same in each chunk, once; in ASCII, as all events are.
    start = f'data: {json.dumps(told)[:-1]}, "choices": ['
    end = '], "usage": null}\n\n' if counted else "]}\n\n"

    def chunk(index: int, text: str, logs: TextLogprobs | None, reason: str | None) -> bytes:
        choice = {"index": index, "text": text, "logprobs": logs, "finish_reason": reason}
        return f"{start}{json.dumps(choice)}{end}".encode()

    prompt_tokens, most = 0, asked.logprobs or 0
    ended: list[Ended] = []
    offsets = [0] * (len(asked.prompt) * count)
    async with aclosing(_events(shelf, asked, drawn, count)) as events:
        try:
            async for event in events:
                match event:
                    case Begun():
                        prompt_tokens += event.prompt_tokens
                    case Text(index, text, tokens):
                        logs = _logprobs(tokens, offsets[index], most) if tokens else None
                        offsets[index] += sum(len(token.text) for token in tokens)
                        yield chunk(index, text, logs, None)
                    case Ended():
                        ended.append(event)
                        yield chunk(event.index, "", None, _reason(event))
        except Refusal as refusal:
            if not prompt_tokens:
                raise  # nothing was sent: there is still a status for it
            yield wire.event(wrong(refusal))
            return
    if counted:
        yield wire.event({**told, "choices": [], "usage": usage(prompt_tokens, ended, count)})
    yield wire.event("[DONE]")
