"""Durations and sizes as people write them: "5 min", "1h30m", "200 ms", "160 MB"."""

import re
from decimal import Decimal

_SECONDS = {
    Decimal("0.001"): ("ms",),
    Decimal(1): ("s", "sec", "secs", "second", "seconds"),
    Decimal(60): ("min", "m", "mins", "minute", "minutes"),
    Decimal(3600): ("h", "hour", "hours"),
    Decimal(86400): ("d", "day", "days"),
}
_BYTES = {
    Decimal(scale): names
    for scale, names in {
        1: ("b", "byte", "bytes"),
        10**3: ("kb", "k"),
        10**6: ("mb", "m"),
        10**9: ("gb", "g"),
        10**12: ("tb", "t"),
        2**10: ("kib",),
        2**20: ("mib",),
        2**30: ("gib",),
    }.items()
}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)\s*")
_LONGEST = 400  # characters; nobody writes a longer one, and Decimal must not be fed megabytes


def seconds(text: str) -> float:
    """Seconds of a duration: "90 s", "5 min", "1h30m", "200 ms". ValueError when unreadable."""
    return float(_total(text, _SECONDS, 'a duration such as "5 min", "90 s" or "1h30m"'))


def milliseconds(text: str) -> float:
    """Milliseconds of a duration written as for `seconds`. ValueError when unreadable."""
    return float(1000 * _total(text, _SECONDS, 'a time such as "200 ms" or "1.5 s"'))


def size(text: str) -> int:
    """Bytes of a size: "160 MB" is 160,000,000, "160 MiB" is 160 * 2**20. ValueError if not one."""
    return round(_total(text, _BYTES, 'a size such as "160 MB", "1.5 GB" or "512 MiB"'))


def write_seconds(value: float) -> str:
    """The text that `seconds` reads back as exactly this value."""
    if value != int(value):
        return f"{_plain(value)} s"
    parts = []
    rest = int(value)
    for scale, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, rest = divmod(rest, scale)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts) or "0 s"


def write_milliseconds(value: float) -> str:
    """The text that `milliseconds` reads back as exactly this value."""
    return f"{_plain(value)} ms"


def write_size(value: int) -> str:
    """The shortest text that `size` reads back as exactly this value."""
    for scale, unit in (
        (10**12, "TB"),
        (10**9, "GB"),
        (10**6, "MB"),
        (2**30, "GiB"),
        (2**20, "MiB"),
        (10**3, "kB"),
        (2**10, "KiB"),
    ):
        if value and value % scale == 0:
            return f"{value // scale} {unit}"
    return f"{value} B"


def _total(text: str, units: dict[Decimal, tuple[str, ...]], wanted: str) -> Decimal:
    scales = {name: scale for scale, names in units.items() for name in names}
    total, end = Decimal(0), 0
    written = text.strip().lower()[:_LONGEST]
    while end < len(written):
        part = _PART.match(written, end)
        if part is None or part[2] not in scales:
            break
        total += Decimal(part[1]) * scales[part[2]]
        end = part.end()
    if end < len(text.strip()) or total <= 0:
        raise ValueError(f"must be {wanted}")
    return total


def _plain(value: float) -> str:
    """A number without an exponent, with all the digits that make it exact."""
    digits = format(Decimal(repr(value)), "f")
    return digits.removesuffix(".0")
