"""What was fetched, kept once per user: one folder a source, whole or not there at all."""

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shutil import rmtree

import platformdirs

from bantam.errors import BadInput, JobFailed

SCHEMA = 1
PARTIAL = ".partial-"
ABANDONED = 7 * 24 * 3600  # seconds after which a partial download belongs to nobody


@dataclass(frozen=True)
class Entry:
    """One kept source. Its files are under `folder/files`."""

    scheme: str  # pypi, hf, https, or path (an archive opened here)
    project: str  # package, owner/name, address or file name
    version: str  # version, commit, or "" for an address
    variant: str  # "sdist" or the one file that was asked for, else ""
    asked: tuple[str, ...]  # the branches and tags that led to this commit
    origin: str
    fetched: float  # seconds since 1970
    sha256: str  # of the lines "sha256  name" of all files, sorted by name
    size: int  # bytes
    files: dict[str, tuple[int, int, str]]  # name -> bytes, mtime in ns, sha256
    folder: Path

    @property
    def name(self) -> str:
        if self.scheme == "https":
            return self.project
        join = {"pypi": "==", "hf": "@"}.get(self.scheme, " ")
        return f"{self.scheme}:{self.project}{join}{self.version}" + (
            f" ({self.variant})" if self.variant else ""
        )


def cache_folder() -> Path:
    """Where sources are kept: BANTAM_CACHE, or the user's cache folder on this system."""
    chosen = os.environ.get("BANTAM_CACHE")
    base = Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("bantam"))
    return base.absolute() / "sources"


def cached() -> list[Entry]:
    """Everything that is kept, by name."""
    folders = cache_folder().glob("[!.]*")
    return sorted(filter(None, map(_read, folders)), key=lambda entry: entry.name)


def clear(name: str | None) -> int:
    """Remove one source (`pypi:x`: all its versions) or, for None, all; returns bytes freed."""
    entries = cached()
    partial: list[Path] = []
    if name is None:
        partial = list(cache_folder().glob(PARTIAL + "*"))
    else:
        wanted = re.compile(re.escape(_plain(name)) + r"($|==|@| )")
        entries = [entry for entry in entries if wanted.match(_plain(entry.name))]
        if not entries:
            kept = ", ".join(dict.fromkeys(entry.name for entry in cached())) or "nothing"
            raise BadInput(f"{name} is not in the cache", f"name one of: {kept}")
    freed = sum(size_of(folder) for folder in partial)
    for entry in entries:
        size = size_of(entry.folder)
        with suppress(FileNotFoundError):  # another process cleared it first
            partial.append(_set_aside(entry.folder))
            freed += size
    for folder in partial:
        rmtree(folder, ignore_errors=True)
    return freed


def find(scheme: str, project: str, variant: str = "") -> list[Entry]:
    """The undamaged entries of one project, oldest first."""
    same = [e for e in cached() if (e.scheme, e.project, e.variant) == (scheme, project, variant)]
    return sorted(filter(_intact, same), key=lambda entry: entry.fetched)


@contextmanager
def partial_folder() -> Iterator[Path]:
    """A new folder to download into; what is not kept when the block ends is removed."""
    root = cache_folder()
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=root))
    except OSError as error:
        raise JobFailed(
            f"nothing can be kept in {root}: {error.strerror}",
            "set BANTAM_CACHE to a folder that you may write to",
        ) from None
    for old in root.glob(PARTIAL + "*"):
        with suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > ABANDONED:
                rmtree(old, ignore_errors=True)
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


def keep(
    folder: Path,
    scheme: str,
    project: str,
    *,
    version: str = "",
    variant: str = "",
    asked: str = "",
    origin: str,
) -> Entry:
    """Keep `folder/files` for good and return it as an entry.

    When another process kept the same source meanwhile, its copy is used and ours dropped.
    """
    files = {name: _stamp(path) for name, path in _walk(folder / "files")}
    identity = json.dumps([SCHEMA, scheme, project, version, variant])
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{scheme}-{project}-{version}")[:80]
    target = cache_folder() / f"{plain}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    entry = Entry(
        scheme,
        project,
        version,
        variant,
        asked=(asked,) if asked else (),
        origin=origin,
        fetched=time.time(),
        sha256=manifest_sha256({name: sha256 for name, (_, _, sha256) in files.items()}),
        size=sum(size for size, _, _ in files.values()),
        files=files,
        folder=target,
    )
    _write(entry, folder / "source.json")
    for path in (folder, *folder.rglob("*")):
        _sync(path)
    while not ((theirs := _read(target)) and _intact(theirs)):
        # What stands there is damaged, or nothing does.
        with suppress(FileNotFoundError):
            rmtree(_set_aside(target), ignore_errors=True)
        try:
            folder.rename(target)
        except OSError:
            if not target.exists():
                raise
        else:
            _sync(target.parent)
            return entry
    return theirs


def also_asked(entry: Entry, asked: str) -> Entry:
    """Remember that another branch or tag leads to this commit."""
    if asked in entry.asked:
        return entry
    entry = replace(entry, asked=(*entry.asked, asked))
    fresh = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=cache_folder())) / "source.json"
    _write(entry, fresh)
    fresh.replace(entry.folder / "source.json")
    fresh.parent.rmdir()
    return entry


def sha256_of(path: Path) -> tuple[str, int]:
    """The sha256 and bytes of a file, or of a folder: that of its `sha256sum` lines by name."""
    if path.is_file():
        size, _, sha256 = _stamp(path)
        return sha256, size
    stamps = {name: _stamp(file) for name, file in _walk(path)}
    sums = {name: sha256 for name, (_, _, sha256) in stamps.items()}
    return manifest_sha256(sums), sum(size for size, _, _ in stamps.values())


def manifest_sha256(sums: dict[str, str]) -> str:
    lines = (f"{sums[name]}  {name}\n" for name in sorted(sums))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file or of the files in a folder, also while others write there."""
    inside = (Path(root) / name for root, _, names in os.walk(path) for name in names)
    size = 0
    for file in inside if path.is_dir() else [path]:
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


def _read(folder: Path) -> Entry | None:
    try:
        values = json.loads((folder / "source.json").read_bytes())
        if values.pop("schema") != SCHEMA:
            return None
        values["files"] = {name: tuple(stamp) for name, stamp in values["files"].items()}
        values["asked"] = tuple(values["asked"])
        return Entry(**values, folder=folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(entry: Entry, path: Path) -> None:
    values = {"schema": SCHEMA} | asdict(entry)
    del values["folder"]
    path.write_text(json.dumps(values))
    _sync(path)


def _intact(entry: Entry) -> bool:
    """Files with the size and time they were written with are trusted, others are hashed again."""
    for name, (size, mtime, sha256) in entry.files.items():
        path = entry.folder / "files" / name
        try:
            state = path.stat()
        except OSError:
            return False
        if state.st_size != size or (state.st_mtime_ns != mtime and _stamp(path)[2] != sha256):
            return False
    return True


def _stamp(path: Path) -> tuple[int, int, str]:
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        return state.st_size, state.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path


def _set_aside(folder: Path) -> Path:
    """Take an entry out of sight in one step, so that nobody meets it half removed."""
    aside = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=cache_folder()))
    try:
        folder.rename(aside / folder.name)
    except FileNotFoundError:
        aside.rmdir()
        raise
    return aside


def _sync(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return  # only there can a folder be synced
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.partition("#")[0]).lower()
