"""A tiny random model of each family, as transformers makes it."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCAB = 97
COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
# As LLAMA3, but for a context so short that texts of the tests pass it.
SHORT_LLAMA3 = LLAMA3 | {"rope_theta": 100.0, "original_max_position_embeddings": 24}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.0, 2.0, 3.0, 4.0],
    "original_max_position_embeddings": 24,
}
GEMMA: dict[str, Any] = {"query_pre_attn_scalar": 8, "sliding_window": 16}
WINDOW = 16  # shorter than the texts of the tests

# name: model type and what differs from COMMON
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, untied": ("llama", {"tie_word_embeddings": False}),
    "llama 3": ("llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama 3, past its context": ("llama", {"rope_parameters": SHORT_LLAMA3}),
    "llama, linear": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    ),
    "mistral": ("mistral", {"sliding_window": WINDOW}),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "mixtral": (
        "mixtral",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    ),
    "phi 3": ("phi3", {"sliding_window": WINDOW}),
    "phi 3, longrope": (
        "phi3",
        {"rope_parameters": LONGROPE, "original_max_position_embeddings": 24},
    ),
    "phi 3, part of a head turns": (
        "phi3",
        {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.75,
            },
            "head_dim": 16,
            "hidden_size": 64,
        },
    ),
    "qwen 2": ("qwen2", {}),
    "qwen 2, windows": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen 3": ("qwen3", {}),
    "smollm 3": ("smollm3", {"num_hidden_layers": 5}),
    "olmo 2": ("olmo2", {}),
    "gemma 2": ("gemma2", GEMMA),
    "gemma 2, another scale": ("gemma2", GEMMA | {"query_pre_attn_scalar": 11}),
    "gemma 3": ("gemma3_text", GEMMA | {"num_hidden_layers": 7}),
    "gemma 3, linear": (
        "gemma3_text",
        GEMMA
        | {
            "num_hidden_layers": 7,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "gpt 2": ("gpt2", {}),
    "opt": ("opt", {}),
}
# What GPT-2 and OPT call these things.
_OLD_NAMES = {
    "gpt2": {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "intermediate_size": "n_inner",
        "max_position_embeddings": "n_positions",
    },
    "opt": {"intermediate_size": "ffn_dim"},
}


def reference(name: str, seed: int = 0, **more: Any) -> PreTrainedModel:
    """The model in transformers, in float32, with all weights random, norms and biases too."""
    kind, differs = FAMILIES[name]
    wanted = COMMON | differs | more
    names = _OLD_NAMES.get(kind, {})
    wanted = {names.get(key, key): value for key, value in wanted.items()}
    if kind == "opt":
        wanted["word_embed_proj_dim"] = wanted["hidden_size"]
        wanted["dropout"] = 0.0
    if kind == "gpt2":
        wanted |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = AutoConfig.for_model(kind, **wanted)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            spread = weight.shape[-1] ** -0.5 if weight.ndim > 1 else 0.2
            noise = torch.randn(weight.shape, generator=random) * spread
            weight.copy_(weight + noise if weight.ndim == 1 else noise)
    return model.eval()


def folder(name: str, path: Path, seed: int = 0, **more: Any) -> PreTrainedModel:
    """Write that model to `path` as transformers does, and return it."""
    model = reference(name, seed, **more)
    model.save_pretrained(path)
    return model
