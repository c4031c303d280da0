"""Parquet and arrow: rows are documents, read a batch at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import polars as pl

from bantam.documents.parts import Fault, Part, Wanted
from bantam.documents.readers.column import SAMPLE, text_column
from bantam.documents.unpack import Budget

BATCH = 10_000  # rows
_STREAM = b"\xff\xff\xff\xff"  # how arrow begins that is written as a stream


def read(file: IO[bytes], form: str, wanted: Wanted) -> Iterator[Part | Fault]:
    budget = Budget(file.seek(0, 2))
    file.seek(0)
    frame = _opened(file, form)
    schema = frame.collect_schema()
    texts = [name for name, kind in schema.items() if kind in (pl.String, pl.Categorical)]
    letters = pl.col(texts).cast(pl.String).str.len_chars().sum()
    counted = frame.head(SAMPLE).select(letters).collect().row(0)
    column = text_column(dict(zip(texts, counted, strict=True)), wanted.text)
    licence = wanted.licence if wanted.licence in texts else None
    chosen = [pl.col(column).cast(pl.String).alias("text")]
    chosen.append((pl.col(licence).cast(pl.String) if licence else pl.lit(None)).alias("licence"))
    number = 0
    for batch in frame.select(chosen).collect_batches(chunk_size=BATCH):
        for text, stated in batch.iter_rows():
            number += 1
            if text:
                budget.pay(len(text))
                yield Part(text, f"row {number}", stated)


def _opened(file: IO[bytes], form: str) -> pl.LazyFrame:
    start = file.read(4)
    file.seek(0)
    if start == _STREAM:
        return pl.read_ipc_stream(file.read()).lazy()
    # Of a path only what is asked for is read; of a stream, polars reads the whole.
    name = getattr(file, "name", None)
    where = Path(name) if isinstance(name, str) else file
    if form == "parquet":
        return pl.scan_parquet(where, glob=False)
    return pl.scan_ipc(where, glob=False)
