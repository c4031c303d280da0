"""In which encoding a text file is written."""

import codecs
import io
import logging
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from charset_normalizer import from_bytes

from bantam.errors import BadInput

_MARKS = (  # UTF-32 first: its little-endian mark starts with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What is found in the wild; more candidates make the guess on short files worse, not better.
_LIKELY = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r"]
_LIKELY += ["shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"]
_BLOCK = 1 << 20
# Those without a place in text: all but backspace (old manuals), tab, line ends, escape.
_CONTROLS = bytes({*range(1, 32), 127} - {8, 9, 10, 12, 13, 27})

logging.getLogger("charset_normalizer").addHandler(logging.NullHandler())


class Encoding(NamedTuple):
    """How to open a file: for `open(encoding=, errors=)`; `note` tells the reader of a guess."""

    name: str
    errors: str = "strict"
    note: str = ""


def detect(path: Path) -> Encoding:
    """`detect_in` of a file on the disk."""
    with path.open("rb") as file:
        return detect_in(file, str(path))


def detect_in(file: IO[bytes], name: str) -> Encoding:
    """UTF-8, UTF-16 and UTF-32 by their marks or by decoding, anything else by a stated guess.

    Reads the whole file once, a megabyte at a time. A file that is UTF-8 but for a few bytes stays
    UTF-8, with these bytes replaced. BadInput, with the file's `name`, when it is no text at all.
    """
    start = file.read(_BLOCK)
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return Encoding(encoding, "replace")
    if utf16 := _unmarked_utf16(start):
        return Encoding(utf16, "replace")
    decoder = codecs.getincrementaldecoder("utf-8")()
    block = start
    try:
        while block:
            decoder.decode(block)
            block = file.read(_BLOCK)
        decoder.decode(b"", final=True)
        return Encoding("utf-8")
    except UnicodeDecodeError:
        bad = block
    lenient = bad.decode("utf-8", "replace")
    replaced = lenient.count("\ufffd")
    if sum(letter > "\x7f" for letter in lenient) > 5 * replaced:
        return Encoding(
            "utf-8", "replace", f"{name}: bytes that are not UTF-8 were replaced by \ufffd"
        )
    guess = _guess(b"\n".join(line for line in bad.split(b"\n") if not line.isascii()))
    if guess is None:
        raise BadInput(f"{name} is not text in any known encoding", "save it as UTF-8")
    return Encoding(guess, "replace", f"{name} is not UTF-8; read as {guess}, a guess")


def decode(data: bytes, declared: str | None = None) -> str:
    """Bytes as text: by their mark, as UTF-8 if they are, as declared, else by a guess."""
    if not data.startswith(tuple(mark for mark, _ in _MARKS)):
        with suppress(UnicodeDecodeError):
            return data.decode("utf-8")
        with suppress(LookupError, UnicodeError, ValueError):
            name = codecs.lookup(declared or "").name
            # As browsers do: pages of western Windows often say so.
            return data.decode("cp1252" if name == "iso8859-1" else name, "replace")
    try:
        found = detect_in(io.BytesIO(data), "it")
    except BadInput:
        return data.decode("cp1252", "replace")
    return data.decode(found.name, found.errors)


def is_binary(start: bytes) -> bool:
    """Whether what begins so is no text: NULs, or more control characters than texts have."""
    if start.startswith(tuple(mark for mark, _ in _MARKS)) or _unmarked_utf16(start):
        return False
    return b"\0" in start or len(start) - len(start.translate(None, _CONTROLS)) > len(start) // 20


def _guess(telling: bytes) -> str | None:
    """The likeliest encoding of bytes; of equally likely ones that of western Windows."""
    matches = from_bytes(telling[:100_000], cp_isolation=_LIKELY)
    best = matches.best()
    if best is None:
        return None
    western = any(
        "cp1252" in match.could_be_from_charset
        and match.chaos <= best.chaos
        and match.coherence >= best.coherence
        for match in matches
    )
    return "cp1252" if western else best.encoding


def _unmarked_utf16(start: bytes) -> str | None:
    """UTF-16 without its mark: in western text, tables and JSON every second byte is mostly 0."""
    even, odd = start[0:4096:2].count(0), start[1:4096:2].count(0)
    half = min(len(start), 4096) // 2
    if half < 4 or max(even, odd) < 0.4 * half or min(even, odd) > 0.1 * half:
        return None
    return "utf-16-be" if even > odd else "utf-16-le"
