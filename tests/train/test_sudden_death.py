"""The train stage killed at any moment, and taken up to the same end.

Children come from multiprocessing's fork server, which has imported torch once: each is a process
of its own, killed by the system, and is there in a few milliseconds.
"""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import tiny_job
from bantam.train.plan import Plan

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and the fork server are of Unix")

CONTEXT = get_context("forkserver")
# The last is what an optimizer imports, in a second, when it is made.
CONTEXT.set_forkserver_preload(
    ["pytest", "bantam.train.stage", "bantam.formats.tokenizer", "torch._dynamo"]
)
PLANS = {
    "lora": tiny_job.plan(steps=24),
    "full": tiny_job.plan(method="full", learning_rate=0.003, steps=24),
    "lora, texts read first": tiny_job.plan(steps=24, reading_steps=8),
    "lora, two threads, bfloat16": tiny_job.plan(steps=24, threads=2, precision="bfloat16"),
    "full, two threads, bfloat16": tiny_job.plan(
        method="full", learning_rate=0.003, steps=24, threads=2, precision="bfloat16"
    ),
}
EACH = [
    pytest.param(name, marks=pytest.mark.slow if name.startswith("full,") else ()) for name in PLANS
]
LIMIT = 60.0  # seconds


def child(model: Path, run: Path, plan: Plan) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the traceback of a Ctrl-C
    tiny_job.make(model, run, plan)


def start(model: Path, run: Path, plan: Plan) -> Any:
    process = CONTEXT.Process(target=child, args=(model, run, plan))
    process.start()
    return process


def stop_when(process: Any, moment: Callable[[], bool], wait: float, number: int) -> bool:
    """Send the signal `wait` seconds after the moment has come; False if it ended before."""
    end = time.monotonic() + LIMIT
    while process.is_alive() and not moment():
        assert time.monotonic() < end
        time.sleep(0.0002)
    time.sleep(wait)
    if process.is_alive():
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
    process.join(LIMIT)
    assert process.exitcode is not None
    return process.exitcode != 0


def finish(model: Path, run: Path, plan: Plan) -> None:
    process = start(model, run, plan)
    process.join(LIMIT)
    assert process.exitcode == 0


def outcome(run: Path) -> dict[str, Any]:
    """All that a finished stage holds but the seconds."""
    done = run / "train"
    result = json.loads((done / "result.json").read_text())
    lines = [json.loads(line) for line in (done / "metrics.jsonl").read_text().splitlines()]
    return {
        "files": sorted(path.name for path in done.iterdir()),
        "weights": (done / "tuned.safetensors").read_bytes(),
        "place": {key: value for key, value in result.items() if key != "spent_seconds"},
        "metrics": [{k: v for k, v in line.items() if k != "seconds"} for line in lines],
    }


@pytest.fixture(scope="module")
def whole(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Any]]:
    """What a plan comes to when nothing happens."""

    @cache
    def found(name: str) -> dict[str, Any]:
        run = tmp_path_factory.mktemp(name)
        finish(tiny_model, run, PLANS[name])
        done = outcome(run)
        assert done["files"] == [
            *("calibration.json", "metrics.jsonl", "result.json", "stage.json", "tuned.safetensors")
        ]
        return done

    return found


def logged(run: Path) -> int:
    """Lines in the metrics of the unfinished stage."""
    try:
        return (run / "train.partial" / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("method", EACH)
def test_at_random_moments(
    tiny_model: Path,
    tmp_path: Path,
    whole: Callable[[str], dict[str, Any]],
    method: str,
    number: signal.Signals,
) -> None:
    chance = random.Random(f"{method} {number}")
    stopped = 0
    for _ in range(4):
        line = logged(tmp_path) + chance.randint(0, 7)
        process = start(tiny_model, tmp_path, PLANS[method])
        stopped += stop_when(
            process, lambda line=line: logged(tmp_path) >= line, chance.uniform(0, 0.02), number
        )
    assert stopped >= 2  # on a busy machine a signal may come late
    finish(tiny_model, tmp_path, PLANS[method])
    assert outcome(tmp_path) == whole(method)


@pytest.mark.parametrize("method", EACH)
def test_within_a_save(
    tiny_model: Path, tmp_path: Path, whole: Callable[[str], dict[str, Any]], method: str
) -> None:
    chance = random.Random(method)
    partial = tmp_path / "train.partial" / "checkpoint.partial"
    within = 0
    for _ in range(5):
        process = start(tiny_model, tmp_path, PLANS[method])
        stop_when(process, partial.exists, chance.uniform(0, 0.004), signal.SIGKILL)
        within += partial.exists()
    assert within >= 1
    finish(tiny_model, tmp_path, PLANS[method])
    assert outcome(tmp_path) == whole(method)


def test_after_the_last_step(
    tiny_model: Path, tmp_path: Path, whole: Callable[[str], dict[str, Any]]
) -> None:
    """What was learned is written, the stage is not sealed: not a step is taken again."""
    partial = tmp_path / "train.partial"
    tuned = partial / "tuned.safetensors"
    for _ in range(8):  # the moment is short
        process = start(tiny_model, tmp_path, PLANS["lora"])
        stop_when(process, tuned.exists, 0, signal.SIGKILL)
        if partial.exists():
            break
        shutil.rmtree(tmp_path / "train")
    assert tuned.exists()
    told: list[object] = []
    tiny_job.make(tiny_model, tmp_path, PLANS["lora"], lambda *line: told.append(line))
    assert told == []
    assert outcome(tmp_path) == whole("lora")


def test_in_this_process_too(
    tiny_model: Path, tmp_path: Path, whole: Callable[[str], dict[str, Any]]
) -> None:
    told: list[tuple[int, int, str]] = []
    tiny_job.make(tiny_model, tmp_path, PLANS["lora"], lambda *line: told.append(line))
    assert outcome(tmp_path) == whole("lora")
    assert [done for done, _, _ in told] == list(range(1, 25))
    assert {of for _, of, _ in told} == {24}
    assert "validation 0." in told[10][2]
