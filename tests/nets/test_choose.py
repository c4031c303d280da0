"""Probabilities of candidates, and the beginning that texts share."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bantam.nets.choose import choose, shared_start
from tiny_nets import decoder, texts


@given(
    st.lists(st.integers(0, 2), max_size=6),
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=5),
)
def test_shared_start(begin: list[int], ends: list[list[int]]) -> None:
    rows = [begin + end for end in ends]
    start = shared_start(rows)
    assert all(row[: len(start)] == start for row in rows)
    # One token of each row is left, and no longer start would do.
    assert all(len(row) > len(start) for row in rows)
    longer = {tuple(row[: len(start) + 1]) for row in rows}
    assert len(longer) > 1 or min(map(len, rows)) == len(start) + 1


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
@pytest.mark.parametrize("shared", [0, 11])
@torch.no_grad()
def test_choose_is_the_softmax_of_the_full_logits(shared: int, batch_tokens: int) -> None:
    ours = decoder()
    begin, *ends = texts(97, shared, 1, 19, 4, 4, 30, 7)
    prompts = [begin + end for end in ends]
    pick = random.Random(0)
    candidates = [pick.sample(range(97), size) for size in (2, 3, 97, 1, 5, 2)]
    found = choose(ours, prompts, candidates, batch_tokens)
    for prompt, some, shares in zip(prompts, candidates, found, strict=True):
        everything = ours(torch.tensor([prompt]))[0, -1].softmax(-1)
        wanted = everything[some] / everything[some].sum()
        assert shares == pytest.approx(wanted.tolist(), abs=1e-5)


def test_choose_of_nothing() -> None:
    assert choose(decoder(), [], []) == []


def test_logits_keep_their_precision_under_autocast() -> None:
    ours = decoder()
    with torch.no_grad():
        ours.lm_head.weight.fill_(1.001)
    states = torch.full((1, 32), 2.5)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours.logits(states, [3, 5]).tolist() == [[pytest.approx(80.08, abs=1e-3)] * 2]
