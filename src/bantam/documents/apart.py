"""Reading in a child process: a file that hangs, crashes or fills the memory costs only itself.

Parsers of PDF, web pages and office files are large, and their files may come from anybody. The
child gets a file's bytes or its path and answers with lines of JSON, so that nothing which comes
back is more than data.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

import psutil

from bantam.documents.parts import Fault, Part, Unreadable, Wanted

SECONDS = 120.0  # of processor time for a file; 2,400 pages of PDF take 3
WALL = 5  # times as long by the clock, for a machine that is busy with other work
BYTES = 2 << 30  # of memory; a PDF of 2,400 pages takes 0.2 GB
LARGEST = 512 << 20  # of a file: these formats are read whole
LOOK = 0.2  # seconds between two looks at the child
STREAMED = ("parquet",)


class Apart:
    """A child process that reads; started when it is first needed, and anew when it has died."""

    def __init__(self, *, seconds: float = SECONDS, memory: int = BYTES) -> None:
        self._seconds = seconds
        self._memory = memory
        self._child: _Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child at once."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def parts(
        self, form: str, file: IO[bytes], path: Path | None, wanted: Wanted
    ) -> Iterator[Part | Fault]:
        """The parts of a file of one of the child's formats, none longer than `parts.SIZE`.

        `file` stands at its beginning; `path` is where it lies on the disk, if it does. Raises
        Unreadable, also when the child dies of the file.
        """
        data = b"" if path else file.read(LARGEST + 1)
        size = path.stat().st_size if path else len(data)
        if size > LARGEST and form not in STREAMED:
            raise Unreadable(f"over {LARGEST >> 20} MB: a file of this kind is read whole")
        asked = {
            "form": form,
            "path": str(path.absolute()) if path else None,
            "size": len(data),
            "wanted": wanted,
        }
        if self._child is None or self._child.dead:
            self.close()
            self._child = _Child(self._seconds, self._memory)
        done = False
        try:
            for answer in self._child.ask(json.dumps(asked).encode() + b"\n" + data):
                match answer:
                    case ["part", str(text), name, licence]:
                        yield Part(text, name, licence)
                    case ["fault", str(name), str(reason)]:
                        yield Fault(name, reason)
                    case ["unreadable", str(reason)]:
                        done = True
                        raise Unreadable(reason)
            done = True
        finally:  # it has died, or who asked went away in the middle of an answer
            if not done:
                self.close()


class _Child:
    """The process, and a thread that kills it when it has worked too long or taken too much."""

    def __init__(self, seconds: float, memory: int) -> None:
        # -P: a json.py in the user's folder is not imported in place of the real one.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bantam.documents.child", str(seconds), str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._seconds = seconds
        self._memory = memory
        self._seen = psutil.Process(self._process.pid)
        self._killed: str | None = None  # why
        self._asked = 0  # files
        self._since: float | None = None  # when it was last waited for; null where it is not
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def ask(self, asked: bytes) -> Iterator[list[str | None]]:
        """Its answers to a request. Raises Unreadable when it dies."""
        self._asked += 1
        with suppress(BrokenPipeError):  # then it is dead, which the reading below finds
            self._since = time.monotonic()
            cast(IO[bytes], self._process.stdin).write(asked)
            cast(IO[bytes], self._process.stdin).flush()
        while line := cast(IO[bytes], self._process.stdout).readline():
            self._since = None
            if not line.endswith(b"\n"):  # it died while it wrote
                break
            answer = json.loads(line)
            yield answer
            if answer[0] in ("done", "unreadable"):
                return
            self._since = time.monotonic()
        code = self._process.wait()
        raise Unreadable(self._killed or f"the program that read it died (code {code})")

    @property
    def dead(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> None:
        self._ended.set()
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                cast(IO[bytes], pipe).close()
        self._process.wait()

    def _used(self) -> float:
        times = self._seen.cpu_times()
        return float(times.user + times.system)

    def _watch(self) -> None:
        asked, before = 0, 0.0  # which file it works at, its processor seconds when it was begun
        while not self._ended.wait(LOOK):
            since = self._since
            if since is None:
                continue
            with suppress(psutil.Error):
                if asked != self._asked:
                    asked, before = self._asked, self._used()
                late = time.monotonic() - since > WALL * self._seconds
                if late or self._used() - before > self._seconds:
                    self._killed = f"reading it took more than {self._seconds:g} s"
                elif self._seen.memory_info().rss > self._memory:
                    self._killed = f"reading it took more than {self._memory >> 20} MB of memory"
            if self._killed:
                self._process.kill()
                return
