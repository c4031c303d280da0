"""What the C library keeps for the server's threads."""

import platform
import subprocess
import sys

import pytest

ARENAS = """
import ctypes, sys, threading
from bantam.serve.memory import keep_little
if sys.argv[1] == "little":
    keep_little()
together = threading.Barrier(8)
def hold():
    held = [bytes(100_000) for _ in range(10)]
    together.wait()
threads = [threading.Thread(target=hold) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
lib = ctypes.CDLL(None)
lib.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(lib.fdopen(1, b"w"))
lib.malloc_info(0, out)
lib.fflush(out)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas")
@pytest.mark.parametrize(("how", "most"), [("little", 1), ("as it comes", None)])
def test_threads_share_one_arena(how: str, most: int | None) -> None:
    told = subprocess.run(
        [sys.executable, "-c", ARENAS, how], capture_output=True, text=True, check=True
    )
    arenas = told.stdout.count("<heap nr=")
    assert arenas == most if most else arenas > 1
