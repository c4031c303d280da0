"""Weights from files: the same decoder from every format, and broken files refused at once."""

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bantam.errors import BadInput
from bantam.formats import gguf
from bantam.nets.decoder import Decoder
from bantam.nets.load import load, save
from bantam.nets.names import pair_halves, pair_neighbours
from tiny_nets import decoder, hugging_face, texts, twin

IDS = torch.tensor(texts(97, 30))
SHAPES: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tied": False, "n_kv_heads": 1},
    "wide heads": {"head_size": 12, "rope_theta": 5e4, "norm_eps": 1e-6, "context": 128},
}


def same(one: Decoder, other: Decoder) -> bool:
    theirs = other.state_dict()
    return one.config == other.config and all(
        torch.equal(weight, theirs[name]) for name, weight in one.state_dict().items()
    )


# --- Hugging Face folders


@pytest.mark.parametrize("name", SHAPES)
def test_what_transformers_wrote(tmp_path: Path, name: str) -> None:
    ours = decoder(**SHAPES[name])
    twin(ours).save_pretrained(tmp_path)
    assert same(load(tmp_path), ours)


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_what_we_wrote(tmp_path: Path, name: str) -> None:
    ours = decoder(**SHAPES[name])
    save(ours, tmp_path)
    assert same(load(tmp_path), ours)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert type(theirs).__name__ == "LlamaForCausalLM"
    torch.testing.assert_close(theirs(IDS).logits, ours(IDS), atol=1e-4, rtol=0)


def test_a_folder_in_several_files(tmp_path: Path) -> None:
    ours = decoder()
    twin(ours).save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert same(load(tmp_path), ours)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision(tmp_path: Path, kind: torch.dtype) -> None:
    ours = decoder()
    twin(ours).to(kind).save_pretrained(tmp_path)
    assert same(load(tmp_path), ours.to(kind).float())


def test_a_tied_folder_that_holds_the_head_too(tmp_path: Path) -> None:
    ours = decoder()
    save(ours, tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    save_file(weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}, path)
    loaded = load(tmp_path)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert same(loaded, ours)


# --- GGUF


