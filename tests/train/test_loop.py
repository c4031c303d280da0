"""The training loop: it learns, keeps the best, stops in time, and goes on where it was."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tiny_job
from bantam.errors import JobFailed
from bantam.formats import gguf
from bantam.formats.tokenizer import Tokenizer
from bantam.kinds import Example
from bantam.nets import load
from bantam.nets.choose import shared_start
from bantam.nets.decoder import Decoder
from bantam.train import loop, stage, state, validation
from bantam.train.objective import answer_loss
from bantam.train.plan import Plan
from tiny_job import plan

RATES = {"lora": 0.01, "full": 0.003}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Tokenizer:
    return Tokenizer.from_gguf(gguf.read(tiny_model))


@pytest.fixture(scope="module")
def examples(tokenizer: Tokenizer) -> list[Example]:
    return stage.examples_of(tiny_job.TASK, tokenizer, tiny_job.TRAIN)


@pytest.fixture
def judged(tokenizer: Tokenizer) -> validation.Labels:
    return validation.Labels(tiny_job.TASK, tokenizer, tiny_job.VAL)


Told = list[dict[str, float]]


@pytest.fixture
def tune(tiny_model: Path, examples: list[Example], tmp_path: Path) -> Callable[..., Any]:
    """A call tunes a fresh copy of the tiny model in the same folder."""

    def call(
        made: Plan,
        evaluate: loop.Evaluate,
        report: loop.Report = lambda line: None,
        read: list[Example] | None = None,
    ) -> tuple[Decoder, state.Place]:
        decoder = load.load(tiny_model)
        place = loop.tune(decoder, examples, made, evaluate, tmp_path, "key", report, read or [])
        return decoder, place

    return call


def weights(decoder: Decoder) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in decoder.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def scripted(*scores: float, loss: float = 1.0) -> loop.Evaluate:
    """A judge that gives these scores, whatever it sees."""
    coming: Iterator[float] = iter(scores)
    return lambda decoder: (next(coming), loss)


def metrics(folder: Path, but: tuple[str, ...] = ("seconds",)) -> Told:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in but} for line in lines]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_it_learns(
    tune: Callable[..., Any], judged: validation.Labels, method: str, precision: str, tmp_path: Path
) -> None:
    told: Told = []
    made = plan(method=method, precision=precision, learning_rate=RATES[method], steps=36)
    decoder, place = tune(made, judged, told.append)
    scores = [line["val_score"] for line in told if "val_score" in line]
    assert scores[0] < 0.6  # three labels
    assert place.best_score == max(scores) >= 0.9
    assert place.done
    assert place.step == 36
    with loop.autocast(decoder, made):
        assert judged(decoder) == (place.best_score, pytest.approx(place.best_loss, abs=1e-6))
    assert metrics(tmp_path, ()) == told


def test_what_does_not_learn_stays(
    tune: Callable[..., Any], tiny_model: Path, judged: validation.Labels
) -> None:
    base = weights(load.load(tiny_model))
    tuned = weights(tune(plan(method="full", steps=3), judged)[0])
    changed = {name for name in base if not torch.equal(base[name], tuned[name])}
    assert changed == base.keys() - {"model.embed_tokens.weight", "lm_head.weight"}


def test_it_ends_with_the_best_weights(tune: Callable[..., Any]) -> None:
    seen: list[dict[str, Tensor]] = []
    scores = iter([0.1, 0.7, 0.7, 0.3, 0.6])

    def evaluate(decoder: Decoder) -> tuple[float, float]:
        seen.append(weights(decoder))
        return next(scores), 1.0

    decoder, place = tune(plan(steps=15), evaluate)
    assert (place.step, place.best_step, place.best_score) == (15, 6, 0.7)  # the first of equals
    assert equal(weights(decoder), seen[1])
    assert not equal(seen[1], seen[4])


def test_of_equal_scores_the_lower_loss_is_better(tune: Callable[..., Any]) -> None:
    results = iter([(0.5, 1.0), (0.5, 0.9), (0.5, 0.95)])
    _, place = tune(plan(steps=9), lambda decoder: next(results))
    assert (place.best_step, place.best_loss) == (6, 0.9)


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_it_stops_when_nothing_improves(tune: Callable[..., Any], patience: int) -> None:
    told: Told = []
    falling = scripted(0.5, 0.6, *[0.4] * 20)
    _, place = tune(plan(steps=60, patience=patience), falling, told.append)
    assert place.best_step == 6
    assert place.step == 6 + 3 * patience == len(told)
    assert place.done


def test_the_last_step_is_judged(tune: Callable[..., Any]) -> None:
    told: Told = []
    tune(plan(steps=8), scripted(0.1, 0.2, 0.3), told.append)
    assert [line["step"] for line in told if "val_score" in line] == [3, 6, 8]
    assert told[-1]["examples_seen"] == len(tiny_job.TRAIN)  # a whole pass


def test_a_diverging_run_names_the_mend(
    tune: Callable[..., Any], judged: validation.Labels
) -> None:
    with pytest.raises(JobFailed, match="diverged") as error:
        tune(plan(method="full", learning_rate=1e30, warmup_steps=1), judged)
    assert "lower train.learning_rate (it was 1e+30)" in error.value.mend


def test_a_judge_that_finds_no_number(tune: Callable[..., Any]) -> None:
    with pytest.raises(JobFailed, match="diverged"):
        tune(plan(), scripted(0.4, loss=math.nan))


def test_the_schedule() -> None:
    made = plan(steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [made.learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == max(rates) == pytest.approx(1)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.505)  # half way down
    assert 0.01 < rates[99] < 0.012


# --- interruptions


class Stop(Exception):
    pass


def stopping(evaluate: loop.Evaluate, after: int) -> loop.Evaluate:
    """The judge, which fails when it is asked once too often."""
    asked = 0

    def judge(decoder: Decoder) -> tuple[float, float]:
        nonlocal asked
        asked += 1
        if asked > after:
            raise Stop
        return evaluate(decoder)

    return judge


@pytest.mark.parametrize("method", ["lora", "full"])
def test_taken_up_it_ends_in_the_same_weights(
    tune: Callable[..., Any], judged: validation.Labels, method: str, tmp_path: Path
) -> None:
    made = plan(method=method, learning_rate=RATES[method], steps=20)
    whole, place = tune(made, judged)
    logged = metrics(tmp_path)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()

    for times in (0, 2, 1, 0, 3):
        with pytest.raises(Stop):
            tune(made, stopping(judged, times))
    resumed, place_again = tune(made, judged)
    assert equal(weights(resumed), weights(whole))
    assert replace(place_again, spent_seconds=0) == replace(place, spent_seconds=0)
    assert metrics(tmp_path) == logged
    assert [line["step"] for line in logged] == list(range(1, 21))


def test_a_finished_run_is_not_run_again(
    tune: Callable[..., Any], judged: validation.Labels
) -> None:
    whole, place = tune(plan(steps=6), judged)
    told: Told = []
    again, place_again = tune(plan(steps=6), stopping(judged, 0), told.append)
    assert equal(weights(again), weights(whole))
    assert place_again == place
    assert told == []


def test_the_time_of_an_interrupted_run_counts(
    tune: Callable[..., Any], judged: validation.Labels
) -> None:
    with pytest.raises(Stop):
        tune(plan(), stopping(judged, 2))
    told: Told = []
    tune(plan(), judged, told.append)
    assert told[0]["step"] == 7
    assert told[1]["examples_seen"] == len(tiny_job.TRAIN)
    seconds = [line["seconds"] for line in told]
    assert seconds == sorted(seconds)
    assert told[0]["seconds"] > 0


@pytest.mark.parametrize("torn", ['{"step": 4, "loss"', '{"step": 1}', "\0" * 30 + "\n", "7\n"])
def test_a_torn_line_of_metrics(
    tune: Callable[..., Any], judged: validation.Labels, torn: str, tmp_path: Path
) -> None:
    with pytest.raises(Stop):
        tune(plan(steps=6), stopping(judged, 1))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    tune(plan(steps=6), judged)
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_a_batch_in_parts_learns_the_same(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, examples: list[Example]
) -> None:
    learned = []
    for most in (10**6, 60, 1):
        monkeypatch.setattr(loop, "TOKENS_AT_ONCE", most)
        decoder = load.load(tiny_model)
        made = plan(method="lora", precision="float32")
        loop.prepare(decoder, made)
        start = shared_start([example.ids for example in examples])
        step = loop.step_of(decoder, made, loop.optimizer_of(decoder, made))
        losses = [step(examples[i : i + 8], start, 0.01) for i in (0, 8, 16)]
        learned.append((losses, weights(decoder)))
    for losses, found in learned[1:]:
        assert losses == pytest.approx(learned[0][0], rel=1e-4)
        for name, weight in found.items():
            # Adam's steps have the size of the learning rate however small a gradient is, so a
            # single number may show the order of float32 sums; with one example of eight left out
            # a matrix is 0.05 to 0.8 away.
            whole = learned[0][1][name]
            assert (weight - whole).norm() < 0.02 * whole.norm(), name


def test_texts_are_read_before_their_answers_are_learned(
    tune: Callable[..., Any], judged: validation.Labels, tokenizer: Tokenizer, tiny_model: Path
) -> None:
    read = stage.readings(tokenizer, tiny_job.TRAIN)
    told: Told = []
    made = plan(steps=24, reading_steps=16)
    tuned = tune(made, judged, told.append, read=read)[0]
    # Not judged while it reads: no answer has been learned yet.
    assert [line["step"] for line in told if "val_score" in line] == [19, 22, 24]
    assert surprise(tuned, read) < 0.9 * surprise(load.load(tiny_model), read)


def test_every_token_of_a_text_is_read(tokenizer: Tokenizer, tiny_model: Path) -> None:
    long = " ".join(text for text, _ in tiny_job.TRAIN)
    rows = [(long, "yes"), ("a", "no"), *tiny_job.TRAIN]
    read = stage.readings(tokenizer, rows)
    said = [answer.target for example in read for answer in example.answers]
    assert said == [id for text, _ in rows for id in tokenizer.encode([(text, False)])]
    assert max(len(example.answers) for example in read) == stage.READ_AT_ONCE
    loss = answer_loss(load.load(tiny_model), read, [])
    assert loss.item() == pytest.approx(surprise(load.load(tiny_model), read), rel=1e-5)


@torch.no_grad()
def surprise(decoder: Decoder, read: list[Example]) -> float:
    """The mean -ln P of all tokens that are read, from the logits of each example by itself."""
    total = count = 0.0
    for example in read:
        logits = decoder(torch.tensor([example.ids]))[0]
        targets = torch.tensor([*example.ids[1:], example.answers[-1].target])
        total += float(F.cross_entropy(logits.float(), targets, reduction="sum"))
        count += len(targets)
    return total / count
