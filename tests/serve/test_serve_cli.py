"""`bantam serve` as a process of its own: what it says, what it refuses, and how it ends."""

import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from process import FENCED, Process
from rooms import ask, chat

import job
from bantam.model import COMPLETE
from tiny import rewritten

KEY = "some-key-0123456789"

Start = Callable[..., Process]


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[Process] = []

    def begin(*args: object) -> Process:
        made.append(Process(*args))
        return made[-1]

    yield begin
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


class Stream:
    """A long reply as it comes."""

    def __init__(self, port: int, model: str, n: int = 16) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        asked = chat(model, stream=True, n=n, temperature=1.5, logit_bias={"2": -100, "0": -100})
        headers = {"Content-Type": "application/json"}
        self.connection.request("POST", "/v1/chat/completions", json.dumps(asked), headers)
        self.response = self.connection.getresponse()
        assert self.response.status == 200
        assert self.response.readline().startswith(b"data: {")

    def rest(self) -> bytes:
        return self.response.read()


def test_it_says_where_it_is_and_ends_well(tiny_model: Path, start: Start) -> None:
    one = start(tiny_model, f"gpt-4o-mini={tiny_model}")
    assert one.told == {
        "address": f"http://127.0.0.1:{one.port}",
        "models": ["tiny", "gpt-4o-mini"],
    }
    assert ask(one.port, "/ready").status == 200
    told = ask(one.port, "/v1/chat/completions", "POST", chat("gpt-4o-mini", max_tokens=2))
    assert told.json["model"] == "gpt-4o-mini"
    assert ask(one.port, "/v1/models", Host="localhost").status == 200
    code, log = one.end(signal.SIGINT)
    assert code == 0
    assert "POST /v1/chat/completions 200 " in log
    assert "Traceback" not in log
    assert "Hello" not in log


def test_a_connection_that_is_kept_answers_at_once(tiny_model: Path, start: Start) -> None:
    """Not 40 ms later, when the client's system has confirmed the first part of an answer."""
    one = start(tiny_model)
    connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=20)
    asked, took = json.dumps(chat("tiny", max_tokens=1)), []
    for _ in range(30):
        began = time.monotonic()
        connection.request(
            "POST", "/v1/chat/completions", asked, {"Content-Type": "application/json"}
        )
        assert connection.getresponse().read()
        took.append(time.monotonic() - began)
    assert min(took) < 0.035


def test_one_of_two_servers_ends_while_it_writes(tiny_model: Path, start: Start) -> None:
    """The stream comes to its end, nothing new is begun, and the other server knows nothing."""
    one, other = start(tiny_model), start(tiny_model)
    stream, others = Stream(one.port, "tiny", 2), Stream(other.port, "tiny", 1)
    one.process.send_signal(signal.SIGTERM)
    time.sleep(0.15)
    told = ask(one.port, "/v1/models")
    assert told.status == 503
    assert told.headers["connection"] == "close"
    assert stream.rest().endswith(b"data: [DONE]\n\n")
    one.process.wait(20)
    code, log = one.end()
    assert code == 0
    assert "POST /v1/chat/completions 200 " in log
    assert others.rest().endswith(b"data: [DONE]\n\n")
    assert ask(other.port, "/ready").status == 200
    assert other.end()[0] == 0


def test_a_second_signal_ends_at_once(tiny_model: Path, start: Start) -> None:
    one = start(tiny_model)
    stream = Stream(one.port, "tiny", 16)
    one.process.send_signal(signal.SIGTERM)
    time.sleep(0.15)
    assert one.process.poll() is None
    begun = time.monotonic()
    assert one.end()[0] == 128 + signal.SIGTERM
    assert time.monotonic() - begun < 3
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        stream.rest()


def test_no_engine_outlives_a_server_that_is_killed(tiny_model: Path, start: Start) -> None:
    one = start(tiny_model)
    assert one.end(signal.SIGKILL)[0] == -signal.SIGKILL


