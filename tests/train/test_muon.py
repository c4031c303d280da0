"""Muon against torch's own, and against the singular value decomposition that it stands for."""

import pytest
import torch

from bantam.nets import fresh
from bantam.train.muon import Muon
from bantam.train.optimizers import optimizers

SIZES = pytest.mark.parametrize("sizes", [(48, 48), (96, 32), (32, 96)])


@SIZES
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_step_is_the_gradient_with_all_singular_values_alike(
    sizes: tuple[int, int], precision: torch.dtype
) -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(*sizes))
    muon = Muon([weight], 0.1, 0.95, 0.0, precision)
    weight.grad = torch.randn(*sizes)
    u, _, v = torch.linalg.svd(weight.grad, full_matrices=False)
    muon.step()
    stretch = max(1.0, sizes[0] / sizes[1]) ** 0.5
    step = -weight.detach() / (0.1 * stretch)
    shares = u.t() @ step @ v.t()  # U V^T would give the identity
    # The iteration brings all singular values to between 0.7 and 1.2.
    assert ((shares.diagonal() > 0.6) & (shares.diagonal() < 1.3)).all()
    assert (shares - shares.diagonal().diag()).abs().max() < 0.05
    cosine = (step * (u @ v)).sum() / (step.norm() * (u @ v).norm())
    assert cosine > 0.95


@SIZES
def test_steps_in_bfloat16_are_those_of_torch(sizes: tuple[int, int]) -> None:
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(*sizes)) for _ in range(2))
    told = {"lr": 0.1, "momentum": 0.95, "weight_decay": 0.1}
    movers = Muon([ours], **told, precision=torch.bfloat16), torch.optim.Muon([theirs], **told)
    for _ in range(4):
        ours.grad = torch.randn(*sizes)
        theirs.grad = ours.grad.clone()
        for mover in movers:
            mover.step()
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_every_weight_is_moved_once(name: str) -> None:
    decoder = fresh.fresh(fresh.config(300, 64, 64))
    made = optimizers(decoder, name, "float32", 1e-3, 0.02, 0.1)
    moved = [p for o in made for group in o.param_groups for p in group["params"]]
    assert len(moved) == len(set(moved)) == len(list(decoder.parameters()))
    by_muon = {p for o in made if isinstance(o, Muon) for p in o.param_groups[0]["params"]}
    assert decoder.model.embed_tokens.weight not in by_muon
    assert len(by_muon) == (7 * decoder.config.n_layers if name == "muon" else 0)
    undecayed = {
        p for o in made for g in o.param_groups if not g["weight_decay"] for p in g["params"]
    }
    assert undecayed == {p for p in decoder.parameters() if p.ndim == 1}
