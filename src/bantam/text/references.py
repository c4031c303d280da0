"""Outputs that are text: one or several references of an input.

Several are written as one text in which `read.ITEM` ends each; one is written as it is.
"""

import polars as pl

from bantam.text.read import ITEM


def parted(frame: pl.DataFrame) -> pl.DataFrame:
    """Each reference of a cell gets a row of its own; empty ones go, a row without any stays."""
    text = pl.element().str.strip_chars()
    references = pl.col("output").str.split(ITEM).list.eval(text.filter(text != ""))
    nothing = pl.lit([None], pl.List(pl.String))  # what an empty list explodes to has changed
    return frame.with_columns(
        pl.when(references.list.len() > 0).then(references).otherwise(nothing).alias("output")
    ).explode("output")


def joined(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of the same input become the first of them, with the references of all."""
    whole = rows.group_by("input", maintain_order=True).agg(
        pl.all().exclude("output").first(), pl.col("output").unique(maintain_order=True)
    )
    one = pl.col("output").list.first()
    several = pl.col("output").list.eval(pl.element() + ITEM).list.join("")
    output = pl.when(pl.col("output").list.len() == 1).then(one).otherwise(several)
    return whole.with_columns(output.alias("output")).select(rows.columns)


def each(rows: pl.DataFrame) -> pl.DataFrame:
    """`input` and `output` of every reference of every row."""
    return parted(rows.select("input", "output"))
