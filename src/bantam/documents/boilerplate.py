"""Lines that recur across the documents of a source: menus, footers, headers, licence blocks.

A line counts once a document, and only if it has at least three words (of Chinese and Japanese,
eight letters): headings such as "SEE ALSO" stay. It is boilerplate when enough of its source's
documents hold it.

`count` counts the lines of a shard and tells those that recur in it, `recurring` adds up what all
shards told, `drop` takes the boilerplate out. Memory is flat: a shard tells no line that fewer than
half of the share of its documents hold, and these few then go uncounted (as in lossy counting,
Manku and Motwani 2002).
"""

import polars as pl

from bantam.documents import lines
from bantam.recipe_documents import Boilerplate

TALKING = r"^\s*(?:\S+\s+){2}\S|[\p{Han}\p{Hiragana}\p{Katakana}]{8}"  # at least three words
LINES = pl.Schema({"source": pl.String(), "text": pl.String(), "documents": pl.Int64()})


def sizes(frame: pl.DataFrame) -> pl.DataFrame:
    """How many documents of each source the shard holds: `source`, `size`."""
    return frame.group_by("source").agg(pl.len().cast(pl.Int64).alias("size"))


def count(frame: pl.DataFrame, rules: Boilerplate) -> pl.DataFrame:
    """The lines that recur within the shard, as `LINES`."""
    # Twice at least: where a shard holds few documents each line is a large share of them.
    often = pl.col("documents") >= min(2, rules.min_documents)
    often &= pl.col("documents") >= rules.min_share / 2 * pl.col("size")
    found = lines.split(frame)
    found = found.with_columns(source=frame["source"].gather(found["document"]))
    line = ["source", "text"]
    many = found.group_by(line).agg(pl.len().alias("documents")).join(sizes(frame), on="source")
    many = many.filter(often).filter(pl.col("text").str.contains(TALKING)).select(*line, "size")
    held = found.join(many, on=line).unique([*line, "document"])  # some stand twice in a document
    counted = held.group_by(line).agg(pl.len().cast(pl.Int64).alias("documents"), pl.first("size"))
    return counted.filter(often).select(LINES.names())


def recurring(found: pl.DataFrame, documents: pl.DataFrame, rules: Boilerplate) -> pl.DataFrame:
    """The boilerplate, the commonest first, as `LINES`, from what `count` and `sizes` told of all
    shards, one below the other.
    """
    size = documents.group_by("source").agg(pl.sum("size"))
    often = pl.col("documents") >= rules.min_documents
    often &= pl.col("documents") >= rules.min_share * pl.col("size")
    counted = found.group_by("source", "text").agg(pl.sum("documents"))
    return (
        counted.join(size, on="source")
        .filter(often)
        .sort("documents", "source", "text", descending=[True, False, False])
        .select(LINES.names())
    )


def drop(frame: pl.DataFrame, boilerplate: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The documents without these lines, and the lines that went (`lines.DROPPED`): their reason is
    "boilerplate", their value in how many documents of the source they stood.
    """
    found = lines.split(frame).filter(pl.col("text").is_in(boilerplate["text"].implode()))
    found = found.with_columns(source=frame["source"].gather(found["document"]))
    value = pl.col("documents").cast(pl.String)
    known = boilerplate.select("source", "text", value=value, reason=pl.lit("boilerplate"))
    return lines.cut(frame, found.join(known, on=["source", "text"], maintain_order="left"))
