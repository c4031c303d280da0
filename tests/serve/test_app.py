"""The app as a whole: its document, its errors in each interface's words, its own endpoints."""

import asyncio
import logging
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rooms import Room, ask, chat, room

from bantam.engine import Sampling
from bantam.kinds import classify, to_metadata
from bantam.serve import metrics
from bantam.serve.ask import Refusal
from bantam.serve.guard import Settings
from bantam.serve.shelf import Shelf
from tiny import tiny_llama, tokenizer_metadata


@pytest.fixture(scope="module")
def rooms(tiny_model: Path) -> Iterator[Room]:
    with room({"small": tiny_model, "org/large:1b": tiny_model}) as made:
        yield made


@pytest.fixture(scope="module")
def port(rooms: Room) -> int:
    return rooms.serve()


ENDPOINTS = [
    *("/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"),
    *("/v1/messages", "/v1/messages/count_tokens", "/api/chat", "/api/generate", "/api/tags"),
    *("/api/show", "/api/embed", "/tasks", "/tasks/{name}", "/feedback", "/health", "/ready"),
    "/metrics",
]


def test_the_document_tells_every_endpoint(port: int) -> None:
    told = ask(port, "/openapi.json")
    document = told.json
    assert set(ENDPOINTS) <= document["paths"].keys()
    schemas = document["components"]["schemas"]
    for operations in document["paths"].values():
        for operation in operations.values():
            assert "422" not in operation["responses"]  # nothing is answered so
            assert "default" in operation["responses"]
            if operation is operations.get("post") and "501" not in operation["responses"]:
                assert operation["requestBody"]["content"]
    for name in re.findall(r'"#/components/schemas/([^"]+)"', told.body.decode()):
        assert name in schemas, name
    assert ask(port, "/openapi.json").body == told.body
    for path in ("/docs", "/redoc"):  # they would fetch scripts from elsewhere
        assert ask(port, path).status == 404


def test_nothing_is_fetched_from_elsewhere(port: int) -> None:
    page = ask(port, "/").body.decode()
    files: list[str] = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert len(files) > 2
    for file in files:
        assert re.fullmatch(r"\./|/?page/[a-z-]+\.[a-z]+", file)
        if file == "./":
            continue
        assert ask(port, f"/{file.removeprefix('/')}").status == 200


WRONG = [("nothing", {}), ("no messages", {"model": "small"}), ("a number", chat(7))]  # type: ignore[arg-type]


@pytest.mark.parametrize(("what", "body"), WRONG, ids=[what for what, _ in WRONG])
def test_each_interface_words_its_errors(port: int, what: str, body: object) -> None:
    told = ask(port, "/v1/chat/completions", "POST", body)
    assert told.status == 400
    assert told.json["error"].keys() == {"message", "type", "param", "code"}
    assert told.json["error"]["type"] == "invalid_request_error"
    told = ask(port, "/v1/messages", "POST", body)
    assert told.status == 400
    assert told.json["type"] == "error"
    assert told.json["error"]["type"] == "invalid_request_error"
    told = ask(port, "/api/chat", "POST", body)
    if what != "no messages":  # these ask Ollama to load a model
        assert told.status == 400
        assert isinstance(told.json["error"], str)


def test_what_is_not_there_is_worded_too(port: int) -> None:
    assert ask(port, "/v1/nothing").json["error"]["message"].startswith("there is nothing at")
    assert ask(port, "/v1/messages/nothing").json["error"]["type"] == "not_found_error"
    assert isinstance(ask(port, "/api/nothing").json["error"], str)
    told = ask(port, "/v1/models/nothing", anthropic_version="2023-06-01")
    assert (told.status, told.json["type"]) == (404, "error")
    assert ask(port, "/v1/models/").status == 404  # and no redirection


