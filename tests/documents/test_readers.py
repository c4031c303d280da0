"""Each format, from files that the usual programs write."""

import bz2
import csv
import gzip
import io
import json
import lzma
import mailbox
import os
import re
from collections.abc import Callable, Iterator, Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import made_files as made
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bantam.documents import unpack
from bantam.documents.apart import Apart
from bantam.documents.parts import Fault, Part, Wanted
from bantam.documents.readers import mbox, message, office, records, tables
from bantam.documents.readers.html import page
from bantam.documents.readers.pdf import flowing

LETTERS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=12)
WORDS = st.lists(LETTERS.filter(bool), min_size=1, max_size=4).map(" ".join)


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    with Apart() as child:
        yield child


def texts(folder: Path, name: str, content: bytes, apart: Apart, **settings: str) -> list[Any]:
    """(part, text) of a file's documents; there is nothing that could not be read."""
    (folder / name).write_bytes(content)
    documents, unread = made.both(folder, name, apart, **settings)
    assert unread == []
    return [(row["part"], row["text"]) for row in documents]


def test_a_docx(tmp_path: Path, apart: Apart) -> None:
    content = made.docx_bytes(["One & two", "", "Drei\tvier"], [["a", "b"], ["1", ""]])
    assert texts(tmp_path, "a.docx", content, apart) == [
        (None, "One & two\n\nDrei\tvier\n\na | b\n1 | ")
    ]


def test_what_was_deleted_from_a_docx_stays_so(tmp_path: Path, apart: Apart) -> None:
    w = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    body = (
        f'<w:document xmlns:w="{w}"><w:body><w:p>'
        '<w:pPr><w:tabs><w:tab w:pos="9"/></w:tabs></w:pPr>'
        "<w:r><w:t>kept</w:t></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
        "<w:r><w:instrText>PAGE</w:instrText><w:br/><w:t>line</w:t></w:r></w:p></w:body></w:document>"
    )
    content = made.zip_bytes({"word/document.xml": body})
    assert texts(tmp_path, "a.docx", content, apart) == [(None, "kept\nline")]


def test_an_odt(tmp_path: Path, apart: Apart) -> None:
    body = (
        "<text:tracked-changes><text:p>gone</text:p></text:tracked-changes><text:h>Head</text:h>"
        '<text:p>Two<text:s text:c="2"/><text:span>words</text:span><text:note>'
        "<text:note-citation>1</text:note-citation>"
        "<text:note-body><text:p>A note.</text:p></text:note-body></text:note>"
        " end<text:line-break/>here.</text:p><text:list><text:list-item><text:p>one</text:p>"
        "</text:list-item><text:list-item><text:p>two</text:p></text:list-item></text:list>"
        "<table:table><table:table-row><table:table-cell><text:p>a</text:p><text:p>b</text:p>"
        "</table:table-cell><table:table-cell><text:p>c</text:p></table:table-cell>"
        "</table:table-row></table:table><text:p>End.</text:p>"
    )
    assert texts(tmp_path, "a.odt", made.odt_bytes(body), apart) == [
        (None, "Head\n\nTwo  words end\nhere.\n\nA note.\n\n- one\n- two\n\na b | c\n\nEnd.")
    ]


def test_a_pptx_slide_by_slide(tmp_path: Path, apart: Apart) -> None:
    slides = [(f"Title {number}", "first\nsecond") for number in range(1, 12)]
    found = texts(tmp_path, "a.pptx", made.pptx_bytes(slides), apart)
    assert found[0] == ("slide 1", "Title 1\n\nfirst\n\nsecond")
    assert found[1] == ("slide 2", "Title 2\n\nfirst\n\nsecond")
    assert found[-1][0] == "slide 11"


def test_an_epub_in_the_order_of_reading(tmp_path: Path, apart: Apart) -> None:
    (tmp_path / "a.epub").write_bytes(made.epub_bytes(["<h1>First</h1><p>Ä</p>", "<p>Last</p>"]))
    documents, unread = made.both(tmp_path, "a.epub", apart)
    assert [(row["part"], row["text"], row["licence"]) for row in documents] == [
        ("chapter 1", "First\n\nÄ", "CC BY 4.0"),
        ("chapter 2", "Last", "CC BY 4.0"),
    ]
    assert unread == []


