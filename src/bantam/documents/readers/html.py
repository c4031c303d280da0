"""Web pages: their main text, without menus, headers, footers and forms.

What stands in a page's navigation says so by its element, its role or one of the usual names of
classes; lists that are mostly links are menus too. The rest stays, since text lost here is lost
for good, while lines that recur across a source are found by a later step.
"""

import re
from collections.abc import Iterator
from typing import IO, cast

from selectolax.lexbor import LexborHTMLParser, LexborNode

from bantam.documents.encoding import decode
from bantam.documents.parts import Fault, Part, Unreadable, Wanted

_GONE = ", ".join(
    (
        "script, style, noscript, template, svg, iframe, object, form, button, select, textarea",
        "nav, footer, aside, body > header, body > div > header, [hidden], [aria-hidden=true]",
        "[role=navigation], [role=banner], [role=contentinfo], [role=search], [role=menu]",
        "[role=complementary], [role=dialog], .sphinxsidebar, .related, .sidebar, .navbar, .menu",
        ".footer, #footer, .breadcrumb, .breadcrumbs, .toc, .navheader, .navfooter, .docnav",
        ".headerlink, .cookie-banner, #cookie-banner, .skip-link",
    )
)
_PARAGRAPHS = (
    "p, div, section, article, main, header, h1, h2, h3, h4, h5, h6, table, blockquote, pre, "
    "figure, figcaption, address, hr, details, summary, dl"
)
_ALONE = [(cell, one) for cell in ("td", "th") for one in ("p", "div")]  # no paragraph, but a cell
_LINES = "ul, ol, li, dt, dd, tr, caption"
# Characters that are never text (Unicode keeps them free) stand for what is between texts.
_PARAGRAPH, _LINE, _BREAK, _CELL, _SPACE = "\ufdd0\ufdd1\ufdd2\ufdd3\ufdd4"
_MARKS = re.compile("[\ufdd0-\ufdd4]")
_BETWEEN = re.compile(f"[ {_PARAGRAPH}{_LINE}{_BREAK}]*[{_PARAGRAPH}{_LINE}{_BREAK}] ?")
_CHARSET = re.compile(rb"<meta[^>]{1,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.I)
_XML = re.compile(rb"<\?xml[^>]{1,200}?encoding\s*=\s*[\"']([A-Za-z0-9_.:-]{1,40})", re.I)
MENU = 3  # links; fewer are no menu
LINKED = 0.7  # of a menu's letters stand in links


def read(file: IO[bytes], form: str, wanted: Wanted) -> Iterator[Part | Fault]:
    content = file.read()
    found = page(decode(content, declared(content)))
    if not found.text:
        raise Unreadable("a page without text of its own")
    yield found


def declared(content: bytes) -> str | None:
    """The encoding that a page says it is in."""
    found = _XML.search(content, 0, 1024) or _CHARSET.search(content, 0, 4096)
    return found[1].decode() if found else None


def page(html: str) -> Part:
    """The main text of a page and the licence that it links to."""
    root = LexborHTMLParser(_MARKS.sub("", html)).root
    if root is None:
        return Part("")
    link = root.css_first("[rel~=license][href]")
    licence = link.attributes["href"] if link else None
    for node in root.css(f"head, {_GONE}"):
        node.decompose()
    for node in root.css("ul, ol"):
        if _menu(node):
            node.decompose()
    _mark(root)
    text = _BETWEEN.sub(_gap, " ".join(root.text().split()))
    return Part(text.replace(_CELL, " | ").replace(_SPACE, " ").strip(), licence=licence)


def _menu(node: LexborNode) -> bool:
    links = node.css("a[href]")
    if len(links) < MENU:
        return False
    return sum(len(link.text()) for link in links) > LINKED * len(node.text())


def _mark(root: LexborNode) -> None:
    """Put marks into the page where its text has paragraphs, lines and cells."""
    for node in root.css("pre"):
        text = node.text().expandtabs(4)
        for child in list(node.iter(include_text=True)):
            child.decompose()
        node.insert_child(text.replace("\n", _BREAK).replace(" ", _SPACE))
    for node in root.css("ul, ol"):
        items = (child for child in node.iter() if child.tag == "li" and child.first_child)
        for number, item in enumerate(items, 1):
            bullet = f"{number}." if node.tag == "ol" else "-"
            cast(LexborNode, item.first_child).insert_before(f"{bullet} ")
    for node in root.css(", ".join(f"{cell} > {one}:only-child" for cell, one in _ALONE)):
        node.unwrap()
    for selector, mark in ((_PARAGRAPHS, _PARAGRAPH), (_LINES, _LINE)):
        for node in root.css(selector):
            node.insert_before(mark)
            node.insert_after(mark)
    for node in root.css("br"):
        node.insert_before(_BREAK)
    for node in root.css("td + td, td + th, th + td, th + th"):
        node.insert_before(_CELL)


def _gap(found: re.Match[str]) -> str:
    """What stands between two texts: an empty line, or lines that were broken by hand."""
    gap = found[0]
    return "\n\n" if _PARAGRAPH in gap else "\n" * max(1, gap.count(_BREAK))
