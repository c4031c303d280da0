"""Numbers of payment cards (Luhn, ISO/IEC 7812) and of bank accounts (IBAN, ISO 13616)."""

import re
from collections.abc import Iterator

from stdnum import iban, luhn

# In one piece, in fours, or as American Express and Diners group them.
CARD = re.compile(
    r"\d(?<![\w.]\d)(?:\d{12,18}|\d{3}([ -])\d{4}\1\d{4}\1\d{4}|\d{3}([ -])\d{6}\2\d{4,5})"
    r"(?!\w|\.\d|-\d)"
)
# How the schemes' numbers begin, and how long they are.
SCHEMES = re.compile(
    r"4\d{15}(?:\d{3})?|(?:5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720)\d+(?<=^.{16})"  # Visa, MC
    r"|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}"  # American Express, Diners
    r"|(?:6011|64[4-9]\d|65\d\d|35(?:2[89]|[3-8]\d))\d{12}|62\d{14,17}"  # Discover, JCB, UnionPay
)
IBAN = re.compile(r"\d\d(?<=[A-Z]{2}\d\d)(?<![A-Za-z0-9]..\d\d)(?:[ \u00a0]?[A-Z0-9]){11,30}")


def find_card(text: str) -> Iterator[tuple[int, int]]:
    match = CARD.search(text)
    while match:
        digits = re.sub(r"\D", "", match[0])
        right = SCHEMES.fullmatch(digits) and luhn.is_valid(digits)
        if right:
            yield match.span()
        # Four digits that stand before a card's look like a part of it.
        match = CARD.search(text, match.end() if right else match.start() + 1)


def find_iban(text: str) -> Iterator[tuple[int, int]]:
    for match in IBAN.finditer(text):
        start = match.start() - 2
        for end in range(match.end(), start + 14, -1):
            # What follows an account's number may look like more of it: each end is tried.
            if text[end : end + 1].isalnum() or text[end - 1].isspace():
                continue
            if iban.is_valid(re.sub(r"\s", "", text[start:end]), check_country=False):
                yield start, end
                break