def test_a_pdf_page_by_page(tmp_path: Path, apart: Apart) -> None:
    content = made.pdf_bytes([["Hello there", "Zoë"], ["second page"]])
    assert texts(tmp_path, "a.pdf", content, apart) == [
        ("page 1", "Hello there\nZoë"),
        ("page 2", "second page"),
    ]


def test_lines_of_a_pdf_become_paragraphs() -> None:
    page = (
        "A title\r\nThis line is as wide as the page allows it to be, so it is con\ufffetinued\r\n"
        "on the next one, which is nearly as wide as that, then it is over and\r\ndone.\r\n"
        "- an item of a list that is wide enough to look like a line of text, too\r\n- two"
    )
    assert flowing(page) == (
        "A title\nThis line is as wide as the page allows it to be, so it is continued on the next "
        "one, which is nearly as wide as that, then it is over and done.\n"
        "- an item of a list that is wide enough to look like a line of text, too\n- two"
    )


def test_a_pdf_of_pictures_says_so(tmp_path: Path, apart: Apart) -> None:
    (tmp_path / "a.pdf").write_bytes(made.pdf_bytes([[], []]))
    documents, [unread] = made.both(tmp_path, "a.pdf", apart)
    assert documents == [] and unread.reason == "its pages are pictures without text"


NEWS = """<!doctype html><html><head><meta charset=iso-8859-1><title>Not this</title>
<link rel="license" href="https://creativecommons.org/licenses/by/4.0/"></head><body>
<header><a href=/>The Paper</a><form><input value=Search><button>Go</button></form></header>
<div class=menu><ul><li><a href=1>Home</a><li><a href=2>World</a><li><a href=3>Sport</a></ul></div>
<ul><li><a href=1>Weather</a></li><li><a href=2>Cars</a></li><li><a href=3>Jobs</a></li></ul>
<main><article><header><h1>Cows caf\u00e9</h1></header><p>It was a <b>long</b>,
 long   day<br>in May.</p><p hidden>never</p><script>var a = "<p>no</p>"</script>
<ol><li>one<li>two <a href=x>linked</a></ol><pre>def f():
    return 1

f()</pre><table><tr><th>Kind<th>Milk</tr><tr><td><p>red</p><td>9 l</tr></table></article></main>
<aside>Buy this</aside><footer>\u00a9 The Paper</footer></body></html>"""


def test_the_main_text_of_a_page(tmp_path: Path, apart: Apart) -> None:
    (tmp_path / "a.html").write_bytes(NEWS.encode("latin-1"))
    [row], [] = made.both(tmp_path, "a.html", apart)
    assert row["text"] == (
        "Cows café\n\nIt was a long, long day\nin May.\n\n1. one\n2. two linked\n\n"
        "def f():\n    return 1\n\nf()\n\nKind | Milk\nred | 9 l"
    )
    assert row["licence"] == "https://creativecommons.org/licenses/by/4.0/"


@given(WORDS, WORDS)
def test_words_of_a_page_come_back(one: str, two: str) -> None:
    def safe(text: str) -> str:
        return text.replace("&", "&amp;").replace("<", "&lt;")

    found = page(f"<nav>{safe(two)}</nav><p>{safe(one)}</p><div>{safe(two)}</div>").text
    assert found == f"{' '.join(one.split())}\n\n{' '.join(two.split())}"


TAGS = st.sampled_from(
    [
        "<p>",
        "</p>",
        "<ul>",
        "<li>",
        "</ul>",
        "<pre>",
        "</pre>",
        "<table>",
        "<tr>",
        "<td>",
        "<br>",
        "<nav>",
        "<svg>",
        "<template>",
        "<b>",
        "\ufdd0",
        "<!--",
        "-->",
        "<body>",
        "</html>",
        "<script>",
        "<select>",
        "<td></pre>",
        "&#0;",
        "&#xfdd1;",
        "<a",
        "rel=license>",
        "\x00",
    ]
)


