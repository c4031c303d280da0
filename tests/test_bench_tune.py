"""The sums that benchmarks/tune.py draws from its runs; nothing is trained here."""

import importlib.util
import json
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
    # Two trials, a sweep of two, ours four times, the rival's four but for one that was swept.
    assert [asked["side"] for asked in asked_of_children].count("trial") == 2
    assert len(asked_of_children) == 2 + 2 + 4 + 3
    assert all(r["rate"] == 3e-4 and r["way"] == "quick" for r in made if r["side"] == "peft")
    assert [r["side"] for r in made] == ["bantam", "peft", "peft", "bantam"] * 2

    assert list(tune.compared(*arguments)) == made
    assert len(asked_of_children) == 11
    lines = (tmp_path / "runs.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "runs.jsonl").write_text("".join(lines[:-1]))
    assert list(tune.compared(*arguments)) == made
    assert asked_of_children[11:] == [{k: json.loads(lines[-1])[k] for k in asked_of_children[-1]}]
    list(tune.compared([1], [0], [1e-4, 3e-4], {"steps": 11, "rows": None}))
    assert len(asked_of_children) == 12 + 3
