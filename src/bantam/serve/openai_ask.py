"""OpenAI's requests in the server's own words: conversations, functions, schemas and sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bantam.engine import Sampling
from bantam.serve.ask import Ask, Call, Message, Refusal, Tools
from bantam.serve.lent import Book
from bantam.serve.openai_request import (
    ChatMessage,
    Format,
    Function,
    Part,
    Sampled,
    Tool,
    ToolChoice,
)
from bantam.serve.openai_route import missing


def sampling(asked: Sampled, book: Book, most: int | None, alternatives: int | None) -> Sampling:
    """OpenAI's defaults: temperature 1, unless the file says another, everything else off."""
    return Sampling(
        max_tokens=most,
        temperature=book.warmth(1.0) if asked.temperature is None else asked.temperature,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        top_k=asked.top_k or 0,
        min_p=asked.min_p or 0.0,
        frequency_penalty=asked.frequency_penalty or 0.0,
        presence_penalty=asked.presence_penalty or 0.0,
        repeat_penalty=asked.repeat_penalty or 1.0,
        logit_bias=tuple((asked.logit_bias or {}).items()),
        seed=asked.seed,
        stop=tuple(text for text in asked.stop if text),
        alternatives=alternatives,
        whole=not asked.stream,
    )


def checked(asked: Sampled, ask: Ask) -> Ask:
    """Raises Refusal for a penalty where JSON may be written: it would fall on its braces."""
    calls = ask.tools.declared and ask.tools.choice != "none"
    if (calls or ask.schema is not None) and asked.repeat_penalty not in (None, 1):
        because = "tools" if calls else "response_format"
        raise Refusal(
            400, f"repeat_penalty cannot be used together with {because}", param="repeat_penalty"
        )
    return ask


def text_of(content: Sequence[Part], where: str) -> str:
    """The text of a message's parts. Raises Refusal for images, audio and files."""
    found = []
    for number, part in enumerate(content):
        kind = part.type
        if kind in ("text", "input_text", "output_text") and part.text is not None:
            found.append(part.text)
        elif kind == "refusal" and part.refusal is not None:
            found.append(part.refusal)
        elif kind in ("text", "input_text", "output_text", "refusal"):
            field = "refusal" if kind == "refusal" else "text"
            raise missing(f"{where}[{number}].{field}")
        else:
            raise Refusal(
                400,
                f"Invalid '{where}[{number}].type': {kind!r:.80} cannot be read here, only text. "
                "Nothing is fetched from elsewhere; leave the part out.",
                param=f"{where}[{number}].type",
                code="unsupported_content_type",
            )
    return "\n".join(found)


def messages(said: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """A conversation. Raises Refusal for what is no text, and for turns without what they need."""
    return tuple(_message(turn, f"messages[{number}]") for number, turn in enumerate(said))


def _message(turn: ChatMessage, where: str) -> Message:
    content = text_of(turn.content, f"{where}.content") or turn.refusal or ""
    name = turn.name or ""
    match turn.role:
        case "assistant":
            return Message("assistant", content, _calls(turn, where), name=name)
        case "tool":
            if turn.tool_call_id is None:
                raise missing(f"{where}.tool_call_id")
            return Message("tool", content, call_id=turn.tool_call_id, name=name)
        case "function":
            return Message("tool", content, call_id=f"call_{name}", name=name)
        case role:
            if not turn.content:
                raise missing(f"{where}.content")
            return Message("user" if role == "user" else "system", content, name=name)


def _calls(turn: ChatMessage, where: str) -> tuple[Call, ...]:
    if turn.function_call:  # as it was before there were tools
        called = turn.function_call
        return (Call(f"call_{called.name}", called.name, called.arguments),)
    made = []
    for number, call in enumerate(turn.tool_calls or []):
        if call.function is None:
            raise _only_functions(f"{where}.tool_calls[{number}].type", call.type)
        made.append(Call(call.id, call.function.name, call.function.arguments))
    if not made and not turn.content and not turn.refusal:
        raise missing(f"{where}.content")
    return tuple(made)


def tools(
    declared: Sequence[Tool] | None, choice: ToolChoice | None, parallel: bool | None
) -> Tools:
    """The functions that may be called. Raises Refusal for tools of other types, and for a choice
    of what is not declared."""
    for number, tool in enumerate(declared or []):
        if tool.type != "function":
            raise _only_functions(f"tools[{number}].type", tool.type)
        if tool.function is None:
            raise missing(f"tools[{number}].function")
    functions = [tool.function for tool in declared or [] if tool.function]
    if not functions:
        if choice and choice.type not in ("none", "auto"):
            raise Refusal(
                400,
                "Invalid value for 'tool_choice': it is only allowed when 'tools' are specified.",
                param="tool_choice",
            )
        return Tools()
    return _chosen(functions, choice, parallel is not False)


def _chosen(functions: list[Function], choice: ToolChoice | None, parallel: bool) -> Tools:
    mode = choice.type if choice else "auto"
    named = ""
    if choice and mode == "function":
        named = _known(choice.function.name if choice.function else choice.name, functions)
        mode, parallel = "required", False  # exactly one call, as OpenAI has it
    elif choice and mode == "allowed_tools":
        allowed = choice.allowed_tools or choice
        wanted = [
            _known(one.function.name if one.function else one.name, functions)
            for one in allowed.tools
        ]
        functions = [one for one in functions if one.name in wanted]
        mode = allowed.mode
    elif mode not in ("none", "auto", "required"):
        raise _only_functions("tool_choice", mode)
    told = tuple(
        {"type": "function", "function": one.model_dump(exclude_none=True)} for one in functions
    )
    return Tools(told, mode, named, parallel)


def _known(name: str | None, functions: Sequence[Function]) -> str:
    if name is None:
        raise missing("tool_choice.function.name")
    if all(one.name != name for one in functions):
        raise Refusal(
            400,
            f"Invalid value for 'tool_choice': {name!r:.80} is not among the declared functions.",
            param="tool_choice",
        )
    return name


def _only_functions(param: str, kind: str) -> Refusal:
    return Refusal(
        400,
        f"Invalid value for '{param}': {kind!r:.80} is not supported here. Tools are functions "
        "that the client calls itself.",
        param=param,
        code="unsupported_value",
    )


def shape_of(asked: Format | None, param: str) -> dict[str, Any] | None:
    """The schema that a reply follows, None for text. Raises Refusal."""
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return asked.shape or {"type": "object"}  # a schema beside it is llama.cpp's way
    nested = asked.json_schema
    shape = nested.shape if nested else asked.shape
    if shape is None:
        raise missing(param)
    return shape
