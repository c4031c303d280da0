"""Cross-entropy over the whole vocabulary, below a head that stays as it is, or that learns.

The logits of a few hundred positions at a time are made, their gradient on the states is taken at
once, and both are let go: the memory is that of one piece, and nothing is computed backwards again.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bantam.nets.decoder import Decoder

LOGITS_AT_ONCE = 1 << 25  # 128 MB in float32
PIECE = 1 << 21  # of a learning head: they stay in the cache


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


def learning_loss(states: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """The sum of -ln P(target), in nats; states [n, width], head [vocabulary, width], targets [n].

    States and head get their gradients, made on the way as above. Products are in the states'
    precision, everything else in float32.
    """
    total: Tensor = _LearningLoss.apply(states, head, targets)  # type: ignore[no-untyped-call]
    return total


class _LearningLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), device=states.device)
        of_states, of_head = torch.empty_like(states), torch.zeros_like(head)
        weight = head.to(states.dtype)
        rows = max(1, PIECE // len(head))
        with torch.autocast(states.device.type, enabled=False):
            for begin in range(0, len(states), rows):
                part, wanted = states[begin : begin + rows], targets[begin : begin + rows, None]
                logits = (part @ weight.t()).float()
                log_sum = logits.logsumexp(1, keepdim=True)
                total += (log_sum - logits.gather(1, wanted)).sum()
                shares = logits.sub_(log_sum).exp_()  # the gradient on the logits, but for
                shares.scatter_add_(1, wanted, shares.new_full(wanted.shape, -1.0))  # the targets
                slope = shares.to(states.dtype)
                of_states[begin : begin + rows] = slope @ weight
                of_head += slope.t() @ part
        ctx.save_for_backward(of_states, of_head)
        return total

    @staticmethod
    def backward(ctx: Any, *of_total: Tensor) -> tuple[Tensor, Tensor, None]:
        of_states, of_head = ctx.saved_tensors
        scale = of_total[0]
        return of_states * scale.to(of_states.dtype), of_head * scale.to(of_head.dtype), None
