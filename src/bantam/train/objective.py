"""What is learned: cross-entropy over the candidates at an example's answer positions only.

An answer with shares is learned towards them (cross-entropy with their distribution).
Of an answer with several targets each candidate is learned against the last one by itself: binary
cross-entropy on the difference of the two logits, summed. Of an answer without candidates a token
of the whole vocabulary is learned.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bantam.kinds import Answer, Example
from bantam.nets.choose import pad, shared_start
from bantam.nets.decoder import Decoder, balance_loss
from bantam.nets.head import vocabulary_loss


def shared_prompt(examples: Sequence[Example]) -> list[int]:
    """The tokens that all examples begin with; every answer's position is left out of it."""
    firsts = [min(answer.position for answer in example.answers) for example in examples]
    pairs = zip(examples, firsts, strict=True)
    return shared_start([example.ids[: first + 1] for example, first in pairs])


def answer_loss(decoder: Decoder, batch: Sequence[Example], start: list[int]) -> Tensor:
    """The mean over examples of the weighted sum of their answers' losses, in nats.

    The head is computed at the answer positions alone, and for their candidates alone; `start`,
    the tokens that every example begins with, is computed once for the whole batch. A mixture of
    experts is also kept from using few of them.
    """
    where = decoder.lm_head.weight.device
    shared = torch.tensor(start, device=where) if start else None
    rest = [example.ids[len(start) :] for example in batch]
    states = decoder.states(pad(rest, where), shared)
    weights = torch.tensor([example.weight for example in batch], device=where)
    places: dict[tuple[tuple[int, ...], bool], list[tuple[int, Answer]]] = defaultdict(list)
    for row, example in enumerate(batch):
        for answer in example.answers:
            places[answer.candidates, isinstance(answer.target, tuple)].append((row, answer))
    losses = []
    for (candidates, several), found in places.items():
        at = [(row, answer.position - len(start)) for row, answer in found]
        rows, positions = torch.tensor(at, device=where).unbind(1)
        if not candidates:
            tokens = torch.tensor([answer.target for _, answer in found], device=where)
            here = states[rows, positions]
            head, cap = decoder.lm_head.weight, decoder.config.logit_cap
            losses.append(vocabulary_loss(here, head, tokens, weights[rows], cap))
            continue
        logits = decoder.logits(states[rows, positions], list(candidates))
        wanted = _wanted([answer for _, answer in found]).to(where)
        if several:
            asked = logits[:, :-1] - logits[:, -1:]
            each = F.binary_cross_entropy_with_logits(asked, wanted[:, :-1], reduction="none")
            each = each.sum(1)
        else:
            each = F.cross_entropy(logits, wanted, reduction="none")
        losses.append((each * weights[rows]).sum())
    loss = torch.stack(losses).sum() / len(batch)
    c = decoder.config
    if not c.n_experts:
        return loss
    real = pad([[1] * len(ids) for ids in rest], where).flatten()
    real = F.pad(real, (len(start), 0), value=1).bool()
    return loss + c.balance * balance_loss(decoder, real)


def _wanted(answers: Sequence[Answer]) -> Tensor:
    """[answers, candidates]: the shares that each is to have, 1.0 at a target."""
    wanted = torch.zeros(len(answers), len(answers[0].candidates))
    for row, answer in zip(wanted, answers, strict=True):
        if answer.shares:
            row += torch.tensor(answer.shares)
        else:
            row[list(answer.target) if isinstance(answer.target, tuple) else answer.target] = 1.0
    return wanted
