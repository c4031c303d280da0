"""Text as it is: txt, md, rst, source code. In bounded memory, whatever its length and lines."""

import io
from collections.abc import Iterator
from typing import IO

from bantam.documents.encoding import detect_in
from bantam.documents.parts import Fault, Part, Unreadable, Wanted
from bantam.errors import BadInput

CHUNK = 1 << 19  # characters


def read(file: IO[bytes], form: str, wanted: Wanted) -> Iterator[Part | Fault]:
    text = decoded(file)
    while chunk := text.read(CHUNK):
        yield Part(chunk)


def decoded(file: IO[bytes], newline: str | None = None) -> io.TextIOWrapper:
    """The file as text, in the encoding that it is found to be in. Raises Unreadable."""
    try:
        found = detect_in(file, "it")
    except BadInput as error:
        raise Unreadable(error.message) from None
    file.seek(0)
    return io.TextIOWrapper(file, encoding=found.name, errors=found.errors, newline=newline)


def lines(text: io.TextIOBase, longest: int) -> Iterator[str | None]:
    """Lines with their ends, null in place of one with more than `longest` characters."""
    while line := text.readline(longest):
        if len(line) < longest or line.endswith("\n"):
            yield line
            continue
        while (rest := text.readline(longest)) and not rest.endswith("\n"):
            pass
        yield None
