"""Write a sample of Debian's package index, one row a source package, as a CSV file.

    python recipes/package-section/fetch.py [INDEX...]

`debian_index`, beside this folder, says what the files of an index are; without any it is apt's.
"""

import csv
import os
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from bantam.errors import BadInput

sys.path.append(str(Path(__file__).parents[1]))
from debian_index import packages, place

TARGET = Path(__file__).parent / "data/packages.csv"
SECTIONS = 20  # the largest ones
ROWS = 6000  # about as many: the share of each section is rounded


class Row(NamedTuple):
    """A source package. `text` is its short description, `long` the short and the long one."""

    source: str
    section: str
    text: str
    long: str


def main(files: list[str]) -> None:
    found = packages(files)
    write(sample([Row(one.source, one.section, one.short, one.text) for one in found]))


def sample(found: list[Row]) -> list[Row]:
    """About ROWS rows of the largest sections, each with the same share of its rows.

    Which ones depends on their names and the seed alone, so that a newer index changes few.
    """
    counts = Counter(row.section for row in found)
    largest = sorted(counts, key=lambda section: (-counts[section], section))[:SECTIONS]
    share = min(1, ROWS / sum(counts[section] for section in largest))
    shuffled = sorted(found, key=lambda row: place(row.source))
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
