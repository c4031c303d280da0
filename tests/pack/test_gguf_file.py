"""The packed file: read by the gguf package, by ourselves, and run by llama.cpp."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader

from bantam import engine
from bantam.errors import BadInput
from bantam.formats import gguf
from bantam.formats.tokenizer import Tokenizer
from bantam.kinds import classify, from_metadata
from bantam.nets import load
from bantam.nets.choose import choose
from bantam.nets.decoder import Decoder
from bantam.pack import gguf_file
from tiny import sentencepiece_metadata
from tiny_nets import decoder, texts

TASK = classify.task("tiny", "Is it good?", ["yes", "no", "perhaps"])
LINEAGE = {"general.license": "apache-2.0", "bantam.lineage": '{"base": "tiny"}'}
SHAPES: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied, one key head": {"tied": False, "n_kv_heads": 1},
    "wide heads": {"head_size": 24, "rope_theta": 50_000.0, "norm_eps": 1e-6},
}
# Widths of 64 fill the blocks of Q8_0, all three formats are stored as they are asked for.
WIDE = {"width": 64, "hidden_width": 96, "head_size": 16, "context": 256}

# The most that a probability may differ from torch in float32. llama.cpp keeps keys and values in
# float16 (11 bits, which is most of the first two bounds), and for Q8_0 rounds weights and
# activations to 8 bits of the largest in 32: about 1 in 250 of each product.
BOUNDS = {"F32": 0.003, "F16": 0.003, "Q8_0": 0.04}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Tokenizer:
    return Tokenizer.from_gguf(gguf.read(tiny_model))


def made(tokenizer: Tokenizer, **shape: Any) -> Decoder:
    return decoder(**({"vocab_size": tokenizer.vocab_size} | WIDE | shape))


@pytest.mark.parametrize("name", SHAPES)
def test_in_float32_it_is_the_same_decoder(tmp_path: Path, tokenizer: Tokenizer, name: str) -> None:
    ours = made(tokenizer, **SHAPES[name])
    path = tmp_path / "pack.gguf"
    gguf_file.write(path, ours, tokenizer, TASK, LINEAGE, "F32")
    again = load.load(path)
    assert again.config == ours.config
    weights = again.state_dict()
    assert all(torch.equal(weights[n], weight) for n, weight in ours.state_dict().items())


def test_what_is_written_into_it(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "pack.gguf"
    gguf_file.write(path, made(tokenizer), tokenizer, TASK, LINEAGE)
    file = gguf.read(path)
    assert from_metadata(file.metadata, path) == TASK
    assert file.metadata["general.name"] == "tiny"
    assert file.metadata["bantam.lineage"] == '{"base": "tiny"}'
    again = Tokenizer.from_gguf(file)
    text = "The picture <|im_end|> is naïve 😀"
    for trusted in (True, False):
        assert again.encode([(text, trusted)]) == tokenizer.encode([(text, trusted)])


def test_without_a_task(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "base.gguf"
    gguf_file.write(path, made(tokenizer), tokenizer, None, {})
    assert from_metadata(gguf.read(path).metadata, path) is None


@pytest.mark.parametrize("bits", gguf_file.FILE_TYPES)
def test_as_the_gguf_package_reads_it(tmp_path: Path, tokenizer: Tokenizer, bits: str) -> None:
    ours = made(tokenizer, tied=False)
    path = tmp_path / "pack.gguf"
    gguf_file.write(path, ours, tokenizer, TASK, LINEAGE, bits)
    reader = GGUFReader(path)
    parts = [
        "attn_norm",
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_norm",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
    ]
    names = [f"blk.{layer}.{part}.weight" for layer in (0, 1) for part in parts]
    wanted = {"token_embd.weight", "output_norm.weight", "output.weight", *names}
    assert {tensor.name for tensor in reader.tensors} == wanted
    for tensor in reader.tensors:
        stored = "F32" if "norm" in tensor.name else bits
        assert tensor.tensor_type.name == stored
    down = next(t for t in reader.tensors if t.name == "blk.1.ffn_down.weight")
    assert down.shape.tolist() == [96, 64]  # GGUF counts the other way round
    assert reader.fields["llama.attention.head_count_kv"].contents() == 2
    assert reader.fields["tokenizer.ggml.tokens"].contents()[1] == "<|im_start|>"
    assert reader.fields["bantam.labels"].contents() == ["yes", "no", "perhaps"]


def differences(path: Path, ours: Decoder, vocabulary: int) -> float:
    """The most that the runtime's probabilities of some tokens differ from torch's."""
    prompts = texts(vocabulary, 1, 2, 9, 33, 60, seed=3)
    pick = random.Random(0)
    candidates = [pick.sample(range(3, vocabulary), 4) for _ in prompts]
    with engine.start(path, threads=1, context=128) as runtime:
        told = np.array(runtime.choose(prompts, candidates))
    return float(np.abs(told - np.array(choose(ours, prompts, candidates))).max())


@pytest.mark.parametrize("bits", BOUNDS)
def test_the_runtime_gives_the_same_probabilities(
    tmp_path: Path, tokenizer: Tokenizer, bits: str
) -> None:
    ours = made(tokenizer, n_kv_heads=1, tied=False, rope_theta=50_000.0)
    path = tmp_path / "pack.gguf"
    gguf_file.write(path, ours, tokenizer, TASK, LINEAGE, bits)
    assert differences(path, ours, tokenizer.vocab_size) < BOUNDS[bits]


@pytest.mark.parametrize("change", [{"rope_theta": 10_000.0}, {"norm_eps": 0.05}])
def test_the_bounds_tell_another_model_apart(
    tmp_path: Path, tokenizer: Tokenizer, change: dict[str, float]
) -> None:
    path = tmp_path / "pack.gguf"
    gguf_file.write(path, made(tokenizer, rope_theta=50_000.0), tokenizer, TASK, LINEAGE, "F32")
    other = made(tokenizer, **({"rope_theta": 50_000.0} | change))
    assert differences(path, other, tokenizer.vocab_size) > max(BOUNDS.values())


def test_an_embedding_with_more_rows_than_tokens(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """As in many Hugging Face folders, where the vocabulary is filled up to a round number."""
    rows = tokenizer.vocab_size + 29
    ours = made(tokenizer, vocab_size=rows)
    path = tmp_path / "pack.gguf"
    gguf_file.write(path, ours, tokenizer, TASK, LINEAGE, "F32")
    assert differences(path, ours, tokenizer.vocab_size) < BOUNDS["F32"]
    again = Tokenizer.from_gguf(gguf.read(path))
    assert again.vocab_size == rows
    text = [("The picture [PAD400] is sharp", True)]
    assert again.encode(text) == tokenizer.encode(text)


def test_more_rows_than_tokens_of_sentencepiece(tmp_path: Path) -> None:
    """As in Phi-3, which has 32,064 rows for 32,011 tokens."""
    tokenizer = Tokenizer(sentencepiece_metadata(), "tiny")
    ours = made(tokenizer, vocab_size=tokenizer.vocab_size + 23)
    path = tmp_path / "pack.gguf"
    gguf_file.write(path, ours, tokenizer, TASK, LINEAGE, "F32")
    assert differences(path, ours, tokenizer.vocab_size) < BOUNDS["F32"]
    text = "The picture is sharp, naïve 😀 [PAD400]"
    with engine.start(path, threads=1, context=128) as runtime:
        assert runtime.tokenize(text, False) == tokenizer.encode([(text, False)])


def test_an_embedding_with_fewer_rows_than_tokens(tmp_path: Path, tokenizer: Tokenizer) -> None:
    ours = made(tokenizer, vocab_size=tokenizer.vocab_size - 1)
    path = tmp_path / "pack.gguf"
    with pytest.raises(BadInput, match="the tokenizer has 400 tokens, the model knows 399"):
        gguf_file.write(path, ours, tokenizer, TASK, LINEAGE)
    assert list(tmp_path.iterdir()) == []


def test_rows_that_fill_no_block_stay_whole(tmp_path: Path, tokenizer: Tokenizer) -> None:
    ours = made(tokenizer, hidden_width=50)
    path = tmp_path / "pack.gguf"
    gguf_file.write(path, ours, tokenizer, TASK, LINEAGE, "Q8_0")
    tensors = gguf.read(path).tensors
    assert tensors["blk.0.ffn_down.weight"].type == "F32"
    assert tensors["blk.0.ffn_up.weight"].type == "Q8_0"
    assert load.load(path).config == ours.config
