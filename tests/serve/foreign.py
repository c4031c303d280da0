"""Other people's programs in an environment of their own, so that they change nothing here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Of the test's own process; and nothing is asked through a proxy.
OWN = ("PYTEST", "VIRTUAL_ENV", "PYTHONPATH")


def environment(folder: Path, *packages: str) -> Path:
    """The folder of the commands of a new environment with these packages; skips the test where
    the package index cannot be reached."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    commands = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = [commands / "python", "-m", "pip", "install", "--quiet", "--retries", "1"]
    done = subprocess.run(
        [*pip, "--only-binary", ":all:", *packages], capture_output=True, text=True, timeout=600
    )
    if "(from versions: none)" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    return commands


def run(command: list[str | Path], folder: Path, timeout: float = 200, **variables: str) -> str:
    """What a command printed in a folder; it must end well."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    kept |= {"NO_PROXY": "*", "no_proxy": "*"} | variables
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        env=kept,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout
