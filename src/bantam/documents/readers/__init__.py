"""One file a format: bytes in, parts of text out. None of them opens a file or knows a path."""

import importlib
from collections.abc import Callable, Iterator
from typing import IO

from bantam.documents.parts import Fault, Part, Wanted

Read = Callable[[IO[bytes], str, Wanted], Iterator[Part | Fault]]

# The modules of formats that are read as they go by, by code of our own and the standard library,
STREAMED = {
    "csv": "tables",
    "json": "records",
    "jsonl": "records",
    "man": "man",
    "text": "plain",
    "tsv": "tables",
}
# and of those that are read whole, by large parsers, in a process of their own (`apart`).
WHOLE = {
    "arrow": "columns",
    "docx": "office",
    "epub": "epub",
    "html": "html",
    "message": "message",
    "odt": "office",
    "parquet": "columns",
    "pdf": "pdf",
    "pptx": "office",
}


def reader(form: str) -> Read:
    """The reader of a format, imported when the first such file comes."""
    module = importlib.import_module(f"{__name__}.{(STREAMED | WHOLE)[form]}")
    read: Read = module.read
    return read
