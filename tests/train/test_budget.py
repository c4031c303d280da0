"""A budget becomes steps: on a clock that stands still but when it is read."""

import copy
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tiny_job
from bantam.formats import gguf
from bantam.formats.tokenizer import Tokenizer
from bantam.kinds import Example
from bantam.nets import load
from bantam.nets.decoder import Decoder
from bantam.recipe import Train
from bantam.train import budget, device, loop, stage
from bantam.train.plan import Plan

Splits = tuple[list[Example], list[Example]]

BATCH = 8
A_PASS = 8  # steps: 60 examples


@pytest.fixture(scope="module")
def decoder(tiny_model: Path) -> Decoder:
    return load.load(tiny_model)


@pytest.fixture(scope="module")
def splits(tiny_model: Path) -> tuple[list[Example], list[Example]]:
    tokenizer = Tokenizer.from_gguf(gguf.read(tiny_model))
    train, val = (
        stage.examples_of(tiny_job.TASK, tokenizer, rows) for rows in (tiny_job.TRAIN, tiny_job.VAL)
    )
    return train, val


def settings(**change: Any) -> Train:
    return Train(**({"batch_size": BATCH, "method": "lora", "threads": 1} | change))


class Clock:
    """Time goes by in steps only: the given seconds for four with each method and thread count,
    in the order in which these come."""

    def __init__(self, *trials: float) -> None:
        self.now, self.trials = 0.0, list(trials or (1.0,))
        self.paces: dict[tuple[str, int], float] = {}

    def __call__(self) -> float:
        return self.now

    def step_of(self, _: Decoder, trial: Plan, *__: Any) -> Any:
        def step(*_: Any) -> float:
            way = trial.method, torch.get_num_threads()
            if way in self.paces:
                self.now += self.paces[way] / 4
            else:  # the first step warms up and is not counted
                self.paces[way] = self.trials.pop(0)
            return 0.0

        return step


def on_a_clock(monkeypatch: pytest.MonkeyPatch, *trials: float) -> None:
    """Trials take these seconds, one after the other."""
    clock = Clock(*trials)
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=clock))
    monkeypatch.setattr(loop, "step_of", clock.step_of)


def plan(decoder: Decoder, splits: Splits, given: Train) -> Plan:
    return budget.plan(lambda: copy.deepcopy(decoder), *splits, given)


def tokens(examples: Sequence[Example]) -> int:
    """Those that are computed for each example: all but the common beginning."""
    columns = list(zip(*(example.ids for example in examples), strict=False))
    shared = next(i for i, column in enumerate(columns) if len(set(column)) > 1)
    return sum(len(example.ids) - shared for example in examples)


