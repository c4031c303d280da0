"""What the learned score finds: how many of the documents that it keeps are good, and how fast.

    python benchmarks/score.py GOOD OTHER [OTHER ...]      folders

for instance a manual against mails, change logs and licences:

    python benchmarks/score.py /usr/share/doc/python3.11/html /usr/share/man/man1 /usr/share/doc

Of near copies one is taken. Half of the documents is learned from, the other half is scored.
"thumbs" are so many good ones and as many others; "sample" are so many good ones against a sample
of all. Seconds are the processor's.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
from sklearn.metrics import roc_auc_score

from bantam.documents import duplicates, score, words
from bantam.documents.draw import drawn
from bantam.documents.normalise import normalise
from bantam.documents.read import read
from bantam.documents.walk import Source

Result = TypeVar("Result")


def main() -> None:
    frame = pl.concat([_documents(Path(name)) for name in sys.argv[1:]]).unique(
        "text", maintain_order=True
    )
    frame = frame.filter(duplicates.clusters(frame["text"]).is_first_distinct())
    good = pl.col("source") == frame["source"][0]
    frame = frame[np.argsort(drawn(frame["id"], 0, "benchmark"))]
    learned, rest = frame[: len(frame) // 2], frame[len(frame) // 2 :]
    liked, others = learned.filter(good)["text"], learned.filter(~good)["text"]
    truth = rest.select(good).to_series().to_numpy()
    megabytes = rest["text"].str.len_bytes().sum() / 1e6
    score.scores(
        words.split(rest["text"][:1]), score.Scorer(np.zeros(1 << 18, "f4"), 0, 0, 0, 0, 0)
    )
    found, split = _timed(lambda: words.split(rest["text"]))
    print(f"{len(rest)} documents to score, {megabytes:.1f} MB, {truth.mean():.3f} of them good")
    print(f"words: {megabytes / split:.0f} MB/s")
    print(
        "learned from  out of fold  new  right of as many as are good / half as many  learn  score"
    )
    for name, count, background in (
        ("thumbs", 25, others[:25]),
        ("thumbs", 100, others[:100]),
        ("sample", 25, learned["text"]),
        ("sample", 100, learned["text"]),
        ("sample", len(liked), learned["text"]),
    ):
        scorer, learn = _timed(lambda b=background, c=count: score.learn(liked[:c], b, 0))
        told, took = _timed(lambda s=scorer: score.scores(found, s))
        best = truth[np.argsort(-told.to_numpy(), kind="stable")]
        kept = int(truth.sum())
        print(
            f"{name} {scorer.good:5} {scorer.background:5}  {scorer.auc:.3f} ± {scorer.error:.3f}"
            f"  {roc_auc_score(truth, told):.4f}  {best[:kept].mean():.3f} / "
            f"{best[: kept // 2].mean():.3f}  {learn:.1f} s  {megabytes / took:.0f} MB/s"
        )


def _documents(folder: Path) -> pl.DataFrame:
    found = [
        frame.select("id", "source", "text") for frame in read([Source(str(folder), folder)], [])
    ]
    frame = pl.concat(found)
    return frame.with_columns(text=normalise(frame["text"])[0]).filter(pl.col("text") != "")


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    began = time.process_time()
    return work(), time.process_time() - began


if __name__ == "__main__":
    main()
