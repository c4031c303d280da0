"""Under which licence a source is: what its own files say, never a guess."""

import os
import re
from email.parser import HeaderParser
from pathlib import Path
from typing import TypedDict

# What a licence's text says of itself, and what we call it.
TEXTS = {
    r"gemma terms of use": "Gemma Terms of Use",
    r"llama (\d[\d.]*) community licen[cs]e": r"Llama \1 Community License",
    r"apache license\s+version 2\.0": "Apache-2.0",
    r"gnu affero general public license": "AGPL",
    r"gnu lesser general public license": "LGPL",
    r"gnu general public license": "GPL",
    r"mozilla public license,? version 2\.0": "MPL-2.0",
    r"cc0 1\.0 universal": "CC0-1.0",
    r"permission is hereby granted, free of charge": "MIT",
    r"redistribution and use in source and binary forms": "BSD",
}
# Use under these is bound to terms that whoever gets the model must be shown.
TERMS = re.compile(r"gemma|llama ?-?\d|rail\b|\bnc\b|non-?commercial|\bother\b|research", re.I)
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|\w*terms(_of_use)?)(\.(md|txt|rst|html))?", re.I)
DEPTH = 3  # folders below the root that are looked at
MOST = 200_000  # characters read of a file


class Licence(TypedDict):
    name: str | None
    text_file: str | None
    notice: str | None


def licence_in(root: Path) -> Licence:
    """What the files in a folder state; terms of use go before the packager's own licence."""
    files = _files(root)
    texts = [file for file in files if LICENCE_FILE.fullmatch(file.name)]
    notices = [file for file in files if file.stem.upper() == "NOTICE"]
    named = {file: named_in(_read(file)) for file in texts + notices}
    binding = [file for file in named if bound(named[file])]
    stated = next(filter(None, map(_stated, files)), None)
    text = next(iter(binding + texts), None)
    name = named[binding[0]] if binding else stated or (named[text] if text else None)
    return {
        "name": name,
        "text_file": str(text) if text else None,
        "notice": "\n\n".join(_read(file).strip() for file in notices) or None,
    }


def bound(name: str | None) -> bool:
    """Whether use under a licence of this name is bound to terms that must be shown."""
    return bool(name and TERMS.search(name))


def told(name: str | None) -> str:
    """The name with what must be known of it."""
    return f"{name or 'not stated'}{' (use is bound to its terms)' * bound(name)}"


def _files(root: Path) -> list[Path]:
    """The files of a folder, the upper ones first."""
    found = []
    for folder, folders, names in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        if depth >= DEPTH:
            folders.clear()
        found += [(depth, Path(folder) / name) for name in names]
    return [file for _, file in sorted(found)]


def _stated(file: Path) -> str | None:
    """What package metadata or a model card says the licence is."""
    if file.name in ("METADATA", "PKG-INFO"):
        headers = HeaderParser().parsestr(_read(file))
        said = headers["License-Expression"] or headers["License"] or ""
        classifiers = headers.get_all("Classifier", [])
        listed = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License ::")]
        if 0 < len(said) <= 60 and said.upper() != "UNKNOWN":
            return str(said).strip()
        return named_in(said) or (", ".join(listed) or None)
    if file.name.startswith("README") and (card := re.match(r"---\n(.*?)\n---", _read(file), re.S)):
        for key in ("license_name", "license"):
            if said := re.search(rf"^{key}:[ \t]*['\"]?([\w .+-]+?)['\"]?[ \t]*$", card[1], re.M):
                return said[1]
    return None


def named_in(text: str) -> str | None:
    """The licence that a text names first; they also name one another."""
    matches = [(re.search(pattern, text, re.I), name) for pattern, name in TEXTS.items()]
    found = [(match.start(), match.expand(name)) for match, name in matches if match]
    return min(found)[1] if found else None


def _read(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as open_file:
            return open_file.read(MOST)
    except OSError:
        return ""
