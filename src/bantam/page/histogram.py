"""Two histograms over each other, as SVG: how things were spread before, and after."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from bantam.page.frame import HEIGHT, across, plot, rounded, tag, y_axis

GAP = 0.06  # of a bin, on either side of a bar
INSIDE = 0.28  # of a bin, on either side of the narrower bar


def histogram(
    edges: Sequence[float],
    before: Sequence[int],
    after: Sequence[int],
    x_title: str,
    x_ticks: Sequence[tuple[float, str]],
    limits: Sequence[float] = (),
) -> Markup:
    """Counts in bins, each as shares of its sum: before in wide bars, after in narrow ones.

    All bins are equally wide, whatever their edges (one more than bins, rising). `limits` are
    values at which a line stands.
    """
    wide, narrow = _shares(before), _shares(after)
    down, y_ticks = y_axis(0, max([*wide, *narrow, 1e-6]), percent=True)
    bins = len(before)

    def place(value: float) -> float:
        return float(np.interp(value, edges, range(len(edges)))) / bins

    def bar(at: int, share: float, margin: float, style: str) -> Markup:
        return tag(
            "rect",
            class_=style,
            x=across((at + margin) / bins),
            width=across((1 - 2 * margin) / bins),
            y=rounded(down(share)),
            height=rounded(HEIGHT - down(share)),
        )

    bars = [
        tag(
            "g",
            tag(
                "title",
                f"{edges[at]:,g} to {edges[at + 1]:,g}: {before[at]:,} ({wide[at]:.1%}) before, "
                f"{after[at]:,} ({narrow[at]:.1%}) after",
            ),
            bar(at, wide[at], GAP, "theirs"),
            bar(at, narrow[at], INSIDE, "ours"),
        )
        for at in range(bins)
        if before[at] or after[at]
    ]
    lines = [
        tag("line", class_="limit", x1=across(x), x2=across(x), y1=0, y2=HEIGHT)
        for x in map(place, limits)
    ]
    return plot(
        f"{x_title}, before and after",
        x_title,
        "share of documents",
        [(place(value), text) for value, text in x_ticks],
        y_ticks,
        *bars,
        *lines,
    )


def _shares(counts: Sequence[int]) -> list[float]:
    return [count / max(sum(counts), 1) for count in counts]
