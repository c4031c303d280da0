"""Ollama's requests as pydantic models, and what they ask of a model.

Fields that are not known are left alone, as Ollama leaves them. Those that it knows and that would
change an answer are honoured or refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, Field

from bantam.engine import Sampling
from bantam.serve.ask import MOST_MESSAGES, MOST_TOOLS, Ask, Call, Message, Refusal, Tools
from bantam.serve.lent import Book

T = TypeVar("T")

MOST_TEXTS = 2048  # to be made vectors of at a time

# What Ollama takes for an option that is left out.
TEMPERATURE, TOP_K, TOP_P, REPEAT_PENALTY = 0.8, 40, 0.9, 1.1
# Ways of sampling that the runtime is not asked for, with the values that turn them off.
OFF: dict[str, tuple[float | None, ...]] = {
    "mirostat": (None, 0),
    "tfs_z": (None, 1),
    "typical_p": (None, 0, 1),
    "repeat_last_n": (None, 64),  # tokens that the penalties look back on
}

Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float | None, Field(ge=0, le=1)]
Penalty = Annotated[Number | None, Field(ge=-2, le=2)]
Stops = Annotated[
    list[Annotated[str, Field(max_length=1000)]], Field(max_length=64, fail_fast=True)
]
Functions = Annotated[list[dict[str, Any]], Field(max_length=MOST_TOOLS, fail_fast=True)]


class Options(BaseModel):
    """How a reply is drawn. What is only about memory and speed, such as `num_ctx` and
    `num_thread`, is for the server's own command line, and changes nothing."""

    num_predict: int | None = None  # tokens; none or less: until the model ends
    temperature: Annotated[Number | None, Field(ge=0)] = None
    top_k: Annotated[int | None, Field(le=1 << 20)] = None
    top_p: Share = None
    min_p: Share = None
    seed: int | None = None
    stop: Stops | None = None
    repeat_penalty: Annotated[Number | None, Field(ge=0.001, le=10)] = None
    presence_penalty: Penalty = None
    frequency_penalty: Penalty = None
    mirostat: int | None = None
    tfs_z: Number | None = None
    typical_p: Number | None = None
    repeat_last_n: int | None = None


class Named(BaseModel):
    """A request about a model; `name` is what its field was called before."""

    model: str = Field(validation_alias=AliasChoices("model", "name"))


class Written(Named):
    """What requests for a reply share."""

    stream: bool | None = None
    format: str | dict[str, Any] | None = None  # "json", or a schema
    options: Options | None = None
    keep_alive: float | str | None = None
    think: bool | str | None = None
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=20)


class Generate(Written):
    """A text to be answered, or with `raw` to be continued."""

    prompt: str = ""
    system: str = ""
    raw: bool = False
    suffix: str | None = None
    template: str | None = None
    context: list[Any] | None = None
    images: list[Any] | None = None


class CalledFunction(BaseModel):
    name: str
    arguments: dict[str, Any] = {}


class ToolCall(BaseModel):
    id: str | None = None
    function: CalledFunction


Calls = Annotated[list[ToolCall], Field(max_length=MOST_TOOLS, fail_fast=True)]


class Turn(BaseModel):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    images: list[Any] | None = None
    tool_calls: Calls | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class Chat(Written):
    """A conversation to be continued."""

    messages: Annotated[list[Turn], Field(max_length=MOST_MESSAGES, fail_fast=True)] = []
    tools: Functions | None = None


class Embed(Named):
    """Texts to be made vectors of. `dimensions` are the first numbers of each, scaled again."""

    input: str | Annotated[list[str], Field(max_length=MOST_TEXTS, fail_fast=True)] | None = None
    dimensions: int | None = None
    truncate: bool | None = None  # what is too long is refused, never cut


class Embedding(Named):
    """A text to be made a vector of: the older words for it."""

    prompt: str = ""


def chat(body: Chat, book: Book) -> Ask:
    """What a request asks of a model. Raises Refusal for what cannot be honoured."""
    return Ask(
        book.name,
        _messages(body.messages),
        sampling(body, book),
        Tools(tuple(body.tools or ())),
        _schema(body.format),
        continues=True,
    )


