"""Checkpoints that are torn, altered, or on a disk that is full or knows no links."""

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import tiny_job
from bantam.formats import gguf
from bantam.formats.tokenizer import Tokenizer
from bantam.nets import load
from bantam.nets.decoder import Decoder
from bantam.nets.load import write_tensors
from bantam.train import loop, stage, state

PLAN = tiny_job.plan(steps=10, evaluate_every=2)
Weights = dict[str, Tensor]


def tune(
    model: Path,
    folder: Path,
    stop_after: int = 100,
    key: str = "key",
    report: loop.Report = lambda line: None,
) -> Weights:
    """The tuned weights, and what the last checkpoint holds, if not stopped in evaluation number
    `stop_after` + 1."""
    asked = 0

    def evaluate(decoder: Decoder) -> tuple[float, float]:
        """The adapters begin at zero and grow: so the first evaluation finds the best weights."""
        nonlocal asked
        asked += 1
        if asked > stop_after:
            raise KeyboardInterrupt
        grown = sum(w.square().sum().item() for n, w in decoder.named_parameters() if "lora_b" in n)
        return -grown, 1.0

    tokenizer = Tokenizer.from_gguf(gguf.read(model))
    examples = stage.examples_of(tiny_job.TASK, tokenizer, tiny_job.TRAIN)
    decoder = load.load(model)
    place = loop.tune(decoder, examples, PLAN, evaluate, folder, key, report)
    assert (place.step, place.best_step) == (10, 2)
    last = folder / f"checkpoint-{PLAN.steps:08d}"
    held = load_file(last / "weights.st") | load_file(last / "optimizer.st")
    return decoder.state_dict() | {f"last.{name}": value for name, value in held.items()}


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return tune(tiny_model, tmp_path_factory.mktemp("whole"))


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint*"))


def truncated(folder: Path) -> None:
    path = folder / "optimizer.st"
    path.write_bytes(path.read_bytes()[:-1])


def flipped(name: str) -> Callable[[Path], None]:
    def alter(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[-3] ^= 1
        (folder / name).unlink()  # or its other names would change with it
        (folder / name).write_bytes(content)

    return alter


def bad_block(folder: Path) -> None:
    """The best weights altered under all their names: the checkpoint before is spoiled too."""
    with (folder / "best.st").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")


def emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def manifest_of_nothing(folder: Path) -> None:
    truncated(folder)
    path = folder / "stage.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": None}))


ALTERED: dict[str, Callable[[Path], None]] = {
    "truncated": truncated,
    "weights altered": flipped("weights.st"),
    "moments altered": flipped("optimizer.st"),
    "best altered": flipped("best.st"),
    "bad block": bad_block,
    "place altered": flipped("place.json"),
    "a file away": lambda folder: (folder / "weights.st").unlink(),
    "manifest torn": lambda folder: (folder / "stage.json").write_text('{"format": 1, "key": "k'),
    "manifest away": lambda folder: (folder / "stage.json").unlink(),
    "manifest of nothing": manifest_of_nothing,
    "empty": emptied,
}


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_checkpoint(tiny_model: Path, whole: Weights, tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_model, tmp_path, stop_after=3)
    assert checkpoints(tmp_path) == ["checkpoint-00000004", "checkpoint-00000006"]
    ALTERED[name](tmp_path / "checkpoint-00000006")

    decoder = load.load(tiny_model)
    loop.prepare(decoder, PLAN)
    place = state.restore(tmp_path, "key", decoder, [loop.optimizer_of(decoder, PLAN)])
    if name == "bad block":
        assert place is None
    else:
        assert place is not None
        assert (place.step, place.best_step) == (4, 2)
    assert same(tune(tiny_model, tmp_path), whole)
    assert checkpoints(tmp_path) == ["checkpoint-00000008", "checkpoint-00000010"]


def test_both_checkpoints_altered(tiny_model: Path, whole: Weights, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_model, tmp_path, stop_after=3)
    for name in checkpoints(tmp_path):
        truncated(tmp_path / name)
    assert same(tune(tiny_model, tmp_path), whole)


def test_a_save_that_was_cut_short(tiny_model: Path, whole: Weights, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_model, tmp_path, stop_after=2)
    partial = tmp_path / "checkpoint.partial"
    partial.mkdir()
    (partial / "weights.st").write_bytes(b"half of ")
    assert same(tune(tiny_model, tmp_path), whole)
    assert not partial.exists()


def test_another_key_begins_anew(tiny_model: Path, whole: Weights, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_model, tmp_path, stop_after=3, key="another")
    assert same(tune(tiny_model, tmp_path), whole)


def test_a_file_system_without_links(
    tiny_model: Path, whole: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_model, tmp_path, stop_after=4)
    assert same(tune(tiny_model, tmp_path), whole)


# --- between two evaluations


@pytest.mark.parametrize("step", [1, 4, 7])
def test_ctrl_c_loses_no_step(tiny_model: Path, whole: Weights, tmp_path: Path, step: int) -> None:
    """The step that it comes in is finished and kept: the first is before any evaluation."""

    def press(line: dict[str, float]) -> None:
        if line["step"] == step:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_model, tmp_path, report=press)
    assert signal.getsignal(signal.SIGINT) is before
    assert checkpoints(tmp_path)[-1] == f"checkpoint-{step:08d}"
    taken: list[float] = []
    assert same(tune(tiny_model, tmp_path, report=lambda line: taken.append(line["step"])), whole)
    assert taken[0] == step + 1


def test_a_second_ctrl_c_acts_at_once(tiny_model: Path, tmp_path: Path) -> None:
    def press(line: dict[str, float]) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it went on")

    with pytest.raises(KeyboardInterrupt):
        tune(tiny_model, tmp_path, report=press)


def test_steps_are_kept_as_time_goes_by(
    tiny_model: Path, whole: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVED_EVERY", 0.0)
    monkeypatch.setattr(loop, "SAVING", 1e9)
    seen: list[list[str]] = []

    def stop(line: dict[str, float]) -> None:
        seen.append(checkpoints(tmp_path))
        if line["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(tiny_model, tmp_path, report=stop)
    assert seen[1] == ["checkpoint-00000001"]
    assert seen[4] == ["checkpoint-00000003", "checkpoint-00000004"]
    assert same(tune(tiny_model, tmp_path), whole)


# --- a full disk


def test_a_full_disk_leaves_the_last_good_checkpoint(
    tiny_model: Path, whole: Weights, small_disk: Callable[[int], Path]
) -> None:
    folder = small_disk(100_000)
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_model, folder, stop_after=2)
    used = sum(f.stat().st_blocks * 512 for f in folder.rglob("*") if f.name != "best.st")
    small_disk((used >> 10) + 60)  # the next checkpoint finds no room
    with pytest.raises(OSError, match="No space left") as error:
        tune(tiny_model, folder)
    assert error.value.errno == errno.ENOSPC
    assert "checkpoint-00000004" in checkpoints(folder)
    small_disk(100_000)
    assert same(tune(tiny_model, folder), whole)


def test_a_file_of_tensors_on_a_full_disk(small_disk: Callable[[int], Path]) -> None:
    path = small_disk(200) / "tensors.st"
    write_tensors({"a": torch.ones(1000)}, path)
    content = path.read_bytes()
    with pytest.raises(OSError, match="No space left") as error:
        write_tensors({"a": torch.ones(1 << 20)}, path)
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(path)
    assert path.read_bytes() == content
