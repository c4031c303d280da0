"""What takes the place of what was found, and how it is shown without being told."""

import re
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import count, cycle

from bantam.documents.redact.national import FORMS
from bantam.documents.redact.secret import EXAMPLE, HEAD
from bantam.documents.redact.span import Span

KINDS = ("email", "phone", "ip", "card", "iban", "credentials", "key", "private-key", *FORMS)
AREAS = (201, 202, 206, 212, 215, 301, 303, 305, 312, 404, 415, 503, 512, 602, 617, 702)
NETS = ("192.0.2", "198.51.100", "203.0.113")  # RFC 5737


def label(kind: str) -> str:
    return f"<{kind.upper().replace('-', '_')}>"


def placeholder(kind: str, original: str) -> str:
    """<EMAIL> for an e-mail address."""
    return label(kind)


def blank(kind: str, original: str) -> str:
    """As long as the original, and like a placeholder nothing that is found."""
    return ("<" + "\0" * (len(original) - 2) + ">")[: len(original)]


def fakes(key: bytes, find: Callable[[str], Sequence[Span]]) -> Callable[[str, str], str]:
    """A function from kind and original to a fake, always the same one for a key of the run.

    A fake cannot be real: addresses are of names and nets kept for documentation (RFC 2606, 5737,
    3849), telephone numbers those kept for fiction, other numbers begin with 000 or fail their
    checks, keys say that they are examples. What own patterns and words found has placeholders,
    since nobody knows which of what looks like it is real. `find` is what finds personal data: in
    no fake does it find any.
    """

    def fake(kind: str, original: str) -> str:
        if kind not in KINDS:
            return placeholder(kind, original)
        same = _same(kind, original)
        for turn in count():
            told = blake2b(f"{kind}\0{turn}\0{same}".encode(), digest_size=64, key=key)
            made = _fake(kind, original, told.digest())
            if not find(made):
                return made
        raise AssertionError

    return fake


def _same(kind: str, original: str) -> str:
    """What two writings of one thing have in common."""
    if kind in ("key", "private-key", "credentials"):
        return original
    if kind in ("email", "ip"):
        return original.casefold()
    return _bare(original).casefold().lstrip("0" if kind == "phone" else "")


def _bare(original: str) -> str:
    return re.sub(r"[\W_]", "", original)


def _fake(kind: str, original: str, dice: bytes) -> str:
    told, number = dice.hex(), int.from_bytes(dice[:8])
    if kind == "email":
        return f"user-{told[:10]}@example.org"
    if kind == "phone":
        if original.startswith(("+", "00")) and not original.startswith("+1"):
            return f"+44 7700 900{number % 1000:03d}"
        return f"+1 {AREAS[number % len(AREAS)]}-555-01{number // 1000 % 100:02d}"
    if kind == "ip":
        if ":" in original:
            return f"2001:db8::{told[:4]}:{told[4:8]}:{told[8:12]}"
        return f"{NETS[number % 3]}.{1 + number // 3 % 254}"
    if kind == "iban":
        return original[:2] + "00" + _alike(_bare(original)[4:], dice)
    if kind == "credentials":
        return f"{'user:' if ':' in original else ''}{EXAMPLE}{told[:16]}"
    if kind == "key":
        head = HEAD.match(original)
        return f"{head[0] if head else ''}{EXAMPLE}{told[:32]}"
    if kind == "private-key":
        return f"-----BEGIN PRIVATE KEY-----\n{EXAMPLE}{told}\n-----END PRIVATE KEY-----"
    return _alike(original, dice, zeros=3)


def _alike(original: str, dice: bytes, zeros: int = 0) -> str:
    """Other letters for letters, other digits for digits, of which the first `zeros` are 0."""
    made = []
    thrown = cycle(dice)
    for character in original:
        if character.isdigit():
            made.append("0" if zeros > 0 else str(next(thrown) % 10))
            zeros -= 1
        elif character.isalpha():
            made.append(chr(ord("A" if character.isupper() else "a") + next(thrown) % 26))
        else:
            made.append(character)
    return "".join(made)


def masked(kind: str, original: str) -> str:
    """An original as a report may show it: j***@***.com, 4*** **** **** ****."""
    if kind == "email" and "@" in original:
        return f"{original[0]}***@***.{original.rpartition('.')[2]}"
    if kind in ("key", "private-key", "credentials"):
        head = HEAD.match(original)
        return f"{head[0] if head else ''}***"
    shown = re.sub(r"(?<=\w)\w|(?<=\W)\w", "*", original)
    return shown if len(shown) <= 30 else f"{shown[:30]}..."
