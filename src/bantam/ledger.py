"""What each stage spent: seconds on the wall and of all processors, peak memory, tokens."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from bantam import runs

INTERVAL = 0.2  # seconds between looks at the memory


@dataclass
class Entry:
    """One line of ledger.jsonl; the stage may fill in `tokens` and `predicted_seconds`."""

    stage: str
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    tokens: int | None = None
    predicted_seconds: float | None = None


@contextmanager
def spent(path: Path, stage: str) -> Iterator[Entry]:
    """Measure a stage, this process and its children, and append its line when it succeeds."""
    entry = Entry(stage)
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(entry, over), daemon=True)
    wall, cpu = time.monotonic(), _cpu_seconds()
    watch.start()
    try:
        yield entry
    finally:
        over.set()
        watch.join()
    entry.wall_seconds = round(time.monotonic() - wall, 3)
    entry.cpu_seconds = round(_cpu_seconds() - cpu, 3)
    line = {key: value for key, value in asdict(entry).items() if value is not None}
    before = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if not before.endswith("\n"):  # torn by a sudden end, and so kept away from the new line
        before += "\n" * bool(before)
    runs.write_text(path, before + json.dumps(line) + "\n")


def read(path: Path) -> list[dict[str, object]]:
    """The ledger's lines; the newest of each stage, in the order of the stages."""
    newest: dict[str, dict[str, object]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                newest[entry["stage"]] = entry
            except (ValueError, KeyError, TypeError):  # torn by a sudden end
                continue
    return list(newest.values())


def _cpu_seconds() -> float:
    """Of this process and of children that have ended; the runtimes are closed within a stage."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _watch(entry: Entry, over: threading.Event) -> None:
    me = psutil.Process()
    while True:
        now = 0
        for process in [me, *me.children(recursive=True)]:
            try:
                now += process.memory_info().rss
            except psutil.Error:
                continue
        entry.peak_memory_bytes = max(entry.peak_memory_bytes, now)
        if over.wait(INTERVAL):
            return