def generate(body: Generate, book: Book) -> Ask:
    """The same for a single text."""
    _refuse_given(body, "template", "suffix", "context")
    _refuse_images(body.images, "images")
    system = (Message("system", body.system),) if body.system else ()
    messages = (*system, Message("user", body.prompt))
    return Ask(book.name, messages, sampling(body, book), schema=_schema(body.format))


def raw(body: Generate) -> str:
    """The text to be continued. Raises Refusal for what has no place without a template."""
    _refuse_given(body, "template", "suffix", "context", "system", "format")
    _refuse_images(body.images, "images")
    return body.prompt


def sampling(body: Written, book: Book) -> Sampling:
    """How the reply is drawn: as Ollama has it, unless the file says another temperature. Raises
    Refusal for what cannot be honoured."""
    if body.think:
        raise Refusal(400, f"think: {body.model!r:.80} does not support thinking", param="think")
    asked = body.options or Options()
    for name, off in OFF.items():
        if getattr(asked, name) not in off:
            raise Refusal(
                400,
                f"options.{name}: is not supported here; leave it out, or use temperature, top_k, "
                "top_p, min_p and the penalties",
                param=f"options.{name}",
            )
    return Sampling(
        max_tokens=asked.num_predict if asked.num_predict and asked.num_predict > 0 else None,
        temperature=_or(asked.temperature, book.warmth(TEMPERATURE)),
        top_k=max(0, _or(asked.top_k, TOP_K)),
        top_p=_or(asked.top_p, TOP_P),
        min_p=_or(asked.min_p, 0.0),
        repeat_penalty=_or(asked.repeat_penalty, REPEAT_PENALTY),
        presence_penalty=_or(asked.presence_penalty, 0.0),
        frequency_penalty=_or(asked.frequency_penalty, 0.0),
        seed=None if asked.seed is None or asked.seed < 0 else asked.seed,
        stop=tuple(text for text in asked.stop or () if text),
        alternatives=body.top_logprobs if body.logprobs else None,
        whole=body.stream is False,
    )


def unloads(body: Written) -> bool:
    """Whether a request without a text asks for the model to be put away."""
    return str(body.keep_alive).rstrip("nuµmsh") in ("0", "0.0")


def _or(told: T | None, usual: T) -> T:
    return usual if told is None else told


def _messages(turns: Sequence[Turn]) -> tuple[Message, ...]:
    """The conversation. Calls often come back without their ids: then results are those of the
    calls before them, by name or in order."""
    found: list[Message] = []
    waiting: list[Call] = []  # calls without a result yet
    for number, turn in enumerate(turns):
        _refuse_images(turn.images, f"messages.{number}.images")
        calls = tuple(_call(call, f"{number}.{n}") for n, call in enumerate(turn.tool_calls or ()))
        name = turn.tool_name or ""
        waiting = [*waiting, *calls][-MOST_TOOLS:]
        if turn.role == "tool":
            likely = [call for call in waiting if turn.tool_call_id in (None, call.id)]
            named = [call for call in likely if call.name == name] or likely
            if named:
                waiting.remove(named[0])
                name = name or named[0].name
            call_id = turn.tool_call_id or (named[0].id if named else "")
            found.append(Message("tool", turn.content or "", call_id=call_id, name=name))
        else:
            found.append(Message(turn.role, turn.content or "", calls))
    return tuple(found)


def _call(call: ToolCall, place: str) -> Call:
    arguments = json.dumps(call.function.arguments, ensure_ascii=False)
    return Call(call.id or f"call_{place}", call.function.name, arguments)


def _schema(form: str | dict[str, Any] | None) -> dict[str, Any] | None:
    if isinstance(form, dict):
        return form
    if form in (None, ""):
        return None
    if form != "json":
        raise Refusal(
            400,
            f'format: {form!r:.80} is neither "json" nor a JSON Schema',
            param="format",
        )
    return {"type": "object"}


def _refuse_given(body: Generate, *names: str) -> None:
    without = "together with raw" if body.raw else "here; use /api/chat"
    for name in names:
        if getattr(body, name):
            raise Refusal(400, f"{name}: is not supported {without}", param=name)


def _refuse_images(images: Sequence[Any] | None, place: str) -> None:
    if images:
        raise Refusal(400, f"{place}: images cannot be read here, only text", param=place)
