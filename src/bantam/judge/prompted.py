"""The language-model rivals of written answers: a model asked as someone who knows prompts would.

Each is given several prompts (Bantam's own, one that describes the answer, its own chat form; with
examples or without), and for JSON the same hold on its answers as ours: what they write always
parses and follows the schema. The prompt that does best on validation is kept, found by successive
halving (Jamieson & Talwalkar 2016, arXiv 1502.07943).
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bantam import kinds
from bantam.judge import described
from bantam.judge.measure import Measure, references
from bantam.kinds import Row, declarations, texts
from bantam.model import Model, TooLong

DRAWS = 2  # sets of examples
TRIED = 24  # validation rows that a prompt is tried on before the worse half is dropped

Ask = Callable[[Model, Sequence[Row]], list[str | None]]
Answers = Callable[[Ask, Sequence[Row]], list[str | None]]


@dataclass(frozen=True)
class Asked:
    """The prompt that suits a model best."""

    name: str
    task: kinds.Task
    stop: tuple[str, ...]
    validation_score: float


def asking(task: kinds.Task, stop: Sequence[str]) -> Ask:
    """A function that asks a model so; None where it has no room for the question."""

    def ask(model: Model, rows: Sequence[Row]) -> list[str | None]:
        found: list[str | None] = []
        for row in rows:
            try:
                found.append(model.written(task, row.text, row.tools, stop).text)
            except TooLong:
                found.append(None)
        return found

    return ask


def choose(
    answers: Answers,
    prompts: dict[str, kinds.Task],
    stop: tuple[str, ...],
    val: Sequence[Row],
    measure: Callable[[int], Measure],  # of the first validation rows
    progress: Callable[[int], None],
) -> Asked:
    """Try all prompts on some validation rows, the better half on as many more, and so on."""
    told: dict[str, list[str | None]] = {name: [] for name in prompts}
    left, begin = list(prompts), 0
    scores = dict.fromkeys(prompts, 0.0)
    while begin < len(val):
        end = min(begin + TRIED, len(val))
        for name in left:
            told[name] += answers(asking(prompts[name], stop), val[begin:end])
            scores[name] = measure(end).score(told[name])
            progress(end - begin)
        left.sort(key=lambda name: scores[name], reverse=True)
        if len(left) == 1:
            break
        left, begin = left[: -(-len(left) // 2)], end
    return Asked(left[0], prompts[left[0]], stop, scores[left[0]])


def stops(outputs: Sequence[str]) -> tuple[str, ...]:
    """Where a text that is only prompted for ends: at a line's end, if no answer has several."""
    return ("\n\n",) if any("\n" in output.strip() for output in outputs) else ("\n",)


def zero_shot(model: Model, task: kinds.Task, written: Sequence[str]) -> dict[str, kinds.Task]:
    """Prompts without examples; `written` are the recipe's own, each with a hole for the text."""
    prompts = described.prompts(model, task)
    prompts |= _own(prompts["plain"], written)
    return {name: described.fitted(model, asked) for name, asked in prompts.items()}


def few_shot(
    model: Model, task: kinds.Task, rows: Sequence[Row], shots: int, room: int
) -> dict[str, kinds.Task]:
    """Prompts with examples drawn twice, as many as leave `room` tokens for the question."""
    plain = replace(task, certainty=(), thresholds=())
    prompts = {}
    for draw in range(DRAWS):
        chance = random.Random(draw)  # noqa: S311
        drawn = chance.sample(list(rows), min(shots, len(rows)))
        while drawn:
            shown = _shown(plain, drawn)
            if model.context - len(model.encode(list(shown.before))) >= room:
                prompts[f"{len(drawn)} examples, draw {draw + 1}"] = shown
                break
            drawn = drawn[: len(drawn) * 3 // 4]
    prompts = prompts or {"no examples": plain}
    return {name: described.fitted(model, asked) for name, asked in prompts.items()}


def _shown(task: kinds.Task, rows: Sequence[Row]) -> kinds.Task:
    """The task's prompt with examples before it."""
    (before, _), *_ = task.before
    head, gap, cue = before.rpartition("\n\n")
    after = "".join(text for text, _ in task.after)
    between = "".join(text for text, _ in task.between)
    shown = ""
    for row in rows:
        declared = declarations.declared(json.loads(row.tools)) if task.most_calls else ""
        answer = references(row.output)[0]
        shown += f"{cue}{declared}{between}{row.text}{after}{answer}\n\n"
    return replace(task, before=((f"{head}{gap}{shown}{cue}", False),))


def _own(task: kinds.Task, written: Sequence[str]) -> dict[str, kinds.Task]:
    """The task asked in the words of the recipe's prompts, if no functions are to be told."""
    if task.most_calls:
        return {}
    prompts = {}
    for number, prompt in enumerate(written, 1):
        before, _, after = prompt.partition("{text}")
        prompts[f"prompt {number}"] = replace(
            task, before=((before, False),), after=((after, False),)
        )
    return prompts


def longest(model: Model, task: kinds.Task, rows: Sequence[Row]) -> int:
    """Tokens that nearly every question takes beside the examples, its answer included."""
    plain = replace(task, before=())
    lengths = sorted(len(texts.prompt(plain, model.encode, r.text, r.tools)) for r in rows)
    return lengths[int(0.98 * (len(lengths) - 1))] + task.max_answer_tokens + 1 + len(model.start)
