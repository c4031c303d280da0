"""What is learned: cross-entropy over the candidates at an example's answer positions only."""

from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bantam.kinds import Example
from bantam.nets.choose import logits_of, pad
from bantam.nets.decoder import Decoder


def answer_loss(decoder: Decoder, batch: Sequence[Example], start: list[int]) -> Tensor:
    """The mean over examples of the weighted sum of their answers' losses, in nats.

    The head is computed for the candidates at the answer positions alone, never for the vocabulary;
    `start`, the tokens that every example begins with, is computed once for the whole batch.
    """
    head = decoder.lm_head.weight
    shared = torch.tensor(start, device=head.device) if start else None
    rest = [example.ids[len(start) :] for example in batch]
    states = decoder.states(pad(rest, head.device), shared)
    weights = torch.tensor([example.weight for example in batch], device=head.device)
    places: dict[tuple[int, ...], list[tuple[int, int, int]]] = defaultdict(list)
    for row, example in enumerate(batch):
        for answer in example.answers:
            places[answer.candidates].append((row, answer.position - len(start), answer.target))
    losses = []
    for candidates, found in places.items():
        rows, positions, targets = torch.tensor(found, device=head.device).unbind(1)
        logits = logits_of(states[rows, positions], head[list(candidates)])
        each = F.cross_entropy(logits, targets, reduction="none")
        losses.append((each * weights[rows]).sum())
    return torch.stack(losses).sum() / len(batch)
