"""The fenced blocks of a page of documentation, and how its commands are run."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

OWN = ("PYTEST", "VIRTUAL_ENV", "PYTHONPATH")  # variables of the test's process


class Block(NamedTuple):
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """In their order. `sh` and `python` are meant to be run, `console` shows a session."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text("utf-8"), re.S | re.M)
    return [Block(*block) for block in found]


def run(block: Block, folder: Path, *, installed: bool) -> str:
    """Run a block in a folder, as its reader does; returns what it printed.

    `installed`: this Python and its commands are those of the reader, else the system's.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith(OWN)}
    if installed:
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    way = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": ["python", "-c"]}
    done = subprocess.run(
        [*way[block.language], block.text],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        timeout=3600,
    )
    print(done.stdout)
    assert done.returncode == 0, block.text
    return done.stdout
