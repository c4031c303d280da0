"""A decoder that has learned nothing yet: its shape from a number of parameters, its weights drawn.

The shape is Qwen 3's (Yang et al. 2025, arXiv 2505.09388), which transformers, llama.cpp, Ollama,
MLX and vLLM load as it is: RMSNorm before each part, rotary positions, normed queries and keys,
gated MLPs, and one table for embedding and head.
"""

import math

import torch
from torch import nn

from bantam.errors import BadInput
from bantam.nets.decoder import Decoder, DecoderConfig
from bantam.nets.rope import Rope

HEAD = 64  # values of a head; half as many in narrow models
WIDTHS = (64, 96, 128, 192, 256, 320, 384, 512, 640, 768, 1024, 1280, 1536, 2048)
# Width a layer: 256 has 6 layers. Small models gain by depth (MobileLLM, Liu et al. 2024).
WIDE = 42
BLOCK = 256  # of llama.cpp's K-quants; its other formats have blocks of 32


def config(vocab_size: int, context: int, width: int, depth: int | None = None) -> DecoderConfig:
    """The shape of a width: its depth unless given, heads and the MLP's width follow from it."""
    if width % 32:
        raise BadInput(f"a width of {width} does not fill blocks of 32", "take a multiple of 32")
    size = HEAD if width >= 4 * HEAD and width % HEAD == 0 else HEAD // 2
    heads = width // size
    return DecoderConfig(
        vocab_size=vocab_size,
        n_layers=depth or max(2, round(width / WIDE)),
        width=width,
        n_heads=heads,
        n_kv_heads=heads // 2 if heads >= 8 and heads % 2 == 0 else heads,
        head_size=size,
        hidden_width=_up(8 * width / 3, BLOCK if width >= BLOCK else 32),
        family="qwen3",
        context=context,
        tied=True,
        rope=Rope(theta=10_000.0),
        norm_eps=1e-6,
        qk_norm="head",
    )


def shape(
    parameters: int, vocab_size: int, context: int = 256, depth: int | None = None
) -> DecoderConfig:
    """The shape whose parameters, embedding and all, come nearest to a number of them.

    Among those that are near, widths that fill blocks of 256 and the usual depth are preferred.
    Raises BadInput when the embedding alone would be too large.
    """

    def far(each: DecoderConfig) -> float:
        usual = max(2.0, each.width / WIDE)
        odd = 0.0 if depth else 0.1 * abs(math.log(each.n_layers / usual))
        uneven = 0.05 * (each.width % BLOCK != 0)
        return abs(math.log(count(each) / parameters)) + odd + uneven

    depths = [depth] if depth else range(2, 65)
    best = min((config(vocab_size, context, w, d) for w in WIDTHS for d in depths), key=far)
    if abs(math.log(count(best) / parameters)) > math.log(1.6):
        raise BadInput(
            f"no model with a vocabulary of {vocab_size:,} has about {parameters:,} parameters",
            f"the nearest has {count(best):,}; ask for that many, or change the vocabulary",
        )
    return best


def count(c: DecoderConfig) -> int:
    """The parameters of a shape, a shared table counted once."""
    return matrices(c) + c.n_layers * (2 * c.width + 2 * c.head_size) + c.width


def matrices(c: DecoderConfig) -> int:
    """The parameters that every token is multiplied by, the head's among them."""
    attention = 2 * c.width * c.head_size * (c.n_heads + c.n_kv_heads)
    return c.n_layers * (attention + 3 * c.width * c.hidden_width) + c.vocab_size * c.width


def operations(c: DecoderConfig) -> float:
    """Floating-point operations that training spends on a token: 6 a parameter, and attention's
    products with half of the context on the mean (Kaplan et al. 2020, arXiv 2001.08361)."""
    return 6.0 * (matrices(c) + c.n_layers * c.n_heads * c.head_size * c.context)


def fresh(c: DecoderConfig, seed: int = 0) -> Decoder:
    """A decoder with drawn weights, the same for the same seed.

    What goes into the residual stream begins at zero, so that a fresh block changes nothing (Zhang
    et al. 2019, arXiv 1901.09321); the other matrices keep the size of what goes through them.
    """
    decoder = Decoder(c)
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, part in decoder.named_modules():
            if isinstance(part, nn.Embedding):
                part.weight.normal_(0, 0.02, generator=chance)
            elif name.endswith(("o_proj", "down_proj")):
                part.weight.zero_()
            elif isinstance(part, nn.Linear) and name != "lm_head":
                part.weight.normal_(0, part.in_features**-0.5, generator=chance)
        if not c.tied:
            decoder.lm_head.weight.zero_()
    return decoder


def _up(value: float, step: int) -> int:
    return math.ceil(value / step) * step
