"""Every family as a GGUF file: llama.cpp gives the probabilities that our decoder gives."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bantam import engine
from bantam.errors import BadInput
from bantam.formats import gguf
from bantam.formats.tokenizer import Tokenizer
from bantam.nets import load
from bantam.nets.choose import choose
from bantam.nets.decoder import Decoder
from bantam.pack import gguf_file
from tiny_families import FAMILIES, folder
from tiny_nets import texts

# Widths that fill the blocks of 32 values, so that every matrix is stored as it is asked for.
WIDE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
SHAPES = {
    "llama 3": {},
    "llama 3, past its context": {},
    "llama, linear": {},
    "mistral": {},
    "mixtral": {},
    "phi 3": {},
    "phi 3, longrope": {},
    "phi 3, longrope, short texts": {},
    "phi 3, part of a head turns": {"head_dim": 32, "hidden_size": 128},
    "qwen 2": {},
    "qwen 3": {},
    "smollm 3": {},
    "olmo 2": {},
    "gemma 2": {"query_pre_attn_scalar": 16},
    "gemma 3": {"query_pre_attn_scalar": 16},
    "gemma 3, linear": {"query_pre_attn_scalar": 16},
    "gpt 2": {},
}
LONG_FACTORS = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]

# The most that a probability may differ from torch in float32. llama.cpp keeps keys and values in
# float16 (11 bits). Q8_0 rounds weights and activations to 8 bits of the largest in 32, about 1 in
# 250 of each product. For the others ours reads the rounded weights of the file; llama.cpp rounds
# activations to 8 bits besides, and BF16's to 8 bits.
BOUNDS = {"F32": 0.004, "F16": 0.004, "BF16": 0.03, "Q8_0": 0.05, "Q5_0": 0.06, "Q4_0": 0.06}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Tokenizer:
    return Tokenizer.from_gguf(gguf.read(tiny_model))


def made(name: str, path: Path, tokenizer: Tokenizer) -> Decoder:
    more = WIDE | {"vocab_size": tokenizer.vocab_size} | SHAPES[name]
    if "longrope" in name:
        original = 512 if "short" in name else 24
        more |= {"original_max_position_embeddings": original, "max_position_embeddings": 1024}
        more["rope_parameters"] = FAMILIES["phi 3, longrope"][1]["rope_parameters"] | {
            "short_factor": LONG_FACTORS,
            "long_factor": LONG_FACTORS[::-1],
            "original_max_position_embeddings": original,
        }
    folder(name.removesuffix(", short texts"), path, **more)
    return load.load(path)


def differences(path: Path, ours: Decoder, tokens: int) -> float:
    """The most that the runtime's probabilities of some tokens differ from torch's."""
    shortest, longest = read_alike(ours)
    lengths = [n for n in (1, 2, 9, 33, 60) if shortest <= n <= longest]
    prompts = texts(tokens, *lengths, seed=3)
    pick = random.Random(0)
    candidates = [pick.sample(range(3, tokens), 4) for _ in prompts]
    with engine.start(path, threads=1, context=128) as runtime:
        told = np.array(runtime.choose(prompts, candidates))
    # One by one: the angles of longrope go by the longest text of a batch.
    wanted = [choose(ours, [p], [c])[0] for p, c in zip(prompts, candidates, strict=True)]
    return float(np.abs(told - np.array(wanted)).max())


def read_alike(ours: Decoder) -> tuple[int, int]:
    """The shortest and the longest text that the runtime reads as ours does.

    llama.cpp knows no windows but Gemma's, and takes the factors of longrope by the length of its
    context, not of the text.
    """
    rope, window = ours.config.rope, ours.config.window
    if rope is not None and rope.kind == "longrope" and rope.original < 60:
        return rope.original + 1, 60
    if window is not None and not ours.config.family.startswith("gemma"):
        return 1, window - 1
    return 1, min(60, ours.config.context - 1)


@pytest.mark.parametrize("name", SHAPES)
def test_the_runtime_agrees(tmp_path: Path, tokenizer: Tokenizer, name: str) -> None:
    ours = made(name, tmp_path / "hf", tokenizer)
    path = tmp_path / "pack.gguf"
    gguf_file.write(path, ours, tokenizer, None, {}, "F32")
    assert differences(path, ours, tokenizer.vocab_size) < BOUNDS["F32"]


@pytest.mark.parametrize("bits", BOUNDS)
@pytest.mark.parametrize("name", ["llama 3", "mixtral", "phi 3", "gemma 3", "gpt 2"])
def test_in_every_format(tmp_path: Path, tokenizer: Tokenizer, name: str, bits: str) -> None:
    ours = made(name, tmp_path / "hf", tokenizer)
    path = tmp_path / "pack.gguf"
    gguf_file.write(path, ours, tokenizer, None, {}, bits)
    read = load.load(path)
    assert differences(path, read, tokenizer.vocab_size) < BOUNDS[bits]
    moved = (read(torch.tensor([[5, 6, 7]])) - ours(torch.tensor([[5, 6, 7]]))).abs().max()
    assert moved < {"F32": 1e-5, "F16": 0.01, "BF16": 0.1, "Q8_0": 0.2}.get(bits, 2.0)


@pytest.mark.parametrize("name", sorted(SHAPES.keys() - {"llama 3, past its context"}))
def test_written_and_read_again(tmp_path: Path, tokenizer: Tokenizer, name: str) -> None:
    ours = made(name, tmp_path / "hf", tokenizer)
    path = tmp_path / "pack.gguf"
    gguf_file.write(path, ours, tokenizer, None, {}, "F32")
    again = load.load(path)
    weights = again.state_dict()
    for key, weight in ours.state_dict().items():
        # Gemma's norms are 1 + w in the file: what is lost is the last bit of w.
        torch.testing.assert_close(weights[key], weight, atol=3e-7, rtol=0)
    for ids in texts(tokenizer.vocab_size, 9, read_alike(ours)[1]):
        mine, theirs = again(torch.tensor([ids])), ours(torch.tensor([ids]))
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)


def test_an_unheard_of_stretching_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A GGUF file holds divisors; which original context they came from can only be guessed."""
    path = tmp_path / "pack.gguf"
    ours = made("llama 3, past its context", tmp_path / "hf", tokenizer)
    gguf_file.write(path, ours, tokenizer, None, {}, "F32")
    with pytest.raises(BadInput, match="stretched in another way than Llama 3's"):
        load.load(path)


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("gemma 2, another scale", {}, "query_scale"),
        ("smollm 3", {"no_rope_layers": [1, 0, 1, 1, 1]}, "fourth layer"),
        ("opt", {}, "knows no opt"),
    ],
)
def test_what_the_runtime_has_no_place_for(
    tmp_path: Path, tokenizer: Tokenizer, name: str, more: dict[str, object], message: str
) -> None:
    folder(name, tmp_path / "hf", vocab_size=tokenizer.vocab_size, **more)
    ours = load.load(tmp_path / "hf")
    with pytest.raises(BadInput, match=message):
        gguf_file.write(tmp_path / "pack.gguf", ours, tokenizer, None, {}, "F32")
    assert not (tmp_path / "pack.gguf").exists()


@pytest.mark.parametrize("change", [{"window": 8}, {"logit_cap": 0.5}, {"query_scale": 0.3}])
def test_the_bounds_tell_another_model_apart(
    tmp_path: Path, tokenizer: Tokenizer, change: dict[str, float]
) -> None:
    ours = made("gemma 3", tmp_path / "hf", tokenizer)
    path = tmp_path / "pack.gguf"
    gguf_file.write(path, ours, tokenizer, None, {}, "F32")
    other = Decoder(replace(ours.config, **change))
    other.load_state_dict(ours.state_dict())
    assert differences(path, other, tokenizer.vocab_size) > max(BOUNDS.values())