@given(st.lists(st.one_of(TAGS, LETTERS, st.just("\n")), max_size=30).map("".join))
def test_no_page_is_too_broken(html: str) -> None:
    assert not set(page(html).text) & set("\ufdd0\ufdd2\ufdd3\ufdd4")


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(WORDS, min_size=1, max_size=5),
    st.lists(st.tuples(WORDS, WORDS), max_size=3),
)
def test_words_of_a_docx_come_back(paragraphs: list[str], rows: Sequence[tuple[str, str]]) -> None:
    content = io.BytesIO(made.docx_bytes(paragraphs, rows))
    [part] = office.read(content, "docx", Wanted())
    expected = "\n\n".join(paragraphs)
    if rows:
        expected += "\n\n" + "\n".join(" | ".join(row) for row in rows)
    assert isinstance(part, Part) and part.text == expected


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x1e\0"), max_size=20)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=8), st.sampled_from(",;\t"))
def test_cells_of_a_table_come_back(rows: list[tuple[str, str, str]], mark: str) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=mark, quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "text", "rights"), *rows])
    content = io.BytesIO(out.getvalue().encode())
    found = list(tables.read(content, "csv", Wanted("text", "rights")))
    assert found == [
        Part(text, f"row {number}", rights.strip() or None)
        for number, (_, text, rights) in enumerate(rows, 1)
    ]


def test_a_table_without_a_named_column_gives_its_longest(tmp_path: Path, apart: Apart) -> None:
    content = "id;body;title\n1;a long story;x\n2;another one;y\n".encode("utf-16")
    assert texts(tmp_path, "a.csv", content, apart) == [
        ("row 1", "a long story"),
        ("row 2", "another one"),
    ]
    assert texts(tmp_path, "a.csv", content, apart, text="title")[1] == ("row 2", "y")
    documents, [unread] = made.both(tmp_path, "a.csv", apart, text="titel")
    assert documents == [] and '"titel"' in unread.reason and "body" in unread.reason


@pytest.mark.parametrize("at", [0, 3])
def test_a_quotation_mark_that_is_never_closed_costs_its_row(at: int) -> None:
    rows = [f"{number},line {number}\n" for number in range(6)]
    rows[at] = f'{at},"never closed\n'
    content = io.BytesIO(("id,text\n" + "".join(rows)).encode())
    found = list(tables.read(content, "csv", Wanted()))
    assert [part.text for part in found if isinstance(part, Part)] == [
        f"line {number}" for number in range(6) if number != at
    ]
    assert [part.name for part in found if isinstance(part, Fault)] == [f"row {at + 1}"]


JSON = st.recursive(
    st.one_of(st.none(), st.integers(), st.floats(allow_nan=False), CELLS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELLS, inner, max_size=3),
    max_leaves=5,
)
ROWS = st.lists(
    st.dictionaries(CELLS, JSON, max_size=3).map(lambda row: {**row, "text": "t"}), min_size=1
)


