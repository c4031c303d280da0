"""The recipe that sorts Debian's packages: what its fetch.py makes of an index."""

import csv
import gzip
import hashlib
import importlib.util
import lzma
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.errors import BadInput

SCRIPT = Path(__file__).parents[1] / "recipes/package-section/fetch.py"
INDEX = SCRIPT.parents[1] / "debian_index.py"

PACKAGES = b"""\
Package: zebra-common
Source: zebra (1.2-3)
Version: 1.2-3+b1
Section: misc
Description: shared files of Zebra
Description-md5: 01

Package: zebra
Version: 1.2-3
Section: non-free/games
Depends: libc6,
 Section: not a field
Description: Zebra, a game of stripes
Description-md5: 02
Tag: game::toy
 \t
Package: libyak2
Source: yak
Section: universe/libs
Description: library for shaving (runtime)
Description-md5: 03

Package: libyak-dev
Source: yak
Section: libdevel
Description: library for shaving (headers)
 Everything stands here: \xe9t\xe9.
 .
   * YAK shaves, libyak2.
 The libyak-devel of old.

Package: sectionless
Description: belongs nowhere

Package: wordless
Section: misc

Package: named
Source:
Section: misc
Description: Named

Section: misc
Description: an entry of no package

Package: zebra
Version: 1.1-1
Section: oldlibs
Description: an older version"""

TRANSLATION = b"""\
Package: zebra-common
Description-md5: 01
Description-en: shared files of Zebra
 Not what stands for the source.

Package: zebra
Description-md5: 02
Description-en: Zebra, a game of stripes
 In zebra you paint.
 .
 Zebra needs zebra-common, not zebra++ or zebras.
 ZEBRA!

Package: libyak2
Description-md5: another version
Description-en: something else
 It must not be found.
"""


def load(script: Path = SCRIPT) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_package_section", script)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fetch(tmp_path: Path) -> ModuleType:
    module = load()
    module.TARGET = tmp_path / "data/packages.csv"  # type: ignore[attr-defined]
    return module


@pytest.fixture
def index(tmp_path: Path) -> list[str]:
    (tmp_path / "Packages.xz").write_bytes(lzma.compress(PACKAGES))
    (tmp_path / "Translation-en.gz").write_bytes(gzip.compress(TRANSLATION))
    return [str(tmp_path / "Packages.xz"), str(tmp_path / "Translation-en.gz")]


def written(fetch: ModuleType) -> list[dict[str, str]]:
    with fetch.TARGET.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_a_source_without_its_names(fetch: ModuleType, index: list[str]) -> None:
    fetch.main(index)
    assert written(fetch) == [
        {
            "source": "yak",
            "section": "libdevel",
            "text": "library for shaving (headers)",
            "long": "library for shaving (headers). Everything stands here: \ufffdt\ufffd. "
            "* it shaves, it. The libyak-devel of old.",
        },
        {
            "source": "zebra",
            "section": "games",
            "text": "it, a game of stripes",
            "long": "it, a game of stripes. In it you paint. "
            "it needs it, not zebra++ or zebras. it!",
        },
    ]


def test_the_order_of_files_and_their_packing_do_not_matter(
    fetch: ModuleType, index: list[str], tmp_path: Path
) -> None:
    fetch.main(index)
    first = fetch.TARGET.read_bytes()
    (tmp_path / "Packages").write_bytes(PACKAGES)
    fetch.main([index[1], str(tmp_path / "Packages")])
    assert fetch.TARGET.read_bytes() == first
    assert [path.name for path in fetch.TARGET.parent.iterdir()] == ["packages.csv"]


WORDS = st.text(st.characters(exclude_categories=("Z", "C")), min_size=1)
FIELDS = ["Package", "Source", "Section", "Description-md5"]
ENTRY = st.fixed_dictionaries(
    {"Description": st.lists(WORDS, min_size=1).map("\n ".join)},
    optional=dict.fromkeys(FIELDS, WORDS),
)


@settings(deadline=None)
@given(st.lists(ENTRY, min_size=1), st.data())
def test_what_is_written_as_an_index_is_read_again(
    index: list[dict[str, str]], data: st.DataObject
) -> None:
    paragraphs = []
    for fields in index:
        lines = [f"{name}: {value}" for name, value in {**fields, "Tag": "a,\n b"}.items()]
        paragraphs.append("\n".join(data.draw(st.permutations(lines))))
    assert list(load(INDEX).entries("\n\n".join(paragraphs))) == index


def numbered(fetch: ModuleType, counts: dict[str, int]) -> list[object]:
    return [
        fetch.Row(f"{section}-{number}", section, "a", "a b")
        for section, count in counts.items()
        for number in range(count)
    ]


