"""Charts as SVG from plain numbers, for a page without scripts (`frame` says how they are laid
out)."""

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from markupsafe import Markup

from bantam.page.frame import HEIGHT, across, plot, rounded, tag, ticks, y_axis

NARROWEST = 280  # pixels: the width of a plot on a small phone, for which labels are placed
LETTER = 6.6  # pixels, the mean width of a letter in a chart's text

Write = Callable[[float], str]
Pairs = Sequence[tuple[float, float]]


class Point(NamedTuple):
    """A model in a scatter: its place, the interval of y, and whether it is the user's own."""

    name: str
    x: float
    y: float
    low: float
    high: float
    ours: bool


class Line(NamedTuple):
    """A curve: what it shows, its CSS class, and its points in the order of x."""

    name: str
    style: str
    points: Pairs


def score_bar(value: float, low: float, high: float, ours: bool) -> Markup:
    """A bar from 0 to 1 with its interval as a whisker, as one row of a bar chart."""
    style = _ours(ours)
    return _row(
        *(tag("line", class_="grid", x1=across(x), x2=across(x), y1=0, y2=20) for x in _FIFTHS),
        tag("rect", class_=style, x=0, y=3, width=across(value), height=14),
        *_whisker("inside", low, value),  # light on the bar, dark beyond it
        *_whisker("outside", high, value),
    )


def score_axis() -> Markup:
    """The numbers under a column of score bars."""
    return _row(
        *(
            tag("text", f"{x:.0%}", class_="tick", x=across(x), y=13, text_anchor=_anchor(x))
            for x in _FIFTHS
        )
    )


def share_bar(share: float, ours: bool = False) -> Markup:
    """A thin bar from 0 to 1 beside a number in a table."""
    return _row(
        tag("rect", class_="rail", x=0, y=8, width="100%", height=4, rx=2),
        tag("rect", class_=_ours(ours), x=0, y=8, width=across(share), height=4, rx=2),
    )


def left_bar(left: float, gone: float) -> Markup:
    """What is left of a whole after a step, as a bar from 0 to 1; behind it what the step took."""
    return _row(
        tag("rect", class_="rail", x=0, y=4, width="100%", height=12),
        tag("rect", class_="gone", x=across(left), y=4, width=across(gone), height=12),
        tag("rect", class_="ours", x=0, y=4, width=across(left), height=12),
    )


def difference_bar(value: float, low: float, high: float, reach: float, style: str) -> Markup:
    """A difference and its interval on a line from -reach to +reach, with zero in the middle."""

    def place(number: float) -> str:
        return across(0.5 + 0.5 * number / reach if reach > 0 else 0.5)

    return _row(
        tag("line", class_="zero", x1="50%", x2="50%", y1=0, y2=20),
        tag("line", class_=f"whisker {style}", x1=place(low), x2=place(high), y1=10, y2=10),
        tag("circle", class_=f"dot {style}", cx=place(value), cy=10, r=4.5),
    )


