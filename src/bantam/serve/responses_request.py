"""What is asked of `/v1/responses`, checked, and in the server's own words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from bantam.serve.ask import MOST_MESSAGES, MOST_TOOLS, Ask, Call, Message, Refusal
from bantam.serve.lent import Book
from bantam.serve.openai_ask import checked, sampling, shape_of, text_of, tools
from bantam.serve.openai_request import (
    MOST_ALTERNATIVES,
    Choice,
    Content,
    Format,
    Function,
    Sampled,
    StreamOptions,
    Tool,
    Unsupported,
)
from bantam.serve.openai_route import missing

LOGPROBS = "message.output_text.logprobs"  # what `include` calls them


def _items(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class Item(BaseModel):
    """A message, a call that the model made, or what a call gave."""

    type: str | None = None  # none: a message
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: Content = []
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: Content = []


class ResponseTool(BaseModel):
    """A function that may be called; `parameters` are a JSON Schema of its arguments."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None  # arguments always follow the schema


class TextConfig(BaseModel):
    format: Format | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(BaseModel):
    effort: Literal["none"] | None = None
    summary: Any = None
    generate_summary: Any = None


class ResponseRequest(Sampled):
    """What is to be answered, as a text or as a conversation."""

    input: Annotated[
        Annotated[list[Item], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)],
        BeforeValidator(_items, json_schema_input_type=str | list[Item]),
    ]
    instructions: str | None = None
    max_output_tokens: Annotated[int | None, Field(ge=1)] = None
    text: TextConfig | None = None
    tools: Annotated[list[ResponseTool], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = None
    tool_choice: Choice = None
    parallel_tool_calls: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=MOST_ALTERNATIVES)] = None
    # Beside log-probabilities, it is of tools that are not here.
    include: Annotated[list[str], Field(max_length=100, fail_fast=True)] | None = None
    stream_options: StreamOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None  # what does not fit is always refused
    reasoning: Reasoning | None = None
    max_tool_calls: Any = None  # of tools that are not here
    previous_response_id: str | None = None
    conversation: Unsupported = None
    background: Unsupported = None
    background_options: Unsupported = None
    prompt: Unsupported = None
    context_management: Unsupported = None
    access_programs: Unsupported = None
    image: Unsupported = None


def ask_of(asked: ResponseRequest, book: Book) -> Ask:
    """The request in the server's own words. Raises Refusal for what cannot be honoured."""
    if asked.previous_response_id is not None:
        raise Refusal(
            400,
            "Nothing is kept between requests, so there is no previous response to go on from; "
            "send the whole conversation as 'input'.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    if asked.stream_options is not None and not asked.stream:
        raise Refusal(
            400,
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )
    told = [Message("system", asked.instructions)] if asked.instructions else []
    logs = asked.top_logprobs is not None or LOGPROBS in (asked.include or [])
    alternatives = (asked.top_logprobs or 0) if logs else None
    ask = Ask(
        asked.model,
        (*told, *messages(asked.input)),
        sampling(asked, book, asked.max_output_tokens, alternatives),
        tools(_nested(asked.tools or []), asked.tool_choice, asked.parallel_tool_calls),
        shape_of(asked.text.format if asked.text else None, "text.format.schema"),
    )
    return checked(asked, ask)


def messages(items: Sequence[Item]) -> list[Message]:
    """A conversation; calls belong to the assistant's message before them."""
    found: list[Message] = []
    for number, item in enumerate(items):
        where = f"input[{number}]"
        match item.type:
            case None | "message":
                found.append(_message(item, where))
            case "function_call":
                call = Call(
                    _needed(item.call_id, f"{where}.call_id"),
                    _needed(item.name, f"{where}.name"),
                    _needed(item.arguments, f"{where}.arguments"),
                )
                if not found or found[-1].role != "assistant":
                    found.append(Message("assistant", ""))
                found[-1] = replace(found[-1], calls=(*found[-1].calls, call))
            case "function_call_output":
                text = text_of(item.output, f"{where}.output")
                call_id = _needed(item.call_id, f"{where}.call_id")
                found.append(Message("tool", text, call_id=call_id))
            case "reasoning":
                pass  # another model's thoughts, which OpenAI leaves out as well
            case kind:
                raise Refusal(
                    400,
                    f"Invalid '{where}.type': {kind!r:.80} is not supported here. Nothing is kept, "
                    "fetched or run by this server; send messages and function calls.",
                    param=f"{where}.type",
                    code="unsupported_value",
                )
    return found


def _message(item: Item, where: str) -> Message:
    role = _needed(item.role, f"{where}.role")
    if not item.content:
        raise missing(f"{where}.content")
    role = "system" if role == "developer" else role
    return Message(role, text_of(item.content, f"{where}.content"))


def _needed(value: str | None, param: str) -> str:
    if value is None:
        raise missing(param)
    return value


def _nested(declared: Sequence[ResponseTool]) -> list[Tool]:
    """The functions as `/v1/chat/completions` has them."""
    made = []
    for number, tool in enumerate(declared):
        function = None
        if tool.type == "function":
            function = Function(
                name=_needed(tool.name, f"tools[{number}].name"),
                description=tool.description,
                parameters=tool.parameters,
                strict=tool.strict,
            )
        made.append(Tool(type=tool.type, function=function))
    return made
