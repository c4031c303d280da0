"""Office files: docx, odt and pptx, from the XML in their zip. Of tables, a row is a line."""

import re
import zipfile
from collections.abc import Iterator
from typing import IO, NamedTuple, cast

from bantam.documents.parts import Fault, Part, Wanted
from bantam.documents.readers.xml import events
from bantam.documents.unpack import Budget, Paid

# Text that is not the document's: what was deleted, fields' code, what drawings repeat, numbers of
# notes and slides; `tabs` says where tabulators stop.
_PASSED = {"delText", "instrText", "Fallback", "tracked-changes", "annotation", "binary-data"}
_PASSED |= {"note-citation", "fld", "tabs"}
_BREAK = {"br", "cr", "line-break"}
_SLIDE = re.compile(r"ppt/slides/slide(\d{1,6})\.xml")


def read(file: IO[bytes], form: str, wanted: Wanted) -> Iterator[Part | Fault]:
    budget = Budget(file.seek(0, 2))
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        held = set(archive.namelist())

        def text(*names: str) -> str:
            blocks = _Blocks(letters=("p", "h") if form == "odt" else ("t",))
            for name in names:
                if name in held:
                    with archive.open(name) as member:
                        stream = cast(IO[bytes], Paid(member, budget))
                        events(stream, blocks.start, blocks.end, blocks.text)
            return "".join(blocks.out).strip("\n")

        if form == "pptx":
            found = (_SLIDE.fullmatch(name) for name in held)
            for number in sorted(int(slide[1]) for slide in found if slide):
                notes = f"ppt/notesSlides/notesSlide{number}.xml"
                yield Part(text(f"ppt/slides/slide{number}.xml", notes), f"slide {number}")
        elif form == "odt":
            yield Part(text("content.xml"))
        else:
            yield Part(text("word/document.xml", "word/footnotes.xml", "word/endnotes.xml"))


class _Paragraph(NamedTuple):
    letters: list[str]
    inner: list[str]  # paragraphs of notes and boxes that hang on it


class _Blocks:
    """Paragraphs, items of lists and rows of tables as the elements of an office file go by.

    The three formats call a paragraph `p`, a table's row `tr` or `table-row` and its cell `tc` or
    `table-cell`. Letters stand within the elements `letters`.
    """

    def __init__(self, letters: tuple[str, ...]) -> None:
        self.out: list[str] = []
        self._letters = letters
        self._lettered = 0  # such elements that are open
        self._passed = 0  # elements open within one that is passed over
        self._open: list[_Paragraph] = []
        self._rows: list[list[list[str]]] = []  # open, each with its cells, each with paragraphs
        self._item = False  # the paragraph is an item of a list
        self._kind = ""  # of the block that was written last

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if self._passed or name in _PASSED:
            self._passed += 1
            return
        if name in ("p", "h"):
            self._open.append(_Paragraph([], []))
        elif name in ("tr", "table-row"):
            self._rows.append([])
        elif name in ("tc", "table-cell", "covered-table-cell") and self._rows:
            self._rows[-1].append([])
        elif name in ("numPr", "list-item"):
            self._item = True
        elif self._open:
            if name == "tab":
                self._open[-1].letters.append("\t")
            elif name in _BREAK:
                self._open[-1].letters.append("\n")
            elif name == "s":  # odt: several blanks
                count = attributes.get("c", "1")
                self._open[-1].letters.append(
                    " " * min(int(count), 80) if count.isdecimal() else ""
                )
        self._lettered += name in self._letters

    def text(self, letters: str) -> None:
        if self._lettered and self._open and not self._passed:
            self._open[-1].letters.append(letters)

    def end(self, name: str) -> None:
        if self._passed:
            self._passed -= 1
            return
        self._lettered -= name in self._letters
        if name in ("p", "h") and self._open:
            paragraph = self._open.pop()
            texts = ["".join(paragraph.letters), *paragraph.inner]
            if self._open:
                self._open[-1].inner.extend(texts)
            else:
                kind = "item" if self._item else "paragraph"
                self._item = False
                for text in texts:
                    self._block(text, kind)
        elif name in ("tr", "table-row") and self._rows:
            cells = self._rows.pop()
            self._block(" | ".join(" ".join(cell) for cell in cells), "row")

    def _block(self, text: str, kind: str) -> None:
        if self._rows and self._rows[-1]:
            self._rows[-1][-1].append(" ".join(text.split()))
        elif text.strip(" |\n"):
            together = kind == self._kind != "paragraph"
            self.out += ["\n" if together else "\n\n", "- " if kind == "item" else "", text]
            self._kind = kind
