"""`bantam serve MODEL+ADAPTER`: how adapters are named, what is refused, and that it serves."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rooms import ask, chat

import job
from bantam.kinds import to_metadata
from bantam.serve import start
from tiny_adapter import adapter
from tiny_job import TASK


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models and adapters, with a plus in some of their paths, and a run that has an adapter."""
    monkeypatch.chdir(tmp_path)
    for name in ("c++", "runs/reviews/adapter", "runs/reviews/pack", "runs/bare/pack"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("tiny.gguf", "a+b.gguf", "c++/tiny.gguf", "runs/reviews/pack/tiny-Q8_0.gguf"):
        os.link(tiny_model, tmp_path / name)
    adapter(tmp_path / "formal.gguf", tiny_model, seed=1)
    os.link(tmp_path / "formal.gguf", tmp_path / "c++/formal.gguf")
    adapter(tmp_path / "runs/reviews/adapter/x.gguf", tiny_model, keys=to_metadata(TASK))
    adapter(tmp_path / "odd.gguf", tiny_model, keys={"general.architecture": "qwen2"})
    (tmp_path / "notes.gguf").write_text("These are notes and no adapter at all.")
    return tmp_path


@pytest.mark.parametrize(
    ("told", "name", "model", "over"),
    [
        ("tiny.gguf", "tiny", "tiny.gguf", None),
        ("tiny.gguf+formal.gguf", "formal", "tiny.gguf", "formal.gguf"),
        ("f=tiny.gguf+formal.gguf", "f", "tiny.gguf", "formal.gguf"),
        ("tiny.gguf+runs/reviews", "tiny", "tiny.gguf", "runs/reviews/adapter/x.gguf"),
        ("tiny.gguf+runs/reviews/adapter", "tiny", "tiny.gguf", "runs/reviews/adapter/x.gguf"),
        ("runs/reviews+formal.gguf", "formal", "runs/reviews/pack/tiny-Q8_0.gguf", "formal.gguf"),
        ("a+b.gguf", "a-b", "a+b.gguf", None),
        ("p=a+b.gguf", "p", "a+b.gguf", None),
        ("c++/tiny.gguf+c++/formal.gguf", "formal", "c++/tiny.gguf", "c++/formal.gguf"),
        ("a+b.gguf+formal.gguf", "formal", "a+b.gguf", "formal.gguf"),
    ],
)
def test_what_is_meant(folder: Path, told: str, name: str, model: str, over: str | None) -> None:
    places, adapters = start._places([told])
    assert places == {name: Path(model)}
    assert adapters == ({name: Path(over)} if over else {})


@pytest.mark.parametrize(
    ("line", "thing", "mend"),
    [
        ("tiny.gguf+none.gguf", "none.gguf is no adapter", "name a .gguf"),
        ("tiny.gguf+", "is no adapter", "name a .gguf"),
        ("tiny.gguf+runs/bare", "bare is no adapter, and no run with one", 'method = "lora"'),
        ("tiny.gguf+tiny.gguf", "tiny.gguf is no LoRA adapter", "convert_lora_to_gguf.py"),
        ("tiny.gguf+notes.gguf", "not a sound GGUF", "again"),
        ("x=tiny.gguf+odd.gguf", "odd.gguf does not fit", "trained over"),
        ("none.gguf+formal.gguf", "none.gguf does not exist", "did you mean"),
        ("formal.gguf+formal.gguf", "formal.gguf is an adapter", "MODEL+formal.gguf"),
        ("formal.gguf", "formal.gguf is an adapter", "bantam serve MODEL+formal.gguf"),
        ("c++/none.gguf", "c++/none.gguf does not exist", "did you mean"),
        ("tiny.gguf tiny.gguf+runs/reviews", "both called tiny", "=tiny.gguf+runs/reviews"),
    ],
)
def test_wrong_use_says_what_to_do_about_adapters(
    folder: Path, bantam: Callable[..., job.Done], line: str, thing: str, mend: str
) -> None:
    done = bantam("serve", *line.split(" "), "--port", 0)
    assert done.code == 2
    assert thing in done.err
    assert mend in done.err
    assert "Traceback" not in done.err


def test_both_are_served_by_one_engine(folder: Path) -> None:
    line = ("serve", "tiny.gguf", "reviews=tiny.gguf+runs/reviews", "--port", 0, "--json")
    with job.start(*line, cwd=folder) as process:
        try:
            assert process.stdout
            told = ""
            while not told.endswith("}\n"):
                read = process.stdout.readline()
                assert read, process.communicate()[1]
                told += read
            address: str = json.loads(told)["address"]
            port = int(address.rpartition(":")[2])
            for name in ("tiny", "reviews"):
                answer: Any = ask(port, "/v1/chat/completions", "POST", chat(name, max_tokens=2))
                assert answer.json["model"] == name
            assert ask(port, "/tasks/reviews", "POST", {"text": "sharp"}).json["label"]
            counted = ask(port, "/metrics").body.decode()
            held = [line for line in counted.splitlines() if "memory_bytes{" in line]
            assert len({line.rpartition(" ")[2] for line in held}) == 1
        finally:
            process.terminate()
            process.communicate(timeout=20)
    assert process.returncode == 0
