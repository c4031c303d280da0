"""Function calls as models write them: how they are asked for, and read while they come.

A model whose chat template knows functions writes calls its own way (Hermes and Qwen between
<tool_call> tags, Mistral after [TOOL_CALLS], Llama 3 as one object with "parameters"); any other is
asked for a JSON list. Either way a call is held to the schema of its function once it has begun.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bantam.errors import BadInput
from bantam.kinds import declarations
from bantam.serve.ask import CallBegun, CallPart, Tools

MOST = 8  # calls at a time
# What a reply begins with that turns out to be calls, without white space.
MARKS = ("<tool_call>", "[TOOL_CALLS]", '[{"name"', '{"name"')


@dataclass(frozen=True)
class Style:
    """How a model writes calls: `before` and `after` stand around each, or around the list."""

    before: str = ""
    after: str = ""
    listed: bool = True
    key: str = "arguments"


PLAIN = Style()


def style(template: str | None) -> Style | None:
    """How a model with this chat template writes calls; None when it knows of none."""
    if template is None or "tools" not in template:
        return None
    if "<tool_call>" in template:
        return Style("<tool_call>\n", "\n</tool_call>", listed=False)
    if "[TOOL_CALLS]" in template:
        return Style("[TOOL_CALLS]")
    if '"parameters"' in template:
        return Style(listed=False, key="parameters")
    return PLAIN


def usable(tools: Tools) -> list[dict[str, Any]]:
    """The declarations that may be called, checked; [] for none. Raises BadInput."""
    if not tools.declared or tools.choice == "none":
        return []
    found = declarations.tools(list(tools.declared), "tools")
    kept = [one for one in found if tools.named in ("", one["function"]["name"])]
    if not kept:
        raise BadInput(f"the function {tools.named!r:.80} is not declared", "declare it in tools")
    return kept


def answer_schema(tools: Sequence[dict[str, Any]], style: Style, most: int) -> dict[str, Any]:
    """The schema of what is written between `style.before` and `style.after`."""
    whole = declarations.of_tools(tools, most)
    calls = whole["items"].get("anyOf", [whole["items"]])
    for call in calls:
        call["properties"] = {"name": call["properties"]["name"]} | {
            style.key: call["properties"]["arguments"]
        }
        call["required"] = list(call["properties"])
    if style.listed:
        return whole | {"minItems": 1}
    defs = {"$defs": whole["$defs"]} if "$defs" in whole else {}
    return {**whole["items"], **defs}


def instruction(tools: Sequence[dict[str, Any]]) -> str:
    """What tells a model of functions that its template has no place for."""
    return (
        f"You can call these functions:\n{declarations.declared(tools)}\n"
        'To call some, answer with nothing but a JSON list: [{"name": ..., "arguments": {...}}].'
        " Otherwise answer in words."
    )


def begins(text: str) -> bool | None:
    """Whether a reply that begins like this is calls; None while that cannot be told."""
    bare = "".join(text.split())
    if any(bare.startswith(mark) for mark in MARKS):
        return True
    return None if any(mark.startswith(bare) for mark in MARKS) else False


class Reader:
    """Reads calls out of JSON that is held to `answer_schema` and comes in pieces."""

    def __init__(self, index: int, key: str) -> None:
        self.index, self.number = index, -1
        self.between = f', "{key}": '
        self.rest = ""  # what is not understood yet
        self.depth = 0  # of braces and brackets in the arguments; 0: not in them
        self.quoted = self.escaped = False

    def read(self, text: str) -> list[CallBegun | CallPart]:
        """What a further piece of JSON tells."""
        self.rest += text
        found: list[CallBegun | CallPart] = []
        while self.rest:
            if self.depth:
                found.append(CallPart(self.index, self.number, self._arguments()))
            elif name := self._name():
                self.number += 1
                found.append(CallBegun(self.index, self.number, new_id(), name))
            else:
                break
        return found

    def _name(self) -> str:
        """The name of the next call, once its arguments are about to begin."""
        start = self.rest.find('{"name": ')
        end = self.rest.find(self.between + "{", start) if start >= 0 else -1
        if end < 0:
            return ""
        name = json.loads(self.rest[start + len('{"name": ') : end])
        self.rest = self.rest[end + len(self.between) :]
        self.depth = -1  # the brace that comes next begins them
        return str(name)

    def _arguments(self) -> str:
        """The part of the arguments that is there."""
        self.depth = max(self.depth, 0)
        for at, char in enumerate(self.rest):
            if self.quoted:
                self.quoted = self.escaped or char != '"'
                self.escaped = char == "\\" and not self.escaped
            elif char == '"':
                self.quoted = True
            elif char in "{[":
                self.depth += 1
            elif char in "}]":
                self.depth -= 1
                if self.depth == 0:
                    part, self.rest = self.rest[: at + 1], self.rest[at + 1 :]
                    return part
        part, self.rest = self.rest, ""
        return part


def new_id() -> str:
    """A name for a call that no other has."""
    return f"call_{secrets.token_hex(12)}"
