"""kind = "classify": one label of a fixed set for a text.

The model answers with the label's own words after the prompt. Labels are spelled as a tree of
tokens: at each branch the next token's probabilities are renormalised over the branches, and a
label's probability is the product along its path. One pass decides when first tokens differ; labels
that share them cost one more batched pass a shared branch. A model that is tuned anyway may answer
with one token of its own for each label instead (`one_token`): one pass, however many labels.
Training, judging and serving use this one rule, with any model.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from string import ascii_letters, ascii_uppercase

from bantam.errors import BadInput
from bantam.kinds import Answer, Choose, Encode, Example, Task

CUE = "Text: "  # what stands before a text in a prompt
NEGLIGIBLE = 1e-6  # a branch less likely than this is shared out evenly instead of looked into


@dataclass(frozen=True)
class Branch:
    """A place in the label tree where the next token decides."""

    prefix: tuple[int, ...]  # the answer's tokens so far
    candidates: tuple[int, ...]


@dataclass(frozen=True)
class LabelTree:
    branches: tuple[Branch, ...]  # parents before children
    paths: tuple[tuple[tuple[int, int], ...], ...]  # per label: (branch, candidate) to its end


def task(name: str, instruction: str, labels: Sequence[str]) -> Task:
    """A classification task with the minimal prompt: instruction, text, a cue for the answer."""
    head = instruction.strip() or "Label this text."
    return Task(
        kind="classify",
        name=name,
        instruction=instruction,
        labels=tuple(labels),
        before=((f"{head}\n\n{CUE}", False),),
        after=(("\nAnswer:", False),),
        answer=" {}",
        max_text_tokens=512,
    )


def labels_of(train: Iterable[str], judged: Mapping[str, Iterable[str]]) -> list[str]:
    """The labels to learn, in order. Raises BadInput when a split to judge by has another one."""
    learned = set(train)
    for split, found in judged.items():
        if unknown := sorted(set(found) - learned):
            raise BadInput(
                f'the {split} rows hold the label "{unknown[0]}", which no training row has',
                f"add examples of it to data.examples, or leave it out of data.{split}",
            )
    return sorted(learned)


def room(task: Task, encode: Encode, context: int) -> int:
    """How many tokens of a text fit into `context` beside the prompt and the longest label."""
    around = len(encode(list(task.before))) + len(encode(list(task.after)))
    label = max(len(encode([(task.answer.format(label), False)])) for label in task.labels)
    return context - around - label - 2  # the start token, and the one that is asked for


def label_tree(task: Task, encode: Encode, end: int) -> LabelTree:
    """The token tree of the task's labels; `end` follows a label that begins another one.

    Raises BadInput for two labels that are the same tokens: no model could tell them apart.
    """
    if task.one_token:
        own = label_tokens(task, encode)
        return LabelTree((Branch((), tuple(own)),), tuple(((0, i),) for i in range(len(own))))
    spelled = [(*encode([(task.answer.format(label), False)]), end) for label in task.labels]
    branches: list[Branch] = []
    paths: list[list[tuple[int, int]]] = [[] for _ in spelled]
    waiting: list[tuple[tuple[int, ...], list[int]]] = [((), list(range(len(spelled))))]
    while waiting:
        prefix, members = waiting.pop(0)
        if len(members) == 1:
            continue
        if any(len(spelled[m]) == len(prefix) for m in members):
            same = " and ".join(repr(task.labels[m]) for m in members)
            raise BadInput(
                f"the labels {same} are the same tokens to this model",
                "write one of them differently, or use another base",
            )
        tokens = list(dict.fromkeys(spelled[m][len(prefix)] for m in members))
        if len(tokens) > 1:
            branches.append(Branch(prefix, tuple(tokens)))
            for m in members:
                paths[m].append((len(branches) - 1, tokens.index(spelled[m][len(prefix)])))
        for token in tokens:
            below = [m for m in members if spelled[m][len(prefix)] == token]
            waiting.append(((*prefix, token), below))
    return LabelTree(tuple(branches), tuple(map(tuple, paths)))


def label_tokens(task: Task, encode: Encode) -> list[int]:
    """One token for each label that stands for no other: the first of its own words that is free,
    else of letters. Raises BadInput when the labels outnumber what letters can spell."""
    letters = (f"{a}{b}" for a in ("", *ascii_uppercase) for b in ascii_letters)
    spare = (token for text in letters for token in encode([(f" {text}", False)]))
    taken: dict[int, None] = {}
    for label in task.labels:
        words = encode([(task.answer.format(label), False)])
        free = next((i for i in chain(words, spare) if i not in taken), None)
        if free is None:
            raise BadInput(
                f"{len(task.labels)} labels are more than this base has tokens for",
                "use fewer labels, or sort in two steps",
            )
        taken[free] = None
    return list(taken)


def calibrated(rows: Sequence[Sequence[float]], temperature: float) -> list[list[float]]:
    """Probabilities as the logits divided by the temperature would give them (Guo et al. 2017)."""
    found = []
    for row in rows:
        powers = [share ** (1 / temperature) for share in row]
        total = sum(powers)
        found.append([power / total for power in powers])
    return found


def example(task: Task, tree: LabelTree, encode: Encode, text: str, label: str) -> Example:
    """A training example: the prompt, as much of the answer as decides, and where it is decided."""
    ids = task.prompt(encode, text)
    answers: list[Answer] = []
    prefix: tuple[int, ...] = ()
    for number, target in tree.paths[task.labels.index(label)]:
        prefix, candidates = tree.branches[number].prefix, tree.branches[number].candidates
        answers.append(Answer(len(ids) + len(prefix) - 1, candidates, target))
    return Example(ids + list(prefix), answers)


def probabilities(
    choose: Choose, tree: LabelTree, prompts: Sequence[list[int]]
) -> list[list[float]]:
    """P(label | prompt) for each prompt, in the order of the task's labels; rows sum to one."""
    rows = [[1.0] * len(tree.paths) for _ in prompts]
    for number, branch in enumerate(tree.branches):
        below = {
            label: candidate
            for label, path in enumerate(tree.paths)
            for at, candidate in path
            if at == number
        }
        size = len(branch.candidates)
        likely = [i for i, row in enumerate(rows) if max(row[n] for n in below) > NEGLIGIBLE]
        chosen = choose(
            [prompts[i] + list(branch.prefix) for i in likely],
            [list(branch.candidates)] * len(likely),
        )
        shares = dict(zip(likely, chosen, strict=True))
        for i, row in enumerate(rows):
            share = shares.get(i, [1 / size] * size)
            for label, candidate in below.items():
                row[label] *= share[candidate]
    return rows
