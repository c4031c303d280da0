"""The frame of a chart, its axes and elements.

Across, places are in percent of the plot; down, in pixels. So a chart fills the width that the page
gives it, on a phone or on paper, while its text keeps its size. Ticks and titles stand outside the
plot, in the margin that `.plot` has in the page's CSS; colours are CSS classes, so that dark mode
and print can change them.
"""

import math
from collections.abc import Callable, Iterable

from markupsafe import Markup

HEIGHT = 240  # pixels, of every plot


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """One element. Children and values are escaped unless they are Markup already.

    `class_` stands for class and `stroke_width` for stroke-width; None leaves an attribute out.
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value)
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{}{}>{}</{}>").format(name, written, Markup("").join(children), name)


def plot(
    said: str,
    x_title: str,
    y_title: str,
    x_ticks: Iterable[tuple[float, str]],
    y_ticks: Iterable[tuple[float, str]],
    *children: str,
    style: str = "plot",
) -> Markup:
    """The frame of a chart: ticks are (share of the width or pixels down, text)."""
    below = [
        part
        for x, text in x_ticks
        for part in (
            tag("line", class_="grid", x1=across(x), x2=across(x), y1=HEIGHT, y2=HEIGHT + 4),
            tag("text", text, class_="tick", x=across(x), y=HEIGHT + 18, text_anchor="middle"),
        )
    ]
    beside = [
        part
        for y, text in y_ticks
        for part in (
            tag("line", class_="grid", x1=0, x2="100%", y1=rounded(y), y2=rounded(y)),
            tag("text", text, class_="tick", x=-8, y=rounded(y + 4), text_anchor="end"),
        )
    ]
    titles = (
        tag("text", y_title, class_="title", x=-36, y=-14),
        tag("text", x_title, class_="title", x="100%", y=HEIGHT + 36, text_anchor="end"),
    )
    svg = tag(
        "svg",
        *beside,
        *below,
        *titles,
        *children,
        role="img",
        aria_label=said,
        width="100%",
        height=HEIGHT,
    )
    return tag("div", svg, class_=style)


def y_axis(
    low: float, high: float, percent: bool = False
) -> tuple[Callable[[float], float], list[tuple[float, str]]]:
    """The pixels from the top for a value, and the ticks; the axis ends on round numbers."""
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    step = _step(low, high, 5)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step

    def down(value: float) -> float:
        return HEIGHT * (high - value) / (high - low)

    digits = max(0, -math.floor(math.log10(step) + 1e-9) - (2 if percent else 0))
    form = f".{digits}%" if percent else f",.{digits}f"
    return down, [(down(y), format(y, form)) for y in ticks(low, high, 5)]


def _step(low: float, high: float, wanted: int) -> float:
    raw = (high - low) / wanted
    ten = 10.0 ** math.floor(math.log10(raw))
    return next(ten * times for times in (1, 2, 5, 10) if ten * times >= raw * 0.999)


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers from low to high, about as many as wanted."""
    step = _step(low, high, wanted)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def across(share: float) -> str:
    return f"{rounded(100 * min(max(share, 0), 1))}%"


def rounded(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")
