"""Texts from a decoder in torch, a token at a time with a cache.

For looking at a model while it is trained, and for families that the runtime does not know; what is
packed is run by `engine`.
"""

from collections.abc import Collection, Sequence

import torch

from bantam.nets.choose import pad
from bantam.nets.decoder import Cache, Decoder


@torch.no_grad()
def generate(
    decoder: Decoder,
    prompts: Sequence[list[int]],
    most: int,
    end_ids: Collection[int] = (),
    temperature: float = 0.0,
    seed: int = 0,
) -> list[list[int]]:
    """What follows each prompt: at most `most` ids, up to an end id, which is left out.

    At temperature 0 the likeliest token each time, else one drawn by its probability.
    """
    where = decoder.lm_head.weight.device
    chance = torch.Generator(where).manual_seed(seed)
    cache = Cache.of(decoder.config)
    ids = pad(prompts, where)  # [batch, longest]
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=where)
    places = torch.arange(ids.shape[1], device=where)
    positions = torch.where(places < lengths[:, None], places, -1)  # -1: padding
    states = decoder.states(ids, positions=positions, cache=cache)
    last = states[torch.arange(len(prompts), device=where), lengths - 1]  # [batch, width]
    made: list[list[int]] = [[] for _ in prompts]
    going = set(range(len(prompts)))
    for number in range(most):
        logits = decoder.logits(last)  # [batch, vocabulary]
        if temperature > 0:
            shares = (logits / temperature).softmax(-1)
            chosen = torch.multinomial(shares, 1, generator=chance)
        else:
            chosen = logits.argmax(-1, keepdim=True)
        for row, id in enumerate(chosen[:, 0].tolist()):
            if row in going and id in end_ids:
                going.remove(row)
            elif row in going:
                made[row].append(id)
        if not going or number == most - 1:
            break
        positions = (lengths + number)[:, None]
        last = decoder.states(chosen, positions=positions, cache=cache)[:, 0]
    return made
