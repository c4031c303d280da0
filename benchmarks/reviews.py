"""The demo's accuracy over training seeds, against tuned TF-IDF on one pinned split.

    python benchmarks/reviews.py                       three seeds, the demo's budget
    python benchmarks/reviews.py --budget "20 min"     a longer one
    python benchmarks/reviews.py --steps 198           as many steps, however busy the machine

Each seed is a whole run: train, pack, judge the packed file on the test rows. Runs are kept below
runs/bench-reviews and taken up again.
"""

import argparse
import re
import statistics
from pathlib import Path

import bantam
from bantam import ledger

HERE = Path(__file__).resolve().parents[1] / "recipes" / "review-sentiment"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", default="5 min")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    wanted = parser.parse_args()
    length = f"steps = {wanted.steps}" if wanted.steps else f'budget = "{wanted.budget}"'
    text = (HERE / "recipe.toml").read_text(encoding="utf-8")
    text = re.sub(r"(?s)\[judge\].*", '[judge]\nrivals = ["tfidf"]\n', text)
    folder = Path("runs") / "bench-reviews" / re.sub(r"\W+", "", length)
    ours, gains = [], []
    for seed in wanted.seeds:
        recipe = HERE / f".bench-{seed}.toml"
        settings = f"{length}\nseed = {seed}"
        recipe.write_text(re.sub(r"budget = .*", settings, text), encoding="utf-8")
        try:
            verdict = bantam.make(recipe, folder / f"seed-{seed}")
        finally:
            recipe.unlink()
        model, rival = verdict["model"], verdict["rivals"][0]
        spent = {line["stage"]: line for line in ledger.read(folder / f"seed-{seed}/ledger.jsonl")}
        print(
            f"seed {seed}: packed {model['score']:.4f} "
            f"[{model['score_low']:.3f}, {model['score_high']:.3f}], tfidf {rival['score']:.4f}, "
            f"difference {rival['difference']:+.4f} "
            f"[{rival['difference_low']:+.3f}, {rival['difference_high']:+.3f}], "
            f"train {spent['train']['wall_seconds']} s wall, {spent['train']['cpu_seconds']} s CPU",
            flush=True,
        )
        ours.append(model["score"])
        gains.append(rival["difference"])
    print(
        f"mean of {len(ours)}: packed {statistics.mean(ours):.4f} "
        f"(from {min(ours):.4f} to {max(ours):.4f}), "
        f"above tfidf {statistics.mean(gains):+.4f}"
    )


if __name__ == "__main__":
    main()