def test_ctrl_c_in_a_terminal(tiny_model: Path, start: Start) -> None:
    """It goes to the engines too, and these go on until the server ends them."""
    one = start(tiny_model)
    stream = Stream(one.port, "tiny", 4)
    os.killpg(one.process.pid, signal.SIGINT)
    assert stream.rest().endswith(b"data: [DONE]\n\n")
    one.process.wait(20)
    assert one.end()[0] == 0


def test_keys_off_loopback(tiny_model: Path, tmp_path: Path, start: Start) -> None:
    (tmp_path / "keys.txt").write_text(f"{KEY} models=a\n")
    one = start(
        f"a={tiny_model}", f"b={tiny_model}", "--host", "0.0.0.0", "--keys", tmp_path / "keys.txt",
        "--allow-host", "Box.lan", "--allow-origin", "https://App.example.com",
    )  # fmt: skip
    assert ask(one.port, "/v1/models").status == 401
    for host in ("localhost", "127.0.0.1", "box.lan"):
        told = ask(one.port, "/v1/models", Host=host, x_api_key=KEY)
        assert [model["id"] for model in told.json["data"]] == ["a"]
    for host in ("0.0.0.0", "evil.example", socket.gethostname() + ".example"):
        assert ask(one.port, "/v1/models", Host=host, x_api_key=KEY).status == 403
    told = ask(one.port, "/v1/models", x_api_key=KEY, Origin="https://app.example.com")
    assert told.headers["access-control-allow-origin"] == "https://app.example.com"
    code, log = one.end()
    assert code == 0
    assert KEY not in log


def test_memory_context_and_feedback(tiny_model: Path, tmp_path: Path, start: Start) -> None:
    one = start(
        tiny_model, "--context", 64, "--parallel", 1, "--threads", 1, "--memory", "1 GB",
        "--feedback", tmp_path / "said.db",
    )  # fmt: skip
    assert ask(one.port, "/v1/models").json["data"][0]["bantam"]["context"] == 64
    assert ask(one.port, "/feedback").json == {"kept": True, "rows": 0}
    told = ask(one.port, "/v1/chat/completions", "POST", chat("tiny", n=1, max_tokens=1))
    assert told.status == 200
    assert one.end()[0] == 0


WRONG = [
    ("serve", "MODEL", "serve --help"),
    ("serve missing", "missing does not exist", "there is: "),
    ("serve tiny.gguf tiny.gguf", "are both called tiny", "other-name="),
    ("serve a=tiny.gguf a=b.gguf", "are both called a", "other-name="),
    ("serve a\u00e9=tiny.gguf", "is no name for a model", "letters, digits"),
    ("serve =tiny.gguf", "is no name for a model", "letters, digits"),
    ("serve notes.gguf", "not a sound GGUF", "download"),
    ("serve tiny.gguf --host 0.0.0.0", "can be reached from other machines", "--keys FILE"),
    ("serve tiny.gguf --host ::", "can be reached from other machines", "--keys FILE"),
    ("serve tiny.gguf --host 300.1.2.3", "is no address", "127.0.0.1"),
    ("serve tiny.gguf --host 127.0.0.1.evil", "is no address", "127.0.0.1"),
    ("serve tiny.gguf --host 192.0.2.1 --keys good.txt", "192.0.2.1, port", "--port"),
    ("serve tiny.gguf --port 70000", "--port", "65535"),
    ("serve tiny.gguf --port {taken}", "in use", "--port"),
    ("serve tiny.gguf --keys nokeys.txt", "nokeys.txt cannot be read", "one a line"),
    ("serve tiny.gguf --keys bad.txt", "bad.txt, line 1: 1/y is no rate", "60/min"),
    ("serve tiny.gguf --keys other.txt", "is for lost, which is not served", "tiny"),
    ("serve tiny.gguf --allow-host http://a", "is no name", "without a port"),
    ("serve tiny.gguf --allow-origin *", "is no origin", "https://"),
    ("serve tiny.gguf --allow-origin null", "is no origin", "https://"),
    ("serve tiny.gguf --memory much", "--memory much", "4 GB"),
    ("serve tiny.gguf --handover tiny", "None was picked for what is served", "tiny=0.7"),
    ("serve tiny.gguf --handover big", "--handover big is not understood", "MODEL=0.7"),
    ("serve tiny.gguf --handover https://h/v1#m", "None was picked", "#m=0.7, or serve a run"),
    ("serve tiny.gguf --handover https://h/v1#m=0.5", "sent to https://h/v1", "--allow-network"),
    ("serve tiny.gguf --handover http://h/v1#m=0.5 --allow-network", "no endpoint", "https://HOST"),
    ("--offline serve tiny.gguf --handover https://h/v1#m=1 --allow-network", "forbidden", "file"),
    ("serve tiny.gguf --handover big=0.5", "--handover big=0.5", "one of tiny"),
    ("serve tiny.gguf --handover tiny=5", "--handover tiny=5", "confidence"),
    ("serve tiny.gguf --parallel 0", "--parallel", "x<=256"),
    ("serve tiny.gguf --feedback notes.gguf", "notes.gguf", "another"),
    ("--offline serve pypi:no-such-model", "the network is forbidden", "without --offline"),
]


