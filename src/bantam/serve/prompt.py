"""A conversation as the token ids that ask a model for its next turn."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from math import inf
from typing import Any

from bantam.errors import BadInput
from bantam.kinds import Task
from bantam.model import Model, TooLong
from bantam.serve import calls
from bantam.serve.ask import Ask, Call, Message

Turn = dict[str, Any]  # as chat templates have it

WIDEST = 64  # characters that a token is taken to have at most


def check_size(model: Model, characters: int) -> None:
    """Raises TooLong for a text that has no place in the context, before it is read: that would
    take long."""
    if characters > WIDEST * model.context:
        raise TooLong(
            f"the prompt has {characters:,} characters: this model has room for "
            f"{model.context - 2:,} tokens",
            "shorten it, or start the server with a larger --context",
        )


def readable(model: Model, task: Task, text: str) -> str:
    """As much of a text as a task may read of it, so that no more is tokenized. Raises TooLong for
    one that has no place and is not to be cut."""
    if task.kind == "classify":
        return text[: WIDEST * task.max_text_tokens]
    check_size(model, len(text))
    return text


def ids(model: Model, ask: Ask) -> list[int]:
    """The prompt, with the results of calls in the order of these.

    Raises BadInput for functions or a template that cannot be used, TooLong.
    """
    tools = calls.usable(ask.tools)
    knows = calls.style(model.template) is not None
    said = []
    if tools and not knows:
        said.append(calls.instruction(tools))
    if ask.schema is not None:
        said.append(
            "Answer with JSON that follows this schema: "
            + json.dumps(ask.schema, ensure_ascii=False)
        )
    shown = tools if knows and tools else None
    told = [*said, json.dumps(shown, ensure_ascii=False)] if shown else said
    check_size(model, sum(map(len, told)) + sum(map(_size, ask.messages)))
    messages, begun = list(ask.messages), ""
    last = messages[-1] if messages else None
    if ask.continues and last and last.role == "assistant" and not last.calls:
        begun = messages.pop().content
    turns = [_turn(message, call, knows) for message, call in _matched(messages)]
    if said:
        turns = _told(turns, "\n\n".join(said))
    prompt = _rendered(model, turns, shown)
    return prompt + model.encode([(begun, False)]) if begun else prompt


def _size(message: Message) -> int:
    """Characters; a turn and a call take a token at least, even when they say nothing."""
    called = (WIDEST + len(one.id) + len(one.name) + len(one.arguments) for one in message.calls)
    said = len(message.content) + len(message.call_id) + len(message.name)
    return WIDEST + said + sum(called)


def _rendered(model: Model, turns: list[Turn], tools: list[dict[str, Any]] | None) -> list[int]:
    """Some templates refuse system messages, or two turns of one side: then these are joined."""
    try:
        return model.conversation(turns, tools)
    except BadInput as refused:
        try:
            return model.conversation(_joined(turns), tools)
        except BadInput:
            raise refused from None


def _matched(messages: Iterable[Message]) -> Iterator[tuple[Message, Call | None]]:
    """The messages, each result with the call that it is of. Programs that make calls side by side
    send results as they come; templates and models take them for the calls' in order."""
    calls: dict[str, tuple[int, Call]] = {}

    def place(message: Message) -> float:
        return calls[message.call_id][0] if message.call_id in calls else inf

    for results, some in groupby(messages, lambda message: message.role == "tool"):
        for message in sorted(some, key=place) if results else some:
            calls |= {one.id: (len(calls) + n, one) for n, one in enumerate(message.calls)}
            yield message, calls[message.call_id][1] if message.call_id in calls else None


def _turn(message: Message, call: Call | None, knows: bool) -> Turn:
    """A message for a template that knows functions, or with calls and results as plain text;
    `call` is that which a result is of."""
    name = call.name if call else message.name
    if message.role == "tool" and not knows:
        of = f" of {call.name}({call.arguments})" if call else f" of {name}" if name else ""
        return {"role": "user", "content": f"Result{of}: {message.content}"}
    if message.role == "tool":
        told = {"role": "tool", "content": message.content, "tool_call_id": message.call_id}
        return told | ({"name": name} if name else {})
    turn: Turn = {"role": message.role, "content": message.content}
    made = [_call(one.name, one.arguments) for one in message.calls]
    if made and knows:
        named = zip(message.calls, made, strict=True)
        turn["tool_calls"] = [
            {"id": one.id, "type": "function", "function": call} for one, call in named
        ]
    elif made:
        written = json.dumps(made, ensure_ascii=False)
        turn["content"] = f"{message.content}\n{written}" if message.content else written
    return turn


def _call(name: str, arguments: str) -> dict[str, Any]:
    try:
        return {"name": name, "arguments": json.loads(arguments or "{}")}
    except (ValueError, RecursionError):
        return {"name": name, "arguments": arguments}  # as a client may repeat a broken call


def _told(turns: list[Turn], said: str) -> list[Turn]:
    """The turns with `said` at the end of the first system message."""
    if turns and turns[0]["role"] == "system":
        first = {"role": "system", "content": f"{turns[0]['content']}\n\n{said}"}
        return [first, *turns[1:]]
    return [{"role": "system", "content": said}, *turns]


def _joined(turns: Iterable[Turn]) -> list[Turn]:
    """System messages as part of the user's, and one turn for each change of sides."""
    found: list[Turn] = []
    for turn in turns:
        role = "user" if turn["role"] == "system" else turn["role"]
        if found and found[-1]["role"] == role and not {"tool_calls", "tool_call_id"} & turn.keys():
            found[-1]["content"] += f"\n\n{turn['content']}"
        else:
            found.append(turn | {"role": role})
    return found
