"""The proof passes a faithful pack and no other."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_job
from bantam.formats import gguf
from bantam.formats.tokenizer import Tokenizer
from bantam.kinds import classify
from bantam.model import Model
from bantam.nets import load, names
from bantam.nets.decoder import Decoder
from bantam.pack import gguf_file, proof
from bantam.train import stage

TEXTS = [text for text, _ in tiny_job.VAL] + ["<|im_end|> naïve 😀", ""]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Tokenizer:
    return Tokenizer.from_gguf(gguf.read(tiny_model))


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    run = tmp_path_factory.mktemp("run")
    made = tiny_job.plan(steps=36)
    tiny_job.make(tiny_model, run, made)
    return stage.merged(tiny_model, made, run / "train" / "tuned.safetensors")


def write(path: Path, decoder: Decoder, tokenizer: Tokenizer, bits: str = "Q8_0") -> Path:
    gguf_file.write(path, decoder, tokenizer, tiny_job.TASK, {}, bits)
    return path


def passed(decoder: Decoder, path: Path) -> list[bool]:
    with Model(path, threads=1) as packed:
        checks = proof.prove(decoder, packed, TEXTS)
    assert all(check["check"] and check["passed"] in (True, False) for check in checks)
    return [check["passed"] for check in checks]


@pytest.mark.parametrize("bits", ["Q8_0", "F32"])
def test_a_faithful_pack(tmp_path: Path, trained: Decoder, tokenizer: Tokenizer, bits: str) -> None:
    path = write(tmp_path / "pack.gguf", trained, tokenizer, bits)
    assert passed(trained, path) == [True, True, True]


SEVERAL = classify.task("tiny", "Is it good?", ["yes", "no", "not at all"], multi=True)


def test_a_faithful_pack_of_several_labels(
    tmp_path: Path, trained: Decoder, tokenizer: Tokenizer
) -> None:
    task = replace(SEVERAL, temperature=1.5)
    gguf_file.write(tmp_path / "pack.gguf", trained, tokenizer, task, {}, "Q8_0")
    assert passed(trained, tmp_path / "pack.gguf") == [True, True, True]


def test_sets_are_the_same_when_every_label_is_on_its_side() -> None:
    task = replace(SEVERAL, thresholds=(0.3, 0.5, 0.9))
    trained = np.array([[0.6, 0.6, 0.6]] * 5)
    shipped = np.array(
        [
            [0.4, 0.9, 0.8],  # as far from it as one likes, on the same side
            [0.2, 0.6, 0.6],  # the first has gone over
            [0.6, 0.6, 0.95],
            [0.6, 0.4, 0.6],
            [0.6, 0.6, 0.6],
        ]
    )
    assert proof._same(task, trained, shipped).tolist() == [True, False, False, False, True]
    near = np.array([[0.6, 0.54, 0.6]] * 5)  # a tie for the second: rounding may decide
    assert proof._same(task, near, shipped).tolist() == [True, False, False, True, True]


def shuffled(decoder: Decoder) -> None:
    weight = decoder.model.layers[1].mlp.down_proj.weight
    order = torch.randperm(len(weight), generator=torch.Generator().manual_seed(0))
    weight.copy_(weight[order].clone())


def unpaired(decoder: Decoder) -> None:
    """Rows of the queries in the wrong order, as a converter's commonest fault leaves them."""
    weight = decoder.model.layers[0].attn.q_proj.weight
    weight.copy_(names.pair_neighbours(weight.clone(), decoder.config.n_heads))


def norm_left_out(decoder: Decoder) -> None:
    decoder.model.norm.weight.fill_(1)
    decoder.model.layers[1].attn_norm.weight.mul_(0.2)


@pytest.mark.parametrize("spoil", [shuffled, unpaired, norm_left_out])
def test_a_spoiled_pack(
    tmp_path: Path,
    tiny_model: Path,
    trained: Decoder,
    tokenizer: Tokenizer,
    spoil: Callable[[Decoder], None],
) -> None:
    spoiled = load.load(tiny_model).requires_grad_(False)
    spoiled.load_state_dict(trained.state_dict())
    spoil(spoiled)
    checks = passed(trained, write(tmp_path / "pack.gguf", spoiled, tokenizer))
    assert checks[0]
    assert not all(checks)


def test_an_untuned_pack(
    tmp_path: Path, tiny_model: Path, trained: Decoder, tokenizer: Tokenizer
) -> None:
    path = write(tmp_path / "pack.gguf", load.load(tiny_model), tokenizer)
    assert passed(trained, path) == [True, False, False]


def test_another_tokenizer(tmp_path: Path, trained: Decoder, tokenizer: Tokenizer) -> None:
    """A merge left out: the runtime would cut a word otherwise than the one that was trained."""
    path = write(tmp_path / "pack.gguf", trained, tokenizer)
    with Model(path, threads=1) as packed:
        keys = tokenizer.gguf_metadata()
        merges = keys["tokenizer.ggml.merges"]
        packed.__dict__["tokenizer"] = Tokenizer(
            keys | {"tokenizer.ggml.merges": merges[:40]}, "less"
        )
        checks = proof.prove(trained, packed, TEXTS)
    assert not checks[0]["passed"]


def test_rounding_may_decide_between_answers_that_are_as_good_as_equal(
    tmp_path: Path, trained: Decoder, tokenizer: Tokenizer
) -> None:
    """Two labels whose tokens have one and the same embedding but for a ten-thousandth."""
    tokens = [tokenizer.encode([(f" {label}", False)])[0] for label in ("yes", "no")]
    near = load.load(write(tmp_path / "copy.gguf", trained, tokenizer)).requires_grad_(False)
    rows = near.model.embed_tokens.weight
    rows[tokens[1]] = rows[tokens[0]]
    path = write(tmp_path / "pack.gguf", near, tokenizer)
    rows[tokens[1]] *= 1.0001
    rows[tokens[0]] *= 0.9999
    assert passed(near, path) == [True, True, True]
