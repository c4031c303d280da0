"""A decoder's probabilities over a few candidate tokens, as a runtime gives them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bantam.nets.decoder import Decoder


def pad(rows: Sequence[list[int]], device: torch.device) -> Tensor:
    """Token ids of several texts as [batch, longest], zeros on the right (see decoder.py)."""
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)


def shared_start(rows: Sequence[list[int]]) -> list[int]:
    """The tokens that all rows begin with; at least one token of every row is left out of it."""
    first, last = min(rows), max(rows)  # in order: what these two share, all between share
    longest = min(map(len, rows)) - 1
    differ = (i for i in range(longest) if first[i] != last[i])
    return first[: next(differ, longest)]


@torch.no_grad()
def choose(
    decoder: Decoder,
    prompts: Sequence[list[int]],
    candidates: Sequence[list[int]],
    batch_tokens: int = 2048,
) -> list[list[float]]:
    """P(candidate | prompt), renormalised over each prompt's candidates, at the next position."""
    where = decoder.lm_head.weight.device
    chosen: list[list[float]] = [[] for _ in prompts]
    if not prompts:
        return chosen
    start = shared_start(prompts)
    shared = torch.tensor(start, device=where) if start else None
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
    while order:
        size = max(1, batch_tokens // len(prompts[order[0]]))
        batch, order = order[:size], order[size:]
        rest = [prompts[i][len(start) :] for i in batch]
        states = decoder.states(pad(rest, where), shared)
        for state, row, i in zip(states, rest, batch, strict=True):
            logits = decoder.logits(state[len(row) - 1], candidates[i])
            chosen[i] = logits.softmax(-1).tolist()
    return chosen
