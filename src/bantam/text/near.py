"""Near copies among labelled rows: texts that differ in a word or two.

They are found as documents' copies are (`documents.duplicates`), and are no fault: but one that is
learned from says too much about another that judges.
"""

from typing import Any

import polars as pl

from bantam.documents import duplicates
from bantam.text.clean import KEPT, POOL, mark

LARGE = 0.1  # share of all rows in one cluster, above which that is told


def clustered(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `cluster`: of kept rows a number that near copies share, also through others; else null.

    `frame` has `input`, `key` and `reason` as in `clean`.
    """
    # In an order of their own, so that the result does not depend on that of the rows.
    texts = frame.filter(KEPT).unique("key", keep="first", maintain_order=True).sort("key")
    numbers = texts.select("key", cluster=duplicates.clusters(texts["input"]).cast(pl.Int64))
    joined = frame.join(numbers, on="key", how="left", maintain_order="left")
    return joined.with_columns(pl.when(KEPT).then("cluster").alias("cluster"))


def apart(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows without a split that are near copies of rows of a val or test file are marked."""
    for name in ("test", "val"):
        held = frame.filter(KEPT & (pl.col("split") == name))["cluster"].unique()
        near = POOL & pl.col("cluster").is_in(held.implode())
        frame = mark(frame, near, f"a near copy of it stands in the {name} file")
    return frame


def warnings(rows: pl.DataFrame) -> list[str]:
    """What is to be told of kept rows of which many are near copies of each other."""
    largest = told(rows)["largest"]
    if largest <= LARGE * rows.height:
        return []
    return [
        f"{largest} of {rows.height} rows are near copies of each other and stay on one side of "
        "the split: were they written from one template? data.near_duplicates = false parts them"
    ]


def told(rows: pl.DataFrame) -> dict[str, Any]:
    """For the report: how many clusters of near copies there are among kept rows, how many rows
    they hold, and the largest."""
    sizes = (
        rows.group_by("cluster")
        .agg(pl.len().alias("rows"), pl.col("key").n_unique().alias("texts"))
        .filter(pl.col("texts") > 1)
    )
    counts = sizes["rows"].to_list()
    return {"clusters": len(counts), "rows": sum(counts), "largest": max(counts, default=0)}