def test_the_methods_of_a_path_are_told(port: int) -> None:
    for path, allowed in (
        ("/feedback", "GET, POST, DELETE"),
        ("/tasks/small", "POST"),
        ("/api/blobs/sha256:0", "HEAD, POST"),
        ("/health", "GET"),
    ):
        told = ask(port, path, "PUT")
        assert (told.status, told.headers["allow"]) == (405, allowed)


def test_what_was_sent_is_not_repeated(port: int) -> None:
    """A body may be long and secret; a log of errors at the client should not hold it."""
    body = chat("small", temperature="canary-text")
    for path in ("/v1/chat/completions", "/v1/messages", "/api/chat"):
        told = ask(port, path, "POST", body | {"options": {"temperature": "canary-text"}})
        assert told.status == 400
        assert b"canary-text" not in told.body


def test_health_and_readiness(rooms: Room, port: int) -> None:
    assert ask(port, "/health").json == {"status": "ok"}
    assert ask(port, "/ready").json == {"status": "ready"}


def test_a_server_that_ends_sends_new_requests_away(rooms: Room) -> None:
    """Until what is under way has ended, or the time for it is over."""
    port = rooms.serve()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        assert ask(port, "/ready").status == 200
        rooms.servers[-1].handle_exit(signal.SIGTERM, None)
        assert ask(port, "/health").status == 200
        for told in (ask(port, "/ready"), ask(port, "/v1/messages", "POST", chat("small"))):
            assert (told.status, told.headers["retry-after"]) == (503, "5")
            assert told.headers["connection"] == "close"
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 503 ")  # it had a second to end
    rooms.ended(-1)
    with pytest.raises(ConnectionRefusedError):
        ask(port, "/health")


def test_a_server_whose_model_is_broken_is_not_ready(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_model, tmp_path / "model.gguf")
    with room({"model": tmp_path / "model.gguf"}) as made:
        (tmp_path / "model.gguf").write_bytes(b"no model")
        port = made.serve()
        told = ask(port, "/ready")
        assert told.status == 503
        assert str(tmp_path) not in told.body.decode()
        assert ask(port, "/health").status == 200


def counted(port: int) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    told = ask(port, "/metrics")
    assert told.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(told.body.decode())
        for sample in family.samples
    }


def test_what_is_counted(port: int) -> None:
    before = counted(port)
    for _ in range(3):
        ask(port, "/v1/chat/completions", "POST", chat("small", max_tokens=4))
    ask(port, "/v1/chat/completions", "POST", chat("nothing"))
    after = counted(port)

    def more(*key: str) -> float:
        return after.get(key, 0) - before.get(key, 0)

    assert more("bantam_requests_total", "openai", "200") == 3
    assert more("bantam_requests_total", "openai", "404") == 1
    assert more("bantam_request_seconds_count", "openai") == 4
    assert more("bantam_prompt_tokens_total", "small") > 3
    assert 3 <= more("bantam_written_tokens_total", "small") <= 12
    assert more("bantam_cached_prompt_tokens_total", "small") > 0
    assert more("bantam_first_token_seconds_count", "small") == 3
    assert more("bantam_answer_seconds_count", "small") == 3
    assert after["bantam_model_loaded", "small"] == 1
    assert after["bantam_model_memory_bytes", "small"] > 10**6
    assert after["bantam_model_queue", "small"] == 0
    assert after["bantam_requests_running",] == 1  # this one
    assert after["process_resident_memory_bytes",] > 10**7


def test_what_is_counted_has_bounds(port: int) -> None:
    for number in range(2):  # whatever happens once has its series then
        ask(port, f"/canary-{number}")
        ask(port, "/v1/chat/completions", "POST", chat(f"canary-{number}"))
        ask(port, f"/v1/models/canary-{number}")
        ask(port, f"/tasks/canary-{number}")
        ask(port, "/metrics")
    before = counted(port).keys()
    for number in range(30):
        ask(port, f"/canary-{number}")
        ask(port, "/v1/chat/completions", "POST", chat(f"canary-{number}"))
        ask(port, f"/v1/models/canary-{number}")
        ask(port, f"/tasks/canary-{number}")
    assert counted(port).keys() == before
    assert "canary" not in metrics.told([]).decode()


