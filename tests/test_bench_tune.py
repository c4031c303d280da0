"""The sums that benchmarks/tune.py draws from its runs; nothing is trained here."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "tune.py"


@pytest.fixture(scope="module")
def tune() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_tune", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(side: str, scores: list[float], a_step: float, **change: Any) -> dict[str, Any]:
    """A run with an evaluation every 10 steps."""
    curve = [[10 * n, 10 * n * a_step, score] for n, score in enumerate(scores, 1)]
    seconds = curve[-1][1]
    made = {
        **{"side": side, "threads": 1, "seed": 0, "rate": 1e-3, "curve": curve},
        **{
            "seconds": seconds,
            "cpu_seconds": 0.5 * seconds,
            "examples_per_second": 320 * len(scores) / seconds,
        },
        **{"gigabytes": 2.0, "share_of_peak": 0.25},
    }
    return made | change


def test_evaluations_do_not_count_as_training(tune: ModuleType) -> None:
    times = [(110.0, 115.0), (125.0, 132.0), (136.0, 139.0)]
    marks = [tune.Mark(*at, 9.0, score) for at, score in zip(times, (0.5, 0.6, 0.7), strict=True)]
    # Training went on for 10, 10 and 4 seconds; the last part is cut short by the end of the run.
    assert tune.curve_of(100.0, marks, 4, 10) == [(4, 10.0, 0.5), (8, 20.0, 0.6), (10, 24.0, 0.7)]


def test_the_same_score_is_the_best_of_the_worse_side(tune: ModuleType) -> None:
    ours = run("bantam", [0.6, 0.7, 0.8, 0.79], 1.0)
    theirs = run("peft", [0.5, 0.65, 0.7, 0.68], 3.0)
    ((a, b),) = tune.paired([theirs, ours])
    assert (a["side"], a["best"], a["seconds_to_same"]) == ("bantam", 0.8, 20)
    assert (b["side"], b["best"], b["seconds_to_same"]) == ("peft", 0.7, 90)
    ours, theirs = run("bantam", [0.6, 0.65], 1.0), run("peft", [0.7, 0.8], 1.0)
    ((a, b),) = tune.paired([ours, theirs])
    assert (a["seconds_to_same"], b["seconds_to_same"]) == (20, 10)


def test_seeds_are_paired_with_themselves(tune: ModuleType) -> None:
    runs = [run("bantam", [0.5], 1.0, seed=seed) for seed in (2, 0, 1)]
    runs += [run("peft", [0.5], 1.0, seed=seed) for seed in (1, 2, 0)]
    assert [(a["seed"], b["seed"]) for a, b in tune.paired(runs)] == [(0, 0), (1, 1), (2, 2)]
    with pytest.raises(ValueError, match="zip"):
        tune.paired(runs[:-1])


def test_the_table_has_medians_ranges_and_quotients(tune: ModuleType) -> None:
    runs = [run("bantam", [0.7, 0.8], 1.0, seed=seed, threads=t) for seed in (0, 1) for t in (1, 2)]
    runs += [
        run("peft", [0.7, 0.8], a_step, seed=seed, threads=t, gigabytes=3.0)
        for seed, a_step in enumerate((2.0, 4.0))
        for t in (1, 2)
    ]
    header, rule, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in tune.table(runs).splitlines()
    )
    assert {len(row) for row in (header, rule, *rows)} == {9}
    assert [row[:2] for row in rows[:3]] == [
        ["1", "bantam, learning rate 0.001"],
        ["1", "peft, learning rate 0.001"],
        ["1", "**peft / bantam**"],
    ]
    assert rows[:3][0][1:] == rows[3][1:]
    quotients = dict(zip(header, rows[2], strict=True))
    assert quotients["examples/s"] == "0.38 (0.25 to 0.50)"
    assert quotients["s to the same score"] == "3.00 (2.00 to 4.00)"
    assert quotients["peak memory, GB"] == "1.50 (1.50 to 1.50)"
    assert dict(zip(header, rows[1], strict=True))["training, s"] == "60 (40 to 80)"


def test_the_rate_with_the_best_score_is_taken(tune: ModuleType) -> None:
    runs = [
        run("peft", [0.7, 0.8, 0.7], 1.0, rate=1e-4),
        run("peft", [0.8, 0.7, 0.75], 1.0, rate=2e-4),  # as good a best, and better on the whole
        run("peft", [0.79, 0.79, 0.79], 1.0, rate=3e-4),
    ]
    assert tune.best_rate(runs) == 2e-4


def test_measures_are_held_against_the_same_seed_and_threads(tune: ModuleType) -> None:
    runs = [
        {"threads": t, "seed": seed, "without": measure, "gigabytes": 1.0}
        | {"seconds": seconds * slow, "cpu_seconds": seconds * t}
        for t, slow in ((1, 10.0), (2, 6.0))
        for seed, seconds in ((0, 1.0), (1, 2.0))
        for measure in tune.MEASURES
    ]
    for made in runs:
        if made["without"] == "bfloat16":
            made["seconds"] *= 1.5
            made["cpu_seconds"] *= 2
    for row in tune.ablation_table(runs).splitlines()[2:]:
        longer, dearer = ("1.50", "2.00") if "bfloat16" in row else ("1.00", "1.00")
        times = f"{longer} ({longer} to {longer}) | {dearer} ({dearer} to {dearer})"
        assert f"| {times} | 1.00 (1.00 to 1.00) |" in row


def test_a_finished_run_is_not_made_again(
    tune: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_of_children: list[dict[str, Any]] = []

    def child(asked: dict[str, Any]) -> dict[str, Any]:
        asked_of_children.append(asked)
        if asked["side"] == "trial":
            return {"way": "quick", "tried": {"quick": 1.0, "slow": 2.0}}
        score = {1e-4: 0.7, 3e-4: 0.8}.get(asked.get("rate", 0), 0.75)
        return run(asked["side"], [score], 1.0, rate=7e-4) | asked

    monkeypatch.setattr(tune, "FOLDER", tmp_path)
    monkeypatch.setattr(tune, "child", child)
    arguments = ([1, 2], [0, 1], [1e-4, 3e-4], {"steps": 10, "rows": None})
    made = list(tune.compared(*arguments))
    # Two trials; of each side a sweep of two, and four runs but for one that was swept.
    assert [asked["side"] for asked in asked_of_children].count("trial") == 2
    assert len(asked_of_children) == 2 + 2 * (2 + 3)
    assert all(r["rate"] == 3e-4 for r in made)
    assert all(r["way"] == "quick" for r in made if r["side"] == "peft")
    assert [r["side"] for r in made] == ["bantam", "peft", "peft", "bantam"] * 2

    assert list(tune.compared(*arguments)) == made
    assert len(asked_of_children) == 12
    lines = (tmp_path / "runs.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "runs.jsonl").write_text("".join(lines[:-1]))
    assert list(tune.compared(*arguments)) == made
    assert asked_of_children[12:] == [{k: json.loads(lines[-1])[k] for k in asked_of_children[-1]}]
    list(tune.compared([1], [0], [1e-4, 3e-4], {"steps": 11, "rows": None}))
    assert len(asked_of_children) == 13 + 4


def written(side: str, losses: list[float], exact: float, **change: Any) -> dict[str, Any]:
    return run(side, [-loss for loss in losses], 1.0, job="calls", exact=exact) | change


def test_written_answers_are_compared_by_their_loss(tune: ModuleType) -> None:
    runs = [
        written("bantam", [0.5, 0.3, 0.2], 0.5),
        written("peft", [0.6, 0.4, 0.3], 0.25, seconds=60.0),
    ]
    header, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in tune.table(runs).splitlines()
    )
    ours, theirs, quotients = (dict(zip(header, row, strict=True)) for row in rows)
    assert ours["lowest loss, nats a token"] == "0.2000 (0.2000 to 0.2000)"
    assert ours["s to the same loss"] == "20 (20 to 20)"
    assert theirs["s to the same loss"] == "30 (30 to 30)"
    assert quotients["s to the same loss"] == "1.50 (1.50 to 1.50)"
    assert quotients["answers met exactly"] == "0.50 (0.50 to 0.50)"
    assert "best score" not in header
    runs[0]["exact"] = 0.0
    assert tune.table(runs).splitlines()[-1].count("| |") == 0


def test_a_side_that_has_no_memory_is_told(tune: ModuleType) -> None:
    lost = {"side": "peft", "threads": 1, "rate": 1e-3, "job": "calls", "failed": "no memory"}
    whole = [written(side, [0.5], 0.5, seed=1) for side in tune.SIDES]
    half = [written("bantam", [0.5], 0.5, seed=0)]
    told = tune.table([*half, lost | {"seed": 0}, *whole]).splitlines()
    assert len({line.count("|") for line in told}) == 1
    assert told[2].startswith("| 1 | peft | seed 0: no memory |")
    assert len(told) == 2 + 1 + 3  # the other seed's runs are compared
    assert len(tune.table([*half, lost | {"seed": 0}]).splitlines()) == 2 + 1
    assert tune.told(lost | {"seed": 0}) == "peft, 1 threads: no memory"
    assert tune.best_rate([lost, written("peft", [0.5], 0.5, rate=1e-4)]) == 1e-4
    assert tune.best_rate([lost, lost | {"rate": 1e-4}]) == 1e-3
    trial = {"side": "trial", "threads": 1, "tried": {"quick": 1.0, "large": None}}
    assert tune.told(trial).endswith("quick 1.00; large no memory")


def test_a_child_that_the_system_killed_had_no_memory(
    tune: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"side": "peft", "threads": 1}

    def script(text: str) -> None:
        monkeypatch.setattr(tune, "command_of", lambda _: ["/bin/sh", "-c", text])

    script("kill -9 $$")
    assert tune.child(asked) == {"failed": "no memory"}
    script("echo told; echo '{}'")
    assert tune.child(asked) == {}
    script("exit 3")
    with pytest.raises(subprocess.CalledProcessError):
        tune.child(asked)


@pytest.mark.parametrize(("job", "folder"), [(None, "."), ("function-calls", "function-calls")])
def test_each_job_has_a_log_of_its_own(
    tune: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    job: str | None,
    folder: str,
) -> None:
    asked_of_children: list[dict[str, Any]] = []

    def child(asked: dict[str, Any]) -> dict[str, Any]:
        asked_of_children.append(asked)
        (tmp_path / folder).mkdir(exist_ok=True)
        if asked["side"] == "trial":
            return {"way": "quick", "tried": {"quick": 1.0}}
        return run(asked["side"], [-0.75], 1.0) | {"exact": 0.5} | asked

    monkeypatch.setattr(tune, "FOLDER", tmp_path)
    monkeypatch.setattr(tune, "child", child)
    words = ["--threads", "1", "--seeds", "0", "--rates", "1e-3", *(["--job", job] if job else [])]
    monkeypatch.setattr(sys, "argv", ["tune.py", *words])
    tune.main()
    steps = tune.JOBS[job or tune.DEMO].steps
    named = {"job": job} if job else {}
    asked = {"threads": 1, "seed": 0, "steps": steps, "rows": None, **named}
    assert asked_of_children == [
        {"side": "data", "threads": 1, **named},
        {"side": "bantam", **asked, "rate": 1e-3},
        {"side": "trial", "threads": 1, **named},
        {"side": "peft", **asked, "rate": 1e-3, "way": "quick"},
    ]
    assert len((tmp_path / folder / "runs.jsonl").read_text().splitlines()) == 3
    assert ("best score" in capsys.readouterr().out) == (job is None)
