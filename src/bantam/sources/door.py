"""The door itself: whether it may open, who did not answer, what is being carried through."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from errno import ENOSPC
from pathlib import Path
from shutil import disk_usage

from bantam.errors import BadInput, JobFailed
from bantam.progress import say
from bantam.sources.cache import Entry, size_of

MAX_BYTES = 64 << 30
RETRY = "check the connection and run it again"
ROOM = "free disk space, or set BANTAM_CACHE to a folder with more of it"


class Unreached(JobFailed):
    """The other side did not answer; a copy in the cache may do instead."""


class NotHeld(BadInput):
    """The source would have to be fetched, and the network is forbidden."""


_closed = ContextVar("closed", default=False)


@contextmanager
def closed() -> Iterator[None]:
    """Forbid the network while the block runs, as --offline does for the whole command."""
    before = _closed.set(True)
    try:
        yield
    finally:
        _closed.reset(before)


def failure(what: str, error: Exception) -> JobFailed:
    """Whether this disk or the other side is to blame for an error while fetching."""
    if isinstance(error, OSError) and error.errno == ENOSPC:
        return JobFailed(f"{what}: the disk is full", ROOM)
    return Unreached(f"{what} could not be fetched: {error}", RETRY)


def offline() -> bool:
    """Whether the network is forbidden: BANTAM_OFFLINE (set by --offline) or HF_HUB_OFFLINE."""
    if _closed.get():
        return True
    values = (os.environ.get(name, "") for name in ("BANTAM_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.strip().lower() in ("1", "true", "yes", "on") for value in values)


def reach(name: str, held: Entry | None, fetch: Callable[[], Entry]) -> Entry:
    """`fetch()`, or what is held of it when the network is forbidden or does not answer.

    Raises BadInput when the network is forbidden and nothing is held.
    """
    if offline():
        if held is None:
            raise NotHeld(
                f"{name} is not in the cache and the network is forbidden",
                "run once without --offline (and without BANTAM_OFFLINE and HF_HUB_OFFLINE)",
            )
        return held
    try:
        return fetch()
    except Unreached as error:
        if held is None:
            raise
        say(f"{error.message}\nusing {held.name} from the cache")
        return held


def suggest(wanted: str, names: Iterable[str]) -> str:
    """A mend: the names nearest to the wanted one, or some of them."""
    names = sorted(names)
    near = get_close_matches(wanted, names, n=3, cutoff=0.5)
    some = near or names[:10]
    if not some:
        return "there is none"
    return f"{'did you mean' if near else 'there is'}: {', '.join(some)}"


@contextmanager
def fetching(what: str, host: str, total: int | None, target: Path) -> Iterator[None]:
    """While the block runs, show how much of `total` bytes is in `target`, a file or folder.

    Whoever writes there need not report: the bar looks at the disk.
    Raises JobFailed when `total` is more than the disk has or than we would ever take.
    """
    from rich.console import Console
    from rich.filesize import decimal
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    free = min(disk_usage(target.parent).free, MAX_BYTES)
    if total is not None and total > free:
        raise JobFailed(f"{what} has {decimal(total)}, there is room for {decimal(free)}", ROOM)
    start = time.monotonic()
    say(f"fetching {what} ({decimal(total) if total else 'size unknown'}) from {host}")
    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    done = threading.Event()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=total)

        def look() -> None:
            while not done.wait(0.2):
                bar.update(task, completed=size_of(target))

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
    say(f"fetched {what} in {time.monotonic() - start:.1f} s")
