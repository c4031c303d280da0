"""Plain data that came from outside: what has the wrong type counts as missing."""

import re
from typing import Any

Json = dict[str, Any]

LARGE = 1e18  # no measurement reaches it
LONGEST = 2000  # characters of any one text that came from outside


def number(value: object) -> float | None:
    """A number that can be a measurement, or None for anything else (NaN is out of the range)."""
    if isinstance(value, int | float) and not isinstance(value, bool) and -LARGE < value < LARGE:
        return float(value)
    return None


def part(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def rows(value: object) -> list[Json]:
    return [row for row in items(value) if isinstance(row, dict)]


# Characters that are not seen or that turn the text around them: controls (but not tab and line
# ends), soft hyphen, zero-width and direction marks, surrogates, tags.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\uffff\U000e0000-\U000e0fff]"
)


def is_hash(value: str) -> bool:
    return re.fullmatch("[0-9a-f]{40,}", value) is not None


def visible(text: str) -> str:
    """The text with its unseen characters as what Unicode calls them."""
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def cleaned(value: Any) -> Any:
    """The same data with every text cut to LONGEST and its unseen characters made visible."""
    if isinstance(value, str):
        text = value if len(value) <= LONGEST else value[:LONGEST] + "…"
        return visible(text)
    if isinstance(value, dict):
        return {cleaned(str(key)): cleaned(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(one) for one in value]
    return value
