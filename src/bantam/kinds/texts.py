"""kind = "extract" and "generate": the model writes its answer, as JSON by a schema or as text.

The answer follows the prompt on a line of its own and ends with the model's end token. Of an answer
in JSON the tokens that the schema leaves no choice about are learned too, so that the file writes
the same JSON in any runtime; `constrain` then only sees to it that it always does.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bantam.kinds import Answer, Encode, Example, Row, Task, declarations

LONGEST_TEXT = 100_000  # tokens: no bound but the context
MARGIN = 4  # tokens: the start token, and the one that is asked for

HEADS = {
    "extract": "Read this text and write its fields as JSON.",
    "generate": "Answer this text.",
    "calls": "Write the calls that answer the request, or none.",
}


def task(
    kind: str,
    name: str,
    instruction: str,
    *,
    answer_schema: Mapping[str, Any] | None = None,
    most_calls: int = 0,
) -> Task:
    """A task whose answers are written: with a schema or `most_calls` JSON, else text."""
    head = instruction.strip() or HEADS["calls" if most_calls else kind]
    cue = "Calls" if most_calls else "JSON" if kind == "extract" else "Answer"
    before = f"{head}\n\nFunctions:\n" if most_calls else f"{head}\n\nText: "
    return Task(
        kind=kind,
        name=name,
        instruction=instruction,
        labels=(),
        before=((before, False),),
        after=((f"\n{cue}:\n", False),),
        answer="{}",
        max_text_tokens=LONGEST_TEXT,
        schema="" if answer_schema is None else json.dumps(answer_schema, ensure_ascii=False),
        most_calls=most_calls,
        between=(("\n\nRequest: ", False),) if most_calls else (),
        max_answer_tokens=1,
    )


def prompt(task: Task, encode: Encode, text: str, tools: str = "") -> list[int]:
    """Token ids of the prompt; `tools` are declarations as JSON, for a task with functions."""
    declared = declarations.declared(json.loads(tools)) if task.most_calls else ""
    return task.prompt(encode, text, declared)


def schema_of(task: Task, tools: str = "") -> dict[str, Any]:
    """The schema of the answer to one text. Raises ValueError for a task of free text."""
    if task.most_calls:
        return declarations.of_tools(json.loads(tools), task.most_calls)
    if not task.schema:
        raise ValueError("the answers of this task are free text")
    found = json.loads(task.schema)
    assert isinstance(found, dict)
    return found


def example(task: Task, encode: Encode, end: int, row: Row) -> Example:
    """A training example: every token of the answer is learned, `end` among them."""
    asked = prompt(task, encode, row.text, row.tools)
    written = [*encode([(row.output, False)]), end]
    answers = [Answer(len(asked) - 1 + at, (), token) for at, token in enumerate(written)]
    return Example(asked + written[:-1], answers)


def sized(task: Task, encode: Encode, rows: Sequence[Row], context: int) -> Task:
    """The task with how long texts and answers may be within `context` tokens: an answer half as
    long again as the longest that is learned, a text what is left, a text with functions half."""
    longest = max(len(encode([(row.output, False)])) for row in rows) + 1
    answer = min(longest * 3 // 2 + 16, context // 2)
    around = len(task.prompt(encode, "", ""))
    room = (context - answer) // 2 if task.most_calls else context - around - answer - MARGIN
    return replace(task, max_answer_tokens=answer, max_text_tokens=max(1, room))


def fits(task: Task, encode: Encode, row: Row, context: int) -> bool:
    """Whether an example is learned whole: its answer is no longer than answers may be, and stands
    with its prompt within `context` tokens."""
    answer = len(encode([(row.output, False)])) + 1
    asked = len(prompt(task, encode, row.text, row.tools))
    return answer <= task.max_answer_tokens and asked + answer + MARGIN <= context


def cut(task: Task, encode: Encode, row: Row) -> bool:
    """Whether the end of a text is left out."""
    return len(encode([(row.text, False)])) > task.max_text_tokens


def evidence(task: Task, log_probability: float, tokens: int) -> float:
    """What tells how good an answer is: JSON is right as a whole or not at all, so it is as sure as
    all its choices together; of a text each token is worth something."""
    return log_probability / max(1, tokens) if task.kind == "generate" else log_probability


def certain(task: Task, log_probability: float, tokens: int) -> float:
    """How likely an answer is right, of a text which chrF it may reach, by what validation showed;
    without that how likely it was written."""
    at = evidence(task, log_probability, tokens)
    if task.certainty:
        slope, offset = task.certainty
        at = slope * at + offset
        return 1 / (1 + math.exp(-at)) if at > -700 else 0.0
    return math.exp(at)


def sure(task: Task, probability: float) -> bool | None:
    """Whether an answer can be relied on; None if the task does not say when."""
    return probability > task.thresholds[0] if task.thresholds else None
