"""Write long descriptions of Debian's packages with their one-line synopses, as lines of JSON.

    python recipes/package-synopsis/fetch.py [INDEX...]

`debian_index`, beside this folder, says what the files of an index are; without any it is apt's.
A pair has to be something to write: left out are synopses that name their package (the text calls
it "it") or stand literally in the description, packages that are a part of something else, and
descriptions that many packages share.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bantam.errors import BadInput

sys.path.append(str(Path(__file__).parents[1]))
from debian_index import Package, packages, place, write

TARGET = Path(__file__).parent / "data/synopsis.jsonl"
ROWS = 3000
SHORTEST, LONGEST = 120, 1200  # characters of a text
FEWEST_WORDS = 3  # of a synopsis
SHARED = 3  # descriptions, or synopses, that begin in the same way
BEGINNING = 40  # characters
PART = re.compile(r".*-(dev|devel|doc|docs|dbg|dbgsym|data|common|headers|locale|l10n)")
BOILERPLATE = re.compile(
    r"\b(transitional|dummy|meta-?package|empty package|debug(ging)? symbols"
    r"|this package (contains|provides|includes|installs) (the )?"
    r"(documentation|headers?|source|shared|development|examples?|data)\b)",
    re.IGNORECASE,
)


def main(files: list[str]) -> None:
    found = packages(files)
    lost: Counter[str] = Counter()
    kept = unshared([package for package in found if is_pair(package, lost)], lost)
    chosen = sorted(sorted(kept, key=lambda package: place(package.source))[:ROWS])
    write(TARGET, [{"text": package.long, "synopsis": package.short} for package in chosen])
    print(f"{TARGET}: {len(chosen)} rows of {len(kept)} that fit, of {len(found)} packages")
    for reason, count in lost.most_common():
        print(f"  {count} left out: {reason}")


def is_pair(package: Package, lost: Counter[str]) -> bool:
    reason = unfit(package)
    if reason:
        lost[reason] += 1
    return not reason


def unfit(package: Package) -> str:
    """Why there is nothing to learn from a package, or ""."""
    if PART.fullmatch(package.entry["Package"]):
        return "part of something else, by its name"
    if BOILERPLATE.search(package.text):
        return "part of something else, by its description"
    if not SHORTEST <= len(package.long) <= LONGEST:
        return "description too short or too long"
    if package.named:
        return "synopsis names the package"
    if len(package.short.split()) < FEWEST_WORDS:
        return "synopsis too short"
    if letters(package.short) in letters(package.long):
        return "synopsis stands in the description"
    return ""


def letters(text: str) -> str:
    """A text without what may differ in a quotation."""
    return " ".join(re.findall(r"\w+", text.lower()))


def unshared(found: list[Package], lost: Counter[str]) -> list[Package]:
    """The packages whose descriptions and synopses do not begin like those of several others."""
    counts = Counter(start for package in found for start in starts(package))
    kept = [one for one in found if all(counts[start] < SHARED for start in starts(one))]
    lost["begins like others"] += len(found) - len(kept)
    return kept


def starts(package: Package) -> Iterable[tuple[str, str]]:
    yield "long", package.long[:BEGINNING]
    yield "short", package.short[:BEGINNING]


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BadInput as error:
        print(f"fetch.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
