"""What written answers are before they are learned: outputs in the order of their schema."""

import json
from collections.abc import Callable
from typing import Any

import polars as pl

from bantam.errors import BadInput
from bantam.kinds import declarations, schema

Splits = dict[str, pl.DataFrame]


def settled(splits: Splits, given: dict[str, Any] | None) -> tuple[Splits, dict[str, Any]]:
    """The splits with the keys of their outputs in the order that the decoder writes them, and the
    schema: the `given` one, else one inferred from the training outputs.

    Raises BadInput for a schema that answers cannot be held to.
    """
    values = [json.loads(output) for output in splits["train"]["output"]]
    if given:
        found = schema.check(given, "task.schema")
    else:
        found = schema.check(schema.infer(values), "what the outputs hold, as a schema")

    def ordered(output: str) -> str:
        value = json.loads(output)
        return output if schema.mistake(found, value) else schema.text(schema.ordered(found, value))

    return {name: _with_outputs(frame, ordered) for name, frame in splits.items()}, found


def settled_calls(splits: Splits) -> tuple[Splits, int]:
    """The splits with checked declarations and with arguments in their order, and how many calls an
    answer has at most.

    Raises BadInput for declarations that are none, or answers that call what is not declared.
    """
    most = max(len(json.loads(output)) for output in splits["train"]["output"])

    def checked(frame: pl.DataFrame) -> pl.DataFrame:
        tools, outputs = [], []
        for file, row, declared, output in frame.select(
            "file", "row", "tools", "output"
        ).iter_rows():
            origin = f"{file}, row {row}"
            found = declarations.tools(json.loads(declared), origin)
            answer = declarations.of_tools(found, most)
            value = json.loads(output)
            wrong = schema.mistake(answer, value)
            if wrong and len(value) <= most:  # longer ones of a test file are only never met
                wrong = next(filter(None, (_wrong_call(call, found) for call in value)), wrong)
                raise BadInput(
                    f"{origin}: the output does not follow the declared functions: {wrong}",
                    "mend the row: output is a list of "
                    '{"name": ..., "arguments": {...}}, [] where no function fits',
                )
            tools.append(json.dumps(found, ensure_ascii=False))
            outputs.append(output if wrong else schema.text(schema.ordered(answer, value)))
        return frame.with_columns(pl.Series("tools", tools), pl.Series("output", outputs))

    return {name: checked(frame) for name, frame in splits.items()}, max(1, most)


def _wrong_call(call: Any, tools: list[dict[str, Any]]) -> str | None:
    """What is wrong with one call, by the function that it names alone."""
    meant = [one for one in tools if one["function"]["name"] == call["name"]]
    if not meant:
        return f'"{call["name"]}" is not among them'
    return schema.mistake(declarations.of_tools(meant, 1), [call])


def _with_outputs(frame: pl.DataFrame, change: Callable[[str], str]) -> pl.DataFrame:
    return frame.with_columns(pl.Series("output", [change(output) for output in frame["output"]]))
