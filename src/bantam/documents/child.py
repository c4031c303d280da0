"""The child of `apart`: reads one file after the other, and answers with lines of JSON.

A request is a line {"form", "path", "size", "wanted"} and, where there is no path, `size` bytes.
Answers: ["part", text, name, licence], ["fault", name, reason], at the end ["done"] or
["unreadable", reason].
"""

import io
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from bantam.documents.parts import Fault, Wanted, parted, why
from bantam.documents.readers import reader


def answer(request: dict[str, Any], data: IO[bytes], replies: IO[bytes]) -> None:
    """Read one file and write what is in it."""
    end: list[str | None] = ["done"]
    try:
        read = reader(request["form"])
        for part in parted(read(data, request["form"], Wanted(*request["wanted"]))):
            _say(replies, ["fault" if isinstance(part, Fault) else "part", *part])
    except Exception as error:  # parsers fail in many ways on bad files
        end = ["unreadable", why(error)]
    _say(replies, end)


def _say(replies: IO[bytes], line: list[str | None]) -> None:
    replies.write(json.dumps(line).encode() + b"\n")
    replies.flush()


def _bound(seconds: float, memory: int) -> None:
    """Hold this process to what a file may cost, should its parent be gone and watch no more."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        end = int(used.ru_utime + used.ru_stime + 2 * seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (end, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_DATA, (2 * memory, resource.RLIM_INFINITY))


def main() -> None:
    seconds, memory = float(sys.argv[1]), int(sys.argv[2])
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    # What libraries print must not come between the answers.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    while line := requests.readline():
        _bound(seconds, memory)
        request = json.loads(line)
        if request["path"] is None:
            answer(request, io.BytesIO(requests.read(request["size"])), replies)
        else:
            with Path(request["path"]).open("rb") as file:
                answer(request, cast(IO[bytes], file), replies)


if __name__ == "__main__":
    main()
