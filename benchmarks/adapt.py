"""Does reading the texts first, without their answers, help the task at equal total time?

    python benchmarks/adapt.py                              two recipes, three seeds
    python benchmarks/adapt.py --jobs review-sentiment --budget "2 min" --seeds 0

Both sides tune the same base on the same split within the same budget, planned as `bantam make`
plans it; one spends a quarter of its steps on reading (`train.adapt`). The best weights by
validation are judged on the test rows once. Both orders of the sides take turns over the seeds.
The data come by the recipes' fetch.py.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bantam.job import Job
from bantam.nets import load
from bantam.recipe import Train
from bantam.train import budget, device, loop, stage
from tune import Run
from tune_sides import data, job

JOBS = ("review-sentiment", "package-section")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", nargs="+", default=list(JOBS))
    parser.add_argument("--budget", default="5 min")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    wanted = parser.parse_args()
    print("| job | seed | reads first | seconds | steps, reading | validation | test |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in wanted.jobs:
        data({"job": name})
        made, gained = job({"job": name}), []
        for turn, seed in enumerate(wanted.seeds):
            scores = {}
            for adapt in (False, True) if turn % 2 == 0 else (True, False):
                settings = Train(
                    budget=wanted.budget,
                    method="lora",
                    threads=wanted.threads,
                    seed=seed,
                    adapt=adapt,
                )
                found = tuned(made, settings)
                scores[adapt] = found["test"]
                print(
                    f"| {name} | {seed} | {'yes' if adapt else 'no'} | {found['seconds']:.0f} "
                    f"| {found['steps']}, {found['reading']} | {found['validation']:.3f} "
                    f"| {found['test']:.3f} |",
                    flush=True,
                )
            gained.append(scores[True] - scores[False])
        print(
            f"{name}: reading first gains {statistics.median(gained):+.3f} on the test rows "
            f"({min(gained):+.3f} to {max(gained):+.3f})",
            flush=True,
        )


def tuned(made: Job, settings: Train) -> Run:
    """One side: its best validation score, its score on the test rows, and what it took."""
    began = time.monotonic()
    examples = stage.examples_of(made.task, made.tokenizer, made.learned)
    read = stage.readings(made.tokenizer, made.learned) if settings.adapt else []
    judged = stage.judge_of(made.task, made.tokenizer, made.val)
    val = stage.examples_of(made.task, made.tokenizer, made.val)
    plan = budget.plan(
        lambda: load.load(made.base).to(device.pick()), examples, val, settings, 0.0, read
    )
    decoder = load.load(made.base).to(device.pick())
    with TemporaryDirectory() as folder:
        place = loop.tune(decoder, examples, plan, judged, Path(folder), "", lambda _: None, read)
        lines = (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    seconds = time.monotonic() - began
    with torch.inference_mode(), loop.autocast(decoder, plan):
        test, _ = stage.judge_of(made.task, made.tokenizer, made.pairs("test"))(decoder)
    return {
        "seconds": seconds,
        "steps": json.loads(lines[-1])["step"],
        "reading": plan.reading_steps,
        "validation": place.best_score,
        "test": test,
    }


if __name__ == "__main__":
    main()
