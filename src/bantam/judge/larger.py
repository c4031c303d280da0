"""How a larger model is asked for the answers that ours is not sure of: in its own chat form, if it
has one, and held to the labels or the schema.

A server asks it so too, so this needs none of the judge's packages. Its probabilities are not
calibrated.
"""

from collections.abc import Sequence

from bantam import kinds
from bantam.answer import Answer, Written
from bantam.errors import BadInput
from bantam.judge import described, language
from bantam.kinds import Row
from bantam.model import Model

END = ("\n\n",)  # of a text that is only prompted for


def answers(model: Model, task: kinds.Task, rows: Sequence[Row]) -> list[Answer | Written | None]:
    """The answers to rows, None where the model has no room for the question."""
    if task.kind == "classify":
        return list(_labels(model, task, [row.text for row in rows]))
    return [_written(model, task, row) for row in rows]


def _labels(model: Model, task: kinds.Task, texts: Sequence[str]) -> list[Answer]:
    prompts = language.zero_shot(model, language.untuned(task), ())
    asked = language.Asked("", _best(prompts), None, 0.0)
    found = []
    for row in language.asking(asked)(model, texts).tolist():
        shares = dict(zip(task.labels, row, strict=True))
        label = max(shares, key=lambda one: shares[one])
        found.append(Answer(label, shares[label], shares, (label,)))
    return found


def _written(model: Model, task: kinds.Task, row: Row) -> Written | None:
    asked = described.fitted(model, _best(described.prompts(model, task)))
    try:
        return model.written(asked, row.text, row.tools, END if task.kind == "generate" else ())
    except BadInput:
        return None


def _best(prompts: dict[str, kinds.Task]) -> kinds.Task:
    for name in ("chat", "labels named", "described"):
        if name in prompts:
            return prompts[name]
    return prompts["plain"]
