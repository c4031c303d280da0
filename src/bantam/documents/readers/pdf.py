"""PDF by Google's PDFium: a part a page, its lines joined to paragraphs again."""

import re
from collections.abc import Iterator
from typing import IO

import pypdfium2

from bantam.documents.parts import Fault, Part, Unreadable, Wanted

# How PDFium tells of a word that was parted at the end of a line.
_PARTED = re.compile("[\ufffe\x02](\r?\n)?")
_ITEM = re.compile(r"\s*([-*•◦▪–]\s|\(?\w{1,3}[.)]\s)")
FULL = 0.75  # of a page's usual width; a shorter line ends a paragraph
NARROW = 40  # characters; no text is set so narrow, but addresses and lists are
USUAL = 0.9  # of a page's lines are at most so wide


def read(file: IO[bytes], form: str, wanted: Wanted) -> Iterator[Part | Fault]:
    try:
        pdf = pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise Unreadable("it is locked with a password") from None
        raise
    empty = True
    for number in range(len(pdf)):
        name = f"page {number + 1}"
        try:
            page = pdf[number]
            text = page.get_textpage().get_text_range()
            page.close()
        except pypdfium2.PdfiumError as error:
            yield Fault(name, str(error))
            continue
        empty = empty and not text.strip()
        yield Part(flowing(text), name)
    if empty:
        raise Unreadable("its pages are pictures without text")


def flowing(text: str) -> str:
    """A page's lines as paragraphs: a full line goes on in the next one."""
    lines = _PARTED.sub("", text).replace("\r\n", "\n").split("\n")
    widths = sorted(len(line) for line in lines if line.strip())
    full = max(NARROW, FULL * widths[int(USUAL * (len(widths) - 1))] if widths else 0)
    flow: list[str] = []
    before = ""
    for line in lines:
        goes_on = len(before) >= full and line[:1].strip()
        if flow and goes_on and not _ITEM.match(line):
            flow[-1] = f"{flow[-1].rstrip()} {line}"
        else:
            flow.append(line)
        before = line
    return "\n".join(flow)
