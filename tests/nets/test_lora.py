"""Low-rank adapters: no change at the start, folded in without a change, alone in learning."""

import copy

import torch

from bantam.nets.decoder import Decoder
from bantam.nets.lora import add_lora, merge_lora
from tiny_nets import decoder, texts

IDS = torch.tensor(texts(97, 20, 20))


def stirred(ours: Decoder) -> None:
    """Adapters as after training: B is not zero any more."""
    with torch.no_grad():
        for name, weight in ours.named_parameters():
            if name.endswith("lora_b"):
                weight.copy_(torch.randn(weight.shape) * 0.1)


@torch.no_grad()
def test_at_the_start_it_is_the_base() -> None:
    ours = decoder()
    before = ours(IDS)
    add_lora(ours, rank=4, seed=0)
    assert torch.equal(ours(IDS), before)


@torch.no_grad()
def test_merged_is_the_same_function() -> None:
    torch.manual_seed(0)
    ours = decoder(n_kv_heads=1, tied=False)
    names = ours.state_dict().keys()
    base = ours(IDS)
    add_lora(ours, rank=4, seed=0)
    stirred(ours)
    adapted = ours(IDS)
    merge_lora(ours)
    assert ours.state_dict().keys() == names
    # W x + B (A x) against (W + B A) x: float32 sums in another order.
    torch.testing.assert_close(ours(IDS), adapted, atol=1e-4, rtol=0)
    assert (adapted - base).abs().max() > 0.1


def test_only_the_adapters_learn() -> None:
    ours = decoder()
    add_lora(ours, rank=4, seed=0)
    stirred(ours)
    learning = {name for name, weight in ours.named_parameters() if weight.requires_grad}
    assert {name.rsplit(".")[-1] for name in learning} == {"lora_a", "lora_b"}
    assert len(learning) == 2 * 7 * ours.config.n_layers
    before = copy.deepcopy(ours.state_dict())
    ours(IDS).square().mean().backward()
    torch.optim.SGD([w for w in ours.parameters() if w.requires_grad], lr=1.0).step()
    changed = {name for name, weight in ours.state_dict().items() if (weight != before[name]).any()}
    assert changed == learning


def test_the_seed_decides_the_adapters() -> None:
    states = []
    for seed in (1, 1, 2):
        ours = decoder()
        add_lora(ours, rank=4, seed=seed)
        states.append(torch.cat([w.flatten() for w in ours.parameters() if w.requires_grad]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
