"""The language-model rivals: any model asked the task as someone who knows prompts would ask it.

Each is given several prompts (plain, with the labels named, in its own chat form; with and without
examples) and each with and without calibration (Zhao et al. 2021, arXiv 2102.09690, with the mean
over validation texts in place of content-free ones). What does best on validation is kept, found
by successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943).
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bantam import kinds
from bantam.judge import chat_form
from bantam.judge.crowd import Ask, Crowd
from bantam.judge.metrics import best_thresholds, log_loss
from bantam.kinds import classify, multi_hot, several
from bantam.model import Model
from bantam.recipe import HOLE

ROUND = 32  # validation rows that a prompt is tried on before the worse half is dropped
LONGEST = 400  # characters of a shot


@dataclass(frozen=True)
class Asked:
    """The prompt that suits a model best, and the leaning [labels] to calibrate away, if any.

    With several labels a text `task` has one more, which says that there is none, and `thresholds`
    [labels without it] are from when on each is given.
    """

    name: str
    task: kinds.Task
    prior: NDArray[np.float64] | None
    validation_score: float
    thresholds: NDArray[np.float64] | None = None


def untuned(task: kinds.Task) -> kinds.Task:
    """A task as a model meets it that is only prompted: it has nothing but the labels' own words.

    With several labels a text their probabilities are those of the word that the answer begins
    with, "none" among them.
    """
    labels = task.labels
    if task.multi:
        none = "none"
        while none in labels:
            none += " of these"
        labels = (*labels, none)
    return replace(task, labels=labels, one_token=False, temperature=1.0, thresholds=())


def choose_prompt(
    crowd: Crowd,
    prompts: dict[str, kinds.Task],
    val_texts: Sequence[str],
    val_labels: Sequence[str],
    progress: Callable[[int], None],
) -> Asked:
    """Try all prompts on some validation rows, the better half on as many more, and so on.

    `progress` is told how many rows were asked.
    """
    # Files are often sorted: the first rows may have one label, and a prompt that always gives it.
    order = random.Random(0).sample(range(len(val_texts)), len(val_texts))  # noqa: S311
    texts, labels = [val_texts[row] for row in order], [val_labels[row] for row in order]
    rows: dict[str, list[NDArray[np.float64]]] = {name: [] for name in prompts}
    left = list(prompts)
    for count, begin, end in _rounds(len(prompts), len(val_texts)):
        left = left[:count]
        for name in left:
            ask = asking(Asked(name, prompts[name], None, 0.0))
            rows[name].append(crowd(ask, texts[begin:end]))
            progress(end - begin)
        tried = {name: _best(name, prompts[name], rows[name], labels[:end]) for name in left}
        left.sort(key=lambda name: tried[name][0], reverse=True)
    return tried[left[0]][1]


def rows_asked(prompts: int, val_rows: int) -> int:
    """How many rows `choose_prompt` asks in all."""
    return sum(count * (end - begin) for count, begin, end in _rounds(prompts, val_rows))


def _rounds(prompts: int, val_rows: int) -> Iterator[tuple[int, int, int]]:
    """How many prompts are asked in each round, from which row to which, until one was alone or the
    rows are used up."""
    begin = 0
    while begin < val_rows:
        end = min(begin + ROUND, val_rows)
        yield prompts, begin, end
        if prompts == 1:
            return
        begin, prompts = end, -(-prompts // 2)


def _best(
    name: str, task: kinds.Task, rows: list[NDArray[np.float64]], labels: Sequence[str]
) -> tuple[tuple[float, float], Asked]:
    """The better of calibrated and not: how good it is, and how to ask so."""
    plain = np.concatenate(rows)
    tried: list[tuple[tuple[float, float], Asked]] = []
    for prior in (None, plain.mean(axis=0)):
        shares = plain if prior is None else _calibrated(plain, prior)
        if task.multi:
            wanted, shares = multi_hot.of(labels, task.labels[:-1]), shares[:, :-1]
            thresholds, score = best_thresholds(shares, wanted)
            asked = Asked(name, task, prior, score, thresholds)
            tried.append(((score, multi_hot.micro_f1(shares >= thresholds, wanted)), asked))
        else:
            expected = np.array([task.labels.index(label) for label in labels])
            score = float((shares.argmax(axis=1) == expected).mean())
            tried.append(((score, -log_loss(expected, shares)), Asked(name, task, prior, score)))
    return max(tried, key=lambda found: found[0])


def asking(asked: Asked) -> Ask:
    """The function that asks a model so; the probabilities are those of `asked.task`'s labels."""

    def ask(model: Model, texts: Sequence[str]) -> NDArray[np.float64]:
        tree = classify.label_tree(asked.task, model.encode, model.end)
        prompts = [model.prompt(asked.task, text) for text in texts]
        rows = np.array(classify.probabilities(model.runtime.choose, tree, prompts))
        return rows if asked.prior is None else _calibrated(rows, asked.prior)

    return ask


