"""How much of a row's answer each label is: columns of votes or of probabilities."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from bantam.errors import BadInput
from bantam.text import read
from bantam.text.clean import KEPT, mark

MARK = "share of "  # begins the names of these columns in a frame
MOST = 1e9  # votes; larger numbers are something else, and their sum could be infinite


def columns(path: Path, beginning: str) -> dict[str, str]:
    """{name in the frame: name in the file} of the columns of shares. BadInput: there is none."""
    found = {
        MARK + name[len(beginning) :].strip(): name
        for name in read.names(path)
        if name.startswith(beginning) and name != beginning
    }
    if not found:
        raise BadInput(
            f'{path}: no column begins with "{beginning}", which data.shares asks for',
            f'call the columns after the labels, such as "{beginning}spam", or take the key out',
        )
    return found


def gathered(
    frame: pl.DataFrame, labels: Sequence[str], beginning: str
) -> tuple[pl.DataFrame, list[str]]:
    """The columns of shares become one, `shares`: a struct of a share for each of `labels`.

    They add up to one; a row whose cells are all empty or zero has null. A row with a cell that is
    no share is marked. Gives the frame and what is to be told. BadInput: a label has no column.
    """
    given = [name.removeprefix(MARK) for name in frame.columns if name.startswith(MARK)]
    for label in labels:
        if label not in given:
            raise BadInput(
                f'data.shares: the label "{label}" has no column "{beginning}{label}"',
                f"add it; there are {', '.join(beginning + other for other in given[:20])}",
            )
    for label in given:
        text = pl.col(MARK + label).str.strip_chars()
        number = pl.when(text == "").then(None).otherwise(text).cast(pl.Float64, strict=False)
        bad = (text != "") & ~(number.is_finite() & (number >= 0) & (number <= MOST)).fill_null(
            False
        )
        frame = mark(frame, bad, f'"{beginning}{label}" is no share: it must be from 0 to {MOST:g}')
        frame = frame.with_columns(number.fill_null(0.0).alias(MARK + label))
    every = pl.sum_horizontal(MARK + label for label in labels)
    parts = [(pl.col(MARK + label) / every).alias(label) for label in labels]
    frame = frame.with_columns(
        pl.when(KEPT & (every > 0)).then(pl.struct(parts)).alias("shares"),
        pl.max_horizontal(MARK + label for label in labels).alias("most"),
    )
    notes = [
        f'no row has the label "{label}": its column of shares is left out'
        for label in given
        if label not in labels
    ]
    against = sum(
        frame.filter(
            KEPT
            & pl.col("shares").is_not_null()
            & (pl.col("output") == label)
            & (pl.col(MARK + label) < pl.col("most"))
        ).height
        for label in labels
    )
    if against:
        notes.append(f"rows whose label is not the one with the largest share: {against}")
    return frame.drop("most", *(MARK + label for label in given)), notes
