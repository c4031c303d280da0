"""What each stage spent: seconds on the wall and of all processors, peak memory, tokens.

While a stage runs, STAGE.spent.json beside the ledger says what it has taken so far. When it is
interrupted the file stays, and the call that takes the stage up again goes on counting from there.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from bantam import runs

INTERVAL = 0.2  # seconds between looks at the memory
KEPT = 5.0  # seconds that a kill -9 may leave uncounted; less in a stage that has just begun


@dataclass
class Entry:
    """One line of ledger.jsonl; the stage may fill in `tokens` and `predicted_seconds`.

    Seconds are the sum over all calls that the stage took, memory is the most of any.
    """

    stage: str
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    tokens: int | None = None
    predicted_seconds: float | None = None


@contextmanager
def spent(path: Path, stage: str, key: str) -> Iterator[Entry]:
    """Measure a stage, this process and its children, and append its line when it succeeds.

    Interrupted calls with the same `key` before it count too.
    """
    kept = path.with_name(f"{stage}.spent.json")
    entry = Entry(stage, *_earlier(kept, key))
    wall, cpu = time.monotonic() - entry.wall_seconds, _cpu_seconds() - entry.cpu_seconds
    last = entry.wall_seconds

    def count() -> None:
        entry.wall_seconds = round(time.monotonic() - wall, 3)
        entry.cpu_seconds = round(_cpu_seconds() - cpu, 3)

    def look(memory: int) -> None:
        nonlocal last
        entry.peak_memory_bytes = max(entry.peak_memory_bytes, memory)
        now = time.monotonic() - wall
        if now - last >= min(KEPT, now / 4):
            last = now
            count()
            _keep(kept, key, entry)

    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(look, over), daemon=True)
    watch.start()
    try:
        yield entry
    finally:
        over.set()
        watch.join()
        count()
        _keep(kept, key, entry)
    line = {key: value for key, value in asdict(entry).items() if value is not None}
    before = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if not before.endswith("\n"):  # torn by a sudden end, and so kept away from the new line
        before += "\n" * bool(before)
    runs.write_text(path, before + json.dumps(line) + "\n")
    kept.unlink(missing_ok=True)


def _keep(kept: Path, key: str, entry: Entry) -> None:
    with suppress(OSError):  # on a full disk it is the stage that fails, and says so
        runs.write_json(kept, {"key": key} | asdict(entry))


def _earlier(kept: Path, key: str) -> tuple[float, float, int]:
    """Wall and CPU seconds and peak memory of interrupted calls; zeros when there were none."""
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found["key"] == key:
            seconds = float(found["wall_seconds"]), float(found["cpu_seconds"])
            return *seconds, int(found["peak_memory_bytes"])
    except (OSError, ValueError, KeyError, TypeError):  # not there, or torn
        pass
    return 0.0, 0.0, 0


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
    """Of this process and of all its children, those that have ended and those that run."""
    times = os.times()
    seconds = times.user + times.system + times.children_user + times.children_system
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            own = process.cpu_times()
            seconds += own.user + own.system
    return seconds


def _watch(look: Callable[[int], None], over: threading.Event) -> None:
    """Tell `look` the memory of all processes, now and then."""
    me = psutil.Process()
    while True:
        memory = me.memory_info().rss
        for process in me.children(recursive=True):
            with suppress(psutil.Error):
                memory += process.memory_info().rss
        look(memory)
        if over.wait(INTERVAL):
            return
