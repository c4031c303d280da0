"""Debian's package index, for the recipes that learn from it.

The index is the one that apt keeps on Debian and Ubuntu. Elsewhere give files of one: Packages and
Translation-en (where the long descriptions stand), plain, .gz or .xz. The descriptions are other
people's, each under its package's licence: use them, do not pass them on.
"""

import gzip
import hashlib
import json
import lzma
import os
import re
import shutil
import subprocess
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bantam.errors import BadInput

SEED = 0
FIELDS = ("Package", "Source", "Section", "Description", "Description-md5", "Description-en")
# Plain `apt-get update` leaves the long descriptions out in containers.
MEND = "run `apt-get -o Acquire::Languages=en update` as root, or give Packages and Translation-en"
UNPACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".xz": lzma.decompress}
NAME = re.compile(r"\w[\w+.-]*[\w+]|\w")  # as long as it gets: libc++-14, but not its full stop

Entry = dict[str, str]


class Package(NamedTuple):
    """The package that stands for a source. Its texts call it "it"."""

    source: str
    section: str
    short: str
    long: str  # the long description, a line
    named: bool  # whether the short description names it
    entry: Entry

    @property
    def text(self) -> str:
        """The short and the long description."""
        return f"{self.short}. {self.long}" if self.long else self.short


def packages(files: list[str], *more: str) -> list[Package]:
    """One package a source; `more` are fields that its entry has besides."""
    index = map(read, map(Path, files)) if files else ask_apt()
    found = list(of_sources(entry for text in index for entry in entries(text, *more)))
    if not found:
        raise BadInput("the index holds no packages", MEND)
    if 2 * sum(not package.long for package in found) > len(found):
        raise BadInput("the index lacks the long descriptions", MEND)
    return found


def ask_apt() -> Iterator[str]:
    """The files of packages and of long descriptions that apt has downloaded."""
    apt, helper = shutil.which("apt-get"), Path("/usr/lib/apt/apt-helper")
    if apt is None or not helper.exists():
        raise BadInput(
            "there is no apt here, which keeps the package index",
            "use Debian or Ubuntu, or a container of it, or give downloaded files: "
            "fetch.py Packages.xz Translation-en.xz",
        )
    # `apt-cache dumpavail` has the short descriptions only, and `apt-cache show` takes minutes.
    form = ["--format", "$(CREATED_BY) $(FILENAME)"]
    for line in output(apt, "-o", "Acquire::Languages=en", "indextargets", *form).splitlines():
        kind, _, file = line.partition(" ")
        if kind in ("Packages", "Translations"):
            yield output(str(helper), "cat-file", file)


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise BadInput(f"{' '.join(command)} failed: {said}", "does `apt-get check` work?")
    return done.stdout.decode("utf-8", "replace")


def read(path: Path) -> str:
    try:
        return UNPACK.get(path.suffix, bytes)(path.read_bytes()).decode("utf-8", "replace")
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise BadInput(f"cannot read {path}: {error}", "download it again") from None


def entries(text: str, *more: str) -> Iterator[Entry]:
    """The fields that matter of each entry of an index file (`man deb822`)."""
    names = "|".join((*FIELDS, *more))
    field = re.compile(rf"^({names}):[ \t]*(.*(?:\n[ \t].*)*)", re.MULTILINE)
    for paragraph in re.split(r"\n[ \t]*\n", text):
        yield {name: value.strip() for name, value in field.findall(paragraph)}


def of_sources(index: Iterable[Entry]) -> Iterator[Package]:
    """For each source the package named like it, else the first by name.

    Of several versions the first that the index names counts. Packages without a section or a
    description are left out.
    """
    descriptions: dict[tuple[str, str], str] = {}
    packages: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
    for entry in index:
        name = entry.get("Package", "")
        if "Description-en" in entry:
            descriptions[name, entry.get("Description-md5", "")] = entry["Description-en"]
        elif name:
            packages[(entry.get("Source") or name).split()[0]].setdefault(name, entry)
    for source, built in sorted(packages.items()):
        name = source if source in built else min(built)
        entry = built[name]
        key = name, entry.get("Description-md5", "")
        description = descriptions.get(key, entry.get("Description", ""))
        short, _, long = nameless(description, {source, *built}).partition("\n")
        long = " ".join(word for word in long.split() if word != ".")  # a lone full stop: no line
        section = entry.get("Section", "").rpartition("/")[2]  # non-free/games
        if section and short not in ("", "it"):
            named = short != description.partition("\n")[0]
            yield Package(source, section, short, long, named, entry)


def nameless(text: str, names: set[str]) -> str:
    """Without the names of a source's packages: each, as a whole word, becomes "it"."""
    return NAME.sub(lambda word: "it" if word[0].lower() in names else word[0], text)


def place(source: str) -> bytes:
    """Where a source stands in a shuffled list, whichever others do: a newer index changes few."""
    return hashlib.sha256(f"{SEED} {source}".encode()).digest()


def write(target: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The rows as lines of JSON."""
    target.parent.mkdir(exist_ok=True)
    partial = target.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)