def scatter(points: Sequence[Point], x_title: str, y_title: str, write_x: Write) -> Markup:
    """Models by cost (log scale, x above 0) and score, each with its interval and its name."""
    low, high = math.log10(min(p.x for p in points)), math.log10(max(p.x for p in points))
    margin = 0.08 * max(high - low, 0.5)
    low, high = low - margin, high + margin
    xs = [(math.log10(p.x) - low) / (high - low) for p in points]
    down, y_ticks = y_axis(min(p.low for p in points), max(p.high for p in points), percent=True)
    x_ticks = [((math.log10(x) - low) / (high - low), write_x(x)) for x in _log_ticks(low, high)]
    places = [(NARROWEST * x, down(p.y)) for x, p in zip(xs, points, strict=True)]
    spreads = [
        (x - 1, down(p.high), x + 1, down(p.low)) for (x, _), p in zip(places, points, strict=True)
    ]
    labels = _labels(places, [_short(p.name) for p in points], spreads)
    marks: list[Markup] = []
    for x, point, (dx, dy, anchor, far) in zip(xs, points, labels, strict=True):
        style, y = _ours(point.ours), down(point.y)
        said = f"{point.name}: {y_title} {point.y:.1%}, {write_x(point.x)}"
        marks.append(
            tag(  # a nested svg has its origin at the point: what is inside is in pixels
                "svg",
                tag("title", said),
                tag(
                    "line",
                    class_=f"spread {style}",
                    y1=rounded(down(point.high) - y),
                    y2=rounded(down(point.low) - y),
                ),
                tag("line", class_="leader", x2=dx, y2=dy) if far else Markup(""),
                tag("circle", class_=f"dot {style}", r=5.5 if point.ours else 4.5),
                tag(
                    "text",
                    _short(point.name),
                    class_=f"name {style}",
                    x=dx,
                    y=dy + 4,
                    text_anchor=anchor,
                ),
                x=across(x),
                y=rounded(y),
                overflow="visible",
            )
        )
    return plot(f"{y_title} against {x_title}", x_title, y_title, x_ticks, y_ticks, *marks)


