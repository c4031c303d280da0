"""E-mail addresses, also those written "name [at] host [dot] org"."""

import re
import string
from collections.abc import Iterator

LATIN = "".join(chr(code) for code in range(0xC0, 0x250) if chr(code).isalpha())
NAME = string.ascii_letters + string.digits + LATIN + "._%+-'=~#$*!"
LONGEST_NAME = 128  # characters; mail servers take 64, mailing lists write more
PASSWORD = re.compile(r"://[^\s/]{0,100}:$")  # what stands before it in a link
# What is no part of a name: the key in a link (?mail=ann@host.org), an attribute's name in HTML.
# Else "=" belongs to it, as in the senders that mailing lists make up.
KEY = re.compile(r"[\w-]+=(?:3D)?")
ATTRIBUTE = re.compile(
    r"(?i)(?:title|value|content|href|name|to|cc|from|user(?:id|name)?|e?-?mail|addr(?:ess)?)=(?:3D)?"
)

LETTER = f"[A-Za-z0-9{LATIN}]"
LABEL = rf"{LETTER}(?:[A-Za-z0-9{LATIN}-]{{0,61}}{LETTER})?"
TOP = r"(?:xn--[A-Za-z0-9-]{2,59}|[A-Za-z]{2,24})"
HOST = re.compile(rf"@((?:{LABEL}\.){{1,8}}{TOP})(?!{LETTER})")
# Searched for by its first sign, which few texts hold; the name is then read backwards.
SPELLED = re.compile(
    r"[\[({] ?(?:at|AT|@) ?[\])}] ?"
    rf"((?:{LABEL}(?: ?[\[({{] ?(?:dot|DOT|\.) ?[\])}}] ?|\.)){{1,8}}{TOP})(?!{LETTER})"
)
# Nobody can have an address there (RFC 2606, RFC 6761), nor where a picture's name ends.
RESERVED = re.compile(
    r"(?i)(?:^|\.)(?:example\.(?:com|net|org)|example|invalid|test|localhost)$"
    r"|\.(?:png|jpe?g|gif|svg|webp|bmp|ico)$"
)


def find(text: str) -> Iterator[tuple[int, int]]:
    if "@" in text:
        for match in HOST.finditer(text):
            yield from _whole(text, match, match.start())
    for match in SPELLED.finditer(text):
        end_of_name = match.start() - (text[match.start() - 1 : match.start()] == " ")
        yield from _whole(text, match, end_of_name)


def _whole(text: str, host: re.Match[str], end_of_name: int) -> Iterator[tuple[int, int]]:
    before = text[max(0, end_of_name - LONGEST_NAME) : end_of_name]
    name = before[len(before.rstrip(NAME)) :].lstrip(".-'+%=#*!")
    start = end_of_name - len(name)
    before = text[max(0, start - 1) : start]
    key = (KEY if before in ("?", "&", ";") else ATTRIBUTE).match(name)
    start += key.end() if key else 0
    password = before == ":" and PASSWORD.search(text[max(0, start - 110) : start])
    if start < end_of_name and not RESERVED.search(host[1]) and not password:
        yield start, host.end()
