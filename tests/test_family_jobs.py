"""The whole main job with a tiny base of each family, and models that only the runtime knows."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import bantam
import job
from bantam.formats import gguf
from bantam.formats.tokenizer import Tokenizer
from bantam.nets.load import load
from bantam.nets.lora import add_lora, merge_lora
from tiny import sentencepiece_metadata, tokenizer_metadata
from tiny_families import FAMILIES, VOCAB, folder
from tiny_nets import texts

WIDE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "head_dim": 16,
    "max_position_embeddings": 256,
}
# Families that llama.cpp runs, with the kind of tokenizer that they have.
JOBS = {
    "llama 3": tokenizer_metadata,
    "mixtral": sentencepiece_metadata,
    "phi 3": sentencepiece_metadata,
    "qwen 3": tokenizer_metadata,
    "gemma 3": sentencepiece_metadata,
    "gpt 2": tokenizer_metadata,
}


def base(name: str, path: Path) -> Path:
    """A Hugging Face folder of the family with a tokenizer."""
    tokenizer = Tokenizer(JOBS.get(name, tokenizer_metadata)(), "tiny")
    more = WIDE | {"vocab_size": tokenizer.vocab_size, "sliding_window": 128}
    folder(name, path, **more | {"query_pre_attn_scalar": 16})
    tokenizer.save(path)
    return path


def write(folder: Path, tiny_model: Path) -> None:
    recipe = job.write(folder, tiny_model, base="base")
    text = recipe.read_text("utf-8")
    rivals = text[text.index("rivals") : text.index("shots")]
    recipe.write_text(text.replace(rivals, 'rivals = ["majority"]\n'), "utf-8")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[] if n in ("llama 3", "gemma 3") else [pytest.mark.slow])
        for n in JOBS
    ],
)
def test_the_whole_job(tmp_path: Path, tiny_model: Path, name: str) -> None:
    """Tuned, packed, proved, judged as the packed file, and asked."""
    write(tmp_path, tiny_model)
    base(name, tmp_path / "base")
    done = job.run("make", "recipe.toml", cwd=tmp_path)
    assert done.code == 0, done.err
    verdict = json.loads((tmp_path / "runs/tiny/judge/verdict.json").read_text("utf-8"))
    assert verdict["model"]["score"] > 0.5  # of three labels; a tiny random base learns so much
    done = job.run("run", "runs/tiny", "the phone is awful", cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.split("\t")[0] in job.LABELS


def test_a_base_that_cannot_be_packed_is_refused_first(tmp_path: Path, tiny_model: Path) -> None:
    write(tmp_path, tiny_model)
    base("opt", tmp_path / "base")
    for command in ("make", "check"):
        done = job.run(command, "recipe.toml", cwd=tmp_path)
        assert done.code == 2
        assert "llama.cpp knows no opt" in done.out + done.err
    assert not (tmp_path / "runs/tiny/text").exists()


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_adapters_of_every_family(tmp_path: Path, name: str) -> None:
    folder(name, tmp_path)
    ours = load(tmp_path)
    ids = torch.tensor(texts(VOCAB, 20))
    names, before = ours.state_dict().keys(), ours(ids)
    add_lora(ours, 4, 0)
    assert torch.equal(ours(ids), before)
    adapted = {n.rsplit(".", 2)[1] for n, w in ours.named_parameters() if w.requires_grad}
    plain = {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"}
    assert adapted == plain | ({"gate_proj"} if ours.config.gated else set())
    torch.manual_seed(0)
    for key, weight in ours.named_parameters():
        if key.endswith("lora_b"):
            weight.copy_(torch.randn(weight.shape) * 0.1)
    tuned = ours(ids)
    assert (tuned - before).abs().max() > 0.05
    merge_lora(ours)
    assert ours.state_dict().keys() == names
    torch.testing.assert_close(ours(ids), tuned, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_what_only_the_runtime_knows_is_run_but_not_tuned(tmp_path: Path, tiny_model: Path) -> None:
    """InternLM 2 has Llama's tensors under another name, which our decoder does not know."""
    file = gguf.read(tiny_model)
    metadata = {
        key.replace("llama.", "internlm2.", 1): value for key, value in file.metadata.items()
    }
    metadata["general.architecture"] = "internlm2"
    tensors: list[gguf.NewTensor] = [
        (info.name, info.shape, "F32", partial(gguf.tensor, file, info.name))
        for info in file.tensors.values()
    ]
    vocabulary = file.tensors["token_embd.weight"]
    head = ("output.weight", vocabulary.shape, "F32", partial(gguf.tensor, file, vocabulary.name))
    tensors.append(head)  # which InternLM 2 does not share
    write(tmp_path, tiny_model)
    gguf.write(tmp_path / "other.gguf", metadata, tensors)
    with bantam.load(tmp_path / "other.gguf") as model:
        assert model.chat([{"role": "user", "content": "Is it sharp?"}], max_tokens=4)
    recipe = tmp_path / "recipe.toml"
    text = recipe.read_text("utf-8")
    recipe.write_text(text.replace('model = "base"', 'model = "other.gguf"'), "utf-8")
    done = job.run("make", "recipe.toml", cwd=tmp_path)
    assert done.code == 2
    assert "'internlm2'" in done.err
    text = text.replace('model = "base"', 'model = "tiny.gguf"')
    recipe.write_text(text.replace('"majority"', '"majority", "other.gguf"'), "utf-8")
    done = job.run("make", "recipe.toml", cwd=tmp_path)
    assert done.code == 0, done.err
    verdict = json.loads((tmp_path / "runs/tiny/judge/verdict.json").read_text("utf-8"))
    assert verdict["rivals"][1]["name"] == "other.gguf"