def curves(
    lines: Sequence[Line],
    x_title: str,
    y_title: str,
    chosen: tuple[float, float] | None = None,
    band: tuple[float, float] | None = None,
) -> Markup:
    """Lines over steps. `chosen` is the point to mark; `band` limits y to (low, high)."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    left, right = min(0.0, *xs), max(xs)
    span = (right - left) or 1
    down, y_ticks = y_axis(*(band or (min(ys), max(ys))))
    drawn = _drawn(
        [
            line._replace(points=[((x - left) / span, down(y)) for x, y in line.points])
            for line in lines
        ]
    )
    dots = [
        tag(
            "circle",
            class_=f"bead {line.style}",
            cx=across((x - left) / span),
            cy=rounded(down(y)),
            r=2.5,
        )
        for line in lines
        for x, y in line.points
        if len(line.points) <= 30
    ]
    mark: list[Markup] = []
    if chosen:
        x = (chosen[0] - left) / span
        mark = _marked(x, down(chosen[1]), f"kept: step {chosen[0]:,.0f}")
    x_ticks = [((x - left) / span, f"{x:,.0f}") for x in ticks(left, left + span, 4)]
    return plot(
        f"{y_title} over {x_title}s", x_title, y_title, x_ticks, y_ticks, drawn, *dots, *mark
    )


def reliability(
    bins: Sequence[tuple[float, float, int]],
    said_axis: str = "probability of the answer",
    right_axis: str = "share of answers that are right",
) -> Markup:
    """Mean confidence, accuracy and row count of each bin, against the diagonal of full honesty."""
    down, y_ticks = y_axis(0, 1)
    most = max(count for _, _, count in bins)
    dots = [
        tag(
            "circle",
            tag("title", f"{count:,} rows: said {said:.2f}, right {right:.2f}"),
            class_="dot ours",
            cx=across(said),
            cy=rounded(down(right)),
            r=rounded(3 + 9 * math.sqrt(count / most)),
        )
        for said, right, count in bins
    ]
    honest = Line("as said", "honest", [(0.0, down(0)), (1.0, down(1))])
    ours = Line("ours", "ours", [(said, down(right)) for said, right, _ in bins])
    x_ticks = [(x, f"{x:.1f}") for x in _FIFTHS]
    return plot(
        "Reliability", said_axis, right_axis, x_ticks, y_ticks, _drawn([honest, ours]), *dots
    )


def coverage(lines: Sequence[Line], sure: tuple[float, float] | None = None) -> Markup:
    """How many of the surest answers are right, over the share that these are of all.

    Each line bears its name where it ends; `sure` is the place at which the last one is used.
    """
    ys = [y for line in lines for _, y in line.points] + ([sure[1]] if sure else [])
    down, y_ticks = y_axis(min(ys), max(ys), percent=True)
    drawn = _drawn([line._replace(points=[(x, down(y)) for x, y in line.points]) for line in lines])
    ends = [down(line.points[-1][1]) for line in lines]
    names = [
        tag(  # as in a scatter: what is inside is in pixels from the line's end
            "svg",
            tag("title", line.name),
            tag("circle", class_=f"bead {line.style}", r=2.5),
            tag("line", class_="leader", x1=3, x2=13, y2=rounded(place - end)),
            tag(
                "text",
                _short(line.name, 16),
                class_=f"name {line.style}",
                x=16,
                y=rounded(place - end + 4),
            ),
            x=across(line.points[-1][0]),
            y=rounded(end),
            overflow="visible",
        )
        for line, end, place in zip(lines, ends, _apart(ends), strict=True)
    ]
    mark: list[Markup] = []
    if sure:
        mark = _marked(sure[0], down(sure[1]), f"sure: {sure[0]:.0%}")
    told = [f"{y:.0%} of the surest {x:.0%}" for x, y in _quarters(lines[-1].points)]
    return plot(
        f"Accuracy of the surest answers. {lines[-1].name}: {', '.join(told)}",
        "share answered, the surest first",
        "accuracy of these answers",
        [(x, f"{x:.0%}") for x in _QUARTERS],
        y_ticks,
        drawn,
        *names,
        *mark,
        style="plot named",
    )


def _drawn(lines: Iterable[Line]) -> Markup:
    """Lines whose points are (share of the width, pixels down); they stretch with the page."""
    drawn = [
        tag(
            "polyline",
            class_=f"curve {line.style}",
            points=" ".join(f"{rounded(100 * x)},{rounded(y)}" for x, y in line.points),
        )
        for line in lines
    ]
    return tag(
        "svg",
        *drawn,
        width="100%",
        height=HEIGHT,
        viewBox=f"0 0 100 {HEIGHT}",
        preserveAspectRatio="none",
    )


def _marked(x: float, y: float, said: str) -> list[Markup]:
    """A dot on our line, at a share of the width and pixels down, with a word at its foot."""
    beyond = x > 0.6
    return [
        tag("line", class_="chosen", x1=across(x), x2=across(x), y1=0, y2=HEIGHT),
        tag("circle", class_="dot ours", cx=across(x), cy=rounded(y), r=5),
        tag(
            "text",
            said,
            class_="name ours",
            x=across(x),
            dx=-8 if beyond else 8,
            y=HEIGHT - 10,
            text_anchor="end" if beyond else "start",
        ),
    ]


def _quarters(points: Pairs) -> Pairs:
    """The points at, or next after, each quarter of the way."""
    found = (next((p for p in points if p[0] >= x), points[-1]) for x in _QUARTERS[1:])
    return list(dict.fromkeys(found))


def _apart(places: Sequence[float], gap: float = 15) -> list[float]:
    """The places moved as little as may be, so that names there do not cover each other."""
    order = sorted(range(len(places)), key=places.__getitem__)
    blocks: list[list[float]] = []  # what is moved together: where each would have its first begin
    for rank, n in enumerate(order):
        blocks.append([places[n] - rank * gap])
        while len(blocks) > 1 and fmean(blocks[-2]) > fmean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    begins = [fmean(block) for block in blocks for _ in block]
    found = {
        n: begin + rank * gap for rank, (n, begin) in enumerate(zip(order, begins, strict=True))
    }
    return [found[n] for n in range(len(places))]


_FIFTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def _whisker(style: str, end: float, middle: float) -> list[Markup]:
    """Half an interval: a line from the middle of the bar's end, with a cap."""
    places = ((end, middle, 10, 10), (end, end, 6.5, 13.5))
    return [
        tag("line", class_=f"whisker {style}", x1=across(a), x2=across(b), y1=c, y2=d)
        for a, b, c, d in places
    ]