@given(ROWS, st.sampled_from([None, 0, 3]), st.integers(1, 50))
def test_rows_of_json_come_back_whatever_the_pieces(
    rows: list[dict[str, Any]], indent: int | None, chunk: int
) -> None:
    text = io.TextIOWrapper(io.BytesIO(json.dumps(rows, indent=indent).encode()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "CHUNK", chunk)
        assert list(records._items(text)) == rows


def test_json_lines_with_bad_ones(tmp_path: Path, apart: Apart) -> None:
    lines = ['{"text": "a", "by": "CC0"}', "", "{", "[1]", '{"other": 1}', '{"text": "\\ud800 b"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    documents, unread = made.both(tmp_path, "a.jsonl", apart, licence_column="by")
    assert [(row["part"], row["text"], row["licence"]) for row in documents] == [
        ("row 1", "a", "CC0"),
        ("row 5", "\ufffd b", None),
    ]
    assert [one.path for one in unread] == ["a.jsonl, row 2", "a.jsonl, row 3"]


def test_json_that_is_no_list_of_objects_is_text(tmp_path: Path, apart: Apart) -> None:
    for content in ('{"name": "x"}', "[1, 2]", '"a"'):
        assert texts(tmp_path, "a.json", content.encode(), apart) == [(None, content)]


@pytest.mark.parametrize("form", ["parquet", "arrow", "stream"])
def test_columns(tmp_path: Path, apart: Apart, form: str) -> None:
    frame = pl.DataFrame(
        {"id": range(25_000), "body": [f"text {n}" for n in range(25_000)], "by": "MIT"}
    )
    path = tmp_path / f"a.{'parquet' if form == 'parquet' else 'arrow'}"
    write = {"parquet": frame.write_parquet, "arrow": frame.write_ipc}
    write.get(form, frame.write_ipc_stream)(path)
    documents, unread = made.both(tmp_path, path.name, apart, licence_column="by")
    assert unread == [] and len(documents) == 25_000
    assert (documents[-1]["part"], documents[-1]["text"]) == ("row 25000", "text 24999")
    assert documents[-1]["licence"] == "MIT"


BODIES = st.lists(
    st.sampled_from(["", "Hello", "From here on", ">From there", "From a@b Mon 10:00", "ä"]),
    max_size=6,
).map(lambda lines: "".join(f"{line}\n" for line in lines))


@settings(max_examples=40)
@given(st.lists(BODIES, min_size=1, max_size=5))
def test_a_mailbox_is_parted_as_the_standard_library_does(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[str]
) -> None:
    path = tmp_path_factory.mktemp("mail") / "box"
    content = made.mbox_bytes(path, [made.mail("s", body) for body in bodies])
    found = list(mbox.messages(io.BytesIO(content)))
    box = mailbox.mbox(path)
    expected = [one.get_payload(decode=True).decode() for one in box]
    box.close()
    assert len(found) == len(bodies)
    told = [
        next(iter(message.read(io.BytesIO(one or b""), "message", Wanted()))).text for one in found
    ]
    assert [text.removeprefix("s").strip("\n") for text in told] == [
        re.sub("(?m)^>From ", "From ", body).strip("\n") for body in expected
    ]


def test_a_mail_with_two_versions(tmp_path: Path, apart: Apart) -> None:
    mail = made.mail("Grüße aus Köln", "Plain text.\n", "<p>Rich text.</p>")
    assert texts(tmp_path, "a.eml", mail.as_bytes(), apart) == [
        (None, "Grüße aus Köln\n\nPlain text.")
    ]
    rich = EmailMessage()
    rich["Subject"] = "Only rich"
    rich.set_content(
        "<style>p {}</style><p>Rich <b>text</b>.</p>", subtype="html", charset="latin1"
    )
    assert texts(tmp_path, "b.eml", rich.as_bytes(), apart) == [(None, "Only rich\n\nRich text.")]


def with_attachments() -> EmailMessage:
    mail = made.mail("Papers", "See below.\n", "<p>See below.</p>")
    mail.add_attachment("text,n\nfirst row,1\nsecond row,2\n", subtype="csv", filename="t.csv")
    mail.add_attachment("<p>A <b>page</b>.</p>", subtype="html", filename="../Grüße.html")
    for name, content in (
        ("two pages.pdf", made.pdf_bytes([["Page one."], ["Page two."]])),
        ("letter.docx", made.docx_bytes(["Dear all,"])),
        ("broken.pdf", b"%PDF-1.4 no more"),
        ("files.zip", made.zip_bytes({"a.txt": "a"})),
        ("photo.png", b"\x89PNG\r\n\x1a\n"),
    ):
        kind = ("image", "png") if name == "photo.png" else ("application", "octet-stream")
        mail.add_attachment(content, maintype=kind[0], subtype=kind[1], filename=name)
    inner = made.mail("Earlier", "What was said.\n")
    inner.add_attachment("a note", filename="note.txt")
    mail.add_attachment(inner)
    return mail


def test_what_is_attached_to_a_mail(tmp_path: Path, apart: Apart) -> None:
    (tmp_path / "a.eml").write_bytes(with_attachments().as_bytes())
    documents, unread = made.both(tmp_path, "a.eml", apart)
    assert [(one["part"], one["text"].strip()) for one in documents] == [
        (None, "Papers\n\nSee below."),
        ("attachment t.csv, row 1", "first row"),
        ("attachment t.csv, row 2", "second row"),
        ("attachment Grüße.html", "A page."),
        ("attachment two pages.pdf, page 1", "Page one."),
        ("attachment two pages.pdf, page 2", "Page two."),
        ("attachment letter.docx", "Dear all,"),
        ("attachment 7", "Earlier\n\nWhat was said."),
        ("attachment 7, attachment note.txt", "a note"),
    ]
    assert [one.path for one in unread] == [
        "a.eml, attachment broken.pdf",
        "a.eml, attachment files.zip",
    ]
    assert "damaged" in unread[0].reason and "an archive in a mail" in unread[1].reason
    box = made.mbox_bytes(tmp_path / "box", [made.mail("a", "1\n"), with_attachments()])
    (tmp_path / "Inbox").write_bytes(box)
    documents, unread = made.both(tmp_path, "Inbox", apart)
    assert len(documents) == 10 and len(unread) == 2
    assert documents[2]["part"] == "message 2, attachment t.csv, row 1"


def test_mails_are_known_without_a_name(tmp_path: Path, apart: Apart) -> None:
    """As in a Maildir and in collections of mails."""
    mail = made.mail("Hi", "One.\n").as_bytes()
    assert texts(tmp_path, "1203.M2:2,S", mail, apart) == [(None, "Hi\n\nOne.")]
    box = made.mbox_bytes(tmp_path / "box", [made.mail("a", "1\n"), made.mail("b", "2\n")])
    assert texts(tmp_path, "Inbox", box, apart) == [
        ("message 1", "a\n\n1"),
        ("message 2", "b\n\n2"),
    ]


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst", "a.py", "Makefile", "a.unknown"])
def test_text_and_code_stay_as_they_are(tmp_path: Path, apart: Apart, name: str) -> None:
    text = "# Title\n\n\tdef f():\n\t    return 'ä'\n"
    assert texts(tmp_path, name, text.encode(), apart) == [(None, text)]
    assert texts(tmp_path, name, text.encode("utf-16"), apart) == [(None, text)]
    assert texts(tmp_path, f"{name}.gz", gzip.compress(text.encode("cp1252")), apart) == [
        (None, text)
    ]


@pytest.mark.parametrize(("suffix", "pack"), [("xz", lzma.compress), ("bz2", bz2.compress)])
def test_xz_and_bzip2(
    tmp_path: Path, apart: Apart, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    text = "Wörter. " * 300_000
    assert texts(tmp_path, f"a.txt.{suffix}", pack(text.encode()), apart)[0][1] == text[: 1 << 20]
    twice = pack(b"One. ") + pack(b"Two.")
    assert texts(tmp_path, f"b.txt.{suffix}", twice, apart) == [(None, "One. Two.")]
    files = {"LICENSE": b"The MIT License (MIT)\n", "a.html": b"<p>a</p>", "b.txt": b"b"}
    tar = made.tar_bytes(files)
    for name in (f"a.tar.{suffix}", "a.txz" if suffix == "xz" else "a.tbz2"):
        found = texts(tmp_path, name, pack(tar), apart)
        assert [text.strip() for _, text in found][1:] == ["a", "b"]
    (tmp_path / "cut").write_bytes(pack(os.urandom(1000).hex().encode())[:-40])
    documents, unread = made.both(tmp_path, "cut", apart)
    assert documents == [] and len(unread) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=4), st.integers(1, 5000))
def test_streams_of_xz_follow_one_another_with_zeros_between(parts: list[bytes], size: int) -> None:
    packed = b"".join(lzma.compress(part) + bytes(4) for part in parts)
    stream = unpack.Xz(io.BytesIO(packed))
    for _ in range(2):
        found = b""
        while piece := stream.read(size):
            assert len(piece) <= size
            found += piece
        assert found == b"".join(parts)
        assert stream.tell() == len(found)
        stream.seek(0)


def test_what_holds_no_text_says_what_it_is(tmp_path: Path, apart: Apart) -> None:
    files = {
        "a.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        "a.doc": b"\xd0\xcf\x11\xe0" + bytes(600),
        "a.xlsx": made.zip_bytes({"xl/workbook.xml": "<a/>"}),
        "a.txt": b"",
        "b.txt": b" \n\n",
        "a.7z": b"7z\xbc\xaf\x27\x1c" + bytes(100),
        "a.rar": b"Rar!\x1a\x07" + bytes(100),
    }
    reasons = []
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        documents, unread = made.both(tmp_path, name, apart)
        assert documents == []
        reasons += [one.reason for one in unread]
    told = [
        "no text",
        "save it as .docx",
        "spreadsheet",
        "empty",
        "no text",
        "unpack it",
        "unpack it",
    ]
    assert all(part in reason for part, reason in zip(told, reasons, strict=True))
