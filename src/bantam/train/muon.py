"""Muon: momentum of matrices, made orthogonal by a few Newton-Schulz steps (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon/).

torch's own computes these in bfloat16 whatever the machine. Processors without products of bfloat16
(those with AVX2 only) take twenty to thirty times longer for them than in float32. In bfloat16 the
two are equal, bit for bit.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

STEPS = 5
# The quintic's: steepest at zero, and bring singular values to between 0.7 and 1.2.
A, B, C = 3.4445, -4.7750, 2.0315
EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """For matrices only. `precision` is that of the Newton-Schulz products."""

    def __init__(
        self,
        weights: Iterable[torch.nn.Parameter],
        lr: float,
        momentum: float,
        weight_decay: float,
        precision: torch.dtype,
    ) -> None:
        told = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(weights, told)
        self.precision = precision

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(weight.grad)
                moment = state["momentum_buffer"].lerp_(weight.grad, 1 - momentum)
                ahead = weight.grad.lerp(moment, momentum)  # Nesterov's
                step = orthogonal(ahead.to(self.precision))
                height, width = weight.shape
                weight.mul_(1 - rate * group["weight_decay"])
                weight.add_(step, alpha=-rate * max(1.0, height / width) ** 0.5)


def orthogonal(x: Tensor) -> Tensor:
    """A matrix with about the same singular vectors, and all singular values about 1."""
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm().clamp(min=EPS)
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return x.T if tall else x
