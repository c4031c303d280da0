"""Numbers and names in words, as people read them; what is no number is a dash."""

from collections.abc import Callable

from bantam.page import loose

NONE = "–"


def field(key: str, value: object) -> str:
    """One value of a record whose keys are not known beforehand."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(field(key, one) for one in value)
    if isinstance(value, int) and key.endswith(("bytes", "size")) and key != "batch_size":
        return size(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def percent(value: object) -> str:
    return NONE if (number := loose.number(value)) is None else f"{100 * number:.1f}%"


def points(value: object) -> str:
    """A difference of two shares in percentage points, always with its sign."""
    return (
        NONE
        if (number := loose.number(value)) is None
        else f"{100 * number:+.1f}".replace("-", "−")
    )


def decimals(value: object, places: int = 2) -> str:
    return NONE if (number := loose.number(value)) is None else f"{number:.{places}f}"


def p_value(value: object) -> str:
    number = loose.number(value)
    return NONE if number is None else "< 0.001" if number < 0.001 else f"{number:.3f}"


def count(value: object) -> str:
    return NONE if (number := loose.number(value)) is None else f"{number:,.0f}"


def size(value: object) -> str:
    """145 MB and the like, in powers of a thousand."""
    number = loose.number(value)
    if number is None or number <= 0:
        return NONE
    for scale, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= scale * 0.9995:
            return f"{figures(number / scale)} {unit}"
    return f"{number:.0f} B"


def milliseconds(value: object) -> str:
    number = loose.number(value)
    if number is None or number < 0:
        return NONE
    return f"{figures(number / 1000)} s" if number >= 999.5 else f"{figures(number)} ms"


def duration(value: object) -> str:
    number = loose.number(value)
    if number is None or number < 0:
        return NONE
    if number < 60:
        return f"{figures(number)} s"
    minutes, seconds = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def figures(value: object) -> str:
    """Three figures, and no exponent."""
    if (number := loose.number(value)) is None:
        return NONE
    digits = 0 if number >= 99.95 else 1 if number >= 9.995 else 2
    text = f"{number:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# The limits of a recipe: in words, and how their figures are written.
LIMITS: dict[str, tuple[str, Callable[[object], str]]] = {
    "size": ("size on disk", size),
    "latency": ("time for 95% of the answers", milliseconds),
    "memory": ("peak memory", size),
}


def spaced(name: object) -> str:
    return str(name).replace("_", " ").replace("f1", "F1")


def clip(value: object, most: int) -> str:
    text = NONE if value is None else str(value)
    return text if len(text) <= most else text[: most - 1] + "…"
