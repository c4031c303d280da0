"""The rivals of benchmarks/scratch.py: they are what they are said to be, and learn."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bantam.nets.decoder import Decoder
from tiny_nets import SMALL, texts

pytest.importorskip("accelerate", reason="the rival is installed by [bench]")

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
CONTEXT = 16


@pytest.fixture(scope="module")
def rivals() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import scratch_rivals

        yield scratch_rivals
    sys.modules.pop("scratch_rivals", None)


def pattern(count: int = 4000) -> Any:
    """Tokens that can be foretold from the one before."""
    return (np.arange(count, dtype=np.uint16) * 7) % 97


def wanted(rivals: ModuleType, **change: Any) -> Any:
    settings = {"steps": 40, "rows": 4, "context": CONTEXT, "rate": 1e-2, "seed": 0}
    return rivals.Settings(**settings | {"bfloat16": False} | change)


def loss_of(model: Any) -> float:
    ids = torch.from_numpy(pattern(CONTEXT).astype(np.int64))[None]
    with torch.no_grad():
        logits = model.lm_head(model.model(input_ids=ids).last_hidden_state)
    return float(F.cross_entropy(logits[0, 4:-1], ids[0, 5:]))


def test_trainer_learns_blocks_of_the_documents(rivals: ModuleType, tmp_path: Path) -> None:
    ids = pattern()
    blocks = rivals.Blocks(ids, CONTEXT)
    assert len(blocks) == len(ids) // CONTEXT
    assert blocks[3]["labels"].tolist() == ids[3 * CONTEXT : 4 * CONTEXT].tolist()
    seen = []

    def after_step(step: int, model: Any) -> bool:
        seen.append((step, loss_of(model)))
        return False

    rivals.train_trainer(ids, SMALL, wanted(rivals, schedule="linear"), tmp_path, after_step)
    assert [step for step, _ in seen] == [*range(1, 41)]
    assert seen[-1][1] < seen[0][1] - 1
    assert not list(tmp_path.iterdir())
    done: list[int] = []
    given = wanted(rivals, schedule="linear")
    rivals.train_trainer(ids, SMALL, given, tmp_path, lambda n, _: done.append(n) or n == 3)
    assert done == [1, 2, 3]


def test_the_loop_learns(rivals: ModuleType) -> None:
    seen = []

    def after_step(step: int, model: Any) -> bool:
        seen.append((step, loss_of(model)))
        return step == 30

    model = rivals.train_loop(pattern(), SMALL, wanted(rivals), after_step)
    assert [step for step, _ in seen] == [*range(1, 31)]
    assert loss_of(model) < seen[0][1] - 1


def test_seeds_decide(rivals: ModuleType, tmp_path: Path) -> None:
    def end(train: Any, *more: Any, seed: int) -> float:
        given = wanted(rivals, seed=seed, steps=4)
        return loss_of(train(pattern(), SMALL, given, *more, lambda *_: False))

    for train, more in ((rivals.train_trainer, (tmp_path,)), (rivals.train_loop, ())):
        assert end(train, *more, seed=0) == end(train, *more, seed=0) != end(train, *more, seed=1)


@torch.no_grad()
def test_the_loop_has_a_decoder_of_like_size_that_looks_back(rivals: ModuleType) -> None:
    model = rivals.GPT2(SMALL)
    ids = torch.tensor(texts(97, 12))
    changed = ids.clone()
    changed[0, 8] += 1 if ids[0, 8] < 90 else -1
    same = torch.isclose(model(ids), model(changed), atol=1e-6).all(-1)[0]
    assert same[:8].all() and not same[8:].any()
    shape = replace(SMALL, n_layers=6, width=256, n_kv_heads=4, head_size=64, hidden_width=704)
    sizes = [sum(w.numel() for w in make(shape).parameters()) for make in (Decoder, rivals.GPT2)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.15)


def test_rates_rise_and_fall(rivals: ModuleType) -> None:
    given = wanted(rivals, steps=100, rate=1.0)
    rates = [rivals.rate_at(step, given) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == pytest.approx(1.0)
    assert all(a > b for a, b in pairwise(rates[5:]))
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
