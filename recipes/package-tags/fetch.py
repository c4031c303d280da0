"""Write what Debian's people say about programs in tags, one program a line of JSON.

    python recipes/package-tags/fetch.py [INDEX...]

`debian_index`, beside this folder, says what the files of an index are; without any it is apt's.
The tags (debtags) are in the field `Tag` of the index, such as
"interface::commandline, use::searching". A package without tags of a facet may lack them because
nobody gave them, so only programs with most of the facets count.
"""

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bantam.errors import BadInput

sys.path.append(str(Path(__file__).parents[1]))
from debian_index import Package, packages, place, write

TARGET = Path(__file__).parent / "data/tags.jsonl"
ROWS = 3000
ONE = ("scope", "implemented-in", "uitoolkit")  # facets of which a program has one value or none
SEVERAL = ("interface", "use", "works-with")
FACETS = (*SEVERAL, *ONE)
LEAST_FACETS = 4  # of these
RARE = 30  # values that fewer of the chosen programs have are left out
# Tags that tell nothing: somebody should say; each graphical program has it.
IDLE = re.compile(r".*::TODO|interface::x11")
LONGEST = 1500  # characters of a text: about 350 tokens

Fields = dict[str, str | list[str] | None]


class Program(NamedTuple):
    source: str
    text: str
    tags: dict[str, list[str]]  # the sorted values of each facet


def main(files: list[str]) -> None:
    found = programs(packages(files, "Tag"))
    described = [program for program in found if is_described(program)]
    chosen = sorted(sorted(described, key=lambda program: place(program.source))[:ROWS])
    chosen = common(chosen)
    rows = [{"text": program.text, "output": fields(program.tags)} for program in chosen]
    write(TARGET, rows)
    print(f"{len(found)} tagged programs, {len(described)} of them with {LEAST_FACETS} facets")
    print(f"{TARGET}: {len(rows)} rows")
    for facet in FACETS:
        print(f"  {facet}: {told(chosen, facet)}")


def programs(found: Iterable[Package]) -> list[Program]:
    """The packages that are programs, with the tags of the facets that count."""
    made = []
    for package in found:
        tags = tags_of(package.entry.get("Tag", ""))
        if "program" in tags.get("role", []):
            counted = {facet: tags[facet] for facet in FACETS if facet in tags}
            made.append(Program(package.source, package.text, counted))
    return made


def tags_of(field: str) -> dict[str, list[str]]:
    """The sorted values of each facet of a field such as "role::program, use::searching"."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for tag in field.split(","):
        facet, _, value = tag.strip().partition("::")
        if value and not IDLE.fullmatch(tag.strip()):
            found[facet].add(value)
    return {facet: sorted(values) for facet, values in found.items()}


def common(found: list[Program]) -> list[Program]:
    """The programs without the values that few of them have."""
    counts = Counter(
        (facet, value) for one in found for facet, values in one.tags.items() for value in values
    )
    kept = []
    for one in found:
        tags = {
            facet: [value for value in values if counts[facet, value] >= RARE]
            for facet, values in one.tags.items()
        }
        kept.append(one._replace(tags={facet: values for facet, values in tags.items() if values}))
    return kept


def is_described(program: Program) -> bool:
    """Whether a program has most facets, and one value at most of those that have one."""
    single = all(len(program.tags.get(facet, [])) < 2 for facet in ONE)
    return len(program.tags) >= LEAST_FACETS and single and len(program.text) <= LONGEST


def fields(tags: dict[str, list[str]]) -> Fields:
    several: Fields = {facet: tags.get(facet, []) for facet in SEVERAL}
    return several | {facet: tags[facet][0] if facet in tags else None for facet in ONE}


def told(chosen: list[Program], facet: str) -> str:
    counts = Counter(value for program in chosen for value in program.tags.get(facet, []))
    without = sum(facet not in program.tags for program in chosen)
    values = ", ".join(f"{count} {value}" for value, count in counts.most_common())
    return f"{without} without; {values}"


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BadInput as error:
        print(f"fetch.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
