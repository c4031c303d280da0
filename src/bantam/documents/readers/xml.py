"""XML read as events, without a tree: flat in memory, and deaf to what a document declares."""

from collections.abc import Callable
from typing import IO, Any
from xml.parsers import expat

from bantam.documents.parts import Unreadable

Start = Callable[[str, dict[str, str]], None]


def events(
    file: IO[bytes], start: Start, end: Callable[[str], None], text: Callable[[str], None]
) -> None:
    """Call `start(name, attributes)`, `end(name)` and `text(letters)` as a file goes on. Names are
    without namespaces. Raises Unreadable for a file that is no XML or declares entities."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True

    def begin(name: str, attributes: dict[str, str]) -> None:
        start(_local(name), {_local(key): value for key, value in attributes.items()})

    def refuse(*_: Any) -> None:
        raise Unreadable("it declares XML entities, as no such file needs to")

    parser.StartElementHandler = begin
    parser.EndElementHandler = lambda name: end(_local(name))
    parser.CharacterDataHandler = text
    parser.EntityDeclHandler = refuse
    try:
        parser.ParseFile(file)
    except expat.ExpatError as error:
        raise Unreadable(f"it is damaged: {error}") from None


def _local(name: str) -> str:
    return name.rpartition(" ")[2]
