"""Which files a source names: those of a folder that fit its patterns, always in the same order."""

import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bantam.documents.document import Unread, named
from bantam.errors import BadInput

DEPTH = 100  # folders within folders
# What programs keep beside people's files.
PASSED = {".git", ".hg", ".svn", "__pycache__", "__MACOSX", ".DS_Store", "Thumbs.db"}


@dataclass(frozen=True)
class Source:
    """Files that belong together. `files` are patterns within `folder`: `*` and `?` stay within a
    name, `**` stands for any folders, a folder's name for all below it; those that begin with `!`
    take out what the ones before took in. Of tables `text` names the column that holds text (by
    default `text`, else the one with most text) and `licence_column` that of each row's licence.
    `licence` is that of files which say nothing of their own. Where several folders have one name,
    `called` is what stands before the paths of this one, so that equal paths differ.
    """

    name: str
    folder: Path
    files: tuple[str, ...] = ("**",)
    text: str | None = None
    licence: str | None = None
    licence_column: str | None = None
    called: str = ""


def files(source: Source) -> Iterator[str | Unread]:
    """The files' paths within the source's folder, with `/`, sorted; and what is passed over.

    Links are not followed: what they lead to inside the folder is read by its own name, and nothing
    outside is read. BadInput: no such folder.
    """
    if not source.folder.is_dir():
        raise BadInput(f"{source.folder} is no folder", f"name the folder of source {source.name}")
    if all(_plain_file(source.folder, pattern) for pattern in source.files):
        # The folder, which may be large, is not looked through.
        yield from sorted(set(source.files))
        return
    taken = _patterns(source.files)
    root = os.path.realpath(source.folder)
    waiting = [""]
    while waiting:
        path = waiting.pop()
        folder = path == "" or path.endswith("/")
        if not folder:
            if taken(path):
                yield path
            continue
        try:
            found, passed = _entries(root, path)
        except OSError as error:
            yield Unread(source.name, named(path), f"the folder cannot be opened: {error.strerror}")
            continue
        for inner, reason in passed:
            if taken(inner):
                yield Unread(source.name, named(inner), reason)
        waiting += reversed(found)


def _plain_file(folder: Path, pattern: str) -> bool:
    """Whether a pattern is the name of a file in the folder, and no link."""
    place = folder / pattern
    return not glob.has_magic(pattern) and place.is_file() and not place.is_symlink()


def _entries(root: str, path: str) -> tuple[list[str], list[tuple[str, str]]]:
    """What lies in a folder, sorted, folders with a slash; and what is passed over, and why."""
    found, passed = [], []
    with os.scandir(f"{root}/{path}") as entries:
        for entry in entries:
            inner = path + entry.name
            if entry.name in PASSED:
                continue
            if entry.is_symlink():
                if reason := _link(root, entry.path):
                    passed.append((inner, reason))
            elif entry.is_file(follow_symlinks=False):
                found.append(inner)
            elif not entry.is_dir(follow_symlinks=False):
                passed.append((inner, "neither a file nor a folder"))
            elif inner.count("/") >= DEPTH:
                passed.append((inner, f"more than {DEPTH} folders deep"))
            else:
                found.append(f"{inner}/")
    return sorted(found), sorted(passed)


def _link(root: str, link: str) -> str | None:
    target = os.path.realpath(link)
    if not Path(target).is_relative_to(root):
        return "a link out of the folder is not followed"
    return None if Path(target).exists() else "a link to nothing"


def _patterns(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a path fits patterns; the last one that fits it decides."""
    rules = [(p[:1] != "!", re.compile(_regex(p.removeprefix("!")), re.DOTALL)) for p in patterns]
    rules.reverse()
    return lambda path: next((takes for takes, rule in rules if rule.fullmatch(path)), False)


def _regex(pattern: str) -> str:
    """A pattern as a regular expression for paths with `/`."""
    parts = []
    for name in pattern.split("/"):
        if name == "**":
            parts.append("(?:[^/]+/)*")
        elif name not in ("", "."):
            parts += [*(_sign(sign) for sign in _SIGNS.findall(name)), "/"]
    if parts and parts[-1] == "/":
        parts[-1] = "(?:/.*)?"  # what is named may be a folder
    else:
        parts.append(".*")
    return "".join(parts)


_SIGNS = re.compile(r"\[!?\]?[^]]*\]|.", re.DOTALL)


def _sign(sign: str) -> str:
    if sign == "*":
        return "[^/]*"
    if sign == "?":
        return "[^/]"
    if len(sign) > 1:  # [abc], [!a-z]
        inner = sign[1:-1].replace("\\", r"\\").replace("[", r"\[").replace("^", r"\^")
        return f"[^/{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"
    return re.escape(sign)
