"""Guess from what the columns of a data file hold what they could be used for."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from bantam.errors import BadInput
from bantam.text.columns import MOST_LABELS, Column
from bantam.toml_lines import quoted

INPUT_NAMES = "text review comment message sentence content body description title question tweet"
OUTPUT_NAMES = "label class category target sentiment output answer intent topic tag section team"
OUTPUT_NAMES += " classes categories genre"
ANSWER_NAMES = "output answer summary target response completion translation reference"
JSON_NAMES = f"{ANSWER_NAMES} json call field record entity extraction expected label"
PROMPT_NAMES = "prompt instruction question request query"
GROUP_NAMES = "group user author customer client patient speaker thread conversation session"
GROUP_NAMES += " document doc review source product url"

Task = Literal["classify", "extract", "generate"]


@dataclass(frozen=True)
class Guess:
    """The column for a role (None: no column), and why; several labels are between `separator`."""

    column: str | None
    reason: str
    separator: str | None = None


def hint(name: str, hints: str) -> bool:
    """Whether one of the words of a column's name is, but for a plural, one of the hints."""
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())
    return any(word in hints.split() or word.removesuffix("s") in hints.split() for word in words)


def guess_task(
    path: Path, frame: pl.DataFrame, columns: list[Column]
) -> tuple[Task, Guess, Guess, Guess]:
    """What the data are for, and the columns for input, output and tools.

    A column of JSON is an output unless another is called a label; a column of labels is one unless
    only another column is called an answer. Where there is neither, texts beside texts are answers.
    """
    found = _guess_json(frame, columns)
    if found is not None:
        output, tools = found
        return "extract", _guess_input(path, frame, columns), output, tools
    pair = _guess_answer(path, frame, columns)
    if pair is not None:
        return "generate", *pair, Guess(None, "")
    text = _guess_input(path, frame, columns)
    return "classify", text, _guess_output(path, frame, columns, text), Guess(None, "")


def _guess_json(frame: pl.DataFrame, columns: list[Column]) -> tuple[Guess, Guess] | None:
    candidates = [
        c
        for c in columns
        if c.kind == "json" and c.missing < 0.5 * frame.height and not hint(c.name, "accepted")
    ]
    named = [c for c in candidates if hint(c.name, JSON_NAMES)]
    if not candidates or (not named and _label_columns(frame, columns, named=True)):
        return None
    best = (named or candidates)[0]
    tools = next((c for c in columns if c.kind == "functions"), None)
    if tools is None:
        return Guess(best.name, "its cells are JSON"), Guess(None, "")
    reason = "its cells declare the functions that may be called"
    return Guess(best.name, "its cells are JSON: the calls"), Guess(tools.name, reason)


def _guess_answer(
    path: Path, frame: pl.DataFrame, columns: list[Column]
) -> tuple[Guess, Guess] | None:
    """A text and the text that answers it."""
    texts = [
        c
        for c in columns
        if c.kind in ("text", "words", "list")
        and c.distinct > 0.5 * (frame.height - c.missing)
        and c.missing < 0.5 * frame.height
        and (c.kind != "list" or hint(c.name, ANSWER_NAMES))
    ]
    named = [c for c in texts if hint(c.name, ANSWER_NAMES)]
    labels = _label_columns(frame, columns, named=bool(named))
    if labels or len(texts) < 2:
        return None
    if named:
        answer, why = (
            max(named, key=lambda c: (c.kind != "words", _letters(frame, c))),
            "its name says so",
        )
    else:
        long = sorted((c for c in texts if c.kind == "text"), key=lambda c: -_letters(frame, c))
        if len(long) < 2:
            return None
        first = _guess_input(path, frame, long)
        answer = next(c for c in long if c.name != first.column)
        why = "texts beside the texts, and no column looks like a label"
    others = [c for c in texts if c is not answer and not c.separator]
    if not others:
        return None
    asked = [c for c in others if hint(c.name, PROMPT_NAMES)]
    text = Guess(asked[0].name, "its name says so") if asked else _guess_input(path, frame, others)
    return text, Guess(answer.name, why, answer.separator)


