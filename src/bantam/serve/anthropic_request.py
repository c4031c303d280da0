"""Anthropic's requests as pydantic models, and what they ask of a model.

Fields that change no answer here (`metadata`, `cache_control`, `service_tier` and the like) are
taken and left alone. Any other that is not known is refused, as Anthropic refuses it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bantam.engine import Sampling
from bantam.serve.ask import (
    MOST_MESSAGES,
    MOST_PARTS,
    MOST_TOOLS,
    Ask,
    Call,
    Message,
    Refusal,
    Tools,
)
from bantam.serve.bodies import Body
from bantam.serve.lent import Book
from bantam.serve.openai_request import Unsupported

# A call or a result of one of Anthropic's own tools, and what is no text.
ONLY = "this server reads and writes text, and calls functions that the client runs"


# By this word Anthropic's clients know to send the whole conversation instead.
UNTHREADED = "thread_unsupported_request"


class Part(BaseModel):
    """Text, in the system prompt or the result of a tool; other types are refused by name."""

    type: str
    text: str | None = None
    cache_control: Any = None


Stops = Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=64, fail_fast=True)]
Parts = Annotated[list[Part], Field(max_length=MOST_PARTS, fail_fast=True)]


class Block(Part):
    """A part of a message: `text`, `tool_use` or `tool_result`."""

    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | Parts | None = None
    is_error: bool | None = None


class Turn(BaseModel):
    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Field(max_length=MOST_PARTS, fail_fast=True)]


class Tool(BaseModel):
    """A function of the client's. `type` is only told of Anthropic's own tools, or "custom"."""

    type: str | None = None
    name: str = ""
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    input_examples: (
        Annotated[list[dict[str, Any]], Field(max_length=MOST_TOOLS, fail_fast=True)] | None
    ) = None
    defer_loading: bool | None = None
    strict: bool | None = None  # arguments always follow the schema
    cache_control: Any = None


class Choice(BaseModel):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(BaseModel):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]


class Format(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)

    type: Literal["json_schema"]
    wanted: dict[str, Any] = Field(alias="schema")


class Output(BaseModel):
    format: Format | None = None
    effort: str | None = None  # of thinking: changes nothing for a model that does not


class Counted(Body):
    """A conversation: what is counted by /v1/messages/count_tokens."""

    model: str
    messages: list[Turn] = Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)
    system: str | Parts | None = None
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = None
    tool_choice: Choice | None = None
    thinking: Thinking | None = None
    output_config: Output | None = None
    output_format: Format | None = None  # where `output_config.format` was before
    cache_control: Any = None
    speed: Any = None
    thread: Any = None  # a conversation that is kept: none is
    container: Unsupported = None
    context_management: Unsupported = None
    mcp_servers: Unsupported = None
    user_profile_id: Any = None


class Asked(Counted):
    """What is answered by /v1/messages."""

    max_tokens: int = Field(ge=1)
    stop_sequences: Stops | None = None
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0, le=1)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0)
    metadata: Any = None
    service_tier: Any = None
    inference_geo: Any = None
    diagnostics: Any = None


def ask(body: Counted, book: Book) -> Ask:
    """What a request asks. Raises Refusal for what cannot be honoured."""
    if body.thinking and body.thinking.type == "enabled":
        raise _refused("thinking", "these models do not think first; leave it out")
    if body.thread is not None:
        raise Refusal(400, "thread: nothing is kept between requests", code=UNTHREADED)
    form = (body.output_config and body.output_config.format) or body.output_format
    if form and body.messages[-1].role == "assistant":
        raise _refused("messages", "JSON by a schema begins anew: end with a message of the user's")
    return Ask(
        body.model,
        _messages(body),
        _sampling(body, book) if isinstance(body, Asked) else Sampling(),
        _tools(body),
        form.wanted if form else None,
        continues=True,
    )


def caches(body: Counted) -> bool:
    """Whether any part of a request asks for what is known of it to be kept, and counted apart."""
    parts: list[Any] = [body, *(body.tools or ())]
    parts += body.system if isinstance(body.system, list) else []
    for turn in body.messages:
        if isinstance(turn.content, list):
            parts += turn.content
            inner = [block.content for block in turn.content if isinstance(block.content, list)]
            parts += [part for content in inner for part in content]
    return any(part.cache_control is not None for part in parts)


def _sampling(body: Asked, book: Book) -> Sampling:
    """Left out, it is as Anthropic has it: temperature 1, unless the file says another, and all
    tokens may be chosen."""
    return Sampling(
        max_tokens=body.max_tokens,
        temperature=book.warmth(1.0) if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=body.top_k or 0,
        stop=tuple(body.stop_sequences or ()),
        whole=not body.stream,
    )


def _messages(body: Counted) -> tuple[Message, ...]:
    """The turns, with neighbours of one side made one, as Anthropic has it."""
    found: list[list[Message]] = []
    if body.system:
        found.append([Message("system", _text(body.system, "system"))])
    names: dict[str, str] = {}  # of the functions, by the ids of their calls
    for number, turn in enumerate(body.messages):
        for message in _turn(turn, f"messages.{number}.content", names):
            one_side = message.role in ("user", "assistant")
            if found and one_side and found[-1][0].role == message.role:
                found[-1].append(message)
            else:
                found.append([message])
    return tuple(map(_joined, found))


def _joined(turns: list[Message]) -> Message:
    content = "\n\n".join(turn.content for turn in turns if turn.content)
    return replace(turns[0], content=content, calls=tuple(c for turn in turns for c in turn.calls))


def _turn(turn: Turn, place: str, names: dict[str, str]) -> list[Message]:
    """The results of calls that a turn holds, then its text and its calls."""
    if isinstance(turn.content, str):
        return [Message(turn.role, turn.content)]
    texts: list[str] = []
    calls: list[Call] = []
    results: list[Message] = []
    for number, block in enumerate(turn.content):
        where = f"{place}.{number}"
        match turn.role, block.type:
            case _, "text":
                texts.append(_said(block, where))
            case "assistant", "tool_use":
                calls.append(_call(block, where))
                names[calls[-1].id] = calls[-1].name
            case "user", "tool_result":
                results.append(_result(block, where, names))
            case "assistant", "thinking" | "redacted_thinking":
                pass  # of another model's earlier turns; Anthropic leaves it out too
            case _:
                raise _refused(
                    where, f"a block of type {block.type!r:.60} is not supported: {ONLY}"
                )
    if results and not texts:
        return results
    return [*results, Message(turn.role, "\n".join(texts), tuple(calls))]


def _call(block: Block, where: str) -> Call:
    if not block.id or not block.name or block.input is None:
        raise _refused(where, "a tool_use has an id, a name and an input")
    return Call(block.id, block.name, json.dumps(block.input, ensure_ascii=False))


def _result(block: Block, where: str, names: dict[str, str]) -> Message:
    if block.tool_use_id not in names:
        raise _refused(
            f"{where}.tool_use_id", f"there is no tool_use {block.tool_use_id!r:.60} before it"
        )
    text = _text(block.content or "", f"{where}.content")
    if block.is_error:
        text = f"Error: {text}"
    return Message("tool", text, call_id=block.tool_use_id, name=names[block.tool_use_id])


def _text(content: str | list[Part], where: str) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(_said(part, f"{where}.{number}") for number, part in enumerate(content))


def _said(part: Part, where: str) -> str:
    if part.type != "text":
        raise _refused(where, f"a block of type {part.type!r:.60} is not supported: {ONLY}")
    if part.text is None:
        raise _refused(f"{where}.text", "Field required")
    return part.text


def _tools(body: Counted) -> Tools:
    declared = tuple(_declared(tool, f"tools.{n}") for n, tool in enumerate(body.tools or ()))
    choice = body.tool_choice or Choice(type="auto")
    if choice.type in ("any", "tool") and not declared:
        raise _refused("tool_choice", "there are no tools to choose from")
    if choice.type == "tool" and choice.name not in {one["function"]["name"] for one in declared}:
        raise _refused("tool_choice.name", f"no tool has the name {choice.name!r:.60}")
    return Tools(
        declared,
        {"any": "required", "tool": "required"}.get(choice.type, choice.type),
        choice.name or "" if choice.type == "tool" else "",
        not choice.disable_parallel_tool_use,
    )


def _declared(tool: Tool, where: str) -> dict[str, Any]:
    """The function in OpenAI's form."""
    if tool.type not in (None, "custom") or tool.defer_loading:
        what = "defer_loading" if tool.defer_loading else f"a tool of type {tool.type!r:.60}"
        raise _refused(where, f"{what} is not supported: {ONLY}")
    if not tool.name or tool.input_schema is None:
        raise _refused(where, "a tool has a name and an input_schema")
    said = [tool.description] if tool.description else []
    said += [f"Example: {json.dumps(one, ensure_ascii=False)}" for one in tool.input_examples or ()]
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    function |= {"strict": True} if tool.strict else {}
    return {
        "type": "function",
        "function": function | ({"description": "\n".join(said)} if said else {}),
    }


def _refused(where: str, why: str) -> Refusal:
    return Refusal(400, f"{where}: {why}", param=where)