def zero_shot(model: Model, task: kinds.Task, written: Sequence[str]) -> dict[str, kinds.Task]:
    """Prompts without examples, those that the model's context has room for.

    `written` are more prompts, each with a hole for the text.
    """
    prompts = {"plain": task, "labels named": named(task)} | chat_form.prompts(model, named(task))
    prompts |= _own(task, written)
    fitting = {
        name: _cut(model, prompt) for name, prompt in prompts.items() if _fits(model, prompt)
    }
    return fitting or {"plain": _cut(model, task)}


def few_shot(
    model: Model,
    task: kinds.Task,
    written: Sequence[str],
    texts: Sequence[str],
    labels: Sequence[str],
    shots: int,
) -> dict[str, kinds.Task]:
    """Prompts with examples, as many of each label as of the others, drawn twice.

    There are fewer than `shots` when the model's context has no room for so many, or none.
    """
    plain = replace(task, before=((classify.CUE, False),))
    forms = {"plain": (_instruction(task) + "\n\n", plain)}
    forms |= {name: ("", form) for name, form in _own(task, written).items()}
    prompts = {}
    for name, (head, form) in forms.items():
        for draw in range(2):
            count = shots
            while count:
                shown = _draw(texts, labels, task, count, draw)
                prompt = _shown(form, head, shown)
                if _fits(model, prompt):
                    prompts[f"{name}, {len(shown)} examples, draw {draw + 1}"] = _cut(model, prompt)
                    break
                count = count * 3 // 4
    return prompts or {"no examples": _cut(model, task)}


def _own(task: kinds.Task, written: Sequence[str]) -> dict[str, kinds.Task]:
    """The task asked in the words of the recipe's prompts."""
    prompts = {}
    for number, prompt in enumerate(written, 1):
        before, _, after = prompt.rstrip(" ").partition(HOLE)
        prompts[f"prompt {number}"] = replace(
            task,
            before=((before, False),),
            after=((after, False),),
            answer="{}" if after.endswith("\n") else " {}",
        )
    return prompts


def _shown(form: kinds.Task, head: str, examples: Sequence[tuple[str, str]]) -> kinds.Task:
    cue, body = ("".join(part for part, _ in parts) for parts in (form.before, form.after))
    before = [(head, False)]
    for text, label in examples:
        answer = form.answer.format(label)
        before.append((f"{cue}{text[:LONGEST]}{body}{answer}\n\n", False))
    return replace(form, before=(*before, (cue, False)))


def _room(model: Model, task: kinds.Task) -> int:
    """Tokens of a text that the model's context has room for in this prompt."""
    return min(classify.room(task, model.encode, model.context), task.max_text_tokens)


def _fits(model: Model, task: kinds.Task) -> bool:
    return _room(model, task) >= min(task.max_text_tokens, model.context // 4)


def _cut(model: Model, task: kinds.Task) -> kinds.Task:
    return replace(task, max_text_tokens=max(1, _room(model, task)))


def _draw(
    texts: Sequence[str], outputs: Sequence[str], task: kinds.Task, shots: int, seed: int
) -> list[tuple[str, str]]:
    """`shots` examples, in turns of one a label, shuffled. Several labels are shown as "a, b"."""
    chance = random.Random(seed)  # noqa: S311
    by_label: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for text, output in zip(texts, outputs, strict=True):
        labels = several.parted(output) or task.labels[-1:] if task.multi else [output]
        for label in labels:
            by_label[label].append((text, ", ".join(labels)))
    for held in by_label.values():
        chance.shuffle(held)
    turns = [
        by_label[label][turn]
        for turn in range(shots)
        for label in task.labels
        if turn < len(by_label[label])
    ]
    shown = list(dict.fromkeys(turns))[:shots]  # one example can stand under several labels
    chance.shuffle(shown)
    return shown


def _instruction(task: kinds.Task) -> str:
    """The instruction with the labels named, as many as a prompt can bear."""
    ask = task.instruction.strip() or "Label this text."
    if task.multi:
        *labels, none = task.labels
        return f"{ask} Answer with all that apply of: {', '.join(labels[:40])}; or with {none}."
    return f"{ask} Answer with one of: {', '.join(task.labels[:40])}."


def named(task: kinds.Task) -> kinds.Task:
    """The task with its labels told in its prompt."""
    return replace(task, before=((f"{_instruction(task)}\n\n{classify.CUE}", False),))


def _calibrated(rows: NDArray[np.float64], prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities divided by the model's mean leaning and renormalised."""
    shares = rows / np.maximum(prior, 1e-9)
    scaled: NDArray[np.float64] = shares / shares.sum(axis=1, keepdims=True)
    return scaled
