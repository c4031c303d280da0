"""What a model answers to one text: a label, or what it wrote."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """A label and how sure the model is of it; written as text it is the label.

    Of a task with several labels a text `label` is the set: the labels sorted and joined by "|", ""
    for none. `probability` is that the whole set is right, with each label a question of its own.
    `sure` says whether the label can be relied on as often as `task.sure` in the recipe asked for;
    None if it did not ask, or with several labels a text. `cut` is true when the text was longer
    than the model reads, and its end was left out.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    labels: tuple[str, ...]
    sure: bool | None = None
    cut: bool = False

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True)
class Written:
    """An answer that the model wrote; as text it is that.

    `value` is what its JSON means, for a task with a schema or functions. `probability` is that it
    is right, where validation showed that, else that it was written. `sure` and `cut` as for
    `Answer`. `whole` is false when the tokens that an answer may take were used up: JSON was then
    closed.
    """

    text: str
    probability: float
    log_probability: float  # of its tokens, each among those that were allowed there
    tokens: int
    value: Any = None
    sure: bool | None = None
    whole: bool = True
    cut: bool = False

    def __str__(self) -> str:
        return self.text
