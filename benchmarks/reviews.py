"""The demo's accuracy over training seeds, against tuned TF-IDF on one pinned split.

    python benchmarks/reviews.py                       three seeds, the demo's budget
    python benchmarks/reviews.py --budget "20 min"     a longer one
    python benchmarks/reviews.py --steps 198           as many steps, however busy the machine
    python benchmarks/reviews.py --base pypi:...       another base
    python benchmarks/reviews.py --movies 6000         as many movie sentences to learn from besides

The test rows are those of the demo each time. Each seed is a whole run: train, pack, judge the
packed file on the test rows. Runs are kept below runs/bench-reviews and taken up again.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import polars as pl

from bantam import ledger, recipe
from bantam.text.prepare import SPLITS, prepare

HERE = Path(__file__).resolve().parents[1] / "recipes" / "review-sentiment"
FOLDER = Path("runs") / "bench-reviews"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", default="5 min")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--base", help="another model to tune, such as pypi:NAME==VERSION")
    parser.add_argument("--movies", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    wanted = parser.parse_args()
    length = f"steps = {wanted.steps}" if wanted.steps else f'budget = "{wanted.budget}"'
    text = (HERE / "recipe.toml").read_text(encoding="utf-8")
    text = re.sub(r"(?s)\[judge\].*", '[judge]\nrivals = ["tfidf"]\n', text)
    folder = FOLDER / re.sub(r"\W+", "", length)
    if wanted.base:
        folder = folder.with_name(f"{folder.name}-{re.sub(r'[^a-z0-9]+', '-', wanted.base)}")
        text = re.sub(r"model = .*", f'model = "{wanted.base}"', text)
        text = re.sub(r"size = .*\n|latency = .*\n", "", text)  # limits of the demo's base
    if wanted.movies:
        folder = folder.with_name(f"{folder.name}-{wanted.movies}-movies")
        text = re.sub(r"(?s)examples = .*?\n|val = .*?\n|test = .*?\n", "", text)
        files = widened(wanted.movies, folder.absolute())
        told = "".join(f'{name} = ["{path}"]\n' for name, path in files.items())
        text = text.replace("[data]\n", f"[data]\n{told}")
    ours, gains = [], []
    for seed in wanted.seeds:
        written = HERE / f".bench-{seed}.toml"
        run = folder / f"seed-{seed}"
        settings = f"{length}\nseed = {seed}"
        written.write_text(re.sub(r"budget = .*", settings, text), encoding="utf-8")
        try:
            # A process of its own for each: a second training in one took a fifth longer.
            bantam = [sys.executable, "-c", "from bantam.cli import main; main()"]
            command = [*bantam, "make", written, "--run", run]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        finally:
            written.unlink()
        verdict = json.loads((run / "judge" / "verdict.json").read_text(encoding="utf-8"))
        model, rival = verdict["model"], verdict["rivals"][0]
        spent = {line["stage"]: line for line in ledger.read(run / "ledger.jsonl")}
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


def widened(movies: int, folder: Path) -> dict[str, Path]:
    """Files of the demo's splits, with movie sentences of the same raters among the first."""
    made = recipe.load(HERE / "recipe.toml")
    splits = prepare(made.data, [HERE / "data" / "reviews.csv"])
    columns = {"input": "text", "output": "label", "group": "review"}
    frames = {name: getattr(splits, name).select(*columns).rename(columns) for name in SPLITS}
    chances = splits.train["shares"].struct.unnest().rename("chance_{}".format)
    more = pl.read_csv(HERE / "data" / "movies.csv").sample(movies, seed=0, shuffle=True)
    more = more.with_columns(review="movie " + pl.col("review").cast(pl.String))
    train = pl.concat([frames.pop("train"), chances], how="horizontal")
    frames["examples"] = pl.concat([train, more], how="diagonal_relaxed")
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        frame.write_csv(folder / f"{name}.csv")
    return {name: folder / f"{name}.csv" for name in frames}


if __name__ == "__main__":
    main()