def llama_cpp_rows(weight: np.ndarray, n_head: int) -> np.ndarray:
    """LlamaModel.permute of llama.cpp's convert_hf_to_gguf.py."""
    return (
        weight.reshape(n_head, 2, weight.shape[0] // n_head // 2, *weight.shape[1:])
        .swapaxes(1, 2)
        .reshape(weight.shape)
    )


PARTS = {
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

Metadata = dict[str, Any]
Arrays = dict[str, np.ndarray]


def as_gguf(ours: Decoder) -> tuple[Metadata, Arrays]:
    """Keys and tensors as llama.cpp's converter makes them."""
    c = ours.config
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": c.n_layers,
        "llama.context_length": c.context,
        "llama.embedding_length": c.width,
        "llama.feed_forward_length": c.hidden_width,
        "llama.attention.head_count": c.n_heads,
        "llama.attention.head_count_kv": c.n_kv_heads,
        "llama.attention.key_length": c.head_size,
        "llama.attention.value_length": c.head_size,
        "llama.attention.layer_norm_rms_epsilon": c.norm_eps,
        "llama.rope.freq_base": c.rope.theta,
        "llama.rope.dimension_count": c.head_size,
    }
    weights = {
        name: weight.detach().numpy() for name, weight in hugging_face(ours.state_dict()).items()
    }
    arrays = {"token_embd.weight": weights["model.embed_tokens.weight"]}
    for layer in range(c.n_layers):
        for theirs, name in PARTS.items():
            weight = weights[f"model.layers.{layer}.{name}.weight"]
            if theirs == "attn_q":
                weight = llama_cpp_rows(weight, c.n_heads)
            elif theirs == "attn_k":
                weight = llama_cpp_rows(weight, c.n_kv_heads)
            arrays[f"blk.{layer}.{theirs}.weight"] = weight
    arrays["output_norm.weight"] = weights["model.norm.weight"]
    if not c.tied:
        arrays["output.weight"] = weights["lm_head.weight"]
    return metadata, arrays


def write_gguf(path: Path, metadata: Metadata, arrays: Arrays) -> Path:
    tensors = [(name, array.shape, "F32", lambda a=array: a) for name, array in arrays.items()]
    gguf.write(path, metadata, tensors)
    return path


@pytest.mark.parametrize("name", SHAPES)
def test_a_gguf_as_llama_cpp_converts_it(tmp_path: Path, name: str) -> None:
    ours = decoder(**SHAPES[name])
    assert same(load(write_gguf(tmp_path / "m.gguf", *as_gguf(ours))), ours)


def test_keys_that_a_gguf_may_leave_out(tmp_path: Path) -> None:
    ours = decoder(n_kv_heads=4)
    metadata, arrays = as_gguf(ours)
    for key in (
        *("attention.key_length", "attention.value_length", "attention.head_count_kv"),
        *("rope.freq_base", "rope.dimension_count"),
    ):
        del metadata[f"llama.{key}"]
    assert same(load(write_gguf(tmp_path / "m.gguf", metadata, arrays)), ours)


def test_row_orders_undo_each_other() -> None:
    weight = torch.arange(24 * 3).view(24, 3)
    assert torch.equal(pair_halves(pair_neighbours(weight, 3), 3), weight)
    assert not torch.equal(pair_halves(weight, 3), weight)


# --- broken files

HUGE = 1 << 62


def keys(**change: Any) -> Callable[[Metadata, Arrays], None]:
    """Keys of the GGUF with other values; __ stands for a dot, None removes the key."""

    def alter(metadata: Metadata, arrays: Arrays) -> None:
        for name, value in change.items():
            key = "llama." + name.replace("__", ".")
            metadata[key] = value
            if value is None:
                del metadata[key]

    return alter


def tensor(name: str, value: Any) -> Callable[[Metadata, Arrays], None]:
    """A tensor of the GGUF replaced or, for None, removed."""

    def alter(metadata: Metadata, arrays: Arrays) -> None:
        arrays.pop(name, None)
        if value is not None:
            arrays[name] = np.asarray(value, np.float32)

    return alter


def factors(values: list[float]) -> Callable[[Metadata, Arrays], None]:
    def alter(metadata: Metadata, arrays: Arrays) -> None:
        for kind in ("short", "long"):
            arrays[f"rope_factors_{kind}.weight"] = np.array(values, np.float32)

    return alter


def nothing(metadata: Metadata, arrays: Arrays) -> None:
    """All tensors but the embedding away."""
    for name in list(arrays)[1:]:
        del arrays[name]


def experts_architecture(metadata: Metadata, arrays: Arrays) -> None:
    metadata["general.architecture"] = "qwen3moe"


def no_architecture(metadata: Metadata, arrays: Arrays) -> None:
    del metadata["general.architecture"]


BROKEN_GGUF: dict[str, tuple[Callable[[Metadata, Arrays], None], str]] = {
    "another architecture": (experts_architecture, "qwen3moe"),
    "no architecture": (no_architecture, "None"),
    "experts": (keys(expert_count=8), "expert_used_count is None"),
    "scaled positions": (keys(rope__scaling__type="yarn"), "stretched in the way 'yarn'"),
    "scaled frequencies": (tensor("rope_freqs.weight", [1, 2, 3, 4]), "another way than Llama 3"),
    "too many frequencies": (tensor("rope_freqs.weight", np.ones(9)), "another way than Llama 3"),
    "frequencies NaN": (tensor("rope_freqs.weight", np.full(4, np.nan)), "NaN"),
    "factors of one kind": (
        tensor("rope_factors_long.weight", np.ones(4)),
        "short or for long texts only",
    ),
    "too few factors": (factors([1, 1]), "2 rotary factors"),
    "factors of nothing": (factors([0, 0, 0, 0]), "cannot have this shape"),
    "many experts": (keys(expert_count=HUGE, expert_used_count=2), "cannot have"),
    "more experts active": (keys(expert_count=2, expert_used_count=3), "cannot have"),
    "no experts active": (keys(expert_count=2, expert_used_count=0), "cannot have"),
    "part of a head turns": (keys(rope__dimension_count=4), "only part of a head"),
    "values of another size": (keys(attention__value_length=16), "another size"),
    "no layers given": (keys(block_count=None), "block_count is None"),
    "layers a text": (keys(block_count="2"), "block_count is '2'"),
    "layers a fraction": (keys(block_count=2.5), "block_count is 2.5"),
    "layers true": (keys(block_count=True), "block_count is True"),
    "no layers": (keys(block_count=0), "cannot have this shape"),
    "layers negative": (keys(block_count=-1), "cannot have this shape"),
    "a million layers": (keys(block_count=1_000_000), "cannot have this shape"),
    "more layers than tensors": (keys(block_count=500), "cannot be those of 500 layers"),
    "one layer more": (keys(block_count=3), "lacks blk.2"),
    "one layer less": (keys(block_count=1), "does not belong"),
    "huge width": (keys(embedding_length=HUGE), "cannot have this shape"),
    "wide, in range": (keys(embedding_length=1 << 20, feed_forward_length=1 << 20), "wanted"),
    "huge heads": (keys(attention__head_count=HUGE, attention__key_length=8), "cannot have"),
    "no heads": (keys(attention__head_count=0, attention__key_length=8), "cannot have"),
    "no key heads": (keys(attention__head_count_kv=0), "cannot have"),
    "negative key heads": (keys(attention__head_count_kv=-2), "cannot have"),
    "key heads a list": (keys(attention__head_count_kv=[2, 2]), "head_count_kv is"),
    "heads do not share": (keys(attention__head_count_kv=3), "cannot have"),
    "odd heads": (keys(attention__key_length=7, attention__value_length=7), "part of a head"),
    "theta NaN": (keys(rope__freq_base=float("nan")), "cannot have"),
    "theta negative": (keys(rope__freq_base=-1.0), "cannot have"),
    "eps infinite": (keys(attention__layer_norm_rms_epsilon=float("inf")), "cannot have"),
    "eps zero": (keys(attention__layer_norm_rms_epsilon=0.0), "cannot have"),
    "no context": (keys(context_length=0), "cannot have"),
    "no embedding": (tensor("token_embd.weight", None), "no token_embd"),
    "embedding a vector": (tensor("token_embd.weight", np.ones(97)), "wanted"),
    "no norm": (tensor("output_norm.weight", None), "lacks output_norm.weight"),
    "a matrix away": (tensor("blk.1.ffn_up.weight", None), "tensors cannot be|lacks"),
    "a wrong shape": (tensor("blk.1.ffn_up.weight", np.ones((48, 31))), "wanted"),
    "turned over": (tensor("blk.1.ffn_up.weight", np.ones((32, 48))), "wanted"),
    "a bias": (tensor("blk.0.attn_q.bias", np.ones(32)), "does not belong"),
    "an odd number": (tensor("blk.00.attn_q.weight", np.ones((32, 32))), "does not belong"),
    "a layer too high": (tensor("blk.7.attn_q.weight", np.ones((32, 32))), "does not belong"),
    "NaN": (tensor("blk.0.ffn_norm.weight", np.full(32, np.nan)), "NaN"),
    "infinite": (tensor("blk.0.ffn_norm.weight", np.full(32, np.inf)), "infinite"),
    "only the embedding": (nothing, "tensors cannot be those"),
}


def refused(path: Path, message: str) -> None:
    """The file is refused with its name and a mend, within a second and 64 MB."""
    before, start = peak_bytes(), time.perf_counter()
    with pytest.raises(BadInput, match=message) as error:
        load(path)
    assert time.perf_counter() - start < 1
    assert peak_bytes() - before < 64 << 20
    assert str(path) in error.value.message
    assert error.value.mend


def peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@pytest.mark.parametrize("name", BROKEN_GGUF)
def test_broken_ggufs(tmp_path: Path, name: str) -> None:
    alter, message = BROKEN_GGUF[name]
    metadata, arrays = as_gguf(decoder())
    alter(metadata, arrays)
    refused(write_gguf(tmp_path / "m.gguf", metadata, arrays), message)


@pytest.fixture(scope="module")
def sound_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    save(decoder(), folder)
    return folder


BROKEN_CONFIGS: dict[str, tuple[dict[str, Any] | str, str]] = {
    "empty": ("", "JSONDecodeError"),
    "no JSON": ("{nonsense", "JSONDecodeError"),
    "deep": ("[" * 100_000, "RecursionError"),
    "a list": ("[1, 2]", "TypeError"),
    "huge": (" " * (1 << 20) + "{}", "more than 1 MiB"),
    "huge number": ('{"model_type": "llama", "hidden_size": ' + "9" * 10_000 + "}", "ValueError"),
    "another type": ({"model_type": "falcon"}, "falcon"),
    "no type": ({"model_type": None}, "None"),
    "scaled": ({"rope_parameters": {"rope_type": "llama3", "factor": 8}}, "low_freq_factor"),
    "scaled, as once": ({"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "factor"),
    "stretched": ({"rope_parameters": {"rope_type": "yarn", "factor": 2}}, "in the way 'yarn'"),
    "part of a head": ({"partial_rotary_factor": 0.5}, "only part of a head"),
    "scaling a text": ({"rope_parameters": "linear"}, "rotary positions are 'linear'"),
    "biases": ({"attention_bias": True}, "biases"),
    "another activation": ({"hidden_act": "swiglu"}, "swiglu"),
    "no heads": ({"num_attention_heads": 0, "head_dim": None}, "ZeroDivisionError"),
    "infinite width": ({"hidden_size": float("inf")}, "OverflowError"),
    "width a text": ({"hidden_size": "wide"}, "ValueError"),
    "width a list": ({"hidden_size": [32]}, "TypeError"),
    "no width": ({"hidden_size": 0}, "cannot have this shape"),
    "huge width": ({"hidden_size": HUGE}, "cannot have this shape"),
    "huge vocabulary": ({"vocab_size": 1 << 30}, "cannot have this shape"),
    "negative key heads": ({"num_key_value_heads": -1}, "cannot have this shape"),
    "odd heads": ({"head_dim": 7}, "cannot have this shape"),
    "theta NaN": ({"rope_parameters": {"rope_theta": float("nan")}}, "cannot have this shape"),
    "eps negative": ({"rms_norm_eps": -1.0}, "cannot have this shape"),
    "many layers": ({"num_hidden_layers": 512}, "tensors cannot be those"),
    "another width": ({"hidden_size": 64}, "wanted"),
    "untied": ({"tie_word_embeddings": False}, "lacks lm_head.weight"),
}


@pytest.mark.parametrize("name", BROKEN_CONFIGS)
def test_broken_configurations(tmp_path: Path, sound_folder: Path, name: str) -> None:
    change, message = BROKEN_CONFIGS[name]
    folder = shutil.copytree(sound_folder, tmp_path / "model")
    path = folder / "config.json"
    if isinstance(change, dict):
        change = json.dumps(json.loads(path.read_text()) | change)
    path.write_text(change)
    refused(folder, message)


Weights = dict[str, torch.Tensor]
NORM = "model.norm.weight"
BROKEN_WEIGHTS: dict[str, tuple[Weights, str]] = {
    "one more": ({"model.more.weight": torch.ones(2)}, "model.more.weight does not belong"),
    "another shape": ({NORM: torch.ones(31)}, "wanted"),
    "NaN": ({NORM: torch.full((32,), torch.nan)}, "NaN"),
    "infinite": ({NORM: torch.full((32,), torch.inf)}, "infinite"),
    "whole numbers": ({NORM: torch.ones(32, dtype=torch.int64)}, "I64"),
    "8 bits": ({NORM: torch.ones(32).to(torch.float8_e4m3fn)}, "F8_E4M3"),
    "no embedding": ({"model.embed_tokens.weight": torch.empty(0)}, "lacks model.embed_tokens"),
}


@pytest.mark.parametrize("name", BROKEN_WEIGHTS)
def test_broken_weights(tmp_path: Path, sound_folder: Path, name: str) -> None:
    change, message = BROKEN_WEIGHTS[name]
    folder = shutil.copytree(sound_folder, tmp_path / "model")
    path = folder / "model.safetensors"
    weights = load_file(path) | change
    save_file({name: weight for name, weight in weights.items() if weight.numel()}, path)
    refused(folder, message)


def test_one_tensor_in_two_files(tmp_path: Path, sound_folder: Path) -> None:
    folder = shutil.copytree(sound_folder, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "most.safetensors")
    save_file({NORM: torch.ones(32)}, folder / "more.safetensors")
    refused(folder, "in two of its files")


def test_the_same_weights_in_another_layout_besides(tmp_path: Path, sound_folder: Path) -> None:
    """As Mistral's folders have them; the index, or the usual name, tells which ones count."""
    folder = shutil.copytree(sound_folder, tmp_path / "model")
    save_file({"layers.0.attention.wq.weight": torch.ones(32)}, folder / "consolidated.safetensors")
    assert same(load(folder), decoder())
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = folder / "model.safetensors.index.json"
    named = dict.fromkeys(
        load_file(folder / "model-00001-of-00001.safetensors"), "model-00001-of-00001.safetensors"
    )
    index.write_text(json.dumps({"weight_map": named}))
    assert same(load(folder), decoder())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no index of weights"),
        ("[]", "no index of weights"),
        ("[" * 100_000, "no index of weights"),
        ('{"weight_map": {"a": "gone.safetensors"}}', "its index names 'gone.safetensors'"),
        ('{"weight_map": {"a": "../model.safetensors"}}', "its index names '../model.safetensors'"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "its index names '/etc/passwd'"),
        ('{"weight_map": {"a": 7}}', "its index names '7'"),
        ('{"weight_map": {}}', "no .safetensors file"),
    ],
)
def test_a_broken_index(tmp_path: Path, sound_folder: Path, content: str, message: str) -> None:
    folder = shutil.copytree(sound_folder, tmp_path / "model")
    (folder / "model.safetensors.index.json").write_text(content)
    refused(folder, message)


def test_a_torn_file(tmp_path: Path, sound_folder: Path) -> None:
    folder = shutil.copytree(sound_folder, tmp_path / "model")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    refused(folder, "not a sound safetensors file")


def test_a_pickle_is_not_looked_at(tmp_path: Path, sound_folder: Path) -> None:
    folder = shutil.copytree(sound_folder, tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    refused(folder, "no .safetensors file")


def test_no_configuration(tmp_path: Path) -> None:
    refused(tmp_path, "config.json")


def test_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "missing.gguf", "cannot be read")
