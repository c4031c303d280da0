"""What a file is: by how it begins, by its name where that does not tell."""

import re
from pathlib import PurePosixPath

from bantam.documents.encoding import is_binary

HEAD = 8192  # bytes that are looked at
PACKED = ("gzip", "zstd", "xz", "bzip2")  # one file, made smaller
ARCHIVES = ("zip", "tar")  # many

_MAGIC = (
    (b"%PDF-", "pdf"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
)
_SUFFIXES = {
    ".arrow": "arrow",
    ".csv": "csv",
    ".eml": "message",
    ".feather": "arrow",
    ".htm": "html",
    ".html": "html",
    ".json": "json",
    ".jsonl": "jsonl",
    ".mbox": "mbox",
    ".ndjson": "jsonl",
    ".pdf": "pdf",
    ".tab": "tsv",
    ".tar": "tar",
    ".tsv": "tsv",
    ".xhtml": "html",
}
# What is often met, holds text, and is not read: the user is told how to have it read.
_MENDS = (
    (b"\xd0\xcf\x11\xe0", "an Office file of before 2007: save it as .docx, .pptx or .csv"),
    (b"{\\rtf", "an RTF file: save it as .docx or .odt"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it, or make a zip of it"),
    (b"Rar!", "a rar archive: unpack it, or make a zip of it"),
    (b"SQLite format 3", "a database: write its tables as .csv"),
)
_BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
_HTML = re.compile(
    rb"\s*(<\?xml[^>]*>\s*)?(<!--.{0,2000}?-->\s*)?<(!doctype\s+html|html)\b", re.I | re.S
)
_MBOX = re.compile(rb"From \S+ .*\d\d:\d\d.*\n[A-Za-z0-9-]+:")
_HEADER = re.compile(
    rb"^(from|to|received|message-id|return-path|subject|date|mime-version|delivered-to):",
    re.I | re.M,
)
_FIRST_HEADER = re.compile(rb"[A-Za-z][A-Za-z0-9-]*:[ \t]")
_MAN_NAME = re.compile(r".*\.[1-9ln][a-z0-9]*", re.I)
_MAN = re.compile(rb"^[.'][ \t]*(TH|Dd|SH|Sh|so)\b", re.M)


class Unknown(Exception):
    """No text is in it, or none that can be got at; in words for the user."""


def recognise(name: str, head: bytes) -> str:
    """The format of a file by its name and its first HEAD bytes: the name of its reader, or one of
    PACKED or ARCHIVES. Raises Unknown."""
    for magic, form in _MAGIC:
        if head.startswith(magic):
            return form
    if _BZIP2.match(head):
        return "bzip2"
    if head[257:262] == b"ustar":
        return "tar"
    suffix = PurePosixPath(name).suffix.lower()
    form = _SUFFIXES.get(suffix, "text")
    if form in ("arrow", "tar") or (form == "pdf" and b"%PDF-" in head):
        return form
    for magic, mend in _MENDS:
        if head.startswith(magic):
            raise Unknown(mend)
    if is_binary(head):
        raise Unknown("it holds no text")
    return _of_text(name, head) if form in ("text", "pdf") else form


def _of_text(name: str, head: bytes) -> str:
    """What a text is that its name says nothing of."""
    if _HTML.match(head):
        return "html"
    if _MBOX.match(head):
        return "mbox"
    top = head.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    if _FIRST_HEADER.match(top) and len(set(map(bytes.lower, _HEADER.findall(top)))) >= 3:
        return "message"
    if _MAN_NAME.fullmatch(name) and _MAN.search(head):
        return "man"
    return "text"
