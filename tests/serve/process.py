"""`bantam serve` in a process of its own, which ends when it reaches for another machine."""

import json
import os
import signal
import subprocess
import sys
import tempfile

import psutil

# The command line in a process that ends at once when it reaches for another machine.
FENCED = """
import os, sys
def watch(event, args):
    host = None
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = str(args[1][0])
    elif event == "socket.getaddrinfo" and args[0] is not None:
        host = args[0].decode() if isinstance(args[0], bytes) else str(args[0])
    if host is not None and host not in ("", "::1", "localhost") and not host.startswith("127."):
        print(f"reached for {host}", file=sys.stderr, flush=True)
        os._exit(99)
sys.addaudithook(watch)
from bantam.cli import main
main()
"""


class Process:
    """A server that runs."""

    def __init__(self, *args: object) -> None:
        command = [sys.executable, "-c", FENCED, "serve", *map(str, args), "--port", "0", "--json"]
        env = os.environ | {"BANTAM_KEYS": ""}
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=env,
            start_new_session=True,
        )
        assert self.process.stdout
        told = ""
        while not told.endswith("}\n"):
            line = self.process.stdout.readline()
            assert line, self.said()
            told += line
        self.told = json.loads(told)
        self.port = int(self.told["address"].rpartition(":")[2])
        self.engines = psutil.Process(self.process.pid).children(recursive=True)
        assert self.engines

    def end(self, signals: int = signal.SIGTERM) -> tuple[int, str]:
        """Its exit status and its log; all its processes are gone then."""
        if self.process.poll() is None:
            self.process.send_signal(signals)
        self.process.communicate(timeout=40)
        _, alive = psutil.wait_procs(self.engines, timeout=5)
        assert not alive
        return self.process.returncode, self.said()

    def said(self) -> str:
        """Its log so far."""
        self.log.seek(0)
        return self.log.read()
