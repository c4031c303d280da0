"""A task asked in a model's own chat form."""

from dataclasses import replace

from bantam import kinds
from bantam.errors import BadInput
from bantam.formats import chat
from bantam.model import Model

MARK = "\ue000"  # stands for the text while a prompt is written


def prompts(model: Model, task: kinds.Task) -> dict[str, kinds.Task]:
    """The prompt in the model's own chat form; none when it has no sound chat template."""
    template = model.file.metadata.get("tokenizer.chat_template")
    if not isinstance(template, str):
        return {}
    content = "".join(text for text, _ in task.before) + MARK
    try:
        segments = chat.render(template, [{"role": "user", "content": content}])
    except BadInput:
        return {}
    before: list[kinds.Segment] = []
    after: list[kinds.Segment] = []
    for text, trusted in segments:
        left, mark, right = text.partition(MARK)
        (after if after else before).append((left, trusted))
        if mark:
            after.append((right, trusted))
    asked = replace(task, before=tuple(before), after=tuple(after), answer="{}")
    return {"chat": asked} if after else {}
