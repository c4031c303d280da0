"""Files that mean harm: each is told or read, within bounds of time and memory."""

import bz2
import gzip
import io
import json
import lzma
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import made_files as made
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bantam.documents import unpack
from bantam.documents.apart import Apart
from bantam.documents.read import documents_of
from bantam.documents.readers import mbox, plain, records
from bantam.documents.walk import Source

SECONDS = 30  # that any of these may take here; most take less than one


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    with Apart(seconds=2, memory=300 << 20) as child:
        yield child


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    before = time.process_time()
    yield
    assert time.process_time() - before < SECONDS


def told(folder: Path, name: str, content: bytes, apart: Apart) -> list[str]:
    """Why a file could not be read. What follows it can."""
    (folder / name).write_bytes(content)
    _, unread = made.both(folder, name, apart)
    (folder / "after.html").write_text("<p>after</p>")
    [after], _ = made.both(folder, "after.html", apart)
    assert after["text"] == "after"
    return [one.reason for one in unread]


def packed(size: int, pattern: bytes = b"a ") -> bytes:
    """That many bytes, packed a thousand to one."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6) as file:
        for _ in range(size >> 20):
            file.write(pattern * ((1 << 20) // len(pattern)))
    return out.getvalue()


BOMB = packed(70 << 20)


def test_a_packed_bomb(tmp_path: Path, apart: Apart) -> None:
    assert "bomb" in told(tmp_path, "a.txt.gz", BOMB, apart)[0]
    zeros = told(tmp_path, "a.tgz", packed(1 << 20, b"\0"), apart)
    assert zeros == ["an archive without files"]


def test_bombs_of_other_packers(
    tmp_path: Path, apart: Apart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "FREE_BYTES", 1 << 20)
    for pack in (lzma.compress, bz2.compress):
        assert "bomb" in told(tmp_path, "a.txt", pack(b"a " * (1 << 20)), apart)[0]
    monkeypatch.setattr(unpack, "XZ_MEMORY", 1 << 20)  # less than this one asks for
    assert "Memory usage limit" in told(tmp_path, "b.xz", lzma.compress(b"text"), apart)[0]


def test_mails_in_mails_without_end(tmp_path: Path, apart: Apart) -> None:
    mail = made.mail("0", "last\n")
    for number in range(30):
        outer = made.mail(str(number), "next\n")
        outer.add_attachment(mail)
        mail = outer
    (tmp_path / "a.eml").write_bytes(mail.as_bytes())
    documents, unread = made.both(tmp_path, "a.eml", apart)
    assert len(documents) == 11 and len(unread) == 1
    assert unread[0].reason == "more than 10 mails within one another"


def test_bombs_in_archives_and_archives_of_bombs(tmp_path: Path, apart: Apart) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("first.txt", "first")
        with archive.open("bomb.txt", "w") as member:
            for _ in range(70):
                member.write(b"a " * (1 << 19))
    assert "bomb" in told(tmp_path, "a.zip", out.getvalue(), apart)[0]
    nested = made.zip_bytes(dict.fromkeys(map("{}.txt.gz".format, range(12)), packed(10 << 20)))
    assert any("bomb" in reason for reason in told(tmp_path, "b.zip", nested, apart))
    for _ in range(3):
        nested = made.tar_bytes({f"{number}.zip": nested for number in range(3)})
        nested = gzip.compress(nested)
    assert any("bomb" in reason for reason in told(tmp_path, "c.tar.gz", nested, apart))


def test_what_came_before_a_bomb_is_kept(tmp_path: Path, apart: Apart) -> None:
    content = made.tar_bytes({"a.txt": b"first", "b.txt.gz": BOMB, "c.txt": b"never"})
    (tmp_path / "a.tar").write_bytes(content)
    documents, unread = made.both(tmp_path, "a.tar", apart)
    assert documents[0]["text"] == "first" and "bomb" in unread[0].reason


def test_many_empty_members(tmp_path: Path, apart: Apart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "FREE_BYTES", 1 << 20)
    monkeypatch.setattr(unpack, "MAX_RATIO", 1)
    content = gzip.compress(made.tar_bytes({f"{number}.txt": b"" for number in range(5000)}))
    assert any("bomb" in reason for reason in told(tmp_path, "a.tar.gz", content, apart))


def test_archives_within_archives_without_end(tmp_path: Path, apart: Apart) -> None:
    for pack in (gzip.compress, lambda inner: made.zip_bytes({"a": inner})):
        content = b"text"
        for _ in range(20):
            content = pack(content)
        assert told(tmp_path, "a.zip", content, apart) == [
            "more than 10 packed files within one another"
        ]


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_names_and_links_that_lead_out(tmp_path: Path, apart: Apart) -> None:
    names = ("../a.txt", "/etc/b.txt", "x/../../c.txt", "..\\d.txt", "e\n.txt")
    files = dict.fromkeys(names, b"text")
    files["good.txt"] = b"good"
    links = [
        link("out", "/etc/passwd"),
        link("up", "../../x"),
        link("in", "good.txt"),
        link("hard", "/etc/passwd", tarfile.LNKTYPE),
        link("device", "", tarfile.CHRTYPE),
    ]
    zipped = zipfile.ZipInfo("out")
    zipped.external_attr = 0o120777 << 16
    for name, content in (
        ("a.tar", made.tar_bytes(files, links)),
        ("a.zip", made.zip_bytes(files)),
    ):
        (tmp_path / name).write_bytes(content)
        if name == "a.zip":
            with zipfile.ZipFile(tmp_path / name, "a") as archive:
                archive.writestr(zipped, "/etc/passwd")
        documents, unread = made.both(tmp_path, name, apart)
        assert [row["text"] for row in documents] == ["good"]
        reasons = [one.reason for one in unread]
        assert len(reasons) == (8 if name == "a.tar" else 6)
        assert sum("out of the archive" in reason for reason in reasons) >= 4
    assert not (tmp_path.parent / "a.txt").exists()


def test_a_tar_whose_header_claims_the_world(tmp_path: Path, apart: Apart) -> None:
    info = tarfile.TarInfo("name")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8 << 30
    head = info.tobuf(tarfile.GNU_FORMAT)
    assert "damaged" in told(tmp_path, "a.tar", head + bytes(1 << 20), apart)[0]


def test_headers_of_a_tar_take_little(tmp_path: Path, apart: Apart) -> None:
    sparse = link("sparse", "", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT)
    goes_on = bytearray(sparse[:148] + b" " * 8 + sparse[156:482] + b"\1" + sparse[483:])
    goes_on[148:156] = b"%06o\0 " % sum(goes_on)
    block = b"00000000001\0" * 42
    its_map = (block + b"\1" + bytes(7)) * 100_000 + block + bytes(8)
    digits = tarfile.TarInfo("digits.txt")
    digits.pax_headers = {"comment": "1" * 16_000}
    rest = digits.tobuf(tarfile.PAX_FORMAT) * 20 + made.tar_bytes({"a.txt": b"text"})
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(goes_on + its_map + rest, 1))
    documents, unread = made.both(tmp_path, "a.tar.gz", apart)
    assert [row["text"] for row in documents] == ["text"]
    assert [one.reason for one in unread] == [
        "neither a plain file nor a folder",
        *["it is empty"] * 20,
    ]


def test_broken_archives_give_what_they_can(tmp_path: Path, apart: Apart) -> None:
    content = gzip.compress(made.tar_bytes({"a.txt": b"first", "b.txt": b"x" * 9_000_000}))
    (tmp_path / "a.tgz").write_bytes(content[: len(content) // 2])
    documents, unread = made.both(tmp_path, "a.tgz", apart)
    assert documents[0]["text"] == "first"
    assert unread and all("damaged" in one.reason for one in unread)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", "first")
        archive.writestr("b.txt", "second")
    whole = out.getvalue()
    assert "damaged" in told(tmp_path, "a.zip", whole[:-30], apart)[0]
    (tmp_path / "b.zip").write_bytes(whole.replace(b"first", b"fi!st"))
    documents, [unread] = made.both(tmp_path, "b.zip", apart)
    assert [row["text"] for row in documents] == ["second"] and "damaged" in unread.reason


ENTITIES = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
)
OUTSIDE = '<!DOCTYPE a [<!ENTITY j SYSTEM "file:///etc/passwd">'


@pytest.mark.parametrize("declared", [ENTITIES, OUTSIDE])
@pytest.mark.parametrize("form", ["docx", "odt", "pptx", "epub"])
def test_xml_entities(tmp_path: Path, apart: Apart, form: str, declared: str) -> None:
    bad = f'<?xml version="1.0"?>{declared}]><a><p><t>&j;</t></p></a>'
    files: dict[str, dict[str, str]] = {
        "docx": {"word/document.xml": bad},
        "odt": {"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": bad},
        "pptx": {"ppt/presentation.xml": "<a/>", "ppt/slides/slide1.xml": bad},
        "epub": {"mimetype": "application/epub+zip", "META-INF/container.xml": bad},
    }
    content = made.zip_bytes(files[form])
    assert told(tmp_path, f"a.{form}", content, apart) == [
        "it declares XML entities, as no such file needs to"
    ]


def test_xml_and_json_and_pages_and_mails_that_are_too_deep(tmp_path: Path, apart: Apart) -> None:
    deep = "<a>" * 300_000 + "</a>" * 300_000
    told(tmp_path, "a.odt", made.odt_bytes(deep, "{}"), apart)
    cells = "<table-row><table-cell>" * 50_000
    told(tmp_path, "b.odt", made.odt_bytes(f"<a>{cells}", "{}"), apart)
    told(tmp_path, "a.html", b"<div>" * 20_000 + b"x", apart)
    told(tmp_path, "b.html", b"<ul><li><a href=x>" * 1_000, apart)
    told(tmp_path, "c.html", b"<table><td>" * 10_000, apart)
    told(tmp_path, "d.html", b"<pre>" * 5_000 + b"x", apart)
    assert told(tmp_path, "a.json", b'[{"a":' * 500_000, apart)
    assert told(tmp_path, "a.jsonl", b'{"text": "a"}\n' + b"[" * 500_000, apart)
    mail = b"Subject: x\n"
    for number in range(2000):
        mail += b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (number, number)
    told(tmp_path, "a.eml", mail, apart)


def test_a_pdf_that_never_ends(tmp_path: Path) -> None:
    with Apart(seconds=1) as apart:
        [reason] = told(tmp_path, "a.pdf", made.endless_pdf(), apart)
    assert "it took more than 1 s" in reason or "of memory" in reason


def test_a_pdf_that_swells(tmp_path: Path) -> None:
    with Apart(memory=150 << 20) as apart:
        [reason] = told(tmp_path, "a.pdf", made.swollen_pdf(300 << 20), apart)
    # On a busy machine its own bound may end it before it is seen to swell: PDFium then aborts.
    assert "memory" in reason or "code -6" in reason


def reader() -> psutil.Process:
    """The process that reads; other tests may have left processes of their own."""
    children = psutil.Process().children()
    [child] = [one for one in children if "bantam.documents.child" in one.cmdline()]
    return child


def test_a_reader_that_dies_is_started_again(tmp_path: Path, apart: Apart) -> None:
    told(tmp_path, "a.html", b"<p>x</p>", apart)
    child = reader()
    child.kill()
    while child.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert told(tmp_path, "b.html", b"<p>b</p>", apart) == []
    (tmp_path / "a.pdf").write_bytes(
        made.pdf_bytes([["x" * 90] * 50] * 60)
    )  # more than a pipe holds
    pages = documents_of(Source("s", tmp_path), "a.pdf", apart)
    next(pages)
    child = reader()
    child.kill()
    assert "died" in str(list(pages)[-1])
    assert told(tmp_path, "c.html", b"<p>c</p>", apart) == []


def test_who_goes_away_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(made.pdf_bytes([["one"], ["two"], ["three"]]))
    (tmp_path / "b.html").write_text("<p>b</p>")
    before = set(psutil.Process().children())
    with Apart() as apart:
        pages = documents_of(Source("s", tmp_path), "a.pdf", apart)
        next(pages)
        pages.close()
        [row], [] = made.both(tmp_path, "b.html", apart)
        assert row["text"] == "b"
        mine = set(psutil.Process().children()) - before
        assert len(mine) == 1
    assert set(psutil.Process().children()) <= before


def test_quotation_marks_that_are_never_closed(tmp_path: Path, apart: Apart) -> None:
    rows = b"".join(b"%d,a line of text that is fine\n" % number for number in range(250_000))
    (tmp_path / "a.csv").write_bytes(b'id,text\n1,"never closed\n' + rows)
    documents, unread = made.both(tmp_path, "a.csv", apart)
    assert len(documents) == 250_000 and len(unread) == 1
    assert unread[0].reason == "a quotation mark that is never closed, in line 2"


def test_lines_without_end(tmp_path: Path, apart: Apart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LARGEST", 1 << 20)
    long = b'{"text": "' + b"x" * (30 << 20)
    reasons = told(tmp_path, "a.jsonl", b'{"text": "a"}\n' + long + b'\n{"text": "b"}\n', apart)
    assert reasons == ["a line of more than 1,048,576 characters"]
    assert len(told(tmp_path, "a.json", b'[{"text": "a"},' + long, apart)) == 1
    (tmp_path / "a.csv").write_bytes(b"id,text\n1,a\n2," + b"x" * (30 << 20) + b"\n3,b\n")
    documents, [unread] = made.both(tmp_path, "a.csv", apart)
    assert [row["text"] for row in documents] == ["a", "b"] and "a line of more" in unread.reason
    (tmp_path / "a.txt").write_bytes(b"x" * (30 << 20))
    documents, [] = made.both(tmp_path, "a.txt", apart)
    assert sum(len(row["text"]) for row in documents) == 30 << 20


def test_a_mail_that_is_too_large_goes_alone(
    tmp_path: Path, apart: Apart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mbox, "LARGEST", 1 << 20)
    mails = [
        made.mail("a", "1\n"),
        made.mail("b", ("x" * 70 + "\n") * 20_000),
        made.mail("c", "3"),
    ]
    content = made.mbox_bytes(tmp_path / "box", mails)
    (tmp_path / "a.mbox").write_bytes(content)
    documents, [unread] = made.both(tmp_path, "a.mbox", apart)
    assert [row["part"] for row in documents] == ["message 1", "message 3"]
    assert unread.path == "a.mbox, message 2"


# What getrusage tells of a child begins with what its parent had when it was started.
PEAK = """
import sys
from pathlib import Path
from bantam.documents.read import read
from bantam.documents.walk import Source
unread = []
shards = read([Source("s", Path(sys.argv[1]))], unread)
letters = sum(shard["text"].str.len_bytes().sum() for shard in shards)
status = Path("/proc/self/status").read_text().splitlines()
most = next(line for line in status if line.startswith("VmHWM"))
print(letters, most.split()[1], len(unread))
"""


def peak(folder: Path) -> tuple[int, float, int]:
    """Letters read, the megabytes that it took at its peak, what was not read."""
    command = [sys.executable, "-c", PEAK, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=500)
    letters, kilobytes, unread = map(int, done.stdout.split())
    return letters, kilobytes / 1024, unread


def large(folder: Path, size: int) -> None:
    """Files of about `size` bytes each in the formats that are read as they go by."""
    paragraph = "A sentence of a text that goes on and on. " * 12 + "\n\n"
    count = size // len(paragraph)
    with (folder / "a.txt").open("w") as text, gzip.open(folder / "b.txt.gz", "wt", 1) as small:
        for _ in range(count):
            text.write(paragraph)
            small.write(paragraph)
    with (folder / "c.csv").open("w") as table, (folder / "d.jsonl").open("w") as rows:
        table.write("id,text\n")
        for number in range(count):
            table.write(f'{number},"{paragraph}"\n')
            rows.write(json.dumps({"text": paragraph}) + "\n")
    with (folder / "e.txt").open("w") as line:
        for _ in range(size >> 20):
            line.write("x" * (1 << 20))


def test_memory_is_flat(tmp_path: Path) -> None:
    for name, size in (("small", 1 << 20), ("large", 12 << 20)):
        (tmp_path / name).mkdir()
        large(tmp_path / name, size)
    _, base, _ = peak(tmp_path / "small")
    letters, most, unread = peak(tmp_path / "large")
    assert letters > 5 * (11 << 20) and unread == 0
    assert most < base + 200  # a shard is 16 MB, held as rows and as a frame


@pytest.mark.slow
def test_a_gigabyte_in_each_format(tmp_path: Path) -> None:
    large(tmp_path, 1 << 30)
    letters, most, unread = peak(tmp_path)
    assert letters > 5 * (1000 << 20) and unread == 0 and most < 800


SEEDS = {
    "docx": made.docx_bytes(["text"]),
    "pdf": made.pdf_bytes([["text"]]),
    "epub": made.epub_bytes(["text"]),
    "html": b"<p>text</p>",
    "csv": b"a,b\n1,2\n",
    "json": b'[{"a": "b"}]',
    "eml": made.mail("s", "t", "<p>u</p>").as_bytes(),
    "tar": made.tar_bytes({"a.txt": b"text"}),
    "zip": made.zip_bytes({"a.txt": "text"}),
    "gz": gzip.compress(b"text"),
    "zst": b"\x28\xb5\x2f\xfd\x20\x04\x21\x00\x00text",
    "1": b".SH NAME\ntext",
    "parquet": b"PAR1",
}


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(SEEDS)), st.data())
def test_no_file_is_too_broken(
    tmp_path: Path, apart: Apart, suffix: str, data: st.DataObject
) -> None:
    seed = SEEDS[suffix]
    at = data.draw(st.integers(0, len(seed)))
    end = data.draw(st.integers(at, min(len(seed), at + 50)))
    content = seed[:at] + data.draw(st.binary(max_size=20)) + seed[end:]
    (tmp_path / f"a.{suffix}").write_bytes(content)
    documents, unread = made.both(tmp_path, f"a.{suffix}", apart)
    assert documents or unread
    assert all(one.reason and one.path.startswith("a.") for one in unread)


def test_lines_are_bounded() -> None:
    text = io.StringIO("abc\n" + "x" * 25 + "\nd\n" + "y" * 10)
    assert list(plain.lines(text, 10)) == ["abc\n", None, "d\n", None]
