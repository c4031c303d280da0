"""The formats of a JSON Schema's texts, as what answers are held to.

Days and times are held to those that there are: a decoder that only counts digits lets 30 February
through, which every reader of such answers then refuses.
"""

from typing import Any

_YEAR = "(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_LEAP = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DAYS = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_DATE = f"(?:{_YEAR}-{_DAYS}|{_LEAP}-02-29)"
_HOUR, _SIXTY, _NUMBER = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]", "[0-9]{1,5}"
_TIME = rf"{_HOUR}:{_SIXTY}:{_SIXTY}(?:\.[0-9]{{1,6}})?(?:Z|[+-]{_HOUR}:{_SIXTY})"
_IN_DAYS = f"(?:{_NUMBER}D|{_NUMBER}M(?:{_NUMBER}D)?|{_NUMBER}Y(?:{_NUMBER}M(?:{_NUMBER}D)?)?)"
_IN_HOURS = f"T(?:{_NUMBER}H(?:{_NUMBER}M(?:{_NUMBER}S)?)?|{_NUMBER}M(?:{_NUMBER}S)?|{_NUMBER}S)"

PATTERNS = {  # of RFC 3339
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    "duration": f"^P(?:{_IN_DAYS}(?:{_IN_HOURS})?|{_IN_HOURS}|{_NUMBER}W)$",
}
# Formats that say what a text is for, and nothing of how it is written.
SAYING_NOTHING = {"password", "binary", "byte", "path", "file-path", "directory-path"}
SAYING_NOTHING |= {"json-string", "int32", "int64", "float", "double", "decimal"}
# Those that zod writes beside a pattern which says the same.
BESIDE_A_PATTERN = {"base64", "base64url", "cidrv4", "cidrv6", "cuid", "cuid2", "e164", "emoji"}
BESIDE_A_PATTERN |= {"jwt", "ksuid", "nanoid", "ulid", "xid"}


def held(node: dict[str, Any]) -> dict[str, Any]:
    """A node of a schema with patterns in place of the formats that have one, and without those
    that ask for nothing."""
    form, pattern = node.get("format"), node.get("pattern")
    if not isinstance(form, str):
        return node
    if form in PATTERNS and pattern is None:
        return _without_format(node) | {"pattern": PATTERNS[form]}
    if form in SAYING_NOTHING or (form in BESIDE_A_PATTERN and pattern is not None):
        return _without_format(node)
    return node


def _without_format(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != "format"}
