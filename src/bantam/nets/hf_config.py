"""config.json of a Hugging Face folder to and from `DecoderConfig`, family by family."""

import math
from collections.abc import Callable
from typing import Any

from bantam.nets.decoder import DecoderConfig
from bantam.nets.rope import Rope

Json = dict[str, Any]

ACTIVATIONS = {
    "silu": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
}
MOST_LAYERS = 512
FULL, SLIDING = "full_attention", "sliding_attention"


class Unsupported(ValueError):
    """A sound configuration that asks for what the decoder cannot do; says what."""


def read(data: Json) -> DecoderConfig:
    """Raises Unsupported, or any error that Python has for keys and values that make no sense."""
    family = data["model_type"]
    if family not in READERS:
        known = ", ".join(READERS)
        raise Unsupported(f"its model_type is {family!r}; known are {known}")
    return READERS[family](data)


def write(config: DecoderConfig) -> Json:
    """As transformers reads it, its older versions too."""
    return WRITERS[config.family](config)


# --- what most families share


def _common(d: Json, tied: bool = False, **more: Any) -> DecoderConfig:
    n_heads, width = int(d["num_attention_heads"]), int(d["hidden_size"])
    shape: Json = {
        "family": d["model_type"],
        "vocab_size": int(d["vocab_size"]),
        "n_layers": int(d["num_hidden_layers"]),
        "width": width,
        "n_heads": n_heads,
        "n_kv_heads": int(d.get("num_key_value_heads") or n_heads),
        "head_size": int(d.get("head_dim") or width // n_heads),
        "hidden_width": int(d["intermediate_size"]),
        "context": int(d.get("max_position_embeddings", 2048)),
        "tied": bool(d.get("tie_word_embeddings", tied)),
        "norm_eps": float(d.get("rms_norm_eps", 1e-6)),
        "activation": _activation(d, "silu"),
    }
    if d.get("mlp_bias"):
        raise Unsupported("its MLPs have biases")
    if "rope" not in more:
        shape["rope"] = rope = rope_of(d, _rope_data(d), shape["head_size"])
        if rope.size is not None and d["model_type"] != "phi3":
            raise Unsupported("only part of a head turns")
    return DecoderConfig(**(shape | more))


def _activation(d: Json, default: str) -> str:
    name = d.get("hidden_activation") or d.get("hidden_act") or default
    if name not in ACTIVATIONS:
        raise Unsupported(f"its activation is {name!r}")
    return ACTIVATIONS[name]


def _rope_data(d: Json) -> Json:
    data = d.get("rope_parameters") or d.get("rope_scaling") or {}
    if not isinstance(data, dict):
        raise Unsupported(f"its rotary positions are {data!r}")
    return data


def rope_of(d: Json, data: Json, head_size: int, theta: float = 10_000.0) -> Rope:
    """The rotary positions that `data` (rope_parameters, or the older rope_scaling) asks for."""
    theta = float(data.get("rope_theta") or d.get("rope_theta") or theta)
    part = float(data.get("partial_rotary_factor") or d.get("partial_rotary_factor") or 1.0)
    size = int(head_size * part)
    kind = data.get("rope_type", data.get("type", "default"))
    more: Json = {"size": None if size == head_size else size}
    match kind:
        case "default":
            return Rope(theta, **more)
        case "linear":
            return Rope(theta, kind=kind, factor=float(data["factor"]), **more)
        case "llama3":
            return Rope(
                theta,
                kind=kind,
                factor=float(data["factor"]),
                low=float(data["low_freq_factor"]),
                high=float(data["high_freq_factor"]),
                original=int(data["original_max_position_embeddings"]),
                **more,
            )
        case "longrope" | "su":
            original = int(
                data.get("original_max_position_embeddings")
                or d["original_max_position_embeddings"]
            )
            longer = int(d["max_position_embeddings"]) / original
            scale = math.sqrt(1 + math.log(longer) / math.log(original)) if longer > 1 else 1.0
            short, long = (tuple(map(float, data[key])) for key in ("short_factor", "long_factor"))
            if len(short) != size // 2 or len(long) != size // 2:
                raise Unsupported(f"longrope needs {size // 2} factors")
            return Rope(
                theta,
                kind="longrope",
                original=original,
                short=short,
                long=long,
                scale=float(data.get("attention_factor") or scale),
                **more,
            )
    raise Unsupported(f"its rotary positions are stretched in the way {kind!r}")


def _windows(d: Json, default: Callable[[int], bool]) -> Json:
    """The layers with a window; `default` tells when the file does not."""
    window = d.get("sliding_window")
    if window is None:
        return {}
    count = min(int(d["num_hidden_layers"]), MOST_LAYERS)
    types = d.get("layer_types") or [SLIDING if default(i) else FULL for i in range(count)]
    if len(types) != count or not set(types) <= {FULL, SLIDING}:
        raise Unsupported("its layer_types are others than full and sliding attention")
    windowed = tuple(i for i, kind in enumerate(types) if kind == SLIDING)
    return {"window": int(window), "windowed": windowed} if windowed else {}


def _layer_types(c: DecoderConfig) -> Json:
    return {"layer_types": [SLIDING if i in c.windowed else FULL for i in range(c.n_layers)]}


def _refuse(d: Json, wanted: Json) -> None:
    for key, value in wanted.items():
        if d.get(key) not in (None, value):
            raise Unsupported(f"its {key} is {d[key]!r}, not {value!r}")


def _every(_: int) -> bool:
    return True


# --- the families


def _llama(d: Json) -> DecoderConfig:
    if d.get("attention_bias"):
        raise Unsupported("its attention has biases")
    return _common(d)


def _mistral(d: Json) -> DecoderConfig:
    return _common(d, **_windows(d, _every))


def _mixtral(d: Json) -> DecoderConfig:
    return _common(
        d,
        n_experts=int(d["num_local_experts"]),
        n_active=int(d["num_experts_per_tok"]),
        balance=float(d.get("router_aux_loss_coef", 0.001)),
        **_windows(d, _every),
    )


def _phi3(d: Json) -> DecoderConfig:
    return _common(d, **_windows(d, _every))


def _qwen2(d: Json) -> DecoderConfig:
    return _common(d, qkv_bias=True, **_qwen_windows(d))


def _qwen3(d: Json) -> DecoderConfig:
    if d.get("attention_bias"):
        raise Unsupported("its attention has biases")
    return _common(d, qk_norm="head", **_qwen_windows(d))


def _qwen_windows(d: Json) -> Json:
    if not d.get("use_sliding_window"):
        return {}
    return _windows(d, lambda i: i >= int(d.get("max_window_layers", 28)))


def _smollm3(d: Json) -> DecoderConfig:
    _refuse(d, {"attention_bias": False, "use_sliding_window": False})
    count = min(int(d["num_hidden_layers"]), MOST_LAYERS)
    every = int(d.get("no_rope_layer_interval", 4))
    turned = d.get("no_rope_layers") or [(i + 1) % every for i in range(count)]
    if len(turned) < count:
        raise Unsupported(f"it tells of {len(turned)} of {count} layers whether they turn")
    return _common(d, tied=True, without_rope=tuple(i for i in range(count) if not turned[i]))


def _olmo2(d: Json) -> DecoderConfig:
    _refuse(d, {"attention_bias": False})
    return _common(d, norms="behind", qk_norm="all")


def _gemma(d: Json, **more: Any) -> DecoderConfig:
    _refuse(d, {"attention_bias": False, "use_bidirectional_attention": False})
    cap = d.get("final_logit_softcapping")
    return _common(
        {"hidden_act": "gelu_pytorch_tanh"} | d,
        tied=True,
        norms="both",
        norm_offset=1.0,
        query_scale=float(d.get("query_pre_attn_scalar", 256)) ** -0.5,
        logit_cap=None if cap is None else float(cap),
        embedding_scale=float(d["hidden_size"]) ** 0.5,
        **more,
    )


def _gemma2(d: Json) -> DecoderConfig:
    cap = d.get("attn_logit_softcapping")
    windows = _windows(d, lambda i: i % 2 == 0)
    return _gemma(d, score_cap=None if cap is None else float(cap), **windows)


def _gemma3(d: Json) -> DecoderConfig:
    data, head = _rope_data(d), int(d["head_dim"])
    full, near = data.get(FULL, data), data.get(SLIDING, {})
    near = {"rope_theta": near.get("rope_theta", d.get("rope_local_base_freq", 1e4))}
    every = int(d.get("sliding_window_pattern") or 6)
    return _gemma(
        d,
        qk_norm="head",
        rope=rope_of(d, full, head, 1e6),
        window_rope=rope_of({}, near, head),
        **_windows(d, lambda i: (i + 1) % every != 0),
    )


def _gpt2(d: Json) -> DecoderConfig:
    _refuse(
        d,
        {
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
    )
    width, heads = int(d["n_embd"]), int(d["n_head"])
    return DecoderConfig(
        family="gpt2",
        vocab_size=int(d["vocab_size"]),
        n_layers=int(d["n_layer"]),
        width=width,
        n_heads=heads,
        n_kv_heads=heads,
        head_size=width // heads,
        hidden_width=int(d.get("n_inner") or 4 * width),
        context=int(d["n_positions"]),
        learned_positions=int(d["n_positions"]),
        activation=_activation({"hidden_act": d.get("activation_function")}, "gelu_new"),
        tied=bool(d.get("tie_word_embeddings", True)),
        norm_eps=float(d.get("layer_norm_epsilon", 1e-5)),
        **_LAYER_NORMED,
    )


# GPT-2 and OPT: LayerNorm, biases everywhere, plain MLPs, learned positions.
_LAYER_NORMED: Json = {
    "rope": None,
    "norm": "layer",
    "qkv_bias": True,
    "out_bias": True,
    "mlp_bias": True,
    "gated": False,
}


def _opt(d: Json) -> DecoderConfig:
    _refuse(
        d,
        {
            "do_layer_norm_before": True,
            "enable_bias": True,
            "layer_norm_elementwise_affine": True,
            "_remove_final_layer_norm": False,
            "word_embed_proj_dim": d["hidden_size"],
        },
    )
    return _common(
        d
        | {
            "intermediate_size": d["ffn_dim"],
            "hidden_act": d.get("activation_function", "relu"),
            "num_key_value_heads": None,
            "head_dim": None,
        },
        tied=True,
        norm_eps=1e-5,
        learned_positions=int(d["max_position_embeddings"]) + 2,
        position_offset=2,
        **_LAYER_NORMED,
    )


READERS: dict[str, Callable[[Json], DecoderConfig]] = {
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "phi3": _phi3,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "smollm3": _smollm3,
    "olmo2": _olmo2,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gpt2": _gpt2,
    "opt": _opt,
}


# --- writing


def _written(c: DecoderConfig, name: str, **more: Any) -> Json:
    theirs = {ours: name for name, ours in ACTIVATIONS.items() if name != "gelu_new"}
    written: Json = {
        "architectures": [name],
        "model_type": c.family,
        "vocab_size": c.vocab_size,
        "hidden_size": c.width,
        "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads,
        "num_key_value_heads": c.n_kv_heads,
        "head_dim": c.head_size,
        "intermediate_size": c.hidden_width,
        "max_position_embeddings": c.context,
        "rms_norm_eps": c.norm_eps,
        "tie_word_embeddings": c.tied,
        "hidden_act": theirs[c.activation],
        "attention_bias": c.qkv_bias,
        "torch_dtype": "float32",
        "pad_token_id": None,
    }
    if c.rope is not None:
        data = _rope_written(c.rope, c.head_size)
        written |= {"rope_parameters": data, "rope_theta": c.rope.theta}
        if c.rope.kind != "default":
            written["rope_scaling"] = data | {"type": c.rope.kind}
    if c.window is not None:
        written["sliding_window"] = c.window
    return written | more


def _rope_written(rope: Rope, head_size: int) -> Json:
    data: Json = {"rope_type": rope.kind, "rope_theta": rope.theta}
    if rope.size is not None:
        data["partial_rotary_factor"] = rope.size / head_size
    match rope.kind:
        case "linear":
            data["factor"] = rope.factor
        case "llama3":
            data |= {
                "factor": rope.factor,
                "low_freq_factor": rope.low,
                "high_freq_factor": rope.high,
                "original_max_position_embeddings": rope.original,
            }
        case "longrope":
            data |= {
                "short_factor": list(rope.short),
                "long_factor": list(rope.long),
                "attention_factor": rope.scale,
                "original_max_position_embeddings": rope.original,
            }
    return data


def _no_window(c: DecoderConfig) -> Json:
    """For families that have a window unless they are told."""
    return {} if c.window is not None else {"sliding_window": None}


def _write_mixtral(c: DecoderConfig) -> Json:
    return _written(
        c,
        "MixtralForCausalLM",
        num_local_experts=c.n_experts,
        num_experts_per_tok=c.n_active,
        router_aux_loss_coef=c.balance,
        **_no_window(c),
    )


def _write_phi3(c: DecoderConfig) -> Json:
    assert c.rope is not None
    part = (c.rope.size or c.head_size) / c.head_size
    original = c.rope.original or c.context
    return _written(
        c,
        "Phi3ForCausalLM",
        original_max_position_embeddings=original,
        partial_rotary_factor=part,
        **_no_window(c),
    )


def _write_qwen(c: DecoderConfig) -> Json:
    name = "Qwen2ForCausalLM" if c.family == "qwen2" else "Qwen3ForCausalLM"
    windows = {"use_sliding_window": c.window is not None, **_layer_types(c)}
    return _written(c, name, attention_bias=False, **windows, **_no_window(c))


def _write_smollm3(c: DecoderConfig) -> Json:
    turned = [int(i not in c.without_rope) for i in range(c.n_layers)]
    return _written(c, "SmolLM3ForCausalLM", no_rope_layers=turned, use_sliding_window=False)


def _write_gemma(c: DecoderConfig) -> Json:
    name = "Gemma2ForCausalLM" if c.family == "gemma2" else "Gemma3ForCausalLM"
    scalar = 1 / (c.query_scale or c.head_size**-0.5) ** 2
    written = _written(
        c,
        name,
        query_pre_attn_scalar=round(scalar),
        **_layer_types(c),
        attn_logit_softcapping=c.score_cap,
        final_logit_softcapping=c.logit_cap,
        hidden_activation="gelu_pytorch_tanh",
        hidden_act="gelu_pytorch_tanh",
    )
    if c.window_rope is not None:
        near = _rope_written(c.window_rope, c.head_size)
        written["rope_parameters"] = {FULL: written["rope_parameters"], SLIDING: near}
        written["rope_local_base_freq"] = c.window_rope.theta
    return written


def _write_gpt2(c: DecoderConfig) -> Json:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": c.vocab_size,
        "n_embd": c.width,
        "n_layer": c.n_layers,
        "n_head": c.n_heads,
        "n_inner": c.hidden_width,
        "n_positions": c.learned_positions,
        "activation_function": "gelu_new" if c.activation == "gelu_tanh" else c.activation,
        "layer_norm_epsilon": c.norm_eps,
        "tie_word_embeddings": c.tied,
        "torch_dtype": "float32",
    }


def _write_opt(c: DecoderConfig) -> Json:
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "vocab_size": c.vocab_size,
        "hidden_size": c.width,
        "word_embed_proj_dim": c.width,
        "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads,
        "ffn_dim": c.hidden_width,
        "max_position_embeddings": c.context,
        "activation_function": c.activation,
        "do_layer_norm_before": True,
        "tie_word_embeddings": c.tied,
        "torch_dtype": "float32",
        "pad_token_id": None,
    }


WRITERS: dict[str, Callable[[DecoderConfig], Json]] = {
    "llama": lambda c: _written(c, "LlamaForCausalLM", mlp_bias=False),
    "mistral": lambda c: _written(c, "MistralForCausalLM", **_no_window(c)),
    "mixtral": _write_mixtral,
    "phi3": _write_phi3,
    "qwen2": _write_qwen,
    "qwen3": _write_qwen,
    "smollm3": _write_smollm3,
    "olmo2": lambda c: _written(c, "Olmo2ForCausalLM"),
    "gemma2": _write_gemma,
    "gemma3_text": _write_gemma,
    "gpt2": _write_gpt2,
    "opt": _write_opt,
}
