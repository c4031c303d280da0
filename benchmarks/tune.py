"""Bantam's tuning against PEFT: time to the same validation score.

    python benchmarks/tune.py                        one and two threads, three seeds
    python benchmarks/tune.py --job function-calls   a job whose answers are written
    python benchmarks/tune.py --ablate --steps 12    what each of our measures is worth

Both tune the recipe's base from equal weights on the recipe's split: the same prompts, batch size,
rank, number of steps and evaluations, judged by one rule. Each run is a process of its own; the
sides take turns, so that other work on the machine hits both. Each side gets the best of `--rates`
for itself (by validation, with the first seed); the rival, Trainer for labels and TRL's SFTTrainer
for answers that are written, also the quickest of several ways to compute. No search counts as
time, nor do loading and evaluation. Written answers are judged by their loss in nats a token: few
of them can be met exactly.

What is finished stands in runs/bench-tune/runs.jsonl, other jobs have folders of their own in
there, and is not run again. This module loads no torch: on Linux a child's peak memory counts from
its parent's.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path("runs") / "bench-tune"
SIDES = ("bantam", "peft")
BATCH = 32  # rows a step
NO_MEMORY = "no memory"
MEASURES = (
    "nothing",
    "the shared beginning",
    "batches of like length",
    "the head for the labels only",
    "the head at the answer only",
    "bfloat16",
    "attention by two products",
)

SPEED = {
    "examples/s": ("examples_per_second", ".2f"),
    "training, s": ("seconds", ".0f"),
    "training, CPU s": ("cpu_seconds", ".0f"),
}
SCORE = {"best score": ("best", ".3f"), "s to the same score": ("seconds_to_same", ".0f")}
LOSS = {
    "lowest loss, nats a token": ("loss", ".4f"),
    "s to the same loss": ("seconds_to_same", ".0f"),
    "answers met exactly": ("exact", ".3f"),
}
COST = {
    "peak memory, GB": ("gigabytes", ".2f"),
    "share of the matrix peak": ("share_of_peak", ".2f"),
}

Run = dict[str, Any]  # what was asked for, then what came out


@dataclass(frozen=True)
class Bench:
    """What the benchmark of a recipe is to do."""

    steps: int
    evaluations: int
    at_once: tuple[int, ...] = ()  # rows: how much of a batch the rival may take; none: all of it


DEMO = "review-sentiment"
JOBS = {
    DEMO: Bench(steps=168, evaluations=3),
    "function-calls": Bench(steps=49, evaluations=7, at_once=(4, 2, 8)),  # a pass
    "package-synopsis": Bench(steps=150, evaluations=10, at_once=(8, 4, 16)),  # two passes
}


class Mark(NamedTuple):
    """An evaluation: when it began and ended, the processor seconds it took, and its score.

    The score of written answers is minus their loss; `exact` is the share that is met exactly.
    """

    began: float
    ended: float
    cpu: float
    score: float
    exact: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", choices=JOBS, default=DEMO, help="the recipe")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="by the job if not said")
    parser.add_argument("--evaluations", type=int, help="by the job if not said")
    parser.add_argument("--rates", type=float, nargs="+", default=[7e-4, 1.5e-3, 3e-3, 6e-3])
    parser.add_argument("--batch", type=int, default=BATCH, help="rows a step, of both sides")
    parser.add_argument("--rows", type=int, help="of each split at most: for a quick look")
    parser.add_argument("--ablate", action="store_true", help="leave out our measures in turn")
    wanted = parser.parse_args()
    if wanted.ablate and wanted.job != DEMO:
        parser.error(f"--ablate is for {DEMO} only")
    size = {"steps": wanted.steps or JOBS[wanted.job].steps, "rows": wanted.rows}
    if wanted.job != DEMO:
        size["job"] = wanted.job
    if wanted.batch != BATCH:
        size["batch"] = wanted.batch
    if wanted.evaluations:
        size["evaluations"] = wanted.evaluations
    child({"side": "data", "threads": 1, **job_in(size)})
    if wanted.ablate:
        print(ablation_table(list(ablated(wanted.threads, wanted.seeds, size))))
    else:
        print(table(list(compared(wanted.threads, wanted.seeds, wanted.rates, size))))


def compared(
    threads: Sequence[int], seeds: Sequence[int], rates: Sequence[float], size: Run
) -> Iterator[Run]:
    """Runs of both sides with each number of threads and each seed, side by side."""
    first = {"threads": max(threads), "seed": seeds[0], **size}
    own = {side: swept(side, first, rates) for side in SIDES}
    for number, (count, seed) in enumerate((t, s) for t in threads for s in seeds):
        for side in SIDES[:: -1 if number % 2 else 1]:
            yield run_of(side, {"threads": count, "seed": seed, **size, "rate": own[side]})


def swept(side: str, asked: Run, rates: Sequence[float]) -> float:
    """The best of the learning rates for a side; one alone is not tried."""
    if len(rates) == 1:
        return rates[0]
    return best_rate([run_of(side, asked | {"rate": rate}) for rate in rates])


def ablated(threads: Sequence[int], seeds: Sequence[int], size: Run) -> Iterator[Run]:
    """Our own side with each measure left out in turn."""
    for count in threads:
        for seed in seeds:
            for measure in MEASURES:
                yield run_of(
                    "ablation", {"without": measure, "threads": count, "seed": seed, **size}
                )


def run_of(side: str, asked: Run) -> Run:
    """What a child made of the wish; what one made of it before, if one did."""
    if side == "peft":  # in the way that is quickest with so many threads
        few = {"rows": asked["rows"]} if "job" in asked and asked["rows"] else {}
        trial = run_of("trial", {"threads": asked["threads"], **job_in(asked), **few})
        if trial.get("way") is None:
            return {"side": side, **asked, "failed": NO_MEMORY}
        asked = asked | {"way": trial["way"]}
    asked = {"side": side, **asked}
    file = folder_of(asked) / "runs.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    run = made_before([json.loads(line) for line in lines], asked)
    if run is None:
        run = asked | child(asked)
        with file.open("a", encoding="utf-8") as log:
            log.write(json.dumps(run) + "\n")
        print(told(run), flush=True)
    return run


def job_in(asked: Run) -> Run:
    """The part of a wish that names its job and batches; the demo and its batches have no name."""
    return {key: asked[key] for key in ("job", "batch") if key in asked}


def folder_of(asked: Run) -> Path:
    return FOLDER / str(asked.get("job", ""))


def child(asked: Run) -> Run:
    """The answer of a process of its own: the last line that it prints."""
    settings = {
        "OMP_NUM_THREADS": str(asked["threads"]),
        "GOMP_SPINCOUNT": "10000",  # as bantam.nets has it: what helps us here helps the rival
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        command_of(asked), stdout=subprocess.PIPE, text=True, env=os.environ | settings
    )
    if done.returncode == -signal.SIGKILL:  # so does the system where memory runs out
        return {"failed": NO_MEMORY}
    done.check_returncode()
    answer = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(answer, dict)
    return answer


def command_of(asked: Run) -> list[str]:
    script = str(Path(__file__).with_name("tune_sides.py"))
    return [sys.executable, "-W", "ignore::FutureWarning", script, json.dumps(asked)]


def made_before(runs: Sequence[Run], asked: Run) -> Run | None:
    """The first run of those that was asked for in just these words."""
    return next((run for run in runs if asked.items() <= run.items()), None)


def best_rate(runs: Sequence[Run]) -> float:
    """The learning rate of the run with the best score; of equals, the one that was good sooner."""
    whole = [run for run in runs if "failed" not in run]
    if not whole:
        return float(runs[0]["rate"])
    return float(max(whole, key=lambda r: (best(r), sum(s for *_, s in r["curve"])))["rate"])


def curve_of(
    began: float, marks: Sequence[Mark], every: int, steps: int
) -> list[tuple[int, float, float]]:
    """(step, seconds of training, score) of each evaluation; what it took itself does not count."""
    curve, spent = [], 0.0
    for number, mark in enumerate(marks, 1):
        curve.append((min(number * every, steps), mark.began - began - spent, mark.score))
        spent += mark.ended - mark.began
    return curve


def best(run: Run) -> float:
    """The best validation score of a run; its curve is of (step, seconds, score)."""
    return float(max(score for *_, score in run["curve"]))


def seconds_to(run: Run, score: float) -> float:
    """Seconds of training to the first evaluation with at least this score."""
    return float(next(seconds for _, seconds, reached in run["curve"] if reached >= score))


def paired(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Both sides' runs of each seed, with the seconds to the best score that both have reached."""
    sides = [sorted((r for r in runs if r["side"] == s), key=lambda r: r["seed"]) for s in SIDES]
    pairs = []
    for pair in zip(*sides, strict=True):
        same = min(map(best, pair))
        ours, theirs = (
            run | {"best": best(run), "loss": -best(run), "seconds_to_same": seconds_to(run, same)}
            for run in pair
        )
        pairs.append((ours, theirs))
    return pairs


