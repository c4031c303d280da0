"""Generation against transformers, one text and several of unlike lengths."""

from pathlib import Path

import pytest
import torch

from bantam.nets.generate import generate
from bantam.nets.load import load
from tiny_families import FAMILIES, VOCAB, folder
from tiny_nets import texts

MOST = 24


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_texts_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    theirs = folder(name, tmp_path)
    prompts = texts(VOCAB, 30, 47, 26)
    wanted = []
    for prompt in prompts:
        whole = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=MOST,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        wanted.append(whole[0, len(prompt) :].tolist())
    ours = load(tmp_path)
    assert generate(ours, prompts, MOST) == wanted
    assert generate(ours, prompts[:1], MOST) == wanted[:1]
    end = wanted[0][5]
    cut = [row[: row.index(end)] if end in row else row for row in wanted]
    assert generate(ours, prompts, MOST, {end}) == cut


def test_chance_follows_the_seed_and_the_temperature(tmp_path: Path) -> None:
    folder("llama", tmp_path)
    ours = load(tmp_path)
    prompts = texts(VOCAB, 4, 9)
    first, again, other = (generate(ours, prompts, 12, (), 1.0, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert generate(ours, prompts, 12, (), 1e-4) == generate(ours, prompts, 12)
