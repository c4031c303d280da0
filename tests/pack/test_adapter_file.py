"""The adapter in a file of its own: over the base it is what was learned, merged in torch."""

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from test_gguf_families import SHAPES, made, read_alike

from bantam.errors import BadInput
from bantam.formats import gguf, lora
from bantam.formats.tokenizer import Tokenizer
from bantam.kinds import classify
from bantam.model import Model
from bantam.nets.choose import choose
from bantam.nets.decoder import Decoder
from bantam.nets.lora import add_lora, merge_lora
from bantam.pack import adapter_file, gguf_file
from tiny_nets import texts

TASK = classify.task("tiny", "Is it good?", ["yes", "no", "perhaps"])
SHA = "a" * 64
RANK = 3
# Keys and values are float16 in llama.cpp, and so is the adapter: see test_gguf_families.py.
BOUND = 0.005


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Tokenizer:
    return Tokenizer.from_gguf(gguf.read(tiny_model))


def learned(decoder: Decoder) -> tuple[dict[str, torch.Tensor], Decoder]:
    """Random adapters on all layers, as after training, and the decoder that they are merged in."""
    other = copy.deepcopy(decoder)
    add_lora(other, RANK, seed=0)
    random = torch.Generator().manual_seed(1)
    found = {}
    with torch.no_grad():
        for name, weight in other.named_parameters():
            if name.endswith("lora_b"):
                weight.copy_(torch.randn(weight.shape, generator=random) * 0.3)
            if name.endswith(("lora_a", "lora_b")):
                found[name] = weight.detach().clone()
    merge_lora(other)
    return found, other


def apart(one: list[list[float]], other: list[list[float]]) -> float:
    return float(np.abs(np.array(one) - np.array(other)).max())


# Plain, experts stacked, several layers in one matrix twice over, norms with an offset.
APART = ("llama 3", "mixtral", "phi 3", "gpt 2", "gemma 3")
ALIKE = sorted(SHAPES.keys() - {"phi 3, longrope, short texts", *APART})


@pytest.mark.parametrize(
    "name", [*APART, *(pytest.param(name, marks=pytest.mark.slow) for name in ALIKE)]
)
def test_over_its_base_it_is_the_merged_model(
    tmp_path: Path, tokenizer: Tokenizer, name: str
) -> None:
    base = made(name, tmp_path / "hf", tokenizer)
    gguf_file.write(tmp_path / "base.gguf", base, tokenizer, None, {}, "F32")
    found, tuned = learned(base)
    path = tmp_path / "adapter.gguf"
    adapter_file.write(path, base, found, TASK, SHA, {"bantam.lineage": "{}"})

    shortest, longest = read_alike(base)
    lengths = [n for n in (2, 9, 33, 60) if shortest <= n <= longest]
    prompts = texts(tokenizer.vocab_size, *lengths, seed=3)
    pick = random.Random(0)
    candidates = [pick.sample(range(3, tokenizer.vocab_size), 4) for _ in prompts]
    with Model(tmp_path / "base.gguf", threads=1, context=128).adapted(path) as model:
        assert model.task == TASK
        told = model.runtime.choose(prompts, candidates)
    wanted = [choose(tuned, [p], [c])[0] for p, c in zip(prompts, candidates, strict=True)]
    before = [choose(base, [p], [c])[0] for p, c in zip(prompts, candidates, strict=True)]
    assert apart(told, wanted) < BOUND
    assert apart(before, wanted) > 10 * BOUND


def test_what_is_written_into_it(tmp_path: Path, tokenizer: Tokenizer) -> None:
    base = made("qwen 3", tmp_path / "hf", tokenizer)
    gguf_file.write(tmp_path / "base.gguf", base, tokenizer, None, {}, "Q8_0")
    path = tmp_path / "adapter.gguf"
    adapter_file.write(path, base, learned(base)[0], TASK, SHA, {"bantam.lineage": "{}"})
    file = lora.read(path, gguf.read(tmp_path / "base.gguf"))
    assert file.metadata["general.type"] == "adapter"
    assert file.metadata["general.architecture"] == "qwen3"
    assert file.metadata["adapter.lora.alpha"] == RANK
    assert file.metadata[lora.BASE] == SHA
    assert file.metadata["bantam.lineage"] == "{}"
    assert len(file.tensors) == 2 * 7 * base.config.n_layers
    with pytest.raises(BadInput, match="is no LoRA adapter"):
        lora.read(tmp_path / "base.gguf", gguf.read(tmp_path / "base.gguf"))
