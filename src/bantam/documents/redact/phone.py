"""Telephone numbers: what looks like one is given to Google's `phonenumbers`, which knows every
country's numbers and how they are grouped.

A number with its country's code ("+49 30 ...", "0049 30 ...") is found wherever it is from, one
without if it is valid in one of the regions asked for. After a word like "Tel" or "Fax" any digits
are a number. Elsewhere digits without signs between them are not, since most are something else.
"""

import re
from collections.abc import Iterator, Sequence

from phonenumbers import Leniency, PhoneNumberMatcher

# Groups of digits with single signs between them, parentheses around some. The first character is
# a digit and only then the pattern looks back: that is what `re` searches for fast.
NUMBER = re.compile(
    r"\d(?<![\w/$£€¥@&%]\d)(?<!\d[.,:-]\d)\d*+(?:\)[ \u00a0.\-/]?\d++)?+"
    r"(?:[ \u00a0.\-–/]\d++|[ \u00a0.]?\(\d++\)[ \u00a0.\-/]?\d++)*+"
    r"(?!(?!x\d)[\w%@]|[.,:]\d|[.-][A-Za-z])"
)
LEAD = re.compile(r"(?:\(?\+ ?\(?|\()$")
SOMETHING_ELSE = re.compile(
    r"\d{1,4}([-./–])\d{1,2}\1\d{1,4}(?: \d{1,2})?"  # a date, and the hour
    r"|(?:19|20)\d\d ?[-–/] ?(?:19|20)\d\d"  # years
    r"|\d{1,3}(?:\.\d{3})+|\d+\.\d+"  # thousands, a fraction
    r"|.*(?<!\d)\d{1,3}(?:[.-]\d{1,3}){3}(?!\d).*"  # an IPv4 address, also within a host's name
    r"|(?!1\.)\d\..*|.*\.\d(?!\d).*"  # a version
)
# Words after which digits are a telephone's, and words after which they may be. <PHONE> is none.
_WORD = r"(?i)\b(?!(?<=<)(?-i:[A-Z_]+)>)"
CALLED = re.compile(
    _WORD + r"(?:t[eé]l[eé]?(?:ph?one?|fono?|fax|fon)?|(?:tele)?phones?|fax|fon|mobile?|"
    r"cell(?:ular)?|gsm|whatsapp|m[oó]vil|rufnummer|телефон)"
    r"(?:[ .]{0,2}(?:no|nr|num|number))?[\W_]{0,5}$"
)
MAYBE = re.compile(_WORD + r"(?:ph|mob|call|dial|handy|sms|text|pager|voice)\W{0,5}$")
EXTENSION = re.compile(r"(?i)[ ,;]{0,3}(?:ext(?:ension)?\b|x|durchwahl|poste)[.:]?[ ]?\d{1,6}\b")
FEWEST, MOST = 7, 15  # digits
LONGEST = 200  # characters, of several numbers with / between them
NEAR = 24  # characters before a number in which the word stands
# What regulators keep for films and books, and no number's beginning: nobody can be called there.
FICTION = re.compile(r"000\d*|(?:1|001)?\d{3}55501\d\d|(?:0|44|0044)(?:7700900|2079460)\d{3}")


def find(text: str, regions: Sequence[str] = ()) -> Iterator[tuple[int, int]]:
    for match in NUMBER.finditer(text):
        number = match[0]
        if not FEWEST <= len(number) <= LONGEST:
            continue
        lead = LEAD.search(text, max(0, match.start() - 3), match.start())
        start = lead.start() if lead else match.start()
        whole = text[start : match.end()]
        start += whole[0] == "(" and whole.count("(") > whole.count(")")  # it opens more
        digits = "".join(filter(str.isdigit, number))
        international = "+" in whole or digits.startswith("00")
        if len(digits) < FEWEST or (not international and SOMETHING_ELSE.fullmatch(number)):
            continue
        called = CALLED.search(text, max(0, start - NEAR), start)
        if called and len(digits) <= MOST:
            if not FICTION.fullmatch(digits):
                yield start, _extended(text, match.end())
        elif len(digits) <= MOST or "/" in number:
            yield from _valid(text, start, match.end(), (None,) if international else regions)


def _valid(
    text: str, start: int, end: int, regions: Sequence[str | None]
) -> Iterator[tuple[int, int]]:
    line = text[start:end]
    if line.startswith("00"):
        line = f" +{line[2:]}"  # as long, so that places stay what they are
    for region in regions:
        leniency = Leniency.STRICT_GROUPING if region else Leniency.VALID
        spans = []
        for found in PhoneNumberMatcher(line, region, leniency=leniency):
            first, last = start + found.start, start + found.end
            bare = found.raw_string.isdigit() and not MAYBE.search(
                text, max(0, first - NEAR), first
            )
            if not bare and not FICTION.fullmatch(re.sub(r"\D", "", found.raw_string)):
                spans.append((start if line[0] == " " else first, _extended(text, last)))
        yield from spans
        if spans:
            return


def _extended(text: str, end: int) -> int:
    extension = EXTENSION.match(text, end)
    return extension.end() if extension else end
