"""Tiny random decoders, and the same weights in transformers' Llama."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bantam.nets.decoder import Decoder, DecoderConfig
from bantam.nets.rope import Rope

SMALL = DecoderConfig(
    vocab_size=97, n_layers=2, width=32, n_heads=4, n_kv_heads=2, head_size=8, hidden_width=48
)


def decoder(seed: int = 0, **shape: Any) -> Decoder:
    """A decoder whose weights are all random, norms too, so that none of them can go unused.

    `rope_theta` may be given in place of the whole `rope`.
    """
    if "rope_theta" in shape:
        shape["rope"] = Rope(shape.pop("rope_theta"))
    made = Decoder(replace(SMALL, **shape))
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in made.parameters():
            spread = weight.shape[-1] ** -0.5 if weight.ndim == 2 else 0.3
            weight.copy_(torch.randn(weight.shape, generator=random) * spread)
            if weight.ndim == 1:
                weight += 1
    return made


def twin(ours: Decoder) -> LlamaForCausalLM:
    """The reference with our weights; a weight that is missing or left over is an error."""
    c = ours.config
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=c.vocab_size,
            hidden_size=c.width,
            intermediate_size=c.hidden_width,
            num_hidden_layers=c.n_layers,
            num_attention_heads=c.n_heads,
            num_key_value_heads=c.n_kv_heads,
            head_dim=c.head_size,
            max_position_embeddings=c.context,
            rope_parameters={"rope_type": "default", "rope_theta": c.rope.theta},
            rms_norm_eps=c.norm_eps,
            tie_word_embeddings=c.tied,
            attn_implementation="eager",
        )
    )
    theirs.load_state_dict(hugging_face(ours.state_dict()))
    return theirs.eval()


def hugging_face(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A Llama's weights, or what belongs to each, by the names that transformers has for them."""
    return {
        name.replace(".attn.", ".self_attn.")
        .replace(".attn_norm.", ".input_layernorm.")
        .replace(".mlp_norm.", ".post_attention_layernorm."): weight
        for name, weight in weights.items()
    }


def texts(vocab: int, *lengths: int, seed: int = 0) -> list[list[int]]:
    """Random token ids of the given lengths."""
    random = torch.Generator().manual_seed(seed)
    return [torch.randint(1, vocab, (length,), generator=random).tolist() for length in lengths]
