"""Files of every format, written by the programs that people write them with or by hand."""

import io
import mailbox
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from email.message import EmailMessage
from pathlib import Path

import docx
import pptx
from reportlab.pdfgen.canvas import Canvas

from bantam.documents.apart import Apart
from bantam.documents.document import Document, Unread
from bantam.documents.read import documents_of
from bantam.documents.walk import Source


def docx_bytes(paragraphs: Sequence[str], rows: Sequence[Sequence[str]] = ()) -> bytes:
    document = docx.Document()
    for text in paragraphs:
        document.add_paragraph(text)
    if rows:
        table = document.add_table(rows=0, cols=len(rows[0]))
        for row in rows:
            for cell, text in zip(table.add_row().cells, row, strict=True):
                cell.text = text
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def pptx_bytes(slides: Sequence[tuple[str, str]]) -> bytes:
    show = pptx.Presentation()
    for title, text in slides:
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = text
    out = io.BytesIO()
    show.save(out)
    return out.getvalue()


def pdf_bytes(pages: Sequence[Sequence[str]]) -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out)
    for lines in pages:
        writer = canvas.beginText(72, 770)
        writer.textLines("\n".join(lines))
        canvas.drawText(writer)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def zip_bytes(files: Mapping[str, bytes | str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def tar_bytes(files: Mapping[str, bytes], others: Iterable[tarfile.TarInfo] = ()) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in others:
            archive.addfile(info)
    return out.getvalue()


ODT = """<?xml version="1.0" encoding="UTF-8"?>
<office:document-content
 xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"
 xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" office:version="1.3">
<office:body><office:text>{}</office:text></office:body></office:document-content>"""


def odt_bytes(body: str, xml: str = ODT) -> bytes:
    kind = "application/vnd.oasis.opendocument.text"
    return zip_bytes({"mimetype": kind, "content.xml": xml.format(body)})


OPF = """<?xml version="1.0"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>T</dc:title>
<dc:rights>CC BY 4.0</dc:rights></metadata><manifest>{items}</manifest>
<spine>{refs}</spine></package>"""
CONTAINER = """<?xml version="1.0"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="OEBPS/content.opf"
 media-type="application/oebps-package+xml"/></rootfiles></container>"""
PAGE = (
    '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>t</title></head>'
    "<body>{}</body></html>"
)


def epub_bytes(chapters: Sequence[str], container: str = CONTAINER) -> bytes:
    """The files are numbered against the order in which they are read."""
    count = len(chapters)
    names = {f"c{count - at}": text for at, text in enumerate(chapters)}
    files: dict[str, bytes | str] = {"mimetype": "application/epub+zip"}
    files["META-INF/container.xml"] = container
    files["OEBPS/content.opf"] = OPF.format(
        items="".join(f'<item id="{n}" href="text%20{n}.xhtml"/>' for n in sorted(names)),
        refs="".join(f'<itemref idref="{n}"/>' for n in names),
    )
    for name, text in names.items():
        files[f"OEBPS/text {name}.xhtml"] = PAGE.format(text)
    return zip_bytes(files)


def mail(subject: str, text: str, html: str | None = None) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "ann@example.org"
    message["To"] = "bob@example.org"
    message["Subject"] = subject
    message.set_content(text)
    if html is not None:
        message.add_alternative(html, subtype="html")
    return message


def mbox_bytes(path: Path, messages: Sequence[EmailMessage]) -> bytes:
    box = mailbox.mbox(path)
    for message in messages:
        box.add(message)
    box.close()
    return path.read_bytes()


def endless_pdf() -> bytes:
    """A small page whose drawing is ten drawings, each of which is ten, and so on, 14 deep."""
    depth = 14
    font = b"/Font << /T << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >>"
    forms = []
    for level in range(depth):  # objects 4, 5, ...
        content = b"/X Do " * 10 if level else b"BT /T 9 Tf (a) Tj ET"
        inner = b"/XObject << /X %d 0 R >>" % (3 + level) if level else font
        head = b"<< /Type /XObject /Subtype /Form /BBox [0 0 600 800] /Resources << %s >> " % inner
        forms.append(head + _stream(content))
    resources = b"<< /XObject << /X %d 0 R >> >>" % (3 + depth)
    return pdf_of([*_page(4 + depth, resources), *forms, b"<< " + _stream(b"/X Do")])


def _page(content: int, resources: bytes = b"<< >>") -> list[bytes]:
    return [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents %d 0 R /Resources %s >>"
        % (content, resources),
    ]


def _stream(content: bytes, more: bytes = b"") -> bytes:
    return b"/Length %d %s >>\nstream\n%s\nendstream" % (len(content), more, content)


def swollen_pdf(size: int) -> bytes:
    """A page whose content is `size` blanks, packed."""
    packed = zlib.compress(b" " * size + b"BT (a) Tj ET", 1)
    return pdf_of([*_page(4), b"<< " + _stream(packed, b"/Filter /FlateDecode")])


def pdf_of(objects: Sequence[bytes]) -> bytes:
    out = bytearray(b"%PDF-1.7\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n" % (len(objects) + 1)
    return bytes(out + b"%d\n%%%%EOF\n" % table)


def both(
    folder: Path, name: str, apart: Apart | None = None, **settings: str
) -> tuple[list[Document], list[Unread]]:
    """The documents of one file, and what could not be read of it."""
    found = list(documents_of(Source("s", folder, **settings), name, apart))  # type: ignore[arg-type]
    return (
        [one for one in found if not isinstance(one, Unread)],
        [one for one in found if isinstance(one, Unread)],
    )
