"""A task whose answers are written, with its answer described: for a model that is only prompted.

Apart from the rest of the judge, which needs more packages: a server that hands answers over to a
larger model asks it so too.
"""

import json
from dataclasses import replace
from typing import Any

from bantam import kinds
from bantam.judge import chat_form
from bantam.model import Model

MOST_SCHEMA = 4000  # characters of a schema that is shown


def prompts(model: Model, task: kinds.Task) -> dict[str, kinds.Task]:
    """The task's own prompt, one that describes the answer, and that in the model's chat form."""
    plain = replace(task, certainty=(), thresholds=())
    shown = described(plain)
    return {"plain": plain, "described": shown} | chat_form.prompts(model, shown)


def fitted(model: Model, task: kinds.Task) -> kinds.Task:
    """With texts cut so that there is room for them and their answer, as there is with ours: a
    prompt of more words than ours would else leave long texts without an answer."""
    if task.most_calls:  # what else stands in the prompt differs from row to row
        return task
    around = len(model.start) + len(task.prompt(model.encode, "")) + task.max_answer_tokens
    room = max(1, model.context - 1 - around)
    return replace(task, max_text_tokens=min(task.max_text_tokens, room))


def described(task: kinds.Task) -> kinds.Task:
    """The task with what its answer has to be told in its prompt."""
    (before, _), *_ = task.before
    head, gap, cue = before.rpartition("\n\n")
    if task.most_calls:
        what = (
            'Answer with a JSON list of calls, each {"name": ..., "arguments": {...}}; '
            "with [] when no function fits."
        )
    elif task.kind == "extract":
        shown = json.dumps(_short(json.loads(task.schema)), ensure_ascii=False)
        what = f"Answer with JSON that follows this schema: {shown[:MOST_SCHEMA]}"
    else:
        what = "Answer with the text alone."
    return replace(task, before=((f"{head}\n{what}{gap}{cue}", False),))


def _short(schema: Any) -> Any:
    """A schema without what only a validator needs."""
    if isinstance(schema, dict):
        dropped = ("additionalProperties", "$schema")
        return {key: _short(value) for key, value in schema.items() if key not in dropped}
    return [_short(one) for one in schema] if isinstance(schema, list) else schema
