"""What moves the weights: Muon the matrices of the blocks, AdamW embeddings, head and norms.

AdamW alone (Loshchilov & Hutter 2019) is there to be measured against.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bantam.nets.decoder import Decoder
from bantam.train.muon import Muon

BETAS = (0.9, 0.95)


def optimizers(
    decoder: Decoder, name: str, precision: str, rate: float, matrix_rate: float, decay: float
) -> list[torch.optim.Optimizer]:
    """One or two that share all that learns between them; `name` is "muon" or "adamw",
    `precision` that of Muon's products, "bfloat16" or "float32".

    Each group has its full rate as `full`; norms are not decayed.
    """
    learned = [p for p in decoder.parameters() if p.requires_grad]
    inside = set(decoder.model.layers.parameters())
    blocks = [p for p in learned if p in inside and p.ndim == 2]
    others = [p for p in learned if p not in inside and p.ndim == 2]
    norms = [p for p in learned if p.ndim < 2]
    if name == "muon":
        heads = _heads(decoder)
        groups: list[dict[str, Any]] = [
            {"params": [p for p in blocks if p in heads], "rows": decoder.config.head_size},
            {"params": [p for p in blocks if p not in heads]},
        ]
        made = [
            Muon(groups, matrix_rate, 0.95, decay, getattr(torch, precision)),
            _adamw([(others, decay), (norms, 0.0)], rate),
        ]
    else:
        made = [_adamw([(blocks + others, decay), (norms, 0.0)], rate)]
    for optimizer in made:
        for group in optimizer.param_groups:
            group["full"] = group["lr"]
    return made


def _heads(decoder: Decoder) -> set[nn.Parameter]:
    """What makes queries, keys and values: a head's rows have nothing to do with another's."""
    made = ("q_proj.weight", "k_proj.weight", "v_proj.weight")
    return {weight for name, weight in decoder.named_parameters() if name.endswith(made)}


def _adamw(
    groups: Sequence[tuple[list[nn.Parameter], float]], rate: float
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        [{"params": some, "weight_decay": decay} for some, decay in groups if some],
        lr=rate,
        betas=BETAS,
        fused=True,
    )
