"""What a model is for. One module a kind; this one holds what all kinds share, as plain data.

A kind knows its prompt, which tokens are the answer, how an answer is read from probabilities and
what it is scored by. It knows neither torch nor a runtime: both give it a `Choose` function.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from bantam.errors import BadInput
from bantam.kinds.several import SEPARATOR

KINDS = ("classify", "extract", "generate")
# Fields of a task that have keys of their own, not in `bantam.prompt`.
ELSEWHERE = ("kind", "labels", "schema", "temperature", "thresholds", "certainty")
LONGEST_ANSWER = 100_000  # tokens

Segment = tuple[str, bool]  # a piece of a prompt, and whether control tokens in it are meant
Encode = Callable[[list[Segment]], list[int]]
# P(candidate token | prompt) renormalised over the candidates: (prompts, candidates) -> rows
Choose = Callable[[Sequence[list[int]], Sequence[list[int]]], list[list[float]]]


class Row(NamedTuple):
    """An example as text. `tools` are the functions that it declares, as JSON, if any."""

    text: str
    output: str
    tools: str = ""


@dataclass(frozen=True)
class Task:
    """All that a packed model needs to know of its job."""

    kind: str
    name: str
    instruction: str
    labels: tuple[str, ...]
    before: tuple[Segment, ...]  # the prompt around the user's text
    after: tuple[Segment, ...]
    answer: str  # how an answer is written, with {} for the label
    max_text_tokens: int  # a longer text is cut at its end
    one_token: bool = False  # each label is answered by one token of its own, not by its words
    temperature: float = 1.0  # what the model's certainty is divided by, found on validation
    multi: bool = False  # a text may have several labels or none
    # If multi: from which probability on each label is given. Else, if there are any: above which
    # probability an answer with this label is sure, 1 for never. Of written answers there is one.
    thresholds: tuple[float, ...] = ()

    # What follows is for models that write their answers.
    schema: str = ""  # the JSON Schema that all answers follow, as JSON
    most_calls: int = 0  # each text comes with functions; an answer calls at most so many
    between: tuple[Segment, ...] = ()  # what stands between the functions and the text
    max_answer_tokens: int = 0
    # How an answer's log-probability p tells whether it is right: sigmoid(a * p + b), both found on
    # validation (Platt 1999); none: not known.
    certainty: tuple[float, ...] = ()

    def prompt(self, encode: Encode, text: str, declared: str = "") -> list[int]:
        """Token ids of the prompt for one text; `declared` are the functions to choose from, as
        `kinds.declarations.declared` writes them."""
        ids = encode([(text, False)])[: self.max_text_tokens]
        if self.most_calls:
            ids = encode([(declared, False)]) + encode(list(self.between)) + ids
        return encode(list(self.before)) + ids + encode(list(self.after))


class Answer(NamedTuple):
    """One place where an example is learned from: after `position`, candidate number `target`.

    Where there are no candidates the whole vocabulary is meant, and `target` is a token. Where
    `target` is several numbers (or none), each candidate but the last is a question of its own:
    does it come rather than the last one? `shares` are how much of the answer each candidate
    is, where that is known better than by one target.
    """

    position: int
    candidates: tuple[int, ...]
    target: int | tuple[int, ...]
    shares: tuple[float, ...] = ()


class Example(NamedTuple):
    """An input and its wanted output, as token ids; its loss counts `weight` times."""

    ids: list[int]
    answers: list[Answer]
    weight: float = 1.0


def to_metadata(task: Task) -> dict[str, Any]:
    """The `bantam.*` keys of a GGUF file."""
    return {
        "bantam.version": 1,
        "bantam.kind": task.kind,
        "bantam.labels": list(task.labels),
        "bantam.prompt": json.dumps(
            {k: v for k, v in asdict(task).items() if k not in ELSEWHERE}, ensure_ascii=False
        ),
        "bantam.calibration": json.dumps(
            {
                "temperature": task.temperature,
                "thresholds": list(task.thresholds),
                "certainty": list(task.certainty),
            }
        ),
    } | ({"bantam.schema": task.schema} if task.schema else {})


def from_metadata(metadata: Mapping[str, Any], origin: object) -> Task | None:
    """The task in a GGUF's metadata; None when the file was not packed by Bantam.

    Raises BadInput when the keys are broken or of a newer version.
    """
    version = metadata.get("bantam.version")
    if version is None:
        return None
    if version != 1:
        raise BadInput(
            f"{origin}: was packed by a newer version of Bantam (format {version!r})",
            "install the newest bantam-lm",
        )
    try:
        prompt, labels = json.loads(metadata["bantam.prompt"]), metadata["bantam.labels"]
        calibration = json.loads(metadata.get("bantam.calibration", "{}"))
        task = Task(
            kind=_text(metadata["bantam.kind"]),
            name=_text(prompt["name"]),
            instruction=_text(prompt["instruction"]),
            labels=tuple(_text(label) for label in _list(labels)),
            before=_segments(prompt["before"]),
            after=_segments(prompt["after"]),
            answer=_text(prompt["answer"]),
            max_text_tokens=prompt["max_text_tokens"],
            one_token=prompt.get("one_token", False) is True,
            temperature=float(calibration.get("temperature", 1.0)),
            multi=prompt.get("multi", False) is True,
            thresholds=tuple(_list(calibration.get("thresholds", []))),
            schema=_text(metadata.get("bantam.schema", "")),
            most_calls=_count(prompt.get("most_calls", 0)),
            between=_segments(prompt.get("between", [])),
            max_answer_tokens=_count(prompt.get("max_answer_tokens", 0)),
            certainty=tuple(_list(calibration.get("certainty", []))),
        )
        _check_kind(task)
        if sorted(c for c in task.answer if c in "{}") != ["{", "}"] or "{}" not in task.answer:
            raise ValueError(f"the answer {task.answer!r:.80} has not one {{}}")
        if type(task.max_text_tokens) is not int or task.max_text_tokens < 1:
            raise ValueError(f"max_text_tokens is {task.max_text_tokens!r:.80}")
        if not 0 < task.temperature < math.inf:
            raise ValueError(f"the temperature is {task.temperature!r:.80}")
        bounds = len(labels) if task.kind == "classify" else 1
        if len(task.thresholds) not in ((bounds,) if task.multi else (0, bounds)):
            raise ValueError(f"{len(labels)} labels, {len(task.thresholds)} thresholds")
        if not all(type(t) in (int, float) and 0 <= t <= 1 for t in task.thresholds):
            raise ValueError(f"the thresholds are {task.thresholds!r:.80}")
        if task.multi and (not task.one_token or any(SEPARATOR in label for label in labels)):
            raise ValueError("several labels a text, but not one token a label or a | in one")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise BadInput(
            f"{origin}: its bantam.* keys are broken ({error!r})", "pack the model again"
        ) from error
    return task


def _check_kind(task: Task) -> None:
    """Raises ValueError unless the task has what its kind needs and nothing of another kind's."""
    if task.kind not in KINDS:
        raise ValueError(f"the kind {task.kind!r:.80}")
    labels, writes = task.labels, task.kind != "classify"
    if (writes and (labels or task.one_token or task.multi)) or (not writes and task.schema):
        raise ValueError(f"kind {task.kind!r} with keys of another kind")
    if not writes and not 2 <= len(labels) == len(set(labels)):
        raise ValueError(f"kind {task.kind!r} with the labels {labels!r:.80}")
    if writes and not 0 < task.max_answer_tokens <= LONGEST_ANSWER:
        raise ValueError(f"max_answer_tokens is {task.max_answer_tokens}")
    if (task.kind == "extract") != (bool(task.schema) != (task.most_calls > 0)):
        raise ValueError(f"kind {task.kind!r} with a schema and {task.most_calls} calls at most")
    if task.schema and not isinstance(json.loads(task.schema), dict):
        raise ValueError("the schema is no object")
    if len(task.certainty) not in (0, 2) or not all(
        type(number) in (int, float) and math.isfinite(number) for number in task.certainty
    ):
        raise ValueError(f"the certainty is {task.certainty!r:.80}")


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= LONGEST_ANSWER:
        raise ValueError(f"{value!r:.80} is no count")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is no text")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.80} is no list")
    return value


def _segments(value: object) -> tuple[Segment, ...]:
    return tuple((_text(text), trusted is True) for text, trusted in _list(value))
