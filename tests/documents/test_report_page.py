"""The page of a report: of all its parts or of none; no text of a document becomes markup."""

import copy
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
import worked
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.documents import told
from bantam.documents.report_page import page
from bantam.recipe_documents import Documents

VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}
SECTIONS = ["funnel", "rules", "spread", "sources", "languages", "copies", "lines", "personal"]
SECTIONS += ["benchmarks", "unread"]
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</blockquote></details></section></main><iframe src='https://example.com'>",
    "'; --><!-- ]]>{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; &#60;i&#62; \u202eevil\x1b[31m\x00",
)


class Tags(HTMLParser):
    """All elements in order, with their attributes; raises when they are not closed in turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = worked.work(
        tmp_path_factory.mktemp("work"), worked.documents(), None, worked.HITS, worked.FOUND
    )
    return told.report(made, Documents(files=["x"]))


def with_texts(report: Any, change: Callable[[str], str]) -> Any:
    """The report with every text that comes from documents or files changed."""

    def changed(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            names = change if key in ("licences", "reasons") else str
            return {names(name): changed(one, name) for name, one in value.items()}
        if isinstance(value, list):
            return [changed(one, key) for one in value]
        ours = key in ("rule", "step", "measure", "language")
        return change(value) if isinstance(value, str) and not ours else value

    return changed(copy.deepcopy(report))


def test_every_section_is_there(report: dict[str, Any]) -> None:
    html = page(report)
    tags = Tags(html)
    assert [dict(attrs)["id"] for tag, attrs in tags.tags if tag == "section"] == SECTIONS
    links = [dict(attrs)["href"] for tag, attrs in tags.tags if tag == "a"]
    assert links == [f"#{name}" for name in SECTIONS]
    assert "40 of 60 documents are kept" in tags.text
    assert "gopher.min_words: at least 50" in tags.text
    assert html.count('class="plot"') == 6


def test_the_page_is_alone(report: dict[str, Any]) -> None:
    html = page(report)
    tags = Tags(html)
    assert "script" not in {tag for tag, _ in tags.tags}
    assert "default-src 'none'" in html
    places = [
        value
        for _, attrs in tags.tags
        for name, value in attrs
        if name in ("href", "src", "action", "data", "style", "xlink:href")
    ]
    assert all(place == "data:," or str(place).startswith("#") for place in places)
    assert not re.search(r"@import|url\(", html)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_only_texts(report: dict[str, Any], text: str) -> None:
    number = iter(range(10**6))
    hostile = with_texts(report, lambda _: f"{text} {next(number)}")
    tags, plain = Tags(page(hostile)), Tags(page(report))
    assert tags.tags == plain.tags
    assert not {"\u202e", "\x1b", "\x00"} & set(tags.text)
    if text.startswith("<script>"):
        assert text in tags.text


@settings(
    max_examples=25,
    deadline=None,
)
@given(st.text(min_size=1, max_size=60))
def test_whatever_texts_say_the_page_has_the_same_elements(
    report: dict[str, Any], text: str
) -> None:
    number = iter(range(10**6))
    changed = with_texts(report, lambda _: f"{text}{next(number)}")
    assert Tags(page(changed)).tags == Tags(page(report)).tags


def test_a_report_of_nothing_is_a_page(report: dict[str, Any]) -> None:
    def emptied(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: emptied(one) for name, one in value.items()}
        return [] if isinstance(value, list) else 0 if isinstance(value, int) else value

    nothing = emptied(report)
    nothing |= {"funnel": report["funnel"][:1], "splits": {}, "mended": {}}
    nothing["histograms"] = [
        {**one, "read": [0] * len(one["read"]), "kept": [0] * len(one["kept"])}
        for one in report["histograms"]
    ]
    tags = Tags(page(nothing))
    shown = [dict(attrs)["id"] for tag, attrs in tags.tags if tag == "section"]
    assert shown == ["funnel", "spread", "sources"]


def test_long_texts_are_cut(report: dict[str, Any]) -> None:
    long = with_texts(report, lambda old: old + "word " * 20_000)
    assert len(page(long)) < 20 * len(page(report))
