"""Muon against torch's own, and against the singular value decomposition that it stands for."""

import pytest
import torch

from bantam.nets import fresh
from bantam.train.muon import Muon
from bantam.train.optimizers import optimizers

SIZES = pytest.mark.parametrize("sizes", [(48, 48), (96, 32), (32, 96)])


def exact(gradient: torch.Tensor) -> torch.Tensor:
    """The matrix of the same singular vectors whose singular values are 1."""
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    return u @ v


@SIZES
@pytest.mark.parametrize("rows", [None, 16])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_step_is_the_gradient_with_all_singular_values_alike(
    sizes: tuple[int, int], rows: int | None, precision: torch.dtype
) -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(*sizes))
    muon = Muon([{"params": [weight], "rows": rows}], 0.1, 0.95, 0.0, precision)
    weight.grad = torch.randn(*sizes)
    muon.step()
    rows = rows or sizes[0]
    steps = -weight.detach() / (0.1 * max(1.0, rows / sizes[1]) ** 0.5)
    for step, gradient in zip(steps.split(rows), weight.grad.split(rows), strict=True):
        u, _, v = torch.linalg.svd(gradient, full_matrices=False)
        shares = u.t() @ step @ v.t()  # U V^T would give the identity
        # The last singular value of a square matrix is as good as zero, and stays small.
        assert (shares.diagonal() > 0.7).sum() >= len(shares) - (sizes[0] == sizes[1])
        assert shares.diagonal().max() < 1.3
        assert (shares - shares.diagonal().diag()).abs().max() < 0.05
        assert torch.cosine_similarity(step.flatten(), exact(gradient).flatten(), dim=0) > 0.95


@SIZES
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_steps_are_those_of_the_singular_value_decomposition(
    sizes: tuple[int, int], decay: float
) -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.ones(*sizes))
    muon = Muon([weight], 0.1, 0.9, decay, torch.float32)
    moment = torch.zeros(*sizes)
    for _ in range(8):
        before = weight.detach().clone()
        weight.grad = torch.randn(*sizes)
        muon.step()
        moment = 0.9 * moment + 0.1 * weight.grad
        wanted = exact(0.9 * moment + 0.1 * weight.grad) * max(1.0, sizes[0] / sizes[1]) ** 0.5
        step = (before * (1 - 0.1 * decay) - weight.detach()) / 0.1
        assert torch.cosine_similarity(step.flatten(), wanted.flatten(), dim=0) > 0.95
        assert float(step.norm()) == pytest.approx(float(wanted.norm()), rel=0.15)


def test_heads_are_made_orthogonal_one_by_one() -> None:
    """Queries, keys and values in one group, with a head's rows; all else whole."""
    decoder = fresh.fresh(fresh.config(300, 64, 64))
    made = optimizers(decoder, "muon", "float32", 1e-3, 0.02, 0.1)
    rows = {p: g["rows"] for g in made[0].param_groups for p in g["params"]}
    for name, weight in decoder.model.layers.named_parameters():
        if weight.ndim == 2:
            head = any(part in name for part in ("q_proj", "k_proj", "v_proj"))
            assert rows[weight] == (decoder.config.head_size if head else None)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_every_weight_is_moved_once(name: str) -> None:
    decoder = fresh.fresh(fresh.config(300, 64, 64))
    made = optimizers(decoder, name, "float32", 1e-3, 0.02, 0.1)
    moved = [p for o in made for group in o.param_groups for p in group["params"]]
    assert len(moved) == len(set(moved)) == len(list(decoder.parameters()))
    by_muon = {p for o in made if isinstance(o, Muon) for g in o.param_groups for p in g["params"]}
    assert decoder.model.embed_tokens.weight not in by_muon
    assert len(by_muon) == (7 * decoder.config.n_layers if name == "muon" else 0)
    undecayed = {
        p for o in made for g in o.param_groups if not g["weight_decay"] for p in g["params"]
    }
    assert undecayed == {p for p in decoder.parameters() if p.ndim == 1}