@pytest.mark.parametrize(("line", "thing", "mend"), WRONG, ids=[line for line, _, _ in WRONG])
def test_wrong_use_says_what_to_do(
    line: str,
    thing: str,
    mend: str,
    tiny_model: Path,
    tmp_path: Path,
    bantam: Callable[..., job.Done],
) -> None:
    (tmp_path / "tiny.gguf").symlink_to(tiny_model)
    (tmp_path / "b.gguf").symlink_to(tiny_model)
    (tmp_path / "notes.gguf").write_text("These are notes and no model at all.")
    (tmp_path / "bad.txt").write_text(f"{KEY} rate=1/y")
    (tmp_path / "good.txt").write_text(KEY)
    (tmp_path / "other.txt").write_text(f"{KEY} models=lost")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        own = () if "--port" in line else ("--port", 0)
        done = bantam(*line.format(taken=port).split(" "), *own)
    assert done.code == 2
    assert thing in done.err
    assert mend in done.err
    assert "Traceback" not in done.err
    assert KEY not in done.err


def test_keys_of_the_environment(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, bantam: Callable[..., job.Done]
) -> None:
    monkeypatch.setenv("BANTAM_KEYS", "short")
    done = bantam("serve", tiny_model)
    assert done.code == 2
    assert "the variable BANTAM_KEYS, line 1: the key has fewer than 16 characters" in done.err


def test_a_model_that_cannot_be_loaded_ends_it(tiny_model: Path, tmp_path: Path) -> None:
    content = tiny_model.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(
        content.replace(b"llama.rope.dimension_count", b"llama.rope.dimension_xxxxx").replace(
            b"smollm", b"smolxx"
        )
    )
    done: Any = subprocess.run(
        [sys.executable, "-c", FENCED, "serve", tmp_path / "cut.gguf", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "cut cannot be opened" in done.stderr
    assert "mend: " in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("completes", [False, True])
def test_what_it_says_to_try_is_answered(tiny_model: Path, tmp_path: Path, completes: bool) -> None:
    model = tmp_path / "model.gguf"
    rewritten(model, tiny_model, {COMPLETE: "complete" if completes else None})
    command = [sys.executable, "-c", FENCED, "serve", str(model), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            said = ""
            while "-d '" not in said:
                line = process.stdout.readline()
                assert line
                said += line
            curl = shlex.split(said.partition("try it: ")[2].replace("\\\n", " "))
            port, _, path = curl[1].removeprefix("http://127.0.0.1:").partition("/")
            assert path == ("v1/completions" if completes else "v1/chat/completions")
            body = json.loads(curl[-1]) | {"max_tokens": 2}
            assert ask(int(port), f"/{path}", "POST", body).status == 200
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(40)
