"""Pages of HTML, each one file: every text is escaped, no script runs, nothing is fetched.

A page extends page.html.jinja, which has its style, and fills the blocks `title` and `main`.
"""

import functools
from importlib.resources import files

import jinja2

from bantam.page import words


def environment() -> jinja2.Environment:
    """What templates of pages are made by, with `words` as filters. A value that is missing shows
    as nothing."""
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(_shared),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,
    )
    made.filters.update(
        bytes=words.size,
        clip=words.clip,
        count=words.count,
        decimals=words.decimals,
        figures=words.figures,
        ms=words.milliseconds,
        p_value=words.p_value,
        percent=words.percent,
        points=words.points,
        seconds=words.duration,
        value=functools.partial(words.field, ""),
        words=words.spaced,
    )
    return made


def _shared(name: str) -> str:
    return files("bantam.page").joinpath(name).read_text("utf-8")
