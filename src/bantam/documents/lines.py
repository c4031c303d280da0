"""Lines taken out of documents, each with its reason."""

from itertools import groupby
from operator import itemgetter

import numpy as np
import polars as pl

# A line that was taken out: its document, its number there from 1, and why.
DROPPED = pl.Schema(
    {
        "id": pl.String(),
        "line": pl.Int64(),
        "text": pl.String(),
        "reason": pl.String(),
        "value": pl.String(),
    }
)


def split(frame: pl.DataFrame) -> pl.DataFrame:
    """The lines of all documents: `document` (its row in the frame), `text`, and `begin` and `end`,
    the bytes of the document's text that it takes, without what ends it.
    """
    found = frame.select(pl.col("text").str.split("\n")).with_row_index("document").explode("text")
    sizes = found["text"].str.len_bytes().to_numpy().astype(np.int64)
    ends = np.cumsum(sizes + 1) - 1
    whole = frame["text"].str.len_bytes().to_numpy().astype(np.int64) + 1
    ends -= (np.cumsum(whole) - whole)[found["document"].to_numpy()]
    return found.with_columns(begin=ends - sizes, end=ends)


def cut(frame: pl.DataFrame, lines: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The documents without these lines, and the lines as `DROPPED`.

    The lines are rows of `split`, in that order, with `reason` and `value`. Where lines went,
    several empty ones in a row become one.
    """
    documents, texts, told = [], [], []
    rows = lines.select("document", "begin", "end", "reason", "value").iter_rows()
    names, whole = frame["id"], frame["text"].cast(pl.Binary)
    for document, cuts in groupby(rows, itemgetter(0)):
        name, text = names[document], whole[document]
        kept, at, number = [], 0, 1
        for _, begin, end, reason, value in cuts:
            number += text.count(b"\n", at, begin)
            told.append((name, number, text[begin:end].decode(), reason, value))
            kept.append(text[at:begin])
            at = end + 1  # with the "\n" behind it
            number += 1
        kept.append(text[at:])
        documents.append(document)
        texts.append(b"".join(kept).decode())
    changed = pl.Series(texts, dtype=pl.String).str.replace_all("\n{3,}", "\n\n").str.strip_chars()
    frame = frame.with_columns(frame["text"].clone().scatter(documents, changed))
    return frame, pl.DataFrame(told, DROPPED, orient="row")