def table(runs: Sequence[Run]) -> str:
    """Medians and ranges over the seeds, of each side and of their quotients."""
    columns = SPEED | (LOSS if any("job" in run for run in runs) else SCORE) | COST
    lines = [f"| threads | | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    for threads in sorted({run["threads"] for run in runs}):
        here = [run for run in runs if run["threads"] == threads]
        failed = [run for run in here if "failed" in run]
        for run in failed:
            told = [f"seed {run['seed']}: {run['failed']}", *("" for _ in columns)][: len(columns)]
            lines.append(f"| {threads} | {run['side']} | {' | '.join(told)} |")
        lost = {run["seed"] for run in failed}
        pairs = paired([run for run in here if run["seed"] not in lost])
        if not pairs:
            continue
        for side, made in zip(SIDES, zip(*pairs, strict=True), strict=True):
            name = f"{side}, learning rate {made[0]['rate']:g}"
            cells = [spread([r[key] for r in made], form) for key, form in columns.values()]
            lines.append(f"| {threads} | {name} | {' | '.join(cells)} |")
        cells = [quotient(pairs, key) for key, _ in columns.values()]
        lines.append(f"| {threads} | **{' / '.join(reversed(SIDES))}** | {' | '.join(cells)} |")
    return "\n".join(lines)


def quotient(pairs: Sequence[tuple[Run, Run]], key: str) -> str:
    """Theirs by ours; nothing where ours is zero, as the share of exact answers may be."""
    if not all(ours[key] for ours, _ in pairs):
        return ""
    return spread([theirs[key] / ours[key] for ours, theirs in pairs])


def ablation_table(runs: Sequence[Run]) -> str:
    """What steps cost without each measure, in multiples of those with them all (seed by seed)."""
    lines = [
        "| threads | without | times as long | times the CPU seconds | peak memory, GB |",
        "|---|---|---|---|---|",
    ]
    whole = {(r["threads"], r["seed"]): r for r in runs if r["without"] == MEASURES[0]}
    for threads in sorted({run["threads"] for run in runs}):
        for measure in MEASURES:
            made = [r for r in runs if r["threads"] == threads and r["without"] == measure]
            cells = [
                spread([r[key] / whole[threads, r["seed"]][key] for r in made])
                for key in ("seconds", "cpu_seconds")
            ]
            cells.append(spread([r["gigabytes"] for r in made]))
            lines.append(f"| {threads} | {measure} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def told(run: Run) -> str:
    """A line about one run."""
    if "failed" in run:
        return f"{run['side']}, {run['threads']} threads: {run['failed']}"
    if run["side"] == "trial":
        tried = "; ".join(
            f"{way} {NO_MEMORY if seconds is None else format(seconds, '.2f')}"
            for way, seconds in run["tried"].items()
        )
        return f"{run['threads']} threads, ways of peft to compute, s a step: {tried}"
    measured = (
        f"{run['threads']} threads, seed {run['seed']}, "
        f"{run['examples_per_second']:.2f} examples/s, "
        f"{run['seconds']:.1f} s ({run['cpu_seconds']:.1f} CPU s), "
        f"{run['gigabytes']:.2f} GB, {run['share_of_peak']:.0%} of the matrix peak"
    )
    if run["side"] == "ablation":
        return f"without {run['without']}: {measured}"
    curve = ", ".join(f"{score:.4f} (step {n}, {s:.0f} s)" for n, s, score in run["curve"])
    return f"{run['side']}, learning rate {run['rate']:g}: {measured}; {curve}"


if __name__ == "__main__":
    main()