def _row(*children: str) -> Markup:
    return tag("svg", *children, class_="row", width="100%", height=20, aria_hidden="true")


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between 10**low and 10**high, with 2s and 5s when there would be too few."""
    tens = range(math.floor(low), math.ceil(high) + 1)
    for times in ((1,), (1, 3), (1, 2, 5)):
        found = [10.0**ten * n for ten in tens for n in times]
        found = [x for x in found if low <= math.log10(x) <= high]
        if len(found) >= 3:
            break
    return found[:: math.ceil(len(found) / 6)] if found else []


_Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels


class _Label(NamedTuple):
    dx: int
    dy: int
    anchor: str
    far: bool  # so far off that a thin line must lead to it


def _labels(
    places: Sequence[tuple[float, float]], names: Sequence[str], spreads: Sequence[_Box]
) -> list[_Label]:
    """Where each point's name goes, in pixels from the point, so that none covers another
    or one of the spreads.

    Each takes the spot with the least overlap and way, three times round so that the first can
    make room for the last. Spots that are free on the narrowest page stay free on a wider one,
    because points only move apart.
    """
    spots = [_Label(9, 0, "start", False), _Label(-9, 0, "end", False)]
    spots += [_Label(0, dy, "middle", False) for dy in (-14, 15)]
    spots += [
        _Label(side * 12, dy, "start" if side > 0 else "end", True)
        for away in (16, 32, 48, 64, 80)
        for dy in (-away, away)
        for side in (1, -1)
    ]
    fixed = [*spreads, *((x - 7, y - 7, x + 7, y + 7) for x, y in places)]
    options = [
        [(spot, _boxes(spot, place, name)) for spot in spots]
        for place, name in zip(places, names, strict=True)
    ]
    chosen = [spots[0] for _ in options]
    taken: list[Sequence[_Box]] = [() for _ in options]
    for n in [*range(len(options))] * 3:
        others = [*fixed, *(box for i, boxes in enumerate(taken) if i != n for box in boxes)]
        costs = [_cost(spot, boxes, others) for spot, boxes in options[n]]
        chosen[n], taken[n] = options[n][costs.index(min(costs))]
    return chosen


def _boxes(spot: _Label, place: tuple[float, float], name: str) -> list[_Box]:
    """What a label takes: its text and, when it is far, small boxes along the line to it."""
    (x, y), wide = place, LETTER * len(name)
    left = x + spot.dx - {"start": 0.0, "middle": wide / 2, "end": wide}[spot.anchor]
    steps = (0.5, 0.7, 0.9) if spot.far else ()
    leader = [(x + spot.dx * part, y + spot.dy * part) for part in steps]
    return [
        (left, y + spot.dy - 8, left + wide, y + spot.dy + 7),
        *((x - 4, y - 4, x + 4, y + 4) for x, y in leader),
    ]


def _cost(spot: _Label, boxes: Sequence[_Box], others: Sequence[_Box]) -> float:
    """Square pixels covered or cut off by the plot's edges, and a price for distance."""
    text = boxes[0]
    inside = _overlap(text, (-30, -4, NARROWEST + 10, HEIGHT + 2))
    cut = (text[2] - text[0]) * (text[3] - text[1]) - inside
    covered = sum(_overlap(box, other) for box in boxes for other in others)
    return covered + 3 * cut + (20 + abs(spot.dy) if spot.far else 0)


def _overlap(a: _Box, b: _Box) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    tall = min(a[3], b[3]) - max(a[1], b[1])
    return wide * tall if wide > 0 and tall > 0 else 0.0


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _ours(ours: bool) -> str:
    return "ours" if ours else "theirs"


def _anchor(share: float) -> str:
    """Ticks at the ends lean inwards, so that the page does not cut them."""
    return "start" if share < 0.04 else "end" if share > 0.96 else "middle"
