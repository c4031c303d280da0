"""Cross-entropy over the whole vocabulary, below a head that stays as it is, or that learns.

The logits of some positions at a time are made, so few that they stay in the cache; their gradient
on states and head is taken at once, and they are let go: the memory is that of one piece, and
nothing is computed backwards again.
"""

from typing import Any

import torch
from torch import Tensor

PIECE = (
    1 << 21
)  # logits at a time: of 2 ** 19 to 2 ** 25 the quickest for vocabularies of thousands


def vocabulary_loss(
    states: Tensor,
    head: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    cap: float | None = None,
) -> Tensor:
    """The sum of -ln P(target), in nats, each times its weight if there are any.

    states [n, width], head [vocabulary, width], targets and weights [n]; `cap` is that of logits
    that are soft-capped. Products are in the states' precision, all else is in float32.
    """
    total: Tensor = _Loss.apply(states, head, targets, weights, cap)  # type: ignore[no-untyped-call]
    return total


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        head: Tensor,
        targets: Tensor,
        weights: Tensor | None,
        cap: float | None,
    ) -> Tensor:
        total = torch.zeros((), device=states.device)
        states_learn, head_learns, *_ = ctx.needs_input_grad
        of_states = torch.empty_like(states) if states_learn else None
        of_head = torch.zeros_like(head) if head_learns else None
        weight = head.to(states.dtype)
        rows = max(1, PIECE // len(head))
        with torch.autocast(states.device.type, enabled=False):
            for begin in range(0, len(states), rows):
                piece = slice(begin, begin + rows)
                part, wanted = states[piece], targets[piece, None]
                logits = (part @ weight.t()).float()
                bent = None
                if cap is not None:
                    logits = logits.div_(cap).tanh_()
                    bent = 1 - logits.square()
                    logits = logits.mul_(cap)
                # In place and with one exponential: half the time of logsumexp and one more.
                most, of_wanted = logits.amax(1, keepdim=True), logits.gather(1, wanted)
                shares = logits.sub_(most).exp_()
                sums = shares.sum(1, keepdim=True)
                losses = most + sums.log() - of_wanted
                total += (losses if weights is None else losses * weights[piece, None]).sum()
                if of_states is None and of_head is None:
                    continue
                shares.div_(sums)  # the gradient on the logits, but for the targets
                shares.scatter_add_(1, wanted, shares.new_full(wanted.shape, -1.0))
                if weights is not None:
                    shares *= weights[piece, None]
                if bent is not None:
                    shares *= bent
                slope = shares.to(states.dtype)
                if of_states is not None:
                    of_states[piece] = slope @ weight
                if of_head is not None:
                    of_head += slope.t() @ part
        ctx.save_for_backward(of_states, of_head)
        return total

    @staticmethod
    def backward(ctx: Any, *of_total: Tensor) -> tuple[Tensor | None, ...]:
        scale = of_total[0]
        scaled = [None if one is None else one * scale.to(one.dtype) for one in ctx.saved_tensors]
        return (*scaled, None, None, None)
