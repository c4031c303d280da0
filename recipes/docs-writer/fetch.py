"""Fetch Python's documentation from Debian, and write its pages as files of text.

    python recipes/docs-writer/fetch.py [PACKAGE]

PACKAGE is a package of a documentation, or a .deb file; without it the newest pythonX.Y-doc that
apt knows is downloaded. Nothing is installed. The pages are their sources in reStructuredText, and
are licensed by the Python Software Foundation.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bantam.errors import BadInput, JobFailed

TARGET = Path(__file__).parent / "data"
NAME = re.compile(r"^(python3\.(\d+)-doc)\b", re.MULTILINE)
SOURCES = "usr/share/doc/python3*/html/_sources"


def main(named: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        package = Path(named[0]) if named and named[0].endswith(".deb") else None
        if package is None:
            package = downloaded(named[0] if named else newest(), Path(folder))
        called("dpkg-deb", "--extract", str(package.absolute()), f"{folder}/opened")
        count = write(Path(folder) / "opened")
    print(f"{TARGET}: {count} pages of {package.name}")


def newest() -> str:
    """The name of the newest Python's documentation."""
    found = NAME.findall(called("apt-cache", "search", "--names-only", r"^python3\.[0-9]+-doc$"))
    if not found:
        raise BadInput(
            "apt knows no package with Python's documentation",
            "run `apt-get update`, or name a .deb: python fetch.py python3.11-doc_....deb",
        )
    return max(found, key=lambda one: int(one[1]))[0]


def downloaded(name: str, folder: Path) -> Path:
    called("apt-get", "download", name, inside=folder)
    return next(folder.glob("*.deb"))


def called(*command: str, inside: Path | None = None) -> str:
    """What a command of the system says."""
    try:
        done = subprocess.run(command, cwd=inside, capture_output=True, text=True, timeout=300)
    except FileNotFoundError:
        raise BadInput(
            f"there is no {command[0]} here", "fetch the documentation on a Debian or Ubuntu"
        ) from None
    if done.returncode:
        raise JobFailed(
            f"{' '.join(command[:2])} failed: {done.stderr.strip()[-300:]}",
            "run `apt-get update`, and look whether the network is there",
        )
    return done.stdout


def write(opened: Path) -> int:
    """The pages of an unpacked documentation as TARGET/NAME.txt; how many there are."""
    pages = sorted(opened.glob(f"{SOURCES}/**/*.rst.txt"))
    if not pages:
        raise BadInput("the package holds no sources of pages", "name another one")
    partial = TARGET.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for page in pages:
        within = page.parts[page.parts.index("_sources") + 1 :]
        name = "-".join(within).removesuffix(".rst.txt")
        (partial / f"{name}.txt").write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    shutil.rmtree(TARGET, ignore_errors=True)
    partial.rename(TARGET)
    return len(list(TARGET.iterdir()))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (BadInput, JobFailed) as error:
        print(f"fetch.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
