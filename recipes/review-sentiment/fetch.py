"""Fetch the human-rated review sentences that come with VADER, and write them as CSV files.

    python recipes/review-sentiment/fetch.py

Hutto, C.J. and Gilbert, E.E. (2014), VADER, ICWSM-14: each sentence was rated by twenty people from
-4 (negative) to 4 (positive). The sentences are other people's: use them, do not pass them on.

The label is the side on which the mean rating lies. Beside it stands how likely twenty other people
like these would have put the sentence on each side: near a border a label is half a guess, and a
model learns more from being told so.
"""

import csv
import json
import math
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import NormalDist

from bantam.errors import BadInput, JobFailed
from bantam.sources import extract, resolve

SOURCE = "pypi:vadersentiment==3.3.2#additional_resources/hutto_ICWSM_2014.tar.gz"
FILES = {"reviews.csv": "amazonReviewSnippets", "movies.csv": "movieReviewSnippets"}
BORDER = 0.5  # of the mean rating, on either side of 0
LEAST_SPREAD = 0.3  # of twenty people's ratings, also where these twenty agreed
DATA = Path(__file__).parent / "data"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        extract(resolve(SOURCE).path, Path(folder))
        for name, snippets in FILES.items():
            write(Path(folder) / f"hutto_ICWSM_2014/{snippets}", DATA / name)


def write(source: Path, target: Path) -> None:
    """Turn rows of id (`review_sentence`), mean rating, text, and of id, mean rating, spread,
    ratings, into rows of review, text, label and how likely each label is."""
    ratings = {row[0]: row for row in rows(f"{source}_anonDataRatings.txt", "utf-8-sig")}
    written = []
    for sentence, _, text in rows(f"{source}_GroundTruth.txt", "latin-1"):
        _, mean, spread, given = ratings[sentence]
        likely = chances(float(mean), float(spread), len(json.loads(given)))
        review = sentence.partition("_")[0]
        written.append((review, text.strip(), label(float(mean)), *likely.values()))
    header = ("review", "text", "label", *(f"chance_{name}" for name in likely))
    target.parent.mkdir(exist_ok=True)
    partial = target.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *written])
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)
    counts = Counter(row[2] for row in written).most_common()
    told = ", ".join(f"{n} {name}" for name, n in counts)
    print(f"{target}: {len(written)} rows ({told})")


def rows(path: str, encoding: str) -> list[list[str]]:
    lines = Path(path).read_text(encoding=encoding).strip("\n").split("\n")
    return [line.split("\t") for line in lines]


def label(rating: float) -> str:
    return "positive" if rating > BORDER else "negative" if rating < -BORDER else "neutral"


def chances(mean: float, spread: float, raters: int) -> dict[str, float]:
    """How likely the mean rating of as many other people would give each label."""
    others = NormalDist(mean, max(spread, LEAST_SPREAD) / math.sqrt(raters))
    below, above = others.cdf(-BORDER), 1 - others.cdf(BORDER)
    found = {"negative": below, "neutral": 1 - below - above, "positive": above}
    return {name: round(max(0.0, chance), 4) for name, chance in found.items()}


if __name__ == "__main__":
    try:
        main()
    except (BadInput, JobFailed) as error:
        print(f"fetch.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
