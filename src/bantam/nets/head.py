"""Cross-entropy over the whole vocabulary, below a head that does not learn.

The logits of a few hundred positions at a time are made, their gradient on the states is taken at
once, and both are let go: the memory is that of one piece, and nothing is computed backwards again.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bantam.nets.decoder import Decoder

LOGITS_AT_ONCE = 1 << 25  # 128 MB in float32


def vocabulary_loss(decoder: Decoder, states: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of -ln P(target), in nats; states [n, width], targets and weights [n].

    Only `states` get a gradient: the head is taken as it is.
    """
    total: Tensor = _VocabularyLoss.apply(states, targets, weights, decoder)  # type: ignore[no-untyped-call]
    return total


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, targets: Tensor, weights: Tensor, decoder: Decoder
    ) -> Tensor:
        total = torch.zeros((), device=states.device)
        gradient = torch.empty_like(states)
        rows = max(1, LOGITS_AT_ONCE // decoder.config.vocab_size)
        for begin in range(0, len(states), rows):
            piece = slice(begin, begin + rows)
            with torch.enable_grad():
                part = states[piece].detach().requires_grad_()
                losses = F.cross_entropy(decoder.logits(part), targets[piece], reduction="none")
                loss = (losses * weights[piece]).sum()
                (gradient[piece],) = torch.autograd.grad(loss, part)
            total += loss.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *of_total: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * of_total[0].to(gradient.dtype), None, None, None
