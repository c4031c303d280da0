"""A run folder: stages that are written whole or not at all, and keyed by what they were made from.

A stage works in `NAME.partial/` and becomes `NAME/` by one rename, after every file is on the disk.
`stage.json` in it holds the key, the hash of all inputs and settings, and each file's hash.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bantam.errors import BadInput

FORMAT = 1  # of the run folder; a newer one is refused
MANIFEST = "stage.json"
BEGUN = ".key"  # the key of an unfinished stage


@dataclass(frozen=True)
class Stage:
    """What `stage` found or made."""

    folder: Path
    key: str
    reused: bool


def key_of(*parts: Any) -> str:
    """The hash of plain data: equal data, equal key, on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    # Names of files may hold what is no UTF-8, which Python gives as halves of characters.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stage(
    run: Path, name: str, key: str, build: Callable[[Path], None], *, resumes: bool = False
) -> Stage:
    """The folder of a stage: what stands there if its key is the same, else what `build` makes.

    `build` gets the partial folder. With `resumes` it may find there what an interrupted call with
    the same key left; otherwise it starts empty.
    """
    done, partial, old = run / name, run / f"{name}.partial", run / f"{name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if manifest(done).get("key") == key:
        return Stage(done, key, reused=True)
    if not sound(partial, key):  # it is when a call was killed between the seal and the rename
        sealed = (partial / MANIFEST).exists()  # and altered since
        if not resumes or sealed or _begun(partial) != key:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            write_text(partial / BEGUN, key)
        build(partial)
        seal(partial, key)
    (partial / BEGUN).unlink(missing_ok=True)
    if done.exists():  # out of the way in one go: half of it must not pass for the whole
        done.rename(old)
    partial.rename(done)
    sync(run)
    shutil.rmtree(old, ignore_errors=True)
    return Stage(done, key, reused=False)


def _begun(partial: Path) -> str:
    """The key of the call that began this folder; empty when that is not known."""
    try:
        return (partial / BEGUN).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def seal(folder: Path, key: str) -> None:
    """Hash every file of the folder into its stage.json and put all of it on the disk."""
    (folder / MANIFEST).unlink(missing_ok=True)
    # The key of an unfinished stage stays until the manifest stands: no moment is without both.
    paths = [path for path in sorted(folder.rglob("*")) if path != folder / BEGUN]
    files = {p.relative_to(folder).as_posix(): file_sha256(p) for p in paths if p.is_file()}
    for path in paths:
        sync(path)
    write_json(folder / MANIFEST, {"format": FORMAT, "key": key, "files": files})
    sync(folder)


def sound(folder: Path, key: str) -> bool:
    """Whether the folder was sealed with this key and no file has changed since."""
    found = manifest(folder)
    return found.get("key") == key and all(
        (folder / name).is_file() and file_sha256(folder / name) == digest
        for name, digest in found["files"].items()
    )


def manifest(folder: Path) -> dict[str, Any]:
    """The folder's stage.json; empty when there is none or it is torn."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    match found:
        case {"format": int(written)} if written > FORMAT:
            raise BadInput(
                f"{folder} was written by a newer version of Bantam",
                "install the newest bantam-lm, or make the run in another folder",
            )
        case {"format": int(), "key": str(), "files": dict()}:
            return dict(found)
    return {}


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON as people read it; halves of characters, which texts may hold, are escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent, default=str)
    return text


def write_json(path: Path, data: Any) -> None:
    """Write JSON for people and programs, whole or not at all."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    sync(partial)
    partial.replace(path)


def same_file(path: Path, link: Path) -> None:
    """Another name for a file; a copy where the file system has one name a file (FAT, Android)."""
    try:
        os.link(path, link)
    except OSError:
        shutil.copyfile(path, link)


def sync(path: Path) -> None:
    """Put a file, or a folder's list of names, on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot sync folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone(run: Path) -> Iterator[None]:
    """Hold the run folder for this process; a second `make` on it is refused."""
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("a") as handle:
        if not _lock(handle):
            raise BadInput(
                f"{run}: another bantam is working on this run",
                "wait for it to end, or use another folder with --run",
            )
        yield


def _lock(handle: IO[str]) -> bool:
    """Take the file's lock; the system gives it back when the process dies, however it dies."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
