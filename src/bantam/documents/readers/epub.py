"""Books: the chapters of an epub in the order in which they are read, a part each."""

import zipfile
from collections.abc import Iterator
from contextlib import suppress
from posixpath import dirname, join, normpath
from typing import IO, cast
from urllib.parse import unquote

from bantam.documents.encoding import decode
from bantam.documents.parts import Fault, Part, Unreadable, Wanted
from bantam.documents.readers.html import page
from bantam.documents.readers.xml import events
from bantam.documents.unpack import Budget, Paid


def read(file: IO[bytes], form: str, wanted: Wanted) -> Iterator[Part | Fault]:
    budget = Budget(file.seek(0, 2))
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        content, licence = _spine(archive, budget)
        for number, name in enumerate(content, 1):
            part = f"chapter {number}"
            try:
                with archive.open(name) as member:
                    html = cast(IO[bytes], Paid(member, budget)).read()
            except (KeyError, zipfile.BadZipFile) as error:
                yield Fault(part, f"it is damaged: {error}")
                continue
            yield Part(page(decode(html)).text, part, licence)


def _spine(archive: zipfile.ZipFile, budget: Budget) -> tuple[list[str], str | None]:
    """The names of the chapters' files, and what the book says of rights in it."""
    package: list[str] = []
    files: dict[str, str] = {}
    order: list[str] = []
    rights: list[str] = []
    inside = [""]

    def start(name: str, attributes: dict[str, str]) -> None:
        inside[0] = name
        if name == "rootfile":
            package.append(attributes.get("full-path", ""))
        elif name == "item":
            files[attributes.get("id", "")] = attributes.get("href", "")
        elif name == "itemref" and attributes.get("linear") != "no":
            order.append(attributes.get("idref", ""))

    def end(name: str) -> None:
        inside[0] = ""

    def text(letters: str) -> None:
        if inside[0] == "rights":
            rights.append(letters)

    def read_file(name: str) -> None:
        with suppress(KeyError), archive.open(name) as member:
            events(cast(IO[bytes], Paid(member, budget)), start, end, text)

    read_file("META-INF/container.xml")
    if package:
        read_file(package[0])
    if not order:
        raise Unreadable("a book without a list of its chapters")
    folder = dirname(package[0])
    names = [normpath(join(folder, unquote(files[one]))) for one in order if one in files]
    return names, " ".join("".join(rights).split()) or None
