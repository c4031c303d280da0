"""A decoder in shards, in one process: the same steps as a whole one, checkpoints that either takes
up, and when it is that a model is cut. Several processes are in test_processes.py."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from bantam.errors import BadInput
from bantam.nets import fresh
from bantam.nets.decoder import Decoder
from bantam.train import device, pretrain, pretrain_plan, sharded, state
from bantam.train.optimizers import optimizers
from bantam.train.pretrain_plan import Wish
from tiny_pretrain import PLAN, SHAPE

PLACE = state.Place(3, 0, 0.0, 0.0, 0.0, False)


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of this process alone, so that weights can be cut, into one piece."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def side(optimizer: str, shards: bool) -> tuple[Decoder, list[torch.optim.Optimizer]]:
    decoder = fresh.fresh(SHAPE)
    if shards:
        sharded.shard(decoder)
    return decoder, optimizers(decoder, optimizer, "float32", 4e-3, 0.02, 0.1)


def steps(decoder: Decoder, movers: list[torch.optim.Optimizer], seed: int) -> list[float]:
    ids = np.random.default_rng(seed).integers(1, SHAPE.vocab_size, (3, 4, 33))
    take = pretrain.step_of(decoder, replace(PLAN, clip=0.5), movers, 0)
    return [take(batch, 0.7) for batch in ids]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_shards_step_as_the_whole_does_and_take_up_each_others_checkpoints(
    tmp_path: Path, optimizer: str
) -> None:
    whole, cut = side(optimizer, False), side(optimizer, True)
    assert all(isinstance(p, DTensor) for p in cut[0].parameters())
    assert steps(*cut, seed=1) == pytest.approx(steps(*whole, seed=1), rel=1e-4)
    for name, (one, other) in {"down": (cut, whole), "up": (whole, cut)}.items():
        folder = tmp_path / name
        state.save(folder_made(folder), "key", *one, PLACE)
        assert state.restore(folder, "key", *other) == PLACE
        assert whole_tensors(one).keys() == whole_tensors(other).keys()
        for key, tensor in whole_tensors(one).items():
            assert torch.equal(tensor, whole_tensors(other)[key]), key
        assert steps(*one, seed=2) == pytest.approx(steps(*other, seed=2), rel=1e-4)


def folder_made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def whole_tensors(side: tuple[Decoder, list[torch.optim.Optimizer]]) -> dict[str, torch.Tensor]:
    """Weights and moments."""
    decoder, movers = side
    found = dict(decoder.named_parameters())
    moments = {
        f"{name}.{which}": value
        for name, p in decoder.named_parameters()
        for mover in movers
        if p in mover.state
        for which, value in mover.state[p].items()
    }
    assert len(moments) >= len(found)
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()
        for name, value in (found | moments).items()
    }


@pytest.mark.usefixtures("alone")
def test_a_look_at_shards_leaves_them_in_shards() -> None:
    decoder, _ = side("adamw", True)
    ids = torch.arange(1, 21).view(2, 10)
    with torch.no_grad():
        states = decoder.states(ids)
        told = decoder.logits(states)
        expected = fresh.fresh(SHAPE)(ids)
    torch.testing.assert_close(told, expected)
    sharded.let_go(decoder)
    assert all(isinstance(p, DTensor) for p in decoder.parameters())


def test_a_model_is_cut_where_it_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = fresh.count(fresh.shape(1_000_000, 2000))
    memory = int(16 * parameters / 0.8 * 1.01)
    monkeypatch.setattr(device, "memory", lambda where: memory)
    monkeypatch.setattr(device, "pick", lambda: torch.device("cpu"))
    wish = Wish(tokens=1_000_000, parameters=1_000_000, threads=1)
    assert not pretrain_plan.plan(wish, 2000, 100_000)[1].sharded
    # Two processes share the memory; of graphics cards each has one.
    assert pretrain_plan.plan(replace(wish, processes=2), 2000, 100_000)[1].sharded
    monkeypatch.setattr(device, "pick", lambda: torch.device("cuda"))
    assert not sharded.wanted(parameters, 2)
    assert sharded.wanted(int(parameters * 1.02), 2)


def test_what_does_not_fit_cannot_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "memory", lambda where: 10_000_000)
    with pytest.raises(BadInput, match="does not fit the memory") as refused:
        pretrain_plan.plan(Wish(seconds=60, parameters=1_000_000, threads=1), 2000, 100_000)
    assert "train.parameters = 500_000 at most" in refused.value.mend
