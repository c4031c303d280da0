"""The metadata of GGUF files to and from `DecoderConfig`, as llama.cpp reads them.

Some of what a family is stands in llama.cpp's code and in no key (the pattern of Gemma's windows,
SmolLM3's layers without positions): what differs from that cannot be written.
"""

from collections.abc import Callable
from typing import Any

import torch

from bantam.nets.decoder import DecoderConfig
from bantam.nets.hf_config import MOST_LAYERS, Unsupported
from bantam.nets.rope import Rope, llama3_divisors

Metadata = dict[str, Any]

# Our families by what GGUF calls their architecture.
FAMILIES = {
    "llama": "llama",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "smollm3": "smollm3",
    "olmo2": "olmo2",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "gpt2": "gpt2",
}
ARCHITECTURES = {ours: theirs for theirs, ours in FAMILIES.items()} | {
    "mistral": "llama",
    "mixtral": "llama",
}
ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")
LARGEST_GEMMAS = {"gemma2": 46, "gemma3_text": 62}  # layers of those with another query scale


def read(data: Metadata, tensors: Callable[[str], list[float] | None]) -> DecoderConfig:
    """`tensors` gives the values of a tensor with rotary factors, None when there is none.

    The vocabulary and whether the head is tied stand in the shapes of tensors, not here. Raises
    Unsupported.
    """
    architecture = data.get("general.architecture")
    if architecture not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise Unsupported(f"its architecture is {architecture!r}; known are {known}")
    family = FAMILIES[architecture]

    def number(key: str, kind: type, default: Any = None) -> Any:
        value = data.get(f"{architecture}.{key}", default)
        if type(value) not in (int, kind):
            raise Unsupported(f"{architecture}.{key} is {value!r}")
        return value

    def maybe(key: str) -> float | None:
        return float(number(key, float)) if f"{architecture}.{key}" in data else None

    n_heads, width = number("attention.head_count", int), number("embedding_length", int)
    n_layers = number("block_count", int)
    head_size = number("attention.key_length", int, width // max(1, n_heads))
    if number("attention.value_length", int, head_size) != head_size:
        raise Unsupported("its values have another size than its keys")
    layer_norm = family == "gpt2"
    eps = "layer_norm_epsilon" if layer_norm else "layer_norm_rms_epsilon"
    shape: Metadata = {
        "family": family,
        "vocab_size": 1,
        "n_layers": n_layers,
        "width": width,
        "n_heads": n_heads,
        "n_kv_heads": number("attention.head_count_kv", int, n_heads),
        "head_size": head_size,
        "hidden_width": number("feed_forward_length", int),
        "context": number("context_length", int),
        "norm_eps": round(number(f"attention.{eps}", float), 12),
    }
    scaling = data.get(f"{architecture}.rope.scaling.type", "none")
    if not layer_norm:
        size = number("rope.dimension_count", int, head_size)
        if size != head_size and family != "phi3":
            raise Unsupported("only part of a head turns")
        shape["rope"] = _rope(
            Rope(
                float(number("rope.freq_base", float, 10_000.0)),
                size=None if size == head_size else size,
            ),
            scaling,
            maybe("rope.scaling.factor"),
            number("rope.scaling.original_context_length", int, shape["context"]),
            maybe("rope.scaling.attn_factor"),
            tensors,
            size,
        )
    match family:
        case "llama" if data.get("llama.expert_count"):
            shape |= {
                "family": "mixtral",
                "n_experts": number("expert_count", int),
                "n_active": number("expert_used_count", int),
                "balance": 0.001,
            }
        case "qwen2":
            shape["qkv_bias"] = True
        case "qwen3":
            shape["qk_norm"] = "head"
        case "smollm3":
            shape["without_rope"] = tuple(range(3, min(n_layers, MOST_LAYERS), 4))
        case "olmo2":
            shape |= {"norms": "behind", "qk_norm": "all"}
        case "gemma2" | "gemma3_text":
            shape |= _gemma(family, n_layers, width, n_heads, head_size)
            shape |= {
                "window": number("attention.sliding_window", int),
                "logit_cap": maybe("final_logit_softcapping"),
            }
            if family == "gemma2":
                shape["score_cap"] = maybe("attn_logit_softcapping")
            else:
                base = maybe("rope.freq_base_swa") or 10_000.0
                shape |= {"qk_norm": "head", "window_rope": Rope(base)}
        case "gpt2":
            shape |= {
                "rope": None,
                "norm": "layer",
                "qkv_bias": True,
                "out_bias": True,
                "mlp_bias": True,
                "gated": False,
                "activation": "gelu_tanh",
                "learned_positions": shape["context"],
            }
    return DecoderConfig(**shape)


def _gemma(family: str, layers: int, width: int, heads: int, head_size: int) -> Metadata:
    """What llama.cpp takes for granted in Gemma."""
    every = 2 if family == "gemma2" else 6
    largest = layers == LARGEST_GEMMAS[family]
    return {
        "norms": "both",
        "norm_offset": 1.0,
        "activation": "gelu_tanh",
        "embedding_scale": float(width) ** 0.5,
        "query_scale": (width // heads if largest else head_size) ** -0.5,
        "windowed": tuple(i for i in range(min(layers, MOST_LAYERS)) if (i + 1) % every),
    }


def _rope(
    plain: Rope,
    scaling: Any,
    factor: float | None,
    original: int,
    scale: float | None,
    tensors: Callable[[str], list[float] | None],
    size: int,
) -> Rope:
    divisors, short, long = (tensors(name) for name in ROPE_TENSORS)
    if (short is None) != (long is None):
        raise Unsupported("it has rotary factors for short or for long texts only")
    if short is not None and long is not None:
        if len(short) != size // 2 or len(long) != size // 2:
            raise Unsupported(f"it has {len(short)} and {len(long)} rotary factors")
        return Rope(
            plain.theta,
            plain.size,
            "longrope",
            original=original,
            short=tuple(short),
            long=tuple(long),
            scale=scale or 1.0,
        )
    if divisors is not None:
        # The file holds what comes out of Llama 3's rule, not the rule: its factor is the largest.
        found = Rope(plain.theta, plain.size, "llama3", max(divisors), 1.0, 4.0, 8192)
        exponents = torch.arange(0, size, 2).float() / size
        wanted = llama3_divisors(found, plain.theta**-exponents)
        same = len(divisors) == len(wanted)
        if not same or not torch.allclose(wanted, torch.tensor(divisors), rtol=1e-4):
            raise Unsupported("its rotary positions are stretched in another way than Llama 3's")
        return found
    if scaling == "linear":
        return Rope(plain.theta, plain.size, "linear", factor=factor or 1.0)
    if scaling not in ("none", "longrope"):
        raise Unsupported(f"its rotary positions are stretched in the way {scaling!r}")
    return plain


def write(c: DecoderConfig) -> tuple[Metadata, dict[str, list[float]]]:
    """The keys, and the tensors with rotary factors. Raises Unsupported."""
    if c.family not in ARCHITECTURES:
        raise Unsupported(f"llama.cpp knows no {c.family}")
    architecture = ARCHITECTURES[c.family]
    eps = "layer_norm_epsilon" if c.norm == "layer" else "layer_norm_rms_epsilon"
    # llama.cpp gives these families no window: what fits into one is the same with and without.
    ignored = c.window if c.family not in LARGEST_GEMMAS else None
    keys: Metadata = {
        "block_count": c.n_layers,
        "context_length": min(c.context, ignored or c.context),
        "embedding_length": c.width,
        "feed_forward_length": c.hidden_width,
        "attention.head_count": c.n_heads,
        "attention.head_count_kv": c.n_kv_heads,
        "attention.key_length": c.head_size,
        "attention.value_length": c.head_size,
        f"attention.{eps}": c.norm_eps,
        "vocab_size": c.vocab_size,
    }
    factors: dict[str, list[float]] = {}
    if c.rope is not None:
        more, factors = _rope_keys(c.rope, c.head_size)
        keys |= more
    if c.n_experts:
        keys |= {"expert_count": c.n_experts, "expert_used_count": c.n_active}
    if c.family == "smollm3" and c.without_rope != tuple(range(3, c.n_layers, 4)):
        raise Unsupported("in llama.cpp each fourth layer of SmolLM3 has no positions")
    if c.family in LARGEST_GEMMAS:
        keys |= _gemma_keys(c)
    metadata = {f"{architecture}.{key}": value for key, value in keys.items()}
    return {"general.architecture": architecture} | metadata, factors


def _rope_keys(rope: Rope, head_size: int) -> tuple[Metadata, dict[str, list[float]]]:
    size = rope.size or head_size
    keys: Metadata = {"rope.freq_base": rope.theta, "rope.dimension_count": size}
    match rope.kind:
        case "linear":
            return keys | {"rope.scaling.type": "linear", "rope.scaling.factor": rope.factor}, {}
        case "llama3":
            plain = rope.theta ** (-torch.arange(0, size, 2).float() / size)
            return keys, {ROPE_TENSORS[0]: llama3_divisors(rope, plain).tolist()}
        case "longrope":
            more = {
                "rope.scaling.original_context_length": rope.original,
                "rope.scaling.attn_factor": rope.scale,
            }
            return keys | more, {ROPE_TENSORS[1]: [*rope.short], ROPE_TENSORS[2]: [*rope.long]}
    return keys, {}


def _gemma_keys(c: DecoderConfig) -> Metadata:
    for name, granted in _gemma(c.family, c.n_layers, c.width, c.n_heads, c.head_size).items():
        ours = getattr(c, name)
        same = abs(ours - granted) < 1e-6 if isinstance(granted, float) else ours == granted
        if not same:
            raise Unsupported(f"its {name} is {ours}, in llama.cpp's {c.family} it is {granted}")
    keys: Metadata = {"attention.sliding_window": c.window}
    if c.logit_cap is not None:
        keys["final_logit_softcapping"] = c.logit_cap
    if c.score_cap is not None:
        keys["attn_logit_softcapping"] = c.score_cap
    if c.window_rope is not None and c.window_rope != Rope(10_000.0):
        keys["rope.freq_base_swa"] = c.window_rope.theta
    return keys