def test_names_with_slashes_are_found(port: int) -> None:
    for name in ("org/large:1b", "org%2Flarge:1b"):
        assert ask(port, f"/v1/models/{name}").json["id"] == "org/large:1b"


def test_requests_are_counted_out_when_their_client_goes(
    rooms: Room, caplog: pytest.LogCaptureFixture
) -> None:
    api = rooms.api(Settings())
    port = rooms.serve(api=api)
    with caplog.at_level(logging.INFO), socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        time.sleep(0.2)
        assert api.state.traffic.running == 1
        client.close()
        time.sleep(0.3)
    assert api.state.traffic.running == 0
    assert "POST /api/chat 499" in caplog.text


def test_what_a_live_model_refuses_is_no_outage(tmp_path: Path) -> None:
    """Its weights are not numbers: it is asked in vain, now and in a second."""
    broken = tiny_llama(tmp_path / "broken.gguf", broken=True)
    task = to_metadata(classify.task("labels", "Is it good?", ["yes", "no"]))
    keys = tokenizer_metadata() | task
    labels = tiny_llama(tmp_path / "labels.gguf", tokenizer=keys, broken=True)
    shape = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": ["a", "b"]}}}
    with room({"chat": broken, "labels": labels}) as made:
        port = made.serve()
        for path, body in (
            ("/tasks/labels", {"text": "It is."}),
            ("/v1/chat/completions", chat("labels")),
            ("/v1/chat/completions", chat("chat", response_format=shape)),
        ):
            told = ask(port, path, "POST", body)
            assert told.status == 500
            assert "retry-after" not in told.headers
            assert "its logits are not numbers" in told.json["error"]["message"]
            assert "make it again" in told.json["error"]["message"]
            assert told.json["error"]["code"] == "model_failed"
        assert [state["restarts"] for state in made.shelf.state()] == [0, 0]


def test_what_a_runtime_finds_senseless_is_the_requests_fault(tiny_model: Path) -> None:
    async def test() -> None:
        shelf = Shelf({"chat": tiny_model}, threads=1, parallel=1)
        try:
            async with shelf.lent("chat") as lent:
                with pytest.raises(Refusal, match="penalty") as refused:
                    async for _ in lent.write([5, 6], Sampling(max_tokens=2, repeat_penalty=0.0)):
                        pass
        finally:
            await shelf.close()
        assert (refused.value.status, refused.value.retry_after) == (400, None)

    asyncio.run(test())


SAID = {"model": "cold", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12}


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/v1/chat/completions", SAID, ("choices", 0, "message", "content")),
        ("/v1/completions", {"model": "cold", "prompt": "Hello"}, ("choices", 0, "text")),
        ("/v1/responses", {"model": "cold", "input": "Hello"}, ("output", 0, "content", 0, "text")),
        ("/v1/messages", SAID, ("content",)),  # none, where nothing is said
        ("/api/chat", SAID | {"stream": False}, ("message", "content")),
    ],
)
def test_the_temperature_that_a_file_recommends_is_the_usual_one(
    cold: int, path: str, body: dict[str, Any], where: tuple[Any, ...]
) -> None:
    def said(**how: Any) -> Any:
        asked = {"options": how} if path.startswith("/api") else how
        found = ask(cold, path, "POST", body | asked).json
        for step in where:
            found = found[step]
        return found

    assert said() == said() == said(temperature=0)
    seed = {} if path == "/v1/messages" else {"seed": 1}
    assert said(temperature=1, **seed) != said()


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server with a model whose file recommends temperature 0."""
    keys = tokenizer_metadata() | {"general.sampling.temp": 0.0}
    path = tiny_llama(tmp_path_factory.mktemp("cold") / "cold.gguf", tokenizer=keys)
    with room({"cold": path}) as made:
        yield made.serve()
