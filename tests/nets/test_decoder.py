"""The decoder against transformers' Llama with the same weights."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bantam.nets.choose import pad
from bantam.nets.decoder import SHORT
from tiny_nets import decoder, hugging_face, texts, twin

# Two correct orders of the same float32 sums differ by some 1e-6 here; a wrong mask, pair of
# rotated rows or share of key heads by more than 0.1.
CLOSE = 1e-4

SHAPES: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tied": False},
    "one key head": {"n_kv_heads": 1},
    "a key head each": {"n_kv_heads": 4},
    "wide heads": {"head_size": 12},
    "narrow heads": {"head_size": 4, "n_kv_heads": 4},
    "theta": {"rope_theta": 100_000.0},
    "eps": {"norm_eps": 0.05},
    "one layer": {"n_layers": 1, "hidden_width": 20},
}
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_logits_are_those_of_transformers(name: str) -> None:
    ours = decoder(**SHAPES[name])
    theirs = twin(ours)
    for row in texts(97, 1, 2, 33):
        ids = torch.tensor([row])
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("length", [SHORT - 1, SHORT, SHORT + 1, SHORT + 60])
@torch.no_grad()
def test_both_ways_to_attend(length: int) -> None:
    ours = decoder()
    ids = torch.tensor(texts(97, length))
    torch.testing.assert_close(ours(ids), twin(ours)(ids).logits, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("lengths", [(1, 9, 40), (3, SHORT + 20)])
@torch.no_grad()
def test_padding_changes_nothing(lengths: tuple[int, ...]) -> None:
    ours = decoder()
    theirs = twin(ours)
    rows = texts(97, *lengths)
    together = ours(pad(rows, CPU))
    for row, logits in zip(rows, together, strict=True):
        alone = theirs(torch.tensor([row])).logits[0]
        torch.testing.assert_close(logits[: len(row)], alone, atol=CLOSE, rtol=0)


@pytest.mark.parametrize(("start", "rest"), [(1, (1, 5)), (30, (2, 17, 9)), (SHORT - 10, (30, 4))])
@torch.no_grad()
def test_a_shared_beginning_changes_nothing(start: int, rest: tuple[int, ...]) -> None:
    ours = decoder()
    beginning, *rows = texts(97, start, *rest)
    together = ours.states(pad(rows, CPU), torch.tensor(beginning))
    for row, states in zip(rows, together, strict=True):
        whole = ours.states(torch.tensor([beginning + row]))[0, start:]
        torch.testing.assert_close(states[: len(row)], whole, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("length", [24, SHORT + 8])
@pytest.mark.parametrize("tied", [True, False])
def test_gradients_are_those_of_transformers(length: int, tied: bool) -> None:
    ours = decoder(tied=tied, n_kv_heads=1)
    theirs = twin(ours)
    ids = torch.tensor(texts(97, length, length))
    F.cross_entropy(ours(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
    theirs(ids, labels=ids).loss.backward()
    wanted = {name: weight.grad for name, weight in theirs.named_parameters()}
    grads = hugging_face({name: weight.grad for name, weight in ours.named_parameters()})
    assert wanted.keys() == grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, wanted[name], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("norm", ["rms", "layer"])
@torch.no_grad()
def test_states_are_in_the_precision_of_autocast(
    monkeypatch: pytest.MonkeyPatch, norm: str
) -> None:
    """On graphics cards autocast has norms give float32: here they are made to."""
    plain = getattr(F, f"{norm}_norm")
    monkeypatch.setattr(F, f"{norm}_norm", lambda *given: plain(*given).float())
    ours, ids = decoder(norm=norm), torch.tensor(texts(97, 9))
    with torch.autocast("cpu", torch.bfloat16):
        assert ours.states(ids).dtype == torch.bfloat16
    assert ours.states(ids).dtype == torch.float32
