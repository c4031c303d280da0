"""What the train stage gives to the stages after it: merged weights, the base's states."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy.special import expit, softmax
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss
from sklearn.utils.class_weight import compute_sample_weight

import multi_job
import tiny_job
from bantam.formats import gguf
from bantam.formats.tokenizer import Tokenizer
from bantam.kinds import classify, multi_hot
from bantam.nets import load
from bantam.train import device, loop, stage, state, validation
from bantam.train.objective import answer_loss
from tiny_job import plan


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_merged_weights_judge_as_the_tuned_ones(
    tiny_model: Path, tmp_path: Path, method: str, precision: str
) -> None:
    rate = {"lora": 0.01, "full": 0.003}[method]
    made = plan(method=method, precision=precision, learning_rate=rate, steps=36)
    tiny_job.make(tiny_model, tmp_path, made)
    merged = stage.merged(tiny_model, made, tmp_path / "train" / "tuned.safetensors")
    assert merged.state_dict().keys() == load.load(tiny_model).state_dict().keys()
    assert all(weight.dtype == torch.float32 for weight in merged.parameters())
    assert not any(weight.requires_grad for weight in merged.parameters())
    assert merged.lm_head.weight is merged.model.embed_tokens.weight

    tokenizer = Tokenizer.from_gguf(gguf.read(tiny_model))
    judged = validation.Labels(tiny_job.TASK, tokenizer, tiny_job.VAL)
    score, loss = judged(merged)
    result = state.Place(**json.loads((tmp_path / "train" / "result.json").read_text()))
    # The products were in bfloat16 while it was tuned, and are in float32 now.
    assert score == pytest.approx(result.best_score, abs=0.12 if precision == "bfloat16" else 0)
    near = 0.1 if precision == "bfloat16" else 1e-4
    assert loss == pytest.approx(result.best_loss, abs=near)
    assert judged(load.load(tiny_model))[1] > loss + 0.3


def test_what_another_key_left_is_not_taken(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    tokenizer = Tokenizer.from_gguf(gguf.read(tiny_model))
    arguments = (tiny_model, tiny_job.TASK, tokenizer, tiny_job.TRAIN, tiny_job.VAL)
    told: list[int] = []
    for key in ("one", "one", "two"):
        stage.train(
            *arguments, plan(steps=3), folder, key, lambda done, total, note: told.append(done)
        )
    assert told == [1, 2, 3, 1, 2, 3]


def test_balanced_weights_are_those_of_scikit_learn(tiny_model: Path) -> None:
    tokenizer = Tokenizer.from_gguf(gguf.read(tiny_model))
    rows = tiny_job.TRAIN[:31] + [row for row in tiny_job.TRAIN if row[1] == "yes"]
    labels = [label for _, label in rows]
    examples = stage.examples_of(tiny_job.TASK, tokenizer, rows, balanced=True)
    wanted = compute_sample_weight("balanced", labels)
    assert [example.weight for example in examples] == pytest.approx(wanted)
    plain = validation.Labels(tiny_job.TASK, tokenizer, rows)
    balanced = validation.Labels(tiny_job.TASK, tokenizer, rows, balanced=True)
    decoder = load.load(tiny_model)
    shares = plain.shares(decoder)
    answers = shares.argmax(axis=1)
    assert plain(decoder)[0] == pytest.approx(np.mean(answers == plain.expected))
    assert balanced(decoder)[0] == pytest.approx(balanced_accuracy_score(plain.expected, answers))
    assert balanced(decoder)[1] == pytest.approx(
        log_loss(plain.expected, shares / shares.sum(axis=1, keepdims=True), sample_weight=wanted)
    )


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_is_found_again(true: float) -> None:
    chance = np.random.default_rng(0)
    logits = chance.normal(size=(4000, 4)) * 2
    honest = softmax(logits, axis=1)
    expected = (honest.cumsum(axis=1) > chance.random((4000, 1))).argmax(axis=1)
    told = softmax(logits * true, axis=1)  # too sure, or not sure enough
    assert stage.temperature(told, expected) == pytest.approx(true, rel=0.1)
    assert stage.temperature(told[:39], expected[:39]) == 1.0


@pytest.mark.parametrize("true", [0.5, 2.5])
def test_the_temperature_of_several_labels_is_found_again(true: float) -> None:
    chance = np.random.default_rng(0)
    logits = chance.normal(size=(4000, 3)) * 2
    applies = chance.random((4000, 3)) < expit(logits)
    task = classify.task("t", "", ["a", "b", "c"], multi=True)
    found = stage.calibration(task, expit(logits * true), applies)
    assert found["temperature"] == pytest.approx(true, rel=0.1)
    # Of honest probabilities the best threshold for F1 is half the F1 that it gives.
    told = expit(logits)
    for label, threshold in enumerate(found["thresholds"]):
        f1 = f1_score(applies[:, label], told[:, label] >= threshold)
        assert threshold == pytest.approx(f1 / 2, abs=0.1)


@pytest.mark.parametrize(("steps", "last_is_best"), [(6, True), (24, False)])
def test_the_kept_weights_are_calibrated(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    last_is_best: bool,
) -> None:
    val = tiny_job.rows(120, 2)
    monkeypatch.setattr(tiny_job, "VAL", val)
    made = plan(steps=steps, learning_rate=0.02)
    tiny_job.make(tiny_model, tmp_path, made)
    folder = tmp_path / "train"
    result = state.Place(**json.loads((folder / "result.json").read_text()))
    assert (result.best_step == result.step) == last_is_best
    kept = stage.merged(tiny_model, made, folder / "tuned.safetensors")
    judged = validation.Labels(tiny_job.TASK, Tokenizer.from_gguf(gguf.read(tiny_model)), val)
    wanted = stage.calibration(tiny_job.TASK, judged.shares(kept), judged.expected)
    found = json.loads((folder / "calibration.json").read_text())
    assert found["temperature"] != 1
    assert found["temperature"] == pytest.approx(wanted["temperature"], rel=1e-3)


def test_validation_of_several_labels(tiny_model: Path) -> None:
    tokenizer = Tokenizer.from_gguf(gguf.read(tiny_model))
    task = classify.task("t", "What is it about?", sorted(multi_job.MARKS), multi=True)
    rows = multi_job.rows(24)
    judged = validation.Labels(task, tokenizer, rows)
    decoder = load.load(tiny_model)
    shares = judged.shares(decoder)
    wanted = multi_hot.of([output for _, output in rows], task.labels)
    score, loss = judged(decoder)
    assert score == pytest.approx(f1_score(wanted, shares >= 0.5, average="micro"))
    plain = [log_loss(wanted[:, n], shares[:, n]) for n in range(3)]
    assert loss == pytest.approx(sum(plain))
    # What is learned is what is measured.
    examples = stage.examples_of(task, tokenizer, rows)
    assert answer_loss(decoder, examples, []).item() == pytest.approx(loss, abs=1e-4)


def test_a_temperature_of_certain_rows_is_finite() -> None:
    certain = np.eye(2)[np.zeros(50, int)]
    assert 0.1 < stage.temperature(certain, np.zeros(50, int)) < 10
    assert 0.1 < stage.temperature(certain, np.ones(50, int)) < 10


def test_states_are_those_of_each_text_alone(tiny_model: Path) -> None:
    tokenizer = Tokenizer.from_gguf(gguf.read(tiny_model))
    decoder = load.load(tiny_model)
    prompts = [tiny_job.TASK.prompt(tokenizer.encode, text) for text, _ in tiny_job.rows(40, 3)]
    found = stage.states(decoder, prompts)
    assert found.shape == (40, decoder.config.width)
    assert found.dtype == np.float32
    with torch.no_grad():
        for prompt, state in zip(prompts, found, strict=True):
            wanted = decoder.states(torch.tensor([prompt]))[0, -1]
            np.testing.assert_allclose(state, wanted.numpy(), atol=1e-4)


def test_the_base_stays_as_it_is(tiny_model: Path) -> None:
    base, frozen = load.load(tiny_model), stage.frozen(tiny_model, 1)
    assert not any(weight.requires_grad for weight in frozen.parameters())
    for name, weight in frozen.state_dict().items():
        torch.testing.assert_close(weight.float(), base.state_dict()[name], atol=0.05, rtol=0.01)


def test_a_tuned_file_keeps_only_what_was_learned(tiny_model: Path, tmp_path: Path) -> None:
    tiny_job.make(tiny_model, tmp_path, plan(steps=3))
    with safe_open(tmp_path / "train" / "tuned.safetensors", "pt") as file:
        names = set(file.keys())
    decoder = load.load(tiny_model)
    loop.prepare(decoder, plan())
    assert names == {name for name, w in decoder.named_parameters() if w.requires_grad}
    assert all(".lora_" in name for name in names)


def test_a_precision_is_picked() -> None:
    where = device.pick()
    assert device.pick_precision(where) in ("float32", "bfloat16")
    assert torch.zeros(1, device=where).device.type == where.type


def test_shares_are_learned_in_place_of_labels(tiny_model: Path, tmp_path: Path) -> None:
    """Shares that do not hang on the text: all that can be learned is them."""
    tokenizer = Tokenizer.from_gguf(gguf.read(tiny_model))
    task = replace(tiny_job.TASK, one_token=True)
    wanted = {"yes": 0.2, "no": 0.5, "not at all": 0.3}
    made = plan(steps=36)
    data = (task, tokenizer, tiny_job.TRAIN, tiny_job.VAL)
    stage.train(
        *(tiny_model, *data, made, tmp_path, "a key", lambda *_: None),
        shares=[wanted] * len(tiny_job.TRAIN),
    )
    merged = stage.merged(tiny_model, made, tmp_path / "tuned.safetensors")
    told = validation.Labels(task, tokenizer, tiny_job.VAL).shares(merged)
    assert told.mean(axis=0) == pytest.approx(list(wanted.values()), abs=0.1)
