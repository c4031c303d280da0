"""A mail: its subject and its text, then what is attached, each file as its own reader reads it.

The other headers are left out; so are pictures, sounds and signatures, of which nothing is said.
"""

import io
from collections.abc import Iterator
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message
from typing import IO

from bantam.documents.encoding import decode
from bantam.documents.parts import Fault, Part, Unreadable, Wanted, whole, why
from bantam.documents.readers import reader
from bantam.documents.readers.html import declared, page
from bantam.documents.recognise import ARCHIVES, HEAD, PACKED, Unknown, recognise
from bantam.documents.unpack import office

LARGEST_SUBJECT = 1000  # characters
LONGEST_NAME = 200
NESTED = 10  # mails within mails
# Kinds of attachments that hold no text and come with very many mails.
PASSED = ("image", "audio", "video")
SIGNATURES = ("pgp-signature", "pkcs7-signature", "x-pkcs7-signature", "pgp-keys")


def read(file: IO[bytes], form: str, wanted: Wanted) -> Iterator[Part | Fault]:
    empty = True
    for part in _mail(message_from_bytes(file.read()), wanted, 0):
        empty = False
        yield part
    if empty:
        raise Unreadable("a mail without text")


def _mail(message: Message, wanted: Wanted, depth: int) -> Iterator[Part | Fault]:
    bodies = [body.strip("\n") for body in _bodies(message)]
    if text := "\n\n".join(filter(None, [_subject(message), *bodies])):
        yield Part(text)
    for number, attached in enumerate(_attachments(message), 1):
        name = f"attachment {_file_name(attached) or number}"
        try:
            for part in _attached(attached, wanted, depth):
                yield part._replace(name=", ".join(filter(None, (name, part.name))))
        except Exception as error:  # it costs itself, and not the mail
            yield Fault(name, why(error))


def _attachments(message: Message) -> Iterator[Message]:
    for part in _inner(message) or []:
        if part.get_content_disposition() == "attachment" or _is_file(part):
            if part.get_content_maintype() in PASSED or part.get_content_subtype() in SIGNATURES:
                continue
            yield part
        elif part.get_content_type() != "message/rfc822":  # whose text is the mail's own
            yield from _attachments(part)


def _is_file(part: Message) -> bool:
    """Whether it has a name and is not text that is shown with the mail."""
    shown = part.is_multipart() or part.get_content_type() in ("text/plain", "text/html")
    return not shown and part.get_filename() is not None


def _attached(part: Message, wanted: Wanted, depth: int) -> Iterator[Part | Fault]:
    inner = _inner(part)
    if inner is not None:
        if depth >= NESTED:
            raise Unreadable(f"more than {NESTED} mails within one another")
        for message in inner:
            yield from _mail(message, wanted, depth + 1)
        return
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes) or not content:
        raise Unreadable("it is empty")
    file = io.BytesIO(content)
    try:
        form = recognise(_file_name(part), content[:HEAD])
    except Unknown as error:
        raise Unreadable(str(error)) from None
    form = office(file) if form == "zip" else form
    if form in (*PACKED, *ARCHIVES, "mbox"):
        raise Unreadable("an archive in a mail is not read: save it beside the mail")
    file.seek(0)
    if form != "message":
        yield from reader(form)(file, form, wanted)
    elif depth >= NESTED:
        raise Unreadable(f"more than {NESTED} mails within one another")
    else:
        yield from _mail(message_from_bytes(content), wanted, depth + 1)


def _inner(message: Message) -> list[Message] | None:
    """The parts of a mail that has some."""
    parts = message.get_payload() if message.is_multipart() else None
    return (
        [part for part in parts if isinstance(part, Message)] if isinstance(parts, list) else None
    )


def _file_name(part: Message) -> str:
    """On one line, without folders."""
    told = " ".join(_decoded(part.get_filename() or "").split())
    return whole(told.replace("\\", "/").rpartition("/")[2][:LONGEST_NAME])


def _subject(message: Message) -> str:
    return _decoded(" ".join(str(message.get("Subject", "")).split())[:LARGEST_SUBJECT])


def _decoded(said: str) -> str:
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
    inner = _inner(message)
    if inner is not None:
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
