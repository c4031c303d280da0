"""Both sides of benchmarks/tune.py on answers that are written: alike before the first step."""

import math
import random
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import job
import tiny_job
from bantam.formats import gguf
from bantam.formats.tokenizer import Tokenizer
from bantam.kinds import Example, Row, texts
from bantam.nets import load
from bantam.nets.choose import shared_start
from bantam.nets.decoder import Decoder
from bantam.train import stage
from bantam.train.objective import answer_loss
from bantam.train.plan import Plan
from bantam.train.validation import Written

pytest.importorskip("peft", reason="the rival is installed by [bench]")
pytest.importorskip("trl", reason="the rival is installed by [bench]")

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
PLAN = Plan("lora", "float32", 1, 1, 8, 1e-3, 1, 1, 0)
WAYS = ["float32 autocast sdpa", "float32 autocast eager", "bfloat16 sdpa"]


@pytest.fixture(scope="module")
def sides() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import tune_sides

        yield tune_sides
    for name in ("tune", "tune_sides"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def base(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as the rival reads it."""
    folder, tokenizer = tmp_path_factory.mktemp("bench") / "base", tokenizer_of(tiny_model)
    load.save(load.load(tiny_model), folder, tokenizer.bos_id, tokenizer.eos_id)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def examples(tiny_model: Path) -> list[Example]:
    chance = random.Random(0)
    said = [(chance.sample(job.THINGS, chance.randint(2, 7)), n) for n in range(8)]
    rows = [Row(f"the {' and the '.join(things)}, {n}", f"{things[0]} {n}") for things, n in said]
    tokenizer = tokenizer_of(tiny_model)
    task = texts.task("generate", "tiny", "What is first?")
    task = texts.sized(task, tokenizer.encode, rows, 512)
    return stage.examples_of(task, tokenizer, rows)


def tokenizer_of(model: Path) -> Tokenizer:
    return Tokenizer.from_gguf(gguf.read(model))


def trainer(
    sides: ModuleType, base: Path, examples: list[Example], way: str, plan: Plan = PLAN
) -> Any:
    way = sides.Way.of(way)
    return sides.trainer_of(base, plan, examples, way, "sequential", lambda _: None)


def our_loss(base: Path, examples: list[Example]) -> float:
    start = shared_start([example.ids for example in examples])
    assert start
    return answer_loss(load.load(base), examples, start).item()


def their_loss(trainer: Any) -> float:
    rows = next(iter(trainer.get_train_dataloader()))
    tokens = (rows["labels"][:, 1:] != -100).sum()
    with torch.no_grad():
        return float(trainer.compute_loss(trainer.model, rows, num_items_in_batch=tokens))


def test_only_the_answers_are_learned_and_of_the_same_tokens(
    sides: ModuleType, base: Path, examples: list[Example]
) -> None:
    made = trainer(sides, base, examples, sides.written_way(WAYS[0], 8))
    for ours, theirs in zip(examples, made.train_dataset, strict=True):
        assert theirs["input_ids"][:-1] == ours.ids
        wanted = {answer.position + 1: answer.target for answer in ours.answers}
        labels = {at: token for at, token in enumerate(theirs["labels"]) if token != -100}
        assert labels == wanted
        assert all(theirs["input_ids"][at] == token for at, token in labels.items())
    assert theirs["input_ids"][-1] == made.processing_class.eos_token_id


@pytest.mark.parametrize("way", WAYS)
def test_the_first_batch_costs_both_sides_the_same(
    sides: ModuleType, base: Path, examples: list[Example], way: str
) -> None:
    ours = our_loss(base, examples)
    for loss in (sides.AT_ANSWERS, sides.OWN_LOSS):
        made = trainer(sides, base, examples, sides.written_way(way, 8, loss))
        with torch.autocast("cpu", torch.bfloat16, enabled="autocast" in way):
            theirs = their_loss(made)
        assert math.isclose(ours, theirs, rel_tol=0.01), loss


def test_a_batch_in_parts_is_the_whole_batch(
    sides: ModuleType, base: Path, examples: list[Example]
) -> None:
    ours = our_loss(base, examples)
    for at_once in (8, 2):
        made = trainer(sides, base, examples, sides.written_way(WAYS[0], at_once))
        assert made.args.gradient_accumulation_steps == 8 // at_once
        assert not made.args.activation_checkpointing  # which is TRL's default, and takes longer
        done = made.train()
        assert done.global_step == 1
        assert math.isclose(ours, done.training_loss, rel_tol=0.01)


def test_the_rival_learns_with_either_loss(
    sides: ModuleType, base: Path, examples: list[Example]
) -> None:
    plan = replace(PLAN, steps=12, learning_rate=1e-2)
    for loss in (sides.AT_ANSWERS, sides.OWN_LOSS):
        made = trainer(sides, base, examples, sides.written_way(WAYS[0], 4, loss), plan)
        before = their_loss(made)
        made.train()
        assert their_loss(made) < before - 0.3


def test_one_rule_judges_both_sides(sides: ModuleType, base: Path, examples: list[Example]) -> None:
    judge = Written(examples, by_loss=False)
    made = trainer(sides, base, examples, sides.written_way("float32 autocast sdpa", 8))
    theirs = sides.AsDecoder(made.model.get_base_model())
    ours: Decoder = load.load(base)
    marks: list[Any] = []
    met, loss = judge(ours)
    for decoder in (ours, theirs):
        score, told = sides.judged(judge, marks, decoder)
        assert score == -told
        assert math.isclose(told, loss, rel_tol=1e-4)
    assert [mark.score for mark in marks] == pytest.approx([-loss, -loss], rel=1e-4)
    assert [mark.exact for mark in marks] == [met, met]
    assert sides.exact(marks) == {"exact": met}


def test_the_rival_with_labels(sides: ModuleType, base: Path, tiny_model: Path) -> None:
    rows = tiny_job.TRAIN[:8]
    labelled = stage.examples_of(tiny_job.TASK, tokenizer_of(tiny_model), rows)
    made = trainer(sides, base, labelled, "float32 autocast eager")
    batch = next(iter(made.get_train_dataloader()))
    with torch.no_grad():
        told = made.compute_loss(made.model, batch).item()
        model = made.model.get_base_model()
        theirs = [model(torch.tensor([each.ids])).logits[0] for each in labelled]
    asked = [
        (answer.position, answer.candidates[answer.target], logits)
        for each, logits in zip(labelled, theirs, strict=True)
        for answer in each.answers
    ]
    wanted = [-logits[at].log_softmax(-1)[token].item() for at, token, logits in asked]
    assert math.isclose(told, sum(wanted) / len(wanted), rel_tol=1e-4)
    assert made.train().global_step == 1


def test_a_way_without_memory_is_none(
    sides: ModuleType, base: Path, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def pace(base: Path, plan: Plan, examples: list[Example], way: Any) -> float:
        asked.append(way)
        if way.attention == "eager" or way.at_once > 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")
        return (2.0 if way.autocast else 3.0) - 0.1 * way.at_once + way.own_loss

    monkeypatch.setattr(sides, "written_pace", pace)
    monkeypatch.setattr(sides.device, "pick_precision", lambda _: "bfloat16")
    made = sides.written_trial(base, PLAN, examples, (2, 4, 8))
    assert made["way"] == sides.written_way("bfloat16 autocast sdpa", 4)
    assert len(made["tried"]) == len(asked) == len(sides.WAYS) + 2 + 1
    assert made["tried"][sides.written_way("bfloat16 eager", 2)] is None
    assert sides.written_trial(base, PLAN, examples, (8, 16))["way"] is None
    assert sides.written_trial(base, PLAN, examples, (8, 2, 4))["way"] == made["way"]
    monkeypatch.setattr(sides.device, "pick_precision", lambda _: "float32")
    made = sides.written_trial(base, PLAN, examples, (4,))
    assert made["way"] == sides.written_way("float32 sdpa", 4)
    assert not any("bfloat16" in name or "autocast" in name for name in made["tried"])
    with pytest.raises(RuntimeError, match="shape"):
        sides.within_memory(lambda: (_ for _ in ()).throw(RuntimeError("shape")))


def test_the_pace_of_a_way(sides: ModuleType, base: Path, examples: list[Example]) -> None:
    many = examples * 9  # more than two batches
    for at_once in (2, 8):
        way = sides.Way.of(sides.written_way(WAYS[0], at_once))
        assert sides.written_pace(base, PLAN, many, way) > 0
