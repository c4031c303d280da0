"""Fetch the human-rated review sentences that come with VADER, and write them as CSV files.

    python recipes/review-sentiment/fetch.py

Hutto, C.J. and Gilbert, E.E. (2014), VADER, ICWSM-14: each sentence was rated by twenty people from
-4 (negative) to 4 (positive). The sentences are other people's: use them, do not pass them on.
"""

import csv
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bantam.errors import BadInput, JobFailed
from bantam.sources import extract, resolve

SOURCE = "pypi:vadersentiment==3.3.2#additional_resources/hutto_ICWSM_2014.tar.gz"
FILES = {"reviews.csv": "amazonReviewSnippets", "movies.csv": "movieReviewSnippets"}
DATA = Path(__file__).parent / "data"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        extract(resolve(SOURCE).path, Path(folder))
        for name, snippets in FILES.items():
            write(Path(folder) / f"hutto_ICWSM_2014/{snippets}_GroundTruth.txt", DATA / name)


def write(ratings: Path, target: Path) -> None:
    """Turn rows of id (`review_sentence`), mean rating, text into rows of review, text, label."""
    rows = []
    for line in ratings.read_text(encoding="latin-1").strip("\n").split("\n"):
        sentence, rating, text = line.split("\t", 2)
        rows.append((sentence.partition("_")[0], text.strip(), label(float(rating))))
    target.parent.mkdir(exist_ok=True)
    partial = target.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("review", "text", "label"), *rows])
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)
    counts = ", ".join(f"{n} {name}" for name, n in Counter(row[2] for row in rows).most_common())
    print(f"{target}: {len(rows)} rows ({counts})")


def label(rating: float) -> str:
    return "positive" if rating > 0.5 else "negative" if rating < -0.5 else "neutral"


if __name__ == "__main__":
    try:
        main()
    except (BadInput, JobFailed) as error:
        print(f"fetch.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
