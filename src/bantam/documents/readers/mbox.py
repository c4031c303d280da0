"""A mailbox, parted into its mails as it goes by. Each is then read as a mail of its own."""

import re
from collections.abc import Iterator
from typing import IO

LARGEST = 64 << 20  # bytes of a mail
_FROM = re.compile(rb"From \S+ .*\d\d:\d\d")
_QUOTED = re.compile(rb"^>(>*From )", re.M)


def messages(file: IO[bytes]) -> Iterator[bytes | None]:
    """The mails of a mailbox; null in place of one that is larger than LARGEST."""
    lines: list[bytes] = []
    size = 0
    blank = begun = True  # the line before was empty; this piece is the beginning of a line
    while line := file.readline(1 << 20):
        if begun and blank and _FROM.match(line):
            if size:
                yield _message(lines, size)
            lines, size = [], 0
        else:
            size += len(line)
            if size <= LARGEST:
                lines.append(line)
            else:
                lines = []
        blank = begun and line in (b"\n", b"\r\n")
        begun = line.endswith(b"\n")
    if size:
        yield _message(lines, size)


def _message(lines: list[bytes], size: int) -> bytes | None:
    return None if size > LARGEST else _QUOTED.sub(rb"\1", b"".join(lines))
