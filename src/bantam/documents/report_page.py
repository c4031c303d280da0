"""report.html of documents: what was kept, why the rest went, and what to look at, on one page."""

import functools
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import jinja2

from bantam.page import charts, loose, template, words
from bantam.page.frame import ticks
from bantam.page.histogram import histogram

# What each step of the funnel takes, or is.
STEPS = {
    "read": "read",
    "lines": "lines taken out",
    "no text": "without text",
    "language": "other languages",
    "gopher": "Gopher's rules",
    "repetition": "repetition",
    "c4": "C4's rules",
    "fineweb": "FineWeb's rules",
    "contaminated": "rows of benchmarks",
    "score": "learned score",
    "duplicate": "exact copies",
    "near duplicate": "near copies",
}
MEASURES = {
    "words": "words of a document",
    "word_length": "characters of a word",
    "alphabetic": "share of words with letters",
    "repeated_5_grams": "share in repeated 5-grams",
    "ended_lines": "share of lines that end a sentence",
    "short_lines": "share of short lines",
}

Plain = dict[str, Any]


def page(told: Plain) -> str:
    """The page as HTML text, from what `told.report` gives. Texts in it are those of strangers."""
    told = loose.cleaned(told)
    return _template().render(
        told=told,
        share=_share(told["kept"]["documents"], told["read"]["documents"]),
        funnel=_funnel(told["funnel"]),
        rules=_barred(told["dropped"], "count", told["read"]["documents"]),
        line_rules=told["dropped_lines"],
        lines=sum(rule["count"] for rule in told["dropped_lines"]),
        line_bytes=sum(rule["bytes"] for rule in told["dropped_lines"]),
        histograms=[_histogram(one) for one in told["histograms"]],
        languages=_barred(told["languages"], "read", told["read"]["documents"]),
        sources=_sources(told["sources"]),
        clusters=told["near_copies"],
        replaced=sum(one["count"] for one in told["redacted"]),
        dropped_copies=sum(
            rule["count"] for rule in told["dropped"] if rule["rule"].endswith("duplicate")
        ),
        mended={what: count for what, count in told["mended"].items() if what != "white space"},
    )


def _funnel(steps: Sequence[Plain]) -> list[Plain]:
    whole = steps[0]["documents"]
    before = whole
    rows = []
    for step in steps:
        gone = before - step["documents"]
        before = step["documents"]
        bar = charts.left_bar(_share(step["documents"], whole), _share(gone, whole))
        name = STEPS.get(step["step"], words.spaced(step["step"]))
        rows.append({**step, "name": name, "gone": gone, "bar": bar})
    return rows


def _barred(rows: Sequence[Plain], key: str, whole: float) -> list[Plain]:
    return [
        {
            **row,
            "share": _share(row[key], whole),
            "bar": charts.share_bar(_share(row[key], whole)),
        }
        for row in rows
    ]


def _sources(rows: Sequence[Plain]) -> list[Plain]:
    told = []
    for row in rows:
        share = _share(row["kept"]["documents"], row["read"]["documents"])
        told.append({**row, "share": share, "bar": charts.share_bar(share, ours=True)})
    return told


def _histogram(one: Plain) -> Plain:
    edges, limits = one["edges"], one["limits"]
    name = MEASURES.get(one["measure"], words.spaced(one["measure"]))
    return {
        "name": name,
        "picture": histogram(
            edges, one["read"], one["kept"], name, _ticks(edges), list(limits.values())
        ),
        "limits": [
            {"rule": rule, "word": "at least" if ".min_" in rule else "at most", "limit": limit}
            for rule, limit in limits.items()
        ],
        "unmeasured": one["unmeasured"],
    }


def _ticks(edges: Sequence[float]) -> list[tuple[float, str]]:
    """Powers of ten where bins grow, else five places."""
    if edges[-1] > 1000:
        return [(edge, f"{edge:,.0f}") for edge in edges if edge in (10, 100, 1000, 10_000, 10**5)]
    return [(value, f"{value:.2g}") for value in ticks(0, edges[-1], 5)]


def _large(number: float) -> str:
    """A count in few characters."""
    for scale, word in ((1e9, "billion"), (1e6, "million")):
        if number >= scale:
            return f"{words.figures(number / scale)} {word}"
    return words.count(number)


def _squeezed(text: str) -> str:
    """Without empty lines."""
    return re.sub(r"\n\s*\n", "\n", text)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


@functools.cache
def _template() -> jinja2.Template:
    source = files("bantam.documents").joinpath("report.html.jinja").read_text("utf-8")
    environment = template.environment()
    environment.filters.update(large=_large, squeezed=_squeezed)
    return environment.from_string(source)
