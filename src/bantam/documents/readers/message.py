"""A mail: its subject and its text. Attachments and the other headers are left out."""

from collections.abc import Iterator
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message
from typing import IO

from bantam.documents.encoding import decode
from bantam.documents.parts import Fault, Part, Unreadable, Wanted
from bantam.documents.readers.html import declared, page

LARGEST_SUBJECT = 1000  # characters


def read(file: IO[bytes], form: str, wanted: Wanted) -> Iterator[Part | Fault]:
    message = message_from_bytes(file.read())
    bodies = [body.strip("\n") for body in _bodies(message)]
    text = "\n\n".join(filter(None, [_subject(message), *bodies]))
    if not text:
        raise Unreadable("a mail without text")
    yield Part(text)


def _subject(message: Message) -> str:
    said = " ".join(str(message.get("Subject", "")).split())[:LARGEST_SUBJECT]
    try:
        pieces = decode_header(said)
    except (HeaderParseError, ValueError):
        return said
    return "".join(
        decode(piece, charset) if isinstance(piece, bytes) else piece for piece, charset in pieces
    ).strip()


def _bodies(message: Message) -> Iterator[str]:
    """Texts of a mail in their order; of alternatives the plain one, else the last that has any."""
    if message.get_content_disposition() == "attachment":
        return
    kind = message.get_content_type()
    parts = message.get_payload() if message.is_multipart() else None
    if isinstance(parts, list):
        inner = [part for part in parts if isinstance(part, Message)]
        if kind == "multipart/alternative":
            plain = [part for part in inner if part.get_content_type() == "text/plain"]
            for part in [*plain, *reversed(inner)]:
                if texts := [text for text in _bodies(part) if text.strip()]:
                    yield from texts
                    return
        else:
            for part in inner:
                yield from _bodies(part)
    elif kind in ("text/plain", "text/html"):
        content = message.get_payload(decode=True)
        if isinstance(content, bytes):
            charset = message.get_content_charset() or declared(content)
            text = decode(content, charset)
            yield page(text).text if kind == "text/html" else text
