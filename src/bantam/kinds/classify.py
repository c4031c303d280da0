"""kind = "classify": one label of a fixed set for a text, or all that apply (`multi`).

The model answers with the label's own words after the prompt. Labels are spelled as a tree of
tokens: at each branch the next token's probabilities are renormalised over the branches, and a
label's probability is the product along its path. One pass decides when first tokens differ; labels
that share them cost one more batched pass a shared branch. A model that is tuned anyway may answer
with one token of its own for each label instead (`one_token`): one pass, however many labels.
With several labels a text (`multi`) one more token stands for "none": a label applies with the
probability that its token has against that one. Training, judging and serving use these rules.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from string import ascii_letters, ascii_uppercase

from bantam.errors import BadInput
from bantam.kinds import Answer, Choose, Encode, Example, Task
from bantam.kinds.several import EVEN, parted

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
    multi: bool = False  # the last candidate of the one branch stands for no label


def task(name: str, instruction: str, labels: Sequence[str], multi: bool = False) -> Task:
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
        one_token=multi,
        multi=multi,
        thresholds=(EVEN,) * len(labels) if multi else (),
    )


def labels_of(
    train: Iterable[str], judged: Mapping[str, Iterable[str]], multi: bool = False
) -> list[str]:
    """The labels to learn, in order; with `multi` those of all sets. Raises BadInput when a split
    to judge by has another one."""

    def single(outputs: Iterable[str]) -> set[str]:
        return {label for one in set(outputs) for label in parted(one)} if multi else set(outputs)

    learned = single(train)
    for split, found in judged.items():
        if unknown := sorted(single(found) - learned):
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
        ends = tuple(((0, number),) for number in range(len(task.labels)))
        return LabelTree((Branch((), tuple(own)),), ends, task.multi)
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
    else of letters. If `multi` one more, for no label. Raises BadInput when the labels outnumber
    what letters can spell."""
    letters = (f"{a}{b}" for a in ("", *ascii_uppercase) for b in ascii_letters)
    spare = (token for text in letters for token in encode([(f" {text}", False)]))
    taken: dict[int, None] = {}
    for label in (*task.labels, "none") if task.multi else task.labels:
        words = encode([(task.answer.format(label), False)])
        free = next((i for i in chain(words, spare) if i not in taken), None)
        if free is None:
            raise BadInput(
                f"{len(task.labels)} labels are more than this base has tokens for",
                "use fewer labels, or sort in two steps",
            )
        taken[free] = None
    return list(taken)


def calibrated(
    rows: Sequence[Sequence[float]], temperature: float, multi: bool = False
) -> list[list[float]]:
    """Probabilities as the logits divided by the temperature would give them (Guo et al. 2017).

    With `multi` each is one of two: that the label applies, or that it does not.
    """
    if multi:
        return [[_scaled([p, 1 - p], temperature)[0] for p in row] for row in rows]
    return [_scaled(row, temperature) for row in rows]


def _scaled(shares: Sequence[float], temperature: float) -> list[float]:
    powers = [share ** (1 / temperature) for share in shares]
    total = sum(powers)
    return [power / total for power in powers]


def chosen(task: Task, row: Sequence[float]) -> list[int]:
    """Which labels calibrated probabilities mean: the likeliest, or if `multi` all from their
    thresholds on."""
    if task.multi:
        return [n for n, (p, t) in enumerate(zip(row, task.thresholds, strict=True)) if p >= t]
    return [max(range(len(row)), key=row.__getitem__)]


def sure(task: Task, row: Sequence[float]) -> bool | None:
    """Whether the likeliest label is likely enough to rely on; None if the task does not say when.

    `row` are calibrated probabilities.
    """
    if task.multi or not task.thresholds:
        return None
    (best,) = chosen(task, row)
    return row[best] > task.thresholds[best]


def example(
    task: Task,
    tree: LabelTree,
    encode: Encode,
    text: str,
    label: str,
    shares: Mapping[str, float] | None = None,
) -> Example:
    """A training example: the prompt, as much of the answer as decides, and where it is decided.

    `shares` say how much of the answer each label is; they need a tree of one branch.
    """
    ids = task.prompt(encode, text)
    if tree.multi:
        applying = tuple(task.labels.index(one) for one in parted(label))
        return Example(ids, [Answer(len(ids) - 1, tree.branches[0].candidates, applying)])
    if shares:
        ((_, target),) = tree.paths[task.labels.index(label)]
        wanted = tuple(shares[one] for one in task.labels)  # one branch: a candidate a label
        return Example(ids, [Answer(len(ids) - 1, tree.branches[0].candidates, target, wanted)])
    answers: list[Answer] = []
    prefix: tuple[int, ...] = ()
    for number, target in tree.paths[task.labels.index(label)]:
        prefix, candidates = tree.branches[number].prefix, tree.branches[number].candidates
        answers.append(Answer(len(ids) + len(prefix) - 1, candidates, target))
    return Example(ids + list(prefix), answers)


def probabilities(
    choose: Choose, tree: LabelTree, prompts: Sequence[list[int]]
) -> list[list[float]]:
    """P(label | prompt) for each prompt, in the order of the task's labels; rows sum to one,
    unless the labels are each a question of their own (`multi`)."""
    if tree.multi:
        asked = choose(prompts, [list(tree.branches[0].candidates)] * len(prompts))
        return [[_against(share, row[-1]) for share in row[:-1]] for row in asked]
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


def _against(share: float, none: float) -> float:
    """The sigmoid of the difference of two logits, from their shares; what rounds to 0 loses."""
    return share / (share + none) if share else 0.0
