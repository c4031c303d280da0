"""Checkpoints: everything that a run needs to go on exactly, each folder sealed by its hashes.

A checkpoint holds the trained tensors, the optimizer's moments, the best weights so far and the
place in the run. Batches and learning rates are functions of the step, so there is no other state.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bantam import runs
from bantam.nets.load import write_tensors
from bantam.train import ranks, sharded

KEPT = 2  # a torn or altered newest checkpoint falls back on the one before


@dataclass(frozen=True)
class Place:
    """Where a run stands after a step."""

    step: int
    best_step: int  # 0 before the first evaluation, as are its score and loss
    best_score: float
    best_loss: float
    spent_seconds: float
    done: bool


def trained(decoder: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name; a shared tensor once."""
    return {name: p for name, p in decoder.named_parameters() if p.requires_grad}


def save(
    folder: Path,
    key: str,
    decoder: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    place: Place,
) -> None:
    """Write `folder/checkpoint-STEP` whole or not at all, and drop all but the newest few.

    Every process must call it; the first one writes. Of a decoder in shards it holds all tensors in
    memory, about 12 bytes a parameter.
    """
    parameters = trained(decoder)
    moments = {
        f"{name}.{which}": value
        for name, p in parameters.items()
        for optimizer in optimizers
        if p in optimizer.state
        for which, value in optimizer.state[p].items()
    }
    weights, moments = sharded.whole(parameters), sharded.whole(moments)
    if ranks.rank() > 0:
        return
    partial = folder / "checkpoint.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    write_tensors(weights, partial / "weights.st")
    write_tensors(moments, partial / "optimizer.st")
    if place.best_step:
        better = place.best_step == place.step
        best = partial / "weights.st" if better else _newest(folder)[0] / "best.st"
        runs.same_file(best, partial / "best.st")
    runs.write_json(partial / "place.json", asdict(place))
    runs.seal(partial, key)
    final = folder / f"checkpoint-{place.step:08d}"
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    runs.sync(folder)
    for old in _newest(folder)[KEPT:]:
        shutil.rmtree(old)


def restore(
    folder: Path, key: str, decoder: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> Place | None:
    """Put the newest sound checkpoint into the decoder and the optimizers; None if there is none.

    Newer ones that are not sound are removed: what follows must not build on them.
    """
    for checkpoint in _newest(folder):
        if not runs.sound(checkpoint, key):
            shutil.rmtree(checkpoint)
            continue
        parameters = trained(decoder)
        put(parameters, load_file(checkpoint / "weights.st"))
        moments = load_file(checkpoint / "optimizer.st")
        owner = {p: o for o in optimizers for group in o.param_groups for p in group["params"]}
        for whole, value in moments.items():
            name, _, which = whole.rpartition(".")
            p = parameters[name]
            # A copy: what is read is mapped, and holds on to the file.
            value = value.clone()
            moment = value.shape == p.shape  # else the number of steps
            owner[p].state[p][which] = sharded.like(value, p) if moment else value.to(p.device)
        return Place(**json.loads((checkpoint / "place.json").read_text(encoding="utf-8")))
    return None


def take_best(folder: Path, decoder: nn.Module) -> None:
    """Put the best weights of the newest checkpoint into the decoder."""
    put(trained(decoder), load_file(_newest(folder)[0] / "best.st"))


def forget(folder: Path) -> None:
    """Remove all checkpoints, once what they were for is kept elsewhere."""
    for checkpoint in _newest(folder):
        shutil.rmtree(checkpoint)


def put(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(sharded.like(values[name], p))


def _newest(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), reverse=True)