@pytest.mark.parametrize("seconds", [1.0, 5.0, 12.0, 40.0])
def test_steps_fill_the_budget(
    monkeypatch: pytest.MonkeyPatch, decoder: Decoder, splits: Splits, seconds: float
) -> None:
    on_a_clock(monkeypatch)
    train, val = splits
    made = plan(decoder, splits, settings(budget=f"{seconds} s"))
    # The trial's four batches of eight took one second.
    a_token = 1 / trial_tokens(train)
    a_step = a_token * tokens(train) / A_PASS
    looks = -(-made.steps // made.evaluate_every)
    a_look = 0.35 * a_token * tokens(val) * branches(train)
    takes = 1 + made.steps * a_step + looks * a_look
    assert made.steps == budget.MOST_PASSES * A_PASS or takes > 0.8 * seconds - a_step
    assert made.steps == 1 or takes <= 0.8 * seconds


@pytest.mark.parametrize(("seconds", "looks"), [(3.0, 1), (1e6, 3)])
def test_a_short_training_looks_at_the_validation_rows_once(
    monkeypatch: pytest.MonkeyPatch, decoder: Decoder, splits: Splits, seconds: float, looks: int
) -> None:
    on_a_clock(monkeypatch)
    train, val = splits
    made = budget.plan(
        lambda: copy.deepcopy(decoder), train, 4 * val, settings(budget=f"{seconds} s")
    )
    assert -(-made.steps // made.evaluate_every) == looks


def test_a_trial_of_a_slow_machine_ends_early(
    monkeypatch: pytest.MonkeyPatch, decoder: Decoder, splits: Splits
) -> None:
    on_a_clock(monkeypatch, 1000.0)
    clock = budget.time.perf_counter
    plan(decoder, splits, settings(budget="1 h", method="lora", threads=1))
    assert clock() < 300  # one step of 250 s in place of four


def test_the_budget_pays_for_what_came_before(
    monkeypatch: pytest.MonkeyPatch, decoder: Decoder, splits: Splits
) -> None:
    given = settings(budget="20 s")
    on_a_clock(monkeypatch)
    at_once = plan(decoder, splits, given)
    on_a_clock(monkeypatch)
    later = budget.plan(lambda: copy.deepcopy(decoder), *splits, given, spent=5.0)
    a_step = tokens(splits[0]) / A_PASS / trial_tokens(splits[0])
    assert (at_once.steps - later.steps) * a_step == pytest.approx(5.0, abs=a_step)


def test_reading_takes_its_share_of_the_steps_and_of_the_budget(
    monkeypatch: pytest.MonkeyPatch, decoder: Decoder, splits: Splits
) -> None:
    train, val = splits
    given = settings(budget="20 s", method="lora", threads=1)
    on_a_clock(monkeypatch)
    without = plan(decoder, splits, given)
    on_a_clock(monkeypatch, 1.0, 3.0)  # reading is three times as slow
    made = budget.plan(lambda: copy.deepcopy(decoder), train, val, given, read=train)
    assert made.reading_steps == int(0.25 * made.steps)
    assert made.steps < without.steps


def test_reading_is_not_taken_from_passes(decoder: Decoder, splits: Splits) -> None:
    train, val = splits
    given = settings(epochs=3.0)
    made = budget.plan(lambda: copy.deepcopy(decoder), train, val, given, read=train)
    assert made.steps - made.reading_steps == 3 * A_PASS


def branches(train: list[Example]) -> int:
    """Passes over the texts that a judgement takes."""
    return max(len(example.answers) for example in train)


def trial_tokens(train: list[Example]) -> int:
    start = (sum(len(example.ids) for example in train) - tokens(train)) // len(train)
    own = [len(example.ids) - start for example in train]
    return sum(own[i] for batch in budget._typical(own, BATCH) for i in batch)


def test_the_batches_of_a_trial_are_as_long_as_the_mean_of_all() -> None:
    chance = random.Random(0)
    lengths = [int(chance.lognormvariate(3, 0.8)) + 1 for _ in range(4000)]
    mean = sum(lengths) / len(lengths)
    for rows in (4, 8, 32):
        tried = [lengths[i] for batch in budget._typical(lengths, rows) for i in batch]
        assert len(tried) == 4 * rows
        assert sum(tried) / len(tried) == pytest.approx(mean, rel=0.15)


def test_more_budget_more_steps(
    monkeypatch: pytest.MonkeyPatch, decoder: Decoder, splits: Splits
) -> None:
    steps = []
    for seconds in (3, 6, 12, 1e6):
        on_a_clock(monkeypatch)
        steps.append(plan(decoder, splits, settings(budget=f"{seconds} s")).steps)
    assert steps == sorted(set(steps))
    assert steps[-1] == budget.MOST_PASSES * A_PASS  # more passes only overfit


@pytest.mark.parametrize(
    ("given", "steps"),
    [({"steps": 77}, 77), ({"epochs": 1.0}, 8), ({"epochs": 2.5}, 20), ({"epochs": 0.01}, 1)],
)
def test_steps_and_epochs_are_kept(
    decoder: Decoder, splits: Splits, given: dict[str, Any], steps: int
) -> None:
    made = plan(decoder, splits, settings(**given))
    assert made.steps == steps
    assert -(-steps // made.evaluate_every) <= budget.EVALUATIONS
    assert made.evaluate_every <= 1 + steps / budget.EVALUATIONS
    assert 1 <= made.warmup_steps <= max(1, steps // 10)


def test_settings_are_kept(decoder: Decoder, splits: Splits) -> None:
    given = settings(steps=5, method="full", threads=2, learning_rate=0.25, seed=7, batch_size=500)
    made = plan(decoder, splits, given)
    assert made == Plan(
        method="full",
        precision=made.precision,
        threads=2,
        steps=5,
        batch_size=len(splits[0]),
        learning_rate=0.25,
        warmup_steps=1,
        evaluate_every=2,
        seed=7,
    )


# Trials come as: LoRA with two threads, with one, full with the better of both.
@pytest.mark.parametrize(
    ("seconds", "method", "threads"),
    [
        ((1, 2, 3), "lora", 2),
        ((2, 1, 3), "lora", 1),
        ((2, 3, 1), "full", 2),
        ((3, 2, 1), "full", 1),
        ((1, 1.1, 3), "lora", 2),  # tried to the end
        ((1, 3, 0.95), "lora", 2),  # within a tenth: LoRA, which needs less memory
    ],
)
def test_the_quickest_way_is_taken(
    monkeypatch: pytest.MonkeyPatch,
    decoder: Decoder,
    splits: Splits,
    seconds: tuple[float, ...],
    method: str,
    threads: int,
) -> None:
    on_a_clock(monkeypatch, *seconds)
    monkeypatch.setattr(budget, "cores", lambda: 2)
    made = plan(decoder, splits, settings(steps=5, method="auto", threads=None))
    assert (made.method, made.threads) == (method, threads)
    assert made.learning_rate == budget.learning_rate(method, decoder.config.width, BATCH)


def test_wider_bases_learn_at_a_lower_rate() -> None:
    # 2,048 numbers a token (a Llama of 1B): what "LoRA Without Regret" says of it, less than 1e-3.
    rates = [budget.learning_rate("lora", width, 32) for width in (64, 576, 640, 2048)]
    assert rates[:2] == [2e-3, 2e-3]
    assert 1.8e-3 < rates[2] < 1.9e-3
    assert 7e-4 < rates[3] < 8e-4
    assert budget.learning_rate("full", 64, 8) == budget.learning_rate("full", 2048, 32) == 7e-5


def test_small_batches_learn_at_a_lower_rate() -> None:
    rates = [budget.learning_rate("lora", 576, rows) for rows in (32, 8, 4, 2)]
    assert rates == pytest.approx([2e-3, 2e-3, 1.414e-3, 1e-3], rel=1e-3)
    assert budget.learning_rate("full", 576, 2) == pytest.approx(3.5e-5)


@pytest.mark.parametrize(
    ("seen", "rows"), [(-5, 4), (300, 4), (799, 4), (801, 8), (3199, 16), (3201, 32), (1e9, 32)]
)
def test_a_short_training_has_small_batches(seen: float, rows: int) -> None:
    assert budget.rows(seen) == rows


def test_the_budget_chooses_the_rows_of_a_step(
    monkeypatch: pytest.MonkeyPatch, decoder: Decoder, splits: Splits
) -> None:
    train = 3 * splits[0]
    few = budget.MOST_PASSES * len(train) // budget.ENOUGH_STEPS  # rows, if all passes fit
    assert 8 < few < 16
    on_a_clock(monkeypatch)
    given = settings(budget="1000 s", batch_size="auto")
    made = plan(decoder, (train, splits[1]), given)
    assert made.batch_size <= few < 2 * made.batch_size
    assert made.steps == budget.MOST_PASSES * -(-len(train) // made.batch_size) >= 100
    # On this clock a step of four rows takes as long as one of 32, a quarter of a second: steps are
    # as many as these.
    on_a_clock(monkeypatch, 1.0)
    made = plan(decoder, splits, settings(budget="20 s", batch_size="auto"))
    assert made.batch_size == 4
    assert 0.6 * 20 * 0.8 < made.steps / 4 < 20 * 0.8


def test_epochs_choose_the_rows_of_a_step(decoder: Decoder, splits: Splits) -> None:
    train = splits[0]
    made = plan(decoder, splits, settings(epochs=1.0, batch_size="auto"))
    assert made.batch_size == 4 and made.steps == -(-len(train) // 4)
    made = plan(decoder, splits, settings(steps=3, batch_size="auto"))
    assert (made.batch_size, made.steps) == (min(32, len(train)), 3)


def test_full_tuning_that_finds_no_memory_leaves_lora(
    monkeypatch: pytest.MonkeyPatch, decoder: Decoder, splits: Splits
) -> None:
    on_a_clock(monkeypatch)
    timed = loop.step_of

    def step_of(decoder: Decoder, trial: Plan, *rest: Any) -> Any:
        if trial.method == "full":
            raise torch.OutOfMemoryError
        return timed(decoder, trial, *rest)

    monkeypatch.setattr(loop, "step_of", step_of)
    assert plan(decoder, splits, settings(steps=5, method="auto")).method == "lora"


# Of what the blocks keep in bfloat16: twice as much must be free, in float32 four times.
@pytest.mark.parametrize(
    ("precision", "free", "recompute"),
    [("bfloat16", 1, True), ("bfloat16", 3, False), ("float32", 3, True), ("float32", 5, False)],
)
def test_the_memory_of_the_device_decides(
    monkeypatch: pytest.MonkeyPatch,
    decoder: Decoder,
    splits: Splits,
    precision: str,
    free: int,
    recompute: bool,
) -> None:
    room = free * budget.activations(decoder.config, max(len(e.ids) for e in splits[0]))
    monkeypatch.setattr(device, "free", {decoder.lm_head.weight.device: room}.__getitem__)
    monkeypatch.setattr(device, "pick_precision", lambda _: precision)
    assert plan(decoder, splits, settings(steps=5)).recompute == recompute


@pytest.mark.parametrize(("more", "method"), [(0, "lora"), (1, "full")])
def test_full_tuning_is_tried_where_the_device_has_room(
    monkeypatch: pytest.MonkeyPatch, decoder: Decoder, splits: Splits, more: int, method: str
) -> None:
    room = 5 * 4 * sum(weight.numel() for weight in decoder.parameters()) + more
    monkeypatch.setattr(device, "free", {decoder.lm_head.weight.device: room}.__getitem__)
    on_a_clock(monkeypatch, 3.0, 1.0)
    assert plan(decoder, splits, settings(steps=5, method="auto")).method == method


def test_trials_leave_the_threads_as_they_were(decoder: Decoder, splits: Splits) -> None:
    threads = torch.get_num_threads()
    plan(decoder, splits, settings(budget="1 s", method="auto", threads=None))
    assert torch.get_num_threads() == threads
