"""What the replies of OpenAI's interfaces share."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import TypedDict

from bantam.engine import Token
from bantam.serve.ask import Begun, CallBegun, CallPart, Ended, Event, Refusal, Text
from bantam.serve.shelf import Shelf

LEAST_LOG = -9999.0  # JSON has no infinity


class Extension(TypedDict):
    """What is known of an answer of a model that was made for a task."""

    confidence: float | None
    sure: bool | None
    probabilities: dict[str, float] | None
    handed_to: str | None


class TokenDetails(TypedDict):
    cached_tokens: int


class WrittenDetails(TypedDict):
    reasoning_tokens: int


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: TokenDetails
    completion_tokens_details: WrittenDetails


class Alternative(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(Alternative):
    top_logprobs: list[Alternative]


class Error(TypedDict):
    message: str
    type: str
    param: str | None
    code: str | None


class Wrong(TypedDict):
    """Why a request is not answered."""

    error: Error


@dataclass
class Reply:
    """A reply that is whole, or on its way to be."""

    texts: list[str] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    calls: list[CallBegun] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)  # of each call
    ended: Ended | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)


async def gathered(events: AsyncIterator[Event], count: int) -> tuple[int, list[Reply]]:
    """The tokens of the prompts and the `count` replies, when all of them have ended."""
    prompt_tokens, replies = 0, [Reply() for _ in range(count)]
    async for event in events:
        match event:
            case Begun():
                prompt_tokens += event.prompt_tokens
            case Text():
                replies[event.index].texts.append(event.text)
                replies[event.index].tokens.extend(event.tokens)
            case CallBegun():
                replies[event.index].calls.append(event)
                replies[event.index].arguments.append("")
            case CallPart():
                replies[event.index].arguments[event.number] += event.text
            case Ended():
                replies[event.index].ended = event
    return prompt_tokens, replies


def usage(prompt_tokens: int, ended: Sequence[Ended | None], count: int = 1) -> Usage:
    """What was read and written. The `count` replies to a prompt share it: it is read once."""
    written = sum(one.tokens for one in ended if one)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": written,
        "total_tokens": prompt_tokens + written,
        "prompt_tokens_details": {
            "cached_tokens": sum(one.cached_tokens for one in ended[::count] if one)
        },
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def logprobs(tokens: Sequence[Token], most: int) -> list[TokenLogprob]:
    """Each token with its log-probability and the `most` likeliest in its place."""
    return [
        {
            **_alternative(token.text, token.log_probability),
            "top_logprobs": [_alternative(text, log) for _, text, log in token.alternatives[:most]],
        }
        for token in tokens
    ]


def _alternative(text: str, log: float) -> Alternative:
    shown = list(text.encode("utf-8", "replace"))
    return {"token": text, "logprob": max(log, LEAST_LOG), "bytes": shown}


def extension(ended: Ended | None) -> Extension | None:
    """What a task's answer says of itself; None for a model that just talks."""
    if ended is None or (ended.confidence is None and not ended.handed_to):
        return None
    return {
        "confidence": ended.confidence,
        "sure": ended.sure,
        "probabilities": ended.probabilities,
        "handed_to": ended.handed_to or None,
    }


def new_id(prefix: str) -> str:
    """A name that no other reply has."""
    return f"{prefix}{secrets.token_hex(16)}"


def fingerprint(shelf: Shelf, model: str) -> tuple[str, str | None]:
    """The name of the model that answers, and what changes when its file does.

    Raises Refusal for an unknown name.
    """
    book = shelf.book(model)
    return book.name, f"fp_{book.sha[:12]}" if book.sha else None


def wrong(refusal: Refusal) -> dict[str, Any]:
    """A refusal as OpenAI words it."""
    kind, code = "invalid_request_error", refusal.code
    if refusal.status == 429:
        kind, code = "requests", code or "rate_limit_exceeded"
    elif refusal.status >= 500:
        kind, code = "server_error", code or "server_error"
    elif refusal.status == 401:
        code = code or "invalid_api_key"
    told: Wrong = {
        "error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": code}
    }
    return dict(told)
