"""How good a decoder is on validation rows: a score, and the loss that decides between equals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bantam.formats.tokenizer import Tokenizer
from bantam.kinds import Example, Task, classify, multi_hot, several
from bantam.nets.choose import choose, pad
from bantam.nets.decoder import Decoder
from bantam.train.objective import shared_prompt
from bantam.train.order import parts

TOKENS_AT_ONCE = 2048  # with padding
POSITIONS_AT_ONCE = 512

Rows = Sequence[tuple[str, ...]]  # text and label, or `kinds.Row`


class Labels:
    """Scores a decoder on validation rows: accuracy, and the mean negative log-likelihood.

    With several labels a text the score is micro-F1 of the labels that are likelier than not.
    `balanced`: the mean over the labels of both.
    """

    def __init__(
        self, task: Task, tokenizer: Tokenizer, rows: Rows, balanced: bool = False
    ) -> None:
        self.tree = classify.label_tree(task, tokenizer.encode, tokenizer.eos_id or 0)
        self.prompts = [tokenizer.start + task.prompt(tokenizer.encode, row[0]) for row in rows]
        self.expected = expected(task, [row[1] for row in rows])
        self.weights = np.ones(len(rows))
        if balanced:
            self.weights /= np.bincount(self.expected)[self.expected]
        self.score: float | None = None
        self.judged: NDArray[np.float64] | None = None  # the shares that the score is of

    def shares(self, decoder: Decoder) -> NDArray[np.float64]:
        """The label probabilities of the rows, [rows, labels]."""

        def ask(prompts: Sequence[list[int]], candidates: Sequence[list[int]]) -> list[list[float]]:
            return choose(decoder, prompts, candidates)

        return np.array(classify.probabilities(ask, self.tree, self.prompts))

    def __call__(self, decoder: Decoder) -> tuple[float, float]:
        self.judged = shares = self.shares(decoder)
        if self.tree.multi:
            self.score = multi_hot.micro_f1(shares >= several.EVEN, self.expected)
        else:
            right = shares.argmax(axis=1) == self.expected
            self.score = float(np.average(right, weights=self.weights))
        return self.score, float(np.average(losses(shares, self.expected), weights=self.weights))


class Written:
    """Scores a decoder on validation rows whose answers are written.

    The score is the share of rows of which every token is the likeliest one: of these the decoder
    would write exactly the wanted answer. The loss is nats a token of the answers. `by_loss`: where
    few answers can be met exactly, the score is minus the loss.
    """

    def __init__(self, examples: Sequence[Example], by_loss: bool) -> None:
        self.examples = sorted(examples, key=lambda example: len(example.ids))
        self.start = shared_prompt(examples)
        self.by_loss = by_loss
        self.score: float | None = None

    @torch.no_grad()
    def __call__(self, decoder: Decoder) -> tuple[float, float]:
        right, loss, tokens = 0, 0.0, 0
        lengths = [len(example.ids) - len(self.start) for example in self.examples]
        for batch in parts(self.examples, lengths, TOKENS_AT_ONCE):
            met, lost = self._read(decoder, batch)
            right, loss = right + met, loss + lost
            tokens += sum(len(example.answers) for example in batch)
        mean = loss / tokens
        self.score = -mean if self.by_loss else right / len(self.examples)
        return self.score, mean

    def _read(self, decoder: Decoder, batch: Sequence[Example]) -> tuple[int, float]:
        """How many answers the decoder would write, and the summed loss of their tokens."""
        where, begin = decoder.lm_head.weight.device, len(self.start)
        shared = torch.tensor(self.start, device=where) if self.start else None
        states = decoder.states(pad([e.ids[begin:] for e in batch], where), shared)
        at = [
            (row, answer.position - begin, answer.target)
            for row, example in enumerate(batch)
            for answer in example.answers
        ]
        rows, positions, targets = torch.tensor(at, device=where).unbind(1)
        missed, loss = torch.zeros(len(batch), dtype=torch.bool, device=where), 0.0
        for begin_at in range(0, len(at), POSITIONS_AT_ONCE):
            piece = slice(begin_at, begin_at + POSITIONS_AT_ONCE)
            logits = decoder.logits(states[rows[piece], positions[piece]])
            wanted = targets[piece]
            loss += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
            missed[rows[piece][logits.argmax(-1) != wanted]] = True
        return int((~missed).sum()), loss


def expected(task: Task, outputs: Sequence[str]) -> NDArray[Any]:
    """The numbers of the labels [rows], or with several labels a text whether each applies
    [rows, labels]."""
    if task.multi:
        return multi_hot.of(outputs, task.labels)
    return np.array([task.labels.index(label) for label in outputs])


def losses(shares: NDArray[np.float64], expected: NDArray[Any]) -> NDArray[np.float64]:
    """The negative log-likelihood of each row in nats, [rows]."""
    if expected.ndim == 2:
        return multi_hot.log_loss(shares, expected)
    chosen = shares[np.arange(len(shares)), expected]
    worst: NDArray[np.float64] = -np.log(np.maximum(chosen, 1e-12))
    return worst