def _letters(frame: pl.DataFrame, column: Column) -> float:
    return float(frame[column.name].str.len_chars().fill_null(0).sum())


def _guess_input(path: Path, frame: pl.DataFrame, columns: list[Column]) -> Guess:
    candidates = [
        c
        for c in columns
        if c.kind in ("text", "words") and not c.separator and c.distinct > 0.1 * frame.height
    ]
    if not candidates:
        raise BadInput(
            f"{path}: no column holds texts that differ from row to row",
            "is it the right file? A recipe written by hand can name any column as data.input",
        )
    length = {c.name: _letters(frame, c) for c in candidates}

    def score(column: Column) -> tuple[bool, bool, float]:
        is_text = column.kind == "text"
        return is_text, is_text and hint(column.name, INPUT_NAMES), length[column.name]

    best = max(candidates, key=score)
    longest = max(length, key=lambda name: length[name]) == best.name
    return Guess(best.name, "the longest texts" if longest else "texts, and its name says so")


def _guess_output(path: Path, frame: pl.DataFrame, columns: list[Column], text: Guess) -> Guess:
    most = _most_labels(frame)
    candidates = [c for c in _label_columns(frame, columns) if c.name != text.column]
    if not candidates:
        raise BadInput(
            f"{path}: no column looks like a label: 2 to {most} different values that repeat",
            "is it the right file? A recipe written by hand can name any column as data.output",
        )
    named = [c for c in candidates if hint(c.name, OUTPUT_NAMES)]
    best = min(named or candidates, key=lambda c: (c.kind == "number", c.distinct))
    why = "its name says so, and " if named else ""
    what = "labels, several a cell," if best.separator else "values"
    return Guess(best.name, f"{why}its {best.distinct} {what} repeat", best.separator)


def _most_labels(frame: pl.DataFrame) -> int:
    return min(MOST_LABELS, frame.height // 5)


def _label_columns(frame: pl.DataFrame, columns: list[Column], named: bool = False) -> list[Column]:
    """The columns whose values repeat as labels do; `named`: those that are called labels."""
    return [
        c
        for c in columns
        if c.kind not in ("json", "functions")
        and 2 <= c.distinct <= _most_labels(frame)
        and (c.missing < 0.5 * frame.height or c.separator)
        and (not named or hint(c.name, OUTPUT_NAMES))
    ]


def guess_group(
    frame: pl.DataFrame, columns: list[Column], text: Guess, label: Guess, task: Task
) -> Guess:
    """Values that come in blocks, or whose name says so, many enough to be spread over splits."""
    labels = next(c.distinct for c in columns if c.name == label.column)
    fewest = max(20, labels + 1) if task == "classify" else 20
    none = "a column whose rows belong together, such as a customer: none was seen"
    for column in columns:
        if column.name in (text.column, label.column) or column.separator:
            continue
        if column.kind in ("text", "id", "constant", "json", "functions"):
            continue
        values = frame[column.name]
        present = values.drop_nulls()
        if column.distinct < fewest and hint(column.name, GROUP_NAMES):
            few = f"{column.distinct} values are too few to be spread over splits"
            none = f"{quoted(column.name)}? {few}, but name it if its rows belong together"
        if column.distinct < fewest or len(present) < 1.5 * column.distinct:
            continue
        if present.value_counts(sort=True)["count"][0] > 0.2 * frame.height:
            continue
        runs = int((values != values.shift(1)).fill_null(True).sum())
        blocks = runs <= 1.2 * column.distinct
        if blocks or hint(column.name, GROUP_NAMES):
            why = "rows with the same value follow each other" if blocks else "its name says so"
            return Guess(column.name, f"{why}: rows of one group stay in one split")
    return Guess(None, none)
