"""Runs of a benchmark, each in a process of its own and none made twice.

What is asked for is a wish in JSON, and so is what comes out: the last line that the process
prints. Both stand in one line of a log, and a wish that stands there in the same words is answered
from it. No torch here: on Linux a child's peak memory counts from its parent's.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Run = dict[str, Any]  # what was asked for, then what came out


def run_of(script: str, folder: Path, asked: Run) -> Run:
    """What the script made of the wish; what it made of it before, if it did."""
    log = folder / "runs.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    found = made_before([json.loads(line) for line in lines], asked)
    if found is None:
        found = asked | child(script, asked)
        folder.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps({k: v for k, v in found.items() if not isinstance(v, list)}), flush=True)
    return found


def prepared(script: str, folder: Path, asked: Run) -> None:
    """Have the script write the corpora of a folder, unless they stand there."""
    if not (folder / "train" / "corpus.json").exists():
        told = child(script, {"side": "data", "data": str(folder), **asked})
        print(json.dumps({"data": str(folder), **told}), flush=True)


def made_before(runs: Sequence[Run], asked: Run) -> Run | None:
    """The first run of those that was asked for in just these words. One whose time is of no
    interest answers no wish whose time is."""
    wanted = {"timed": True} | asked
    return next((run for run in runs if wanted.items() <= ({"timed": True} | run).items()), None)


def child(script: str, asked: Run) -> Run:
    """The answer of a process of its own. What is compiled there is compiled from nothing, unless
    the wish says that its time is of no interest (`timed`)."""
    with tempfile.TemporaryDirectory(prefix="bench-compiled-") as compiled:
        settings = {"OMP_NUM_THREADS": str(asked.get("threads", 1)), "HF_HUB_OFFLINE": "1"}
        settings["GOMP_SPINCOUNT"] = "10000"  # as bantam.nets has it: it helps the rivals as well
        if asked.get("timed", True):
            settings["TORCHINDUCTOR_CACHE_DIR"] = compiled
        done = subprocess.run(
            [sys.executable, str(Path(__file__).parent / script), json.dumps(asked)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | settings,
        )
    done.check_returncode()
    answer = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(answer, dict)
    return answer


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
