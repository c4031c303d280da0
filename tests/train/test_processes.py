"""One model trained by several processes: as by one, and resumed by another number of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

import tiny_corpus
import tiny_pretrain
from bantam.nets import fresh
from bantam.train import several
from tiny_pretrain import PLAN

pytestmark = pytest.mark.slow  # each starts two processes that import torch
PLAIN = replace(PLAN, steps=12, optimizer="adamw")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made, tokenizer = tmp_path_factory.mktemp("corpus"), tiny_corpus.tokenizer()
    tiny_corpus.corpus(made / "train", tokenizer, tiny_corpus.texts(100, 1))
    tiny_corpus.corpus(made / "val", tokenizer, tiny_corpus.texts(10, 2))
    return made


def losses(place: Path) -> list[float]:
    lines = (place / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_two_processes_learn_what_one_does(folder: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    tiny_pretrain.run(folder, one, PLAIN)
    several.launch(tiny_pretrain.several, (folder, two, PLAIN), 2)
    # Sums in another order; a lost or doubled gradient moves the loss by more than 0.01.
    assert losses(two) == pytest.approx(losses(one), abs=1e-3)
    first, second = (torch.load(two / f"weights-{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_number_of_processes_goes_on(folder: Path, tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    tiny_pretrain.run(folder, whole, PLAIN)
    with pytest.raises(KeyboardInterrupt):
        tiny_pretrain.stopped(folder, parted, PLAIN, after=5)
    several.launch(tiny_pretrain.several, (folder, parted, PLAIN), 2)
    assert losses(parted) == pytest.approx(losses(whole), abs=1e-3)
    assert losses(parted)[:4] == losses(whole)[:4]


# Of one row a batch, one of the processes has none; of three heads each has one and a half.
@pytest.mark.parametrize(
    ("optimizer", "rows", "heads"),
    [("adamw", 4, 1), ("muon", 4, 1), ("muon", 1, 1), ("muon", 4, 2), ("muon", 4, 3)],
)
def test_processes_that_share_a_model_learn_what_one_does(
    folder: Path, tmp_path: Path, optimizer: str, rows: int, heads: int
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    plan = replace(PLAIN, optimizer=optimizer, rows=rows, sharded=True)
    shape = fresh.config(tiny_corpus.SIZE, 32, 32 * heads)
    assert shape.n_heads == heads
    tiny_pretrain.run(folder, one, plan, shape)
    several.launch(tiny_pretrain.several, (folder, two, plan, 0, shape), 2)
    # As above. One process's gradients lost moves the loss of four rows by 0.1.
    assert losses(two) == pytest.approx(losses(one), abs=1e-3)
    first, second = (torch.load(two / f"weights-{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_shared_and_whole_models_go_on_with_each_other(folder: Path, tmp_path: Path) -> None:
    """One process begins, two that share the model go on until one of them dies, one ends it."""
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    plan = replace(PLAIN, optimizer="muon", sharded=True)
    tiny_pretrain.run(folder, whole, plan)
    with pytest.raises(KeyboardInterrupt):
        tiny_pretrain.stopped(folder, parted, plan, after=5)
    with pytest.raises(ChildFailedError, match="a machine that fails"):
        several.launch(tiny_pretrain.several, (folder, parted, plan, 10), 2)
    (newest, _) = sorted(parted.glob("checkpoint-*"), reverse=True)
    assert newest.name == "checkpoint-00000008"
    tiny_pretrain.run(folder, parted, plan)
    assert losses(parted) == pytest.approx(losses(whole), abs=1e-3)
    assert losses(parted)[:4] == losses(whole)[:4]
    assert len(list(parted.glob("process-*"))) == 2  # that took the steps between