def test_a_sample_takes_the_same_share_of_each_large_section(fetch: ModuleType) -> None:
    counts = {f"s{number:02}": 1000 - 20 * number for number in range(25)}
    sampled = fetch.sample(numbered(fetch, counts))
    total = sum(sorted(counts.values())[-20:])
    expected = {s: 6000 * count / total for s, count in counts.items() if s < "s20"}
    found = Counter(row.section for row in sampled)
    assert found.keys() == expected.keys()
    assert all(abs(found[section] - expected[section]) <= 0.5 for section in expected)


def test_a_sample_is_the_same_each_time_and_changes_little_with_the_index(
    fetch: ModuleType,
) -> None:
    all_rows = numbered(fetch, {"one": 8000, "two": 4000})
    sampled = set(fetch.sample(all_rows))
    assert set(fetch.sample(all_rows[::-1])) == sampled
    assert len(sampled & set(fetch.sample(all_rows[10:]))) > 5980


def damaged_gzip(folder: Path) -> list[str]:
    (folder / "Packages.gz").write_bytes(gzip.compress(PACKAGES)[:-20])
    return [str(folder / "Packages.gz")]


def damaged_xz(folder: Path) -> list[str]:
    packed = bytearray(lzma.compress(PACKAGES))
    packed[len(packed) // 2] ^= 0xFF
    (folder / "Packages.xz").write_bytes(packed)
    return [str(folder / "Packages.xz")]


def no_packages(folder: Path) -> list[str]:
    (folder / "Packages").write_bytes(TRANSLATION)
    return [str(folder / "Packages")]


def short_descriptions_only(folder: Path) -> list[str]:
    (folder / "Packages").write_bytes(PACKAGES.partition(b"Package: libyak2")[0])
    return [str(folder / "Packages")]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: [str(folder / "nothing")], "cannot read .*nothing"),
        (lambda folder: [str(folder)], "cannot read"),
        (damaged_gzip, "cannot read .*Packages.gz"),
        (damaged_xz, "cannot read .*Packages.xz"),
        (no_packages, "holds no packages"),
        (short_descriptions_only, "lacks the long descriptions"),
    ],
)
def test_bad_files_are_refused(
    fetch: ModuleType, tmp_path: Path, make: Callable[[Path], list[str]], message: str
) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        fetch.main(make(tmp_path))
    assert caught.value.mend
    assert not fetch.TARGET.exists()


@pytest.mark.skipif(not shutil.which("apt-get"), reason="needs apt")
def test_apt_is_asked_for_what_it_has_downloaded(tmp_path: Path) -> None:
    archive, state = tmp_path / "archive", tmp_path / "state"
    archive.mkdir()
    (state / "partial").mkdir(parents=True)
    package = "Package: emu\nVersion: 1\nArchitecture: all\nFilename: emu.deb\nSize: 1\n"
    package += "Section: misc\nDescription: a large bird\n"
    md5 = "Description-md5: 0123456789abcdef0123456789abcdef\n"
    translation = f"Package: emu\n{md5}Description-en: a large bird\n An emu runs.\n"
    release = "Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n"
    for name, content in {"Packages": package + md5, "en": translation}.items():
        (archive / name).write_text(content)
        release += f" {hashlib.sha256(content.encode()).hexdigest()} {len(content)} {name}\n"
    (archive / "Release").write_text(release)
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{archive} ./\n")
    config = tmp_path / "apt.conf"
    config.write_text(f"""
        Dir::Etc::parts "/dev/null"; Dir::Etc::sourceparts "/dev/null";
        Dir::Etc::sourcelist "{tmp_path}/sources.list";
        Dir::State::lists "{state}"; Dir::State::status "/dev/null"; Dir::Cache "{tmp_path}";
        Acquire::Languages {{ "none"; }}; Acquire::GzipIndexes "true"; APT::Sandbox::User "root";
    """)
    script = tmp_path / "recipe/fetch.py"
    script.parent.mkdir()
    shutil.copy(SCRIPT, script)
    shutil.copy(INDEX, tmp_path)
    env = {**os.environ, "APT_CONFIG": str(config)}
    run = partial(subprocess.run, env=env, capture_output=True, text=True)

    done = run([sys.executable, script])
    assert (done.returncode, "holds no packages" in done.stderr) == (2, True), done.stderr
    run(["apt-get", "update"], check=True)
    done = run([sys.executable, script])
    assert (done.returncode, "Acquire::Languages=en" in done.stderr) == (2, True), done.stderr
    run(["apt-get", "-o", "Acquire::Languages=en", "update"], check=True)
    done = run([sys.executable, script])
    assert done.returncode == 0, done.stderr
    assert (script.parent / "data/packages.csv").read_text() == (
        "source,section,text,long\nemu,misc,a large bird,a large bird. An it runs.\n"
    )


def test_without_apt_the_message_says_what_to_do() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT], env={"PATH": "/nowhere"}, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("fetch.py: there is no apt here")
    assert "Packages.xz" in done.stderr
