"""From folders to shards."""

import gzip
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import made_files as made
import polars as pl
import pytest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from bantam.documents import read as reading
from bantam.documents.apart import Apart
from bantam.documents.document import SCHEMA, Unread
from bantam.documents.read import documents_of, read
from bantam.documents.walk import Source, files


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    with Apart() as child:
        yield child


def messy(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.txt").write_text("Plain text.")
    (folder / "b.docx").write_bytes(made.docx_bytes(["From Word."]))
    (folder / "c.html.gz").write_bytes(gzip.compress(b"<p>Packed page.</p>"))
    (folder / "d.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    inner = made.tar_bytes({"deep/x.txt": b"Deep text.", "deep/y.csv": b"text\none\ntwo\n"})
    outer = {"notes/n.md": b"# Notes", "more.tar.zst": zstd.compress(inner)}
    (folder / "e.zip").write_bytes(made.zip_bytes(outer))
    (folder / "f.pdf").write_bytes(b"%PDF-1.7 but no more")
    (folder / "sub").mkdir()
    (folder / "sub" / "g.txt").write_text("Last text.")
    return folder


def test_a_messy_folder(tmp_path: Path) -> None:
    unread: list[Unread] = []
    [shard] = read([Source("mess", messy(tmp_path / "mess"))], unread)
    assert shard.schema == SCHEMA
    assert shard.select("path", "part", "text").rows() == [
        ("a.txt", None, "Plain text."),
        ("b.docx", None, "From Word."),
        ("c.html.gz", None, "Packed page."),
        ("e.zip!/notes/n.md", None, "# Notes"),
        ("e.zip!/more.tar.zst!/deep/x.txt", None, "Deep text."),
        ("e.zip!/more.tar.zst!/deep/y.csv", "row 1", "one"),
        ("e.zip!/more.tar.zst!/deep/y.csv", "row 2", "two"),
        ("sub/g.txt", None, "Last text."),
    ]
    assert [(one.source, one.path) for one in unread] == [("mess", "d.png"), ("mess", "f.pdf")]
    assert unread[1].reason.startswith("it is damaged")
    packed = (tmp_path / "mess" / "c.html.gz").read_bytes()
    sums = dict(shard.select("path", "sha256").rows())
    assert sums["c.html.gz"] == hashlib.sha256(packed).hexdigest()
    assert sums["e.zip!/notes/n.md"] == hashlib.sha256(b"# Notes").hexdigest()


def test_again_and_file_by_file_give_the_same(tmp_path: Path) -> None:
    source = Source("mess", messy(tmp_path / "mess"))
    first = pl.concat(read([source], []))
    other = shutil.copytree(tmp_path / "mess", tmp_path / "other")
    again = pl.concat(read([Source("mess", other)], []))
    assert first.equals(again)
    singly = [one for path in files(source) for one in documents_of(source, str(path))]
    ids = [one["id"] for one in singly if not isinstance(one, Unread)]
    assert ids == first["id"].to_list() and len(set(ids)) == len(ids)


def test_shards_are_of_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SHARD", 10_000)
    for number in range(50):
        (tmp_path / f"{number:02}.txt").write_text("x" * 1000)
    shards = list(read([Source("s", tmp_path)], []))
    assert [shard.height for shard in shards] == [9] * 5 + [5]
    assert pl.concat(shards)["path"].is_sorted()


def test_several_sources_keep_their_names_and_settings(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,title\nlong text,short\n")
    sources = [
        Source("one", tmp_path),
        Source("two", tmp_path, text="title", licence="CC0-1.0"),
        Source("three", tmp_path, files=("*.md",)),
    ]
    [shard] = read(sources, [])
    assert shard.select("source", "text", "licence").rows() == [
        ("one", "long text", None),
        ("two", "short", "CC0-1.0"),
    ]


MIT = "Permission is hereby granted, free of charge, to any person"
APACHE = "Apache License\nVersion 2.0, January 2004"


def test_licences_are_those_that_are_nearest(tmp_path: Path, apart: Apart) -> None:
    (tmp_path / "LICENSE").write_text(MIT)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "a" / "COPYING.txt").write_text(APACHE)
    (tmp_path / "a" / "b" / "x.txt").write_text("text")
    (tmp_path / "c" / "y.py").write_text("# SPDX-License-Identifier: MIT OR 0BSD\n")
    (tmp_path / "c" / "z.py").write_text("x = 1\n")
    files = {"p/x.txt": b"text", "p/LICENSE": MIT.encode(), "x.txt": b"text", "LICENSE": b"none"}
    (tmp_path / "p.tar.gz").write_bytes(gzip.compress(made.tar_bytes(files)))

    def licence(path: str, **settings: str) -> dict[str, str | None]:
        documents, _ = made.both(tmp_path, path, apart, **settings)
        return {row["path"].rpartition("!/")[2]: row["licence"] for row in documents}

    assert licence("a/b/x.txt") == {"a/b/x.txt": "Apache-2.0"}
    assert licence("a/b/x.txt", licence="mine") == {"a/b/x.txt": "mine"}
    assert licence("c/y.py", licence="mine") == {"c/y.py": "MIT OR 0BSD"}
    assert licence("c/z.py") == {"c/z.py": "MIT"}
    within = licence("p.tar.gz")
    assert within["p/x.txt"] == "MIT" and within["x.txt"] == "MIT"


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    Path(os.fsdecode(path)).write_text("text")
    [shard] = read([Source("s", tmp_path)], [])
    assert shard["path"].to_list() == ["caf\ufffd.txt"]


def test_a_file_that_may_not_be_opened_or_has_gone(tmp_path: Path) -> None:
    assert [type(one) for one in documents_of(Source("s", tmp_path), "gone.txt")] == [Unread]
