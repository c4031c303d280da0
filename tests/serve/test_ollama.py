"""Ollama's interface, as its official Python client speaks to it, with real models behind it."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pytest
from pydantic import BaseModel
from served import served
from shelved import LABELS, models

from bantam.serve import ollama as ours
from bantam.serve import wire
from bantam.serve.ask import Begun, Call, Event, Message, Refusal, Text
from bantam.serve.lent import Book
from bantam.serve.ollama_request import Chat, Written, chat, sampling, unloads
from bantam.serve.shelf import Shelf

ollama = pytest.importorskip("ollama")  # the client is not needed for anything else

HELLO: list[Any] = [{"role": "user", "content": "What does this camera feel?"}]
COLD = {"temperature": 0, "num_predict": 8}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "mend",
        "description": "Mend it.",
        "parameters": {
            "type": "object",
            "properties": {"thing": {"type": "string", "enum": ["camera", "phone"]}},
            "required": ["thing"],
        },
    },
}


class Form(BaseModel):
    thing: Literal["camera", "phone"]
    count: int


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Shelf:
    return Shelf(models(tmp_path_factory.mktemp("models"), tiny_model), threads=1, parallel=2)


@pytest.fixture(scope="module")
def address(shelf: Shelf) -> Iterator[str]:
    with served(shelf) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str) -> Any:
    return ollama.Client(address, timeout=60)


@pytest.fixture(scope="module")
def web(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as web:
        yield web


def lines(web: httpx.Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    told = web.post(path, json=body)
    assert told.status_code == 200, told.text
    assert told.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in told.text.split("\n")[:-1]]


# Replies


def test_a_message_is_the_same_whole_and_in_lines(client: Any) -> None:
    whole = client.chat("chat", HELLO, options=COLD)
    assert whole.message.role == "assistant"
    assert whole.message.content
    assert whole.done_reason == "length"
    pieces = list(client.chat("chat", HELLO, options=COLD, stream=True))
    assert len(pieces) > 2
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    assert pieces[-1].message.content == ""
    assert pieces[-1].eval_count == whole.eval_count == 8


def test_lines_are_what_comes_when_nothing_is_said(web: httpx.Client) -> None:
    told = lines(web, "/api/chat", {"model": "chat", "messages": HELLO, "options": COLD})
    assert told[0]["message"]["role"] == "assistant"
    assert told[-1]["done"] is True
    told = lines(web, "/api/generate", {"model": "chat", "prompt": "Hi", "options": COLD})
    assert "message" not in told[0]
    assert told[-1]["response"] == ""


def test_the_last_object_tells_what_it_took(client: Any) -> None:
    begun = time.perf_counter_ns()
    told = client.generate("chat", "Hi", options=COLD)
    took = time.perf_counter_ns() - begun
    parts = [told.load_duration, told.prompt_eval_duration, told.eval_duration]
    assert all(isinstance(part, int) and part >= 0 for part in parts)
    assert sum(part or 0 for part in parts) == told.total_duration
    assert 0 < (told.total_duration or 0) < took
    assert (told.prompt_eval_count or 0) > 0


def test_a_text_is_a_conversation_of_one_turn(client: Any) -> None:
    text = client.generate("chat", HELLO[0]["content"], system="Be brief.", options=COLD)
    turns = [{"role": "system", "content": "Be brief."}, *HELLO]
    talk = client.chat("chat", turns, options=COLD)
    assert text.response == talk.message.content
    assert text.prompt_eval_count == talk.prompt_eval_count


def test_raw_is_without_a_template(client: Any) -> None:
    raw = client.generate("chat", "Hi", raw=True, options=COLD)
    plain = client.generate("chat", "Hi", options=COLD)
    assert raw.response
    assert (raw.prompt_eval_count or 0) < (plain.prompt_eval_count or 0)


def test_options_are_honoured(client: Any) -> None:
    def told(**options: Any) -> str:
        return client.generate("chat", "Hi", options={"num_predict": 12} | options).response or ""

    cold = told(temperature=0)
    assert told(temperature=5, top_k=1, seed=1) == cold
    assert told(temperature=5, top_p=1e-9, seed=1) == cold
    assert told(temperature=5, top_p=1, min_p=1, seed=1) == cold
    assert told(temperature=2, seed=1) == told(temperature=2, seed=1)
    assert len({told(temperature=2, seed=seed) for seed in range(4)}) > 1
    assert len({told(temperature=2, seed=-1) for _ in range(4)}) > 1
    free = told(temperature=0, repeat_penalty=1)
    assert told(temperature=0, repeat_penalty=10) != free
    stop = cold[3:5]
    assert told(temperature=0, stop=["never said", stop]) == cold[: cold.index(stop)]


BOOK = Book("x", Path("x.gguf"), 0, 0, None, 512, 0, "", None)


def test_options_left_out_are_ollamas() -> None:
    left_out = sampling(Written(model="x"), BOOK)
    assert (left_out.temperature, left_out.top_k, left_out.top_p) == (0.8, 40, 0.9)
    assert (left_out.repeat_penalty, left_out.max_tokens, left_out.seed) == (1.1, None, None)
    for most in (-1, -2, 0):
        body = Written.model_validate({"model": "x", "options": {"num_predict": most}})
        assert sampling(body, BOOK).max_tokens is None


def test_penalties_are_passed_on() -> None:
    told = {"repeat_penalty": 1.5, "presence_penalty": 0.5, "frequency_penalty": -0.5}
    found = sampling(Written.model_validate({"model": "x", "options": told}), BOOK)
    assert {name: getattr(found, name) for name in told} == told


def test_options_of_memory_and_speed_change_nothing(client: Any) -> None:
    plain = client.generate("chat", "Hi", options=COLD).response
    idle: dict[str, Any] = {"num_ctx": 4096, "num_thread": 2, "num_gpu": 1, "use_mmap": True}
    off = {"mirostat": 0, "tfs_z": 1, "typical_p": 1, "repeat_last_n": 64, "num_keep": 4}
    told = client.generate("chat", "Hi", options=COLD | idle | off, keep_alive="5m", think=False)
    assert told.response == plain


def test_log_probabilities_are_told(web: httpx.Client) -> None:
    body = {"model": "chat", "messages": HELLO, "options": COLD | {"repeat_penalty": 1}}
    body |= {"stream": False, "logprobs": True, "top_logprobs": 3}
    told = web.post("/api/chat", json=body).json()
    assert len(told["logprobs"]) == told["eval_count"]
    for token in told["logprobs"]:
        assert token["logprob"] <= 0
        assert len(token["top_logprobs"]) == 3
        assert token["logprob"] == max(one["logprob"] for one in token["top_logprobs"])


def test_json_is_held_to_its_form(client: Any) -> None:
    few = {"num_predict": 3}
    told = client.chat("chat", HELLO, format=Form.model_json_schema(), options=few)
    assert Form.model_validate_json(told.message.content or "")
    assert told.done_reason == "length"
    assert isinstance(
        json.loads(client.generate("chat", "Hi", format="json", options=few).response or ""), dict
    )


def test_calls_and_their_results_are_told_to_the_model() -> None:
    called = [
        {"function": {"name": "look", "arguments": {"at": "é"}}},
        {"id": "mine", "function": {"name": "see", "arguments": {}}},
    ]
    body = Chat.model_validate(
        {
            "model": "x",
            "tools": [TOOL],
            "messages": [
                {"role": "assistant", "content": None, "tool_calls": called},
                {"role": "tool", "content": "Blue.", "tool_name": "see"},
                {"role": "tool", "content": "Dark."},
                {"role": "user", "content": "And?"},
            ],
        }
    )
    found = chat(body, replace(BOOK, name="own"))
    assert found.model == "own"
    assert found.tools.declared == (TOOL,)
    assert found.messages == (
        Message(
            "assistant", "", (Call("call_0.0", "look", '{"at": "é"}'), Call("mine", "see", "{}"))
        ),
        Message("tool", "Blue.", call_id="mine", name="see"),
        Message("tool", "Dark.", call_id="call_0.0", name="look"),
        Message("user", "And?"),
    )


def test_a_model_of_calls_calls(client: Any) -> None:
    for stream in (False, True):
        told = client.chat("calls", HELLO, tools=[TOOL], stream=stream)
        found = [told] if not stream else list(told)
        calls = [call for one in found for call in one.message.tool_calls or ()]
        assert len(calls) <= 2
        for call in calls:
            assert call.function.name == "mend"
            assert call.function.arguments["thing"] in ("camera", "phone")
        assert found[-1].done


def test_a_task_answers_and_says_how_sure_it_is(web: httpx.Client) -> None:
    body = {"model": "labels", "messages": HELLO, "stream": False}
    told = web.post("/api/chat", json=body).json()
    assert told["message"]["content"] in LABELS
    assert told["bantam"]["confidence"] == max(told["bantam"]["probabilities"].values())
    assert lines(web, "/api/chat", body | {"stream": True})[-1]["bantam"]["sure"] is True


def test_a_client_that_goes_frees_the_model(client: Any, shelf: Shelf) -> None:
    told = client.generate("chat", "Hi", stream=True, options={"num_predict": 400})
    next(told)
    told.close()
    end = time.monotonic() + 1
    while shelf.state()[0]["in_flight"]:
        assert time.monotonic() < end
        time.sleep(0.01)


# Vectors and models


def test_texts_are_made_vectors_of(client: Any) -> None:
    both = client.embed("chat", ["sharp", "broke"])
    one = client.embed("chat", "sharp")
    assert np.linalg.norm(both.embeddings, axis=1) == pytest.approx([1, 1])
    assert one.embeddings[0] == pytest.approx(both.embeddings[0], abs=1e-4)
    assert (both.prompt_eval_count or 0) > (one.prompt_eval_count or 0) > 0
    short = client.embed("chat", "sharp", dimensions=4).embeddings[0]
    part = np.array(one.embeddings[0][:4])
    assert short == pytest.approx(list(part / np.linalg.norm(part)), abs=1e-4)
    assert client.embeddings("chat", "sharp").embedding == pytest.approx(
        one.embeddings[0], abs=1e-4
    )
    assert client.embed("chat", []).embeddings == []
    assert client.embeddings("chat", "").embedding == []


def test_models_are_listed_shown_and_seen_running(client: Any, shelf: Shelf) -> None:
    listed = client.list().models
    assert [model.model for model in listed] == [f"{book.name}:latest" for book in shelf.books()]
    assert listed[0].size == shelf.book("chat").bytes
    assert listed[0].details is not None
    assert (listed[0].details.family, listed[0].details.quantization_level) == ("llama", "F32")
    shown = client.show("chat")
    assert shown.capabilities == ["completion", "tools"]
    assert client.show("labels").capabilities == ["completion"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["llama.context_length"] == 512
    assert shown.modelinfo["general.parameter_count"] == shelf.book("chat").parameters
    assert not any(isinstance(value, list) for value in shown.modelinfo.values())
    assert str(shelf.book("chat").path.parent) not in str(shown)
    client.generate("chat", "Hi", options=COLD)
    running = {model.model: model for model in client.ps().models}
    assert running["chat:latest"].context_length == 512


def test_a_name_may_have_ollamas_tag(client: Any, web: httpx.Client) -> None:
    told = client.chat("chat:latest", HELLO, options=COLD)
    assert told.model == "chat:latest"
    assert told.message == client.chat("chat", HELLO, options=COLD).message
    assert web.post("/api/show", json={"name": "chat:latest"}).status_code == 200
    for name in ("chat:other", "", "../chat"):
        assert web.post("/api/show", json={"model": name}).status_code == 404


def test_the_version_is_told(web: httpx.Client) -> None:
    assert web.get("/api/version").json() == {"version": ours.VERSION}


def test_a_request_without_a_text_opens_the_model(client: Any) -> None:
    assert client.chat("chat", []).done_reason == "load"
    assert client.generate("labels").done_reason == "load"
    assert "labels:latest" in [model.model for model in client.ps().models]
    with pytest.raises(ollama.ResponseError, match="keep_alive") as refused:
        client.generate("chat", keep_alive=0)
    assert refused.value.status_code == 501


@pytest.mark.parametrize(
    ("told", "away"),
    [
        (0, True),
        ("0", True),
        ("0s", True),
        (0.0, True),
        (None, False),
        ("5m", False),
        (-1, False),
        (10, False),
    ],
)
def test_when_a_model_is_to_be_put_away(told: Any, away: bool) -> None:
    assert unloads(Written(model="x", keep_alive=told)) is away


# What is refused, and odd clients


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        (
            "chat",
            {"messages": [{"role": "user", "content": "x", "images": ["eA=="]}]},
            "messages.0.images: ",
        ),
        ("chat", {"messages": [{"role": "developer", "content": "x"}]}, "messages.0.role: "),
        ("chat", {"format": "xml"}, "format: "),
        ("chat", {"format": {"$ref": "http://x"}}, "$ref"),
        ("chat", {"think": True}, "think: "),
        ("chat", {"think": "high"}, "think: "),
        ("chat", {"logprobs": True, "top_logprobs": 21}, "top_logprobs: "),
        ("chat", {"tools": [{"type": "function"}]}, "tools"),
        ("generate", {"images": ["eA=="]}, "images: "),
        ("generate", {"template": "x"}, "template: "),
        ("generate", {"suffix": "x"}, "suffix: "),
        ("generate", {"context": [1]}, "context: "),
        ("generate", {"raw": True, "system": "x"}, "system: "),
        ("generate", {"raw": True, "format": "json"}, "format: "),
        ("generate", {"options": {"mirostat": 1}}, "options.mirostat: "),
        ("generate", {"options": {"repeat_penalty": 1e-320}}, "options.repeat_penalty: "),
        ("generate", {"options": {"tfs_z": 0.5}}, "options.tfs_z: "),
        ("generate", {"options": {"typical_p": 0.5}}, "options.typical_p: "),
        ("generate", {"options": {"repeat_last_n": 8}}, "options.repeat_last_n: "),
        ("generate", {"options": {"temperature": -1}}, "options.temperature: "),
        ("generate", {"options": {"stop": "x"}}, "options.stop: "),
        ("generate", {"prompt": "the battery lasts all day " * 300}, "the prompt has "),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    web: httpx.Client, path: str, change: dict[str, Any], said: str
) -> None:
    usual: dict[str, Any] = {"prompt": "Hi"} if path == "generate" else {"messages": HELLO}
    for stream in (False, True):
        body = {"model": "chat", "stream": stream} | usual | change
        told = web.post(f"/api/{path}", json=body)
        assert told.status_code == 400, told.text
        assert set(told.json()) == {"error"}
        assert said in told.json()["error"]


def test_what_is_too_long_for_a_vector_is_refused_not_cut(client: Any) -> None:
    for cut in (None, True, False):
        with pytest.raises(ollama.ResponseError, match=r"the prompt has \d+ tokens"):
            client.embed("chat", "the battery lasts all day " * 300, truncate=cut)


def test_models_are_not_changed_over_the_network(client: Any, web: httpx.Client) -> None:
    for act in (
        lambda: client.pull("chat"),
        lambda: list(client.pull("chat", stream=True)),
        lambda: client.push("chat"),
        lambda: client.create("new", from_="chat"),
        lambda: client.copy("chat", "new"),
        lambda: client.delete("chat"),
    ):
        with pytest.raises(ollama.ResponseError, match="command line") as refused:
            act()
        assert refused.value.status_code == 501
    blob = f"/api/blobs/sha256:{'0' * 64}"
    assert web.post(blob, content=b"x").status_code == web.head(blob).status_code == 501


def test_a_body_is_json_whatever_it_is_said_to_be(web: httpx.Client) -> None:
    body = json.dumps({"model": "chat", "prompt": "Hi", "options": COLD}).encode()
    for type in ("application/x-www-form-urlencoded", "text/plain", "application/json"):
        told = web.post("/api/generate", content=body, headers={"content-type": type})
        assert told.status_code == 200, type
    assert web.post("/api/generate", content=body).status_code == 200  # nothing said
    for bad in (b"", b"{", b"[1]", b"\xff", b"[" * 100_000):
        told = web.post("/api/generate", content=bad)
        assert told.status_code == 400
        assert set(told.json()) == {"error"}
    half = web.post("/api/generate", content=json.dumps({"model": "chat", "prompt": "\ud800"}))
    assert "half of a character" in half.json()["error"]


def test_a_line_has_no_line_end_inside_for_any_client() -> None:
    odd = "a\u2028b\u2029c\x85d\x0be\x0cf\r\n"
    line = wire.line({"response": odd})
    assert line.decode().splitlines() == [line.decode().rstrip("\n")]
    assert json.loads(line)["response"] == odd


def test_what_fails_midway_is_told_as_a_line() -> None:
    async def failing(made: list[Event]) -> AsyncGenerator[Event, None]:
        for event in made:
            yield event
        raise Refusal(503, "the model died")

    async def sent(made: list[Event]) -> list[Any]:
        told = ours._told(Written(model="x"), failing(made), ours._response)
        return [json.loads(line) async for line in ours._lines(told)]

    found = asyncio.run(sent([Begun(7), Text(0, "It")]))
    assert found[0]["response"] == "It"
    assert found[1] == {"error": "the model died"}
    with pytest.raises(Refusal):  # with its status, while nothing is sent
        asyncio.run(sent([Begun(7)]))
