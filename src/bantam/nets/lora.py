"""Low-rank adapters (LoRA; Hu et al. 2021, arXiv 2106.09685) on the blocks' linear layers."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bantam.nets.decoder import Decoder


class LoRALinear(nn.Module):
    """y = W x + B A x with W frozen, A [rank, in] random and B [out, rank] zero at the start."""

    def __init__(self, linear: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        a = torch.randn(rank, linear.in_features, generator=generator) * linear.in_features**-0.5
        self.lora_a = nn.Parameter(a.to(linear.weight.device))
        self.lora_b = nn.Parameter(
            torch.zeros(linear.out_features, rank, device=linear.weight.device)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        low = F.linear(x, self.lora_a.to(x.dtype))
        # One product that adds in place of a product and a sum: the step is bound by memory.
        b = self.lora_b.to(x.dtype).t()
        return torch.addmm(y.flatten(0, -2), low.flatten(0, -2), b).view(y.shape)

    def merged(self) -> Tensor:
        """The plain weight [out, in] in float32 that does the same."""
        return self.weight.float() + self.lora_b.float() @ self.lora_a.float()


def add_lora(decoder: Decoder, rank: int, seed: int) -> None:
    """Freeze the decoder in place and put adapters on its blocks' linear layers."""
    decoder.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for part, name, linear in _linears(decoder):
        setattr(part, name, LoRALinear(linear, rank, generator))


def merge_lora(decoder: Decoder) -> None:
    """Fold the adapters into plain linear layers, in place."""
    for part, name, layer in _linears(decoder):
        if isinstance(layer, LoRALinear):
            weight = layer.merged()
            plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
            plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), layer.bias
            setattr(part, name, plain)


def _linears(decoder: Decoder) -> list[tuple[nn.Module, str, Any]]:
    """The linear layers of every block but routers: what holds them, their name there, themselves.

    A router's choice of experts is not smooth, and adapters on it are easily driven to one expert.
    """
    return [
        (part, name, linear)
        for block in decoder.model.layers
        for part in block.modules()
        for name, linear in part.named_children()
        if isinstance(linear, nn.Linear | LoRALinear) and name != "router"
    ]
