"""What a document is: text that knows where it came from, a row of the frame of all steps."""

import os
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple, TypedDict

import polars as pl

from bantam.documents.parts import whole

COLUMNS = ("id", "text", "source", "path", "part", "licence", "sha256")
SCHEMA = pl.Schema(dict.fromkeys(COLUMNS, pl.String()))


class Document(TypedDict):
    """A row. `id`: 16 hex digits; `source`: its name in the recipe; `path`: within the source's
    folder, of archives "mails.zip!/2019/a.eml"; `part`: "page 3", "row 17", "message 5" or null;
    `licence`: null where unknown; `sha256`: of the file's bytes as they lie there, hex."""

    id: str
    text: str
    source: str
    path: str
    part: str | None
    licence: str | None
    sha256: str


class Unread(NamedTuple):
    """What could not be read and why. `path` is as a document's, with its part where it has one."""

    source: str
    path: str
    reason: str


def document(
    text: str, source: str, path: str, part: str | None, licence: str | None, sha256: str
) -> Document:
    """A document with its id: equal text at an equal place has an equal id on every machine."""
    text = whole(text)
    place = "\0".join((source, path, part or "", text))
    return {
        "id": blake2b(place.encode(), digest_size=8).hexdigest(),
        "text": text,
        "source": source,
        "path": path,
        "part": part,
        "licence": licence,
        "sha256": sha256,
    }


def frame(rows: Sequence[Document]) -> pl.DataFrame:
    """Documents as a frame of COLUMNS, all str; `part` and `licence` may be null."""
    return pl.DataFrame(rows, schema=SCHEMA)


def reject(frame: pl.DataFrame, where: pl.Expr, reason: pl.Expr, value: pl.Expr) -> pl.DataFrame:
    """The documents with this reason and value where something is against them (null is not).
    Those that have a reason keep it."""
    new = pl.col("reason").is_null() & where
    told = {"reason": reason, "value": value}
    return frame.with_columns(
        pl.when(new).then(one).otherwise(name).alias(name) for name, one in told.items()
    )


def named(path: str) -> str:
    """A file's path as text: what is no UTF-8 in it becomes U+FFFD."""
    return whole(os.fsencode(path).decode("utf-8", "replace"))
