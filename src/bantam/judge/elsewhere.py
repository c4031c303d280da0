"""How an endpoint is asked for the answers that ours is not sure of: in words, with the labels, the
schema or the functions beside them, and what it says is taken only if it keeps to them.

A server asks it so too, so this needs none of the judge's packages. Nothing tells how sure it is.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bantam import kinds
from bantam.answer import Answer, Written
from bantam.judge import described, language
from bantam.kinds import Row, declarations, schema, texts
from bantam.sources.door import Unreached
from bantam.sources.endpoint import Line

AT_ONCE = 4  # questions, where many are asked
WAITS = (1.0, 5.0, 20.0)  # seconds before a question that was not answered is asked again
WIDE = 8  # characters of a text that is labelled, for each token of it that ours would read
FENCE = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.S)  # as some put around their JSON


def answer(line: Line, task: kinds.Task, row: Row) -> Answer | Written | None:
    """The answer to a row, None for one that the task cannot have. Raises as `Line.ask`."""
    if task.kind == "classify":
        return _label(line, task, row.text[: WIDE * task.max_text_tokens])
    most = 2 * task.max_answer_tokens + 64  # its tokens may be shorter than ours
    if task.most_calls:
        return _calls(line, task, row, most)
    content = _before(described.described(task)) + row.text
    if task.kind == "generate":
        said = line.ask(_turn(content), most)
        return _written(said.text.strip(), None, said.whole)
    wanted = texts.schema_of(task)
    shape = _shape(wanted) if wanted.get("type") == "object" else {}
    said = line.ask(_turn(content), most, **shape)
    return _held(wanted, _json(said.text))


def answers(
    line: Line, task: kinds.Task, rows: Sequence[Row], advance: Callable[[int], None]
) -> list[tuple[Answer | Written | None, float]]:
    """The answers to rows and their milliseconds. Raises Unreached when the endpoint does not
    answer for long."""

    def ask(row: Row) -> tuple[Answer | Written | None, float]:
        for wait in (*WAITS, None):
            began = time.perf_counter()
            try:
                found = answer(line, task, row)
            except Unreached:
                if wait is None:
                    raise
                time.sleep(wait)
            else:
                return found, 1000 * (time.perf_counter() - began)
        raise AssertionError

    found = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for one in pool.map(ask, rows):
                found.append(one)
                advance(len(found))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def _label(line: Line, task: kinds.Task, text: str) -> Answer | None:
    content = _before(language.named(language.untuned(task))) + text
    content += '\n\nAnswer with JSON: {"label": "..."}'
    label = {"type": "string", "enum": list(task.labels)}
    wanted = {
        "type": "object",
        "properties": {"label": label},
        "required": ["label"],
        "additionalProperties": False,
    }
    said = line.ask(_turn(content), 64 + max(map(len, task.labels)), **_shape(wanted, strict=True))
    found = _json(said.text)
    named = found.get("label") if isinstance(found, dict) else said.text.strip().strip("\"'.")
    if not isinstance(named, str) or named not in task.labels:
        return None
    return Answer(named, 0.0, {}, (named,))


def _calls(line: Line, task: kinds.Task, row: Row, most: int) -> Written | None:
    head, _, _ = _before(task).rpartition("\n\nFunctions:")
    tools = json.loads(row.tools)
    said = line.ask(_turn(f"{head}\n\n{row.text}"), most, tools=tools)
    made = [{"name": name, "arguments": _json(arguments)} for name, arguments in said.calls]
    return _held(declarations.of_tools(tools, task.most_calls), made[: task.most_calls])


def _before(task: kinds.Task) -> str:
    return "".join(text for text, _ in task.before)


def _turn(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def _shape(wanted: dict[str, Any], **more: Any) -> dict[str, Any]:
    form = {"name": "answer", "schema": wanted, **more}
    return {"response_format": {"type": "json_schema", "json_schema": form}}


def _json(text: str) -> Any:
    fenced = FENCE.fullmatch(text)
    try:
        return json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return None


def _held(wanted: dict[str, Any], value: Any) -> Written | None:
    if schema.mistake(wanted, value) is not None:
        return None
    value = schema.ordered(wanted, value)
    return _written(schema.text(value), value, True)


def _written(text: str, value: Any, whole: bool) -> Written:
    return Written(text, 0.0, 0.0, 0, value, whole=whole)
