"""Write a sample of Debian's package index, one row a source package, as a CSV file.

    python recipes/package-section/fetch.py [INDEX...]

The index is the one that apt keeps on Debian and Ubuntu. Elsewhere give files of one: Packages and
Translation-en (where the long descriptions stand), plain, .gz or .xz. The descriptions are other
people's, each under its package's licence: use them, do not pass them on.
"""

import csv
import gzip
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from bantam.errors import BadInput

TARGET = Path(__file__).parent / "data/packages.csv"
SECTIONS = 20  # the largest ones
ROWS = 6000  # about as many: the share of each section is rounded
SEED = 0
# Plain `apt-get update` leaves the long descriptions out in containers.
MEND = "run `apt-get -o Acquire::Languages=en update` as root, or give Packages and Translation-en"
UNPACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".xz": lzma.decompress}
FIELD = re.compile(
    r"^(Package|Source|Section|Description|Description-md5|Description-en):[ \t]*"
    r"(.*(?:\n[ \t].*)*)",
    re.MULTILINE,
)
NAME = re.compile(r"\w[\w+.-]*[\w+]|\w")  # as long as it gets: libc++-14, but not its full stop

Entry = dict[str, str]


class Row(NamedTuple):
    """A source package. `text` is its short description, `long` the short and the long one."""

    source: str
    section: str
    text: str
    long: str


def main(files: list[str]) -> None:
    index = map(read, map(Path, files)) if files else ask_apt()
    found = rows(entry for text in index for entry in entries(text))
    if not found:
        raise BadInput("the index holds no packages", MEND)
    if 2 * sum(row.text == row.long for row in found) > len(found):
        raise BadInput("the index lacks the long descriptions", MEND)
    write(sample(found))


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


def entries(text: str) -> Iterator[Entry]:
    """The fields that matter of each entry of an index file (`man deb822`)."""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        yield {name: value.strip() for name, value in FIELD.findall(paragraph)}


def rows(index: Iterable[Entry]) -> list[Row]:
    """One row a source, of the package named like it, else the first by name.

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
    found = []
    for source, built in sorted(packages.items()):
        name = source if source in built else min(built)
        entry = built[name]
        key = name, entry.get("Description-md5", "")
        description = descriptions.get(key, entry.get("Description", ""))
        short, _, rest = nameless(description, {source, *built}).partition("\n")
        rest = " ".join(word for word in rest.split() if word != ".")  # a lone full stop: no line
        section = entry.get("Section", "").rpartition("/")[2]  # non-free/games
        if section and short not in ("", "it"):
            found.append(Row(source, section, short, f"{short}. {rest}" if rest else short))
    return found


def nameless(description: str, names: set[str]) -> str:
    """Without the names of a source's packages: each, as a whole word, becomes "it"."""
    return NAME.sub(lambda word: "it" if word[0].lower() in names else word[0], description)


def sample(found: list[Row]) -> list[Row]:
    """About ROWS rows of the largest sections, each with the same share of its rows.

    Which ones depends on their names and the seed alone, so that a newer index changes few.
    """
    counts = Counter(row.section for row in found)
    largest = sorted(counts, key=lambda section: (-counts[section], section))[:SECTIONS]
    share = min(1, ROWS / sum(counts[section] for section in largest))
    shuffled = sorted(
        found, key=lambda row: hashlib.sha256(f"{SEED} {row.source}".encode()).digest()
    )
    chosen = []
    for section in largest:
        members = [row for row in shuffled if row.section == section]
        chosen += members[: round(share * len(members))]
    return sorted(chosen)


def write(sampled: list[Row]) -> None:
    TARGET.parent.mkdir(exist_ok=True)
    partial = TARGET.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([Row._fields, *sampled])
        file.flush()
        os.fsync(file.fileno())
    partial.replace(TARGET)
    counts = Counter(row.section for row in sampled).most_common()
    sections = ", ".join(f"{count} {section}" for section, count in counts)
    print(f"{TARGET}: {len(sampled)} rows ({sections})")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BadInput as error:
        print(f"fetch.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
