"""What readers give: parts of a file's text, cut where they are too long for one document."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

SIZE = 1 << 20  # characters of one part at most
LEAST = 1 << 19  # of a piece that is cut off


class Part(NamedTuple):
    """Text of a file: all of it, or its page, row or message `name`.

    A reader may give a long part in pieces, one after the other under the same name.
    """

    text: str
    name: str | None = None
    licence: str | None = None


class Fault(NamedTuple):
    """A part of a file that could not be read, and why; the rest of the file goes on."""

    name: str
    reason: str


class Unreadable(Exception):
    """Why a file, or what is left of it, cannot be read; in words for the user."""


def why(error: Exception) -> str:
    """What a reader failed of, in words for the user."""
    if isinstance(error, Unreadable):
        return str(error)
    kind = type(error).__name__
    if isinstance(error, MemoryError | RecursionError):
        return f"it is too large or too deep ({kind})"
    return f"it is damaged ({kind}: {error})"[:300]


class Wanted(NamedTuple):
    """Which columns of a table hold text and licence; None: what is found, and none."""

    text: str | None = None
    licence: str | None = None


def parted(parts: Iterable[Part | Fault]) -> Iterator[Part | Fault]:
    """Pieces of a part joined and cut anew at the ends of paragraphs, so that none is longer than
    SIZE; where there are several, they are called "piece 1", "piece 2". Blank parts are left out.
    """
    begun: Part | None = None  # the part that is open; its text is in `held`
    held: list[str] = []
    size = cut = 0  # characters held, pieces given away
    for part in parts:
        if isinstance(part, Fault) or begun is None or part.name != begun.name:
            yield from _piece(begun, "".join(held), cut + 1 if cut else 0)
            begun, held, size, cut = None, [], 0, 0
        if isinstance(part, Fault):
            yield part
            continue
        begun = begun or part
        held.append(part.text)
        size += len(part.text)
        if size > SIZE:
            text, at = "".join(held), 0
            while size - at > SIZE:
                end = _end(text, at)
                cut += 1
                yield from _piece(begun, text[at:end], cut)
                at = end
            held, size = [text[at:]], size - at
    yield from _piece(begun, "".join(held), cut + 1 if cut else 0)


def _piece(part: Part | None, text: str, number: int) -> Iterator[Part]:
    if part is not None and text and not text.isspace():
        names = [part.name, f"piece {number}" if number else None]
        yield Part(text, ", ".join(filter(None, names)) or None, part.licence)


def _end(text: str, at: int) -> int:
    """Where to cut: behind the last paragraph, else line, else word that fits."""
    for mark in ("\n\n", "\n", " "):
        if (found := text.rfind(mark, at + LEAST, at + SIZE)) >= 0:
            return found + len(mark)
    return at + SIZE


def whole(text: str) -> str:
    """The text with halves of characters, which JSON may write, joined or replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
