"""What task endpoints are asked and what they answer, as their OpenAPI document has it."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from bantam.kinds import Row
from bantam.serve.ask import MOST_TOOLS

MOST = 10_000  # texts in one request; more are streamed
LONGEST = 1_000_000  # characters of a text, bytes of a line
NDJSON, CSV = "application/x-ndjson", "text/csv"

Text = Annotated[str, Field(max_length=LONGEST)]
# In OpenAI's form: of all texts, or of each.
Functions = Annotated[list[dict[str, Any]], Field(max_length=MOST_TOOLS, fail_fast=True)]
Each = Annotated[list[Functions], Field(max_length=MOST, fail_fast=True)]


class Asked(BaseModel):
    """One text, or several; never both."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["text"], "properties": {"text": {"type": "string"}}},
                {"required": ["texts"], "properties": {"texts": {"type": "array"}}},
            ]
        }
    )

    text: Text | None = None
    texts: Annotated[list[Text], Field(max_length=MOST, fail_fast=True)] | None = None
    tools: Functions | Each | None = Field(
        None, description="for a task with functions: those of all texts, or a list for each text"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Asked:
        if (self.text is None) == (self.texts is None):
            raise ValueError("give text or texts, one of them")
        return self


class Line(BaseModel):
    """A line of a stream."""

    text: Text
    tools: Functions | None = None


class Answered(BaseModel):
    """What all answers tell."""

    id: str = Field(description="names this answer to POST /feedback")
    model: str
    confidence: float | None = Field(
        description="how likely the answer is right, calibrated on validation texts; null: not "
        "known, as of a model that was only prompted"
    )
    sure: bool | None = Field(
        description="whether to rely on it, as the recipe's task.sure asked; null: it did not ask"
    )
    whole: bool = Field(description="false: the answer's tokens were used up, JSON was closed")
    cut: bool = Field(description="true: the end of the text was not read, it is too long")
    handed_to: str | None = Field(description="the larger model that gave this answer instead")


class Labelled(Answered):
    kind: Literal["classify"] = "classify"
    label: str = Field(description='of several labels, these joined by "|"')
    labels: list[str]
    probabilities: dict[str, float]


class Extracted(Answered):
    kind: Literal["extract"] = "extract"
    object: JsonValue = Field(description="follows the schema of the task; calls as a list")


class Generated(Answered):
    kind: Literal["generate"] = "generate"
    text: str


One = Labelled | Extracted | Generated


class Many(BaseModel):
    answers: list[One] = Field(description="in the order of the texts")


class Known(BaseModel):
    """A model that was made for a task."""

    name: str
    kind: Literal["classify", "extract", "generate"]
    instruction: str
    labels: list[str] | None = Field(description="to choose from; null: answers are written")
    several: bool = Field(description="whether a text may have several labels, or none")
    answer_schema: dict[str, JsonValue] | None = Field(description="JSON Schema of its objects")
    calls: int = Field(description="functions that an answer calls at most; 0: it calls none")


class All(BaseModel):
    tasks: list[Known]


class Fault(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Wrong(BaseModel):
    """Why a request was refused."""

    error: Fault


WRONG: dict[int | str, dict[str, Any]] = {
    status: {"model": Wrong, "description": why}
    for status, why in (
        (400, "The request cannot be answered as it is"),
        (401, "A key is needed"),
        (403, "Not allowed to this key, host or origin"),
        (404, "There is no such model, or it has no task"),
        (413, "Too large"),
        (429, "Too many requests; Retry-After tells when to try again"),
        (503, "The model cannot answer now; Retry-After tells when to try again"),
    )
}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            NDJSON: {
                "schema": {
                    "type": "string",
                    "description": 'a line a text: {"text": ..., "tools": [...]} or "..."',
                }
            },
            CSV: {"schema": {"type": "string", "description": "with a header"}},
        },
    }
}

LINES: dict[int | str, dict[str, Any]] = {
    200: {"content": {NDJSON: {"schema": {"type": "string"}}}, "description": "A line a line"}
}


def row(text: str, tools: Any) -> Row:
    """A text as the kinds have it, with its functions as JSON, which nobody has checked yet."""
    return Row(text, "", "" if tools is None else json.dumps(tools, ensure_ascii=False))
