"""What every interface asks of a model, and what comes back: plain data, no interface's words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bantam.engine import Sampling, Token

# More has no place in any context; each is looked at while nobody else is answered.
MOST_MESSAGES, MOST_PARTS, MOST_TOOLS = 2048, 2048, 128


@dataclass(frozen=True)
class Call:
    """A function call that a model made; `arguments` are JSON, as it wrote them."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str  # "system", "user", "assistant" or "tool"
    content: str
    calls: tuple[Call, ...] = ()  # of an assistant
    call_id: str = ""  # of a tool: which call this is the result of
    name: str = ""


@dataclass(frozen=True)
class Tools:
    """Functions that may be called, in OpenAI's form, and whether one must be."""

    declared: tuple[dict[str, Any], ...] = ()  # {"type": "function", "function": {...}}
    choice: str = "auto"  # "auto", "none", "required"
    named: str = ""  # the function that must be called
    parallel: bool = True  # more than one call at a time


@dataclass(frozen=True)
class Ask:
    """A conversation to be continued. Its texts are a user's: never trusted."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling  # with max_tokens None: until the model ends or the context is full
    tools: Tools = field(default_factory=Tools)
    schema: dict[str, Any] | None = None  # the reply is JSON that follows it
    n: int = 1  # how many replies
    continues: bool = False  # a last message of the assistant's is the beginning of the reply


@dataclass(frozen=True)
class Begun:
    """The prompt is known; the first event of every answer."""

    prompt_tokens: int


@dataclass(frozen=True)
class Text:
    """More of the text of reply `index`; with its tokens if log-probabilities are asked for."""

    index: int
    text: str
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class CallBegun:
    """Reply `index` begins its call number `number`."""

    index: int
    number: int
    id: str
    name: str


@dataclass(frozen=True)
class CallPart:
    """More of the arguments, as JSON text, of a call."""

    index: int
    number: int
    text: str


@dataclass(frozen=True)
class Ended:
    """Reply `index` is whole; every reply has one.

    `confidence` is how likely it is right, by what validation showed; only of a model that was made
    for a task, and not of an answer that a larger model gave in the end, `handed_to`.
    """

    index: int
    reason: str  # "stop", "length" or "calls"
    tokens: int  # that were written
    stop: str | None = None  # the stop string that ended it
    cached_tokens: int = 0  # of the prompt, that were known already
    confidence: float | None = None
    sure: bool | None = None
    probabilities: dict[str, float] | None = None  # of labels
    handed_to: str = ""


Event = Begun | Text | CallBegun | CallPart | Ended


class Refusal(Exception):
    """A request that is not answered. Each interface words it its own way; all use `status`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,  # the part of the request that is to blame
        code: str | None = None,  # a word for programs, as OpenAI has them
        retry_after: int | None = None,  # seconds; with 429 and 503
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.param, self.code, self.retry_after = param, code, retry_after
