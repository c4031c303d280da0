"""How many wrong labels the label check finds, and how many of its suspects are wrong.

    python benchmarks/labels.py                three seeds, 5% of the labels made wrong
    python benchmarks/labels.py --share 0.02   fewer

Some labels of real rows are replaced by another label of the same data, at random. Suspects that
were not replaced count as false, though people doubt some of these labels as well: of the reviews
the last column says how many of such suspects twenty raters were not sure about, and how many of
all rows. Beside the check stands the plainest way, each row that the same quick model would label
otherwise. The reviews and movies come by recipes/review-sentiment/fetch.py, the packages by
recipes/package-section/fetch.py.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from bantam.documents.folds import folds
from bantam.text import clean, quick, suspects

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
CHANCES = ["chance_negative", "chance_neutral", "chance_positive"]
UNSURE = 0.9  # as likely twenty other raters would have given the label: below, it is half a guess


class Rows(NamedTuple):
    name: str
    frame: pl.DataFrame  # input, output, group, and unsure (of some)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    wanted = parser.parse_args()
    print(
        "| rows | labels | planted | suspects | found | right | right of the first planted | "
        "all that is labelled otherwise: rows, found, right | unsure | CPU s |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    for rows in data():
        tried = [attempt(rows.frame, wanted.share, seed) for seed in wanted.seeds]
        mean = np.mean(tried, axis=0)
        planted, given, found, right, first, rest, otherwise, its_found, its_right = mean[:9]
        unsure = f"{mean[9]:.0%}, of all {mean[10]:.0%}" if mean[10] else ""
        print(
            f"| {rows.name}, {rows.frame.height} | {rows.frame['output'].n_unique()} "
            f"| {planted:.0f} | {given:.0f} | {found:.0%} | {right:.0%} | {first:.0%} "
            f"| {otherwise:.0f}, {its_found:.0%}, {its_right:.0%} | {unsure} | {rest:.1f} |",
            flush=True,
        )


def data() -> Iterator[Rows]:
    sentiment = RECIPES / "review-sentiment" / "data"
    reviews = pl.read_csv(sentiment / "reviews.csv")
    yield Rows("review sentences", framed(reviews, "text", "label", "review"))
    sure = reviews.filter(pl.max_horizontal(CHANCES) >= UNSURE)
    yield Rows("review sentences that raters agree on", framed(sure, "text", "label", "review"))
    movies = pl.read_csv(sentiment / "movies.csv").filter(pl.col("label") != "neutral")
    movies = movies.sample(5000, seed=0)
    yield Rows("movie sentences", framed(movies, "text", "label", "review"))
    packages = pl.read_csv(RECIPES / "package-section" / "data" / "packages.csv")
    yield Rows("package synopses", framed(packages, "text", "section"))
    yield Rows("package descriptions", framed(packages, "long", "section"))


def framed(table: pl.DataFrame, text: str, label: str, group: str | None = None) -> pl.DataFrame:
    """Rows as the check takes them, each text once."""
    frame = table.select(
        pl.col(text).str.strip_chars().alias("input"),
        pl.col(label).alias("output"),
        pl.col(group).cast(pl.String) if group else pl.lit(None, pl.String).alias("group"),
        *([(pl.max_horizontal(CHANCES) < UNSURE).alias("unsure")] if group else []),
    )
    frame = frame.rename({group: "group"}) if group else frame
    frame = frame.filter(pl.col("input") != "").with_row_index("row", 1)
    frame = frame.with_columns(pl.col("row").cast(pl.Int64), file=pl.lit("rows.csv"))
    return clean.identify(frame).unique("key", keep="first", maintain_order=True)


def attempt(frame: pl.DataFrame, share: float, seed: int) -> list[float]:
    """One planting: counts, shares and seconds in the order of the table."""
    chance = np.random.default_rng(seed)
    labels = frame["output"].unique().sort().to_list()
    place = {label: number for number, label in enumerate(labels)}
    true = np.array([place[label] for label in frame["output"]])
    wrong = chance.random(len(true)) < share
    given = np.where(wrong, (true + chance.integers(1, len(labels), len(true))) % len(labels), true)
    planted = frame.with_columns(output=pl.Series([labels[number] for number in given]))
    began = time.process_time()
    found = suspects.check(planted.drop("unsure", strict=False), seed=seed).suspects
    seconds = time.process_time() - began
    at = {row: number for number, row in enumerate(planted["row"])}
    doubted = np.array([at[row] for row in found["row"]])
    by_confidence = found.sort("confidence", descending=True)["row"].head(int(wrong.sum()))
    first = np.array([at[row] for row in by_confidence])
    fold = folds(np.arange(len(given)), given, seed)
    shares = quick.labels(planted["input"].to_list(), given, fold, seed)
    otherwise = np.flatnonzero(shares.argmax(axis=1) != given)
    unsure = np.zeros(2)
    if "unsure" in frame.columns:
        half = frame["unsure"].to_numpy()
        unsure = np.array([half[doubted[~wrong[doubted]]].mean(), half.mean()])
    total = wrong.sum()
    return [
        total,
        len(doubted),
        wrong[doubted].sum() / total,
        wrong[doubted].mean(),
        wrong[first].mean(),
        seconds,
        len(otherwise),
        wrong[otherwise].sum() / total,
        wrong[otherwise].mean(),
        *unsure,
    ]


if __name__ == "__main__":
    main()
