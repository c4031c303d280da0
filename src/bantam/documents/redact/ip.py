"""Public addresses of machines: IPv4 and IPv6.

Private, local and documentation addresses lead to nobody and stay. So do versions: what follows
"v" or "version", has a suffix like "-1ubuntu" or looks like a revision of CVS (1.91.2.7), and what
has three single digits or more, which is nearly always the number of a section or a release (a real
8.8.8.8 is thus not found).
"""

import re
from collections.abc import Iterator
from ipaddress import ip_address

# Patterns begin with a digit and only then look back: that is what `re` searches for fast.
V4 = re.compile(r"\d(?<![\w.]\d)\d{0,2}(?:\.\d{1,3}){3}(?!\w|\.\d|-\w{0,9}[A-Za-z])")
VERSION = re.compile(r"(?i)(?:\bv|\b(?:version|ver|release|rel|revision|rev)\b\.?:?)[ =]?$")
CVS = re.compile(r"1\.\d+\.[2468]\.\d+")
# All public IPv6 addresses given out so far begin with 2 or 3 and three more digits.
V6 = re.compile(r"[23](?<![\w:.][23])[0-9a-fA-F]{3}:[0-9a-fA-F:]{1,34}(?![\w:])")


def find(text: str) -> Iterator[tuple[int, int]]:
    for match in V4.finditer(text):
        before = text[max(0, match.start() - 12) : match.start()]
        if not (_version(match[0]) or VERSION.search(before)) and _public(match[0]):
            yield match.span()
    for match in V6.finditer(text):
        if _public(match[0]):
            yield match.span()


def _version(number: str) -> bool:
    single = [part for part in number.split(".") if len(part) == 1]
    return len(single) >= 3 or CVS.fullmatch(number) is not None


def _public(address: str) -> bool:
    try:
        return ip_address(address).is_global
    except ValueError:
        return False
