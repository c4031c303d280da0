"""Requests that are too much, each tried on a running server: refused at once, and others are
answered meanwhile."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import example, given
from hypothesis import strategies as st
from rooms import Room, ask, chat, room
from shelved import models

from bantam.kinds import schema
from bantam.serve import bodies
from bantam.serve.ask import MOST_MESSAGES, MOST_PARTS, MOST_TOOLS, Refusal

# Seconds in which the server answers nobody; unhindered it is a few hundredths, but 2.1 were seen
# on two slow cores that ran other tests too. What must not hinder it takes many.
TOO_LONG = 4.0


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Room]:
    with room(models(tmp_path_factory.mktemp("limits"), tiny_model)) as made:
        yield made


@pytest.fixture(scope="module")
def port(rooms: Room) -> int:
    return rooms.serve()


@contextmanager
def answering(rooms: Room) -> Iterator[None]:
    """Fails when the server's event loop stands still for long meanwhile."""
    longest = 0.0
    over = False

    async def look() -> None:
        nonlocal longest
        while not over:
            begun = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - begun)

    looking = asyncio.run_coroutine_threadsafe(look(), rooms._loop)
    try:
        yield
    finally:
        over = True
        looking.result(60)
    assert longest < TOO_LONG


def sent(port: int, path: str, body: Any) -> Any:
    whole = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(port, path, "POST", whole, Content_Type="application/json")


def said(told: Any) -> str:
    error = told.json["error"]
    return str(error if isinstance(error, str) else error["message"])


TURN = {"role": "user", "content": "Hello"}
MESSAGES = {
    "/v1/chat/completions": "messages",
    "/v1/responses": "input",
    "/v1/messages": "messages",
    "/api/chat": "messages",
}


def asked(path: str, **more: Any) -> dict[str, Any]:
    needed = {"max_tokens": 1} if path == "/v1/messages" else {}
    return {"model": "chat", MESSAGES[path]: [TURN]} | needed | more


HUGE = 10_400_000  # bytes, just below what a body may have


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/v1/chat/completions", b'{"role":"user","content":"x"}'),
        ("/v1/chat/completions", b"{}"),
        ("/v1/responses", b"[]"),
        ("/v1/messages", b'{"role":"user","content":"x"}'),
        ("/api/chat", b"{}"),
        ("/v1/completions", b"1"),
        ("/api/embed", b'""'),
        ("/tasks/labels", b"1"),
    ],
)
def test_a_body_of_millions_of_values_is_not_read(
    rooms: Room, port: int, path: str, unit: bytes
) -> None:
    """Reading it would keep the server from everybody for up to a minute."""
    field = MESSAGES.get(path, "prompt").encode()
    head = b'{"model":"chat","%s":[' % field
    body = head + b",".join([unit] * (HUGE // (len(unit) + 1) - 10)) + b"]}"
    with answering(rooms):
        told = sent(port, path, body)
    assert told.status == 413
    assert "more than 100,000 values" in said(told)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def counted(value: Any) -> int:
    """Commas and brackets: a value each, but the first of all, and one for what holds none."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return max(1, len(value)) + sum(map(counted, inner))
    return 0


@given(JSON, st.booleans())
@example(["\\", ",,,", "[{", '"', '\\"'], False)
def test_values_are_counted_as_they_are(value: Any, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bodies, "MOST_VALUES", counted(value))
        bodies.check_values(body)
        if counted(value):
            patched.setattr(bodies, "MOST_VALUES", counted(value) - 1)
            with pytest.raises(Refusal) as refused:
                bodies.check_values(body)
            assert refused.value.status == 413


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("path", [*MESSAGES, "/tasks/labels"])
def test_a_body_is_in_utf_8(port: int, path: str, encoding: str) -> None:
    """What stands in any other is not seen by those who count its values and halves."""
    body = {"text": "Hello"} if path == "/tasks/labels" else asked(path, stream=False)
    told = sent(port, path, json.dumps(body).encode(encoding))
    assert told.status == 400
    assert "not in UTF-8" in said(told)
    assert sent(port, path, json.dumps(body).encode("utf-8-sig")).status == 200


PIECES = [r"\ud83d", r"\ude00", r"\\", r"\"", r"\n", r"\u0041", "x", "ud83d", "é", r"\uD83D\uDE00"]


@given(st.lists(st.sampled_from(PIECES)))
def test_halves_of_characters_are_found(pieces: list[str]) -> None:
    body = f'["{"".join(pieces)}"]'.encode()
    try:
        json.loads(body)[0].encode()
    except UnicodeEncodeError:
        with pytest.raises(Refusal):
            bodies.check_characters(body)
    else:
        bodies.check_characters(body)


@pytest.mark.parametrize("text", ["\ud83d", "a\ude00b", "\ud83d\ude00"])
def test_halves_of_characters_are_found_as_bytes(text: str) -> None:
    body = json.dumps([text], ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert json.loads(body) == [text]
    with pytest.raises(Refusal):
        bodies.check_characters(body)
    bodies.check_characters('["\ud7ff\ue000\U0001f600"]'.encode())


WRONG = [0] * MOST_PARTS  # parts, turns or texts that are none, fewer than there may be
OF_PARTS = [{"role": "user", "content": WRONG}] * 40


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": OF_PARTS}),
        ("/v1/chat/completions", {"messages": WRONG}),
        ("/v1/chat/completions", {"messages": [TURN], "tools": WRONG[:100]}),
        ("/v1/chat/completions", {"messages": [TURN], "functions": WRONG[:100]}),
        ("/v1/chat/completions", {"messages": [TURN | {"tool_calls": WRONG[:100]}] * 40}),
        ("/v1/chat/completions", {"logit_bias": {f"a{n}": "b" for n in range(2000)}}),
        ("/v1/chat/completions", {"metadata": {f"a{n}": 0 for n in range(2000)}}),
        ("/v1/completions", {"prompt": [{}] * 100}),
        ("/v1/responses", {"input": OF_PARTS}),
        ("/v1/responses", {"input": WRONG, "include": WRONG[:100]}),
        ("/v1/messages", {"messages": OF_PARTS, "max_tokens": 1}),
        ("/v1/messages", {"messages": [TURN], "max_tokens": 1, "system": WRONG}),
        ("/v1/messages", {"messages": [TURN], "max_tokens": 1, "stop_sequences": WRONG[:60]}),
        ("/api/chat", {"messages": [TURN | {"tool_calls": WRONG[:100]}] * 40}),
        ("/api/chat", {"messages": WRONG, "tools": WRONG[:100]}),
        ("/api/chat", {"messages": [TURN], "options": {"stop": WRONG[:60]}}),
        ("/api/embed", {"input": WRONG}),
        ("/tasks/labels", {"texts": WRONG}),
        ("/tasks/calls", {"texts": ["a"], "tools": [WRONG[:100]] * 40}),
    ],
)
def test_of_what_is_wrong_the_first_is_told(
    port: int, monkeypatch: pytest.MonkeyPatch, path: str, body: Any
) -> None:
    """Telling of each of a hundred thousand keeps the server from everybody for a second."""
    most, kept = 0, RequestValidationError.__init__

    def watched(self: RequestValidationError, errors: Sequence[Any], **how: Any) -> None:
        nonlocal most
        most = max(most, len(errors))
        kept(self, errors, **how)

    monkeypatch.setattr(RequestValidationError, "__init__", watched)
    assert sent(port, path, {"model": "chat"} | body).status == 400
    assert 0 < most <= 5  # of each field, and of each way to read it, one


@pytest.mark.parametrize("path", MESSAGES)
def test_a_conversation_has_so_many_turns_at_most(port: int, path: str) -> None:
    told = sent(port, path, asked(path) | {MESSAGES[path]: [TURN] * (MOST_MESSAGES + 1)})
    assert told.status == 400
    assert f"at most {MOST_MESSAGES} items" in said(told)
    told = sent(port, path, asked(path) | {MESSAGES[path]: [TURN] * MOST_MESSAGES})
    assert told.status == 400  # that are too many for this model, which has been asked
    assert "room for" in said(told)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_turn_has_so_many_parts_at_most(port: int, path: str) -> None:
    turn = {"role": "user", "content": [{"type": "text", "text": ""}] * (MOST_PARTS + 1)}
    told = sent(port, path, asked(path, messages=[turn]))
    assert told.status == 400
    assert f"at most {MOST_PARTS} items" in said(told)


TOOL = {"name": "f", "parameters": {"type": "object"}}
TOOLS = {
    "/v1/chat/completions": {"type": "function", "function": TOOL},
    "/v1/responses": {"type": "function", **TOOL},
    "/v1/messages": {"name": "f", "input_schema": {"type": "object"}},
    "/api/chat": {"type": "function", "function": TOOL},
}


@pytest.mark.parametrize("path", TOOLS)
def test_so_many_functions_are_declared_at_most(port: int, path: str) -> None:
    told = sent(port, path, asked(path, tools=[TOOLS[path]] * (MOST_TOOLS + 1)))
    assert told.status == 400
    assert f"at most {MOST_TOOLS} items" in said(told)


def test_so_many_functions_of_a_text(port: int) -> None:
    for tools in ([TOOL] * (MOST_TOOLS + 1), [[TOOL] * (MOST_TOOLS + 1)]):
        told = sent(port, "/tasks/calls", {"texts": ["x"], "tools": tools})
        assert told.status == 400
        assert f"at most {MOST_TOOLS} items" in said(told)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/embeddings"])
def test_a_request_has_few_fields(rooms: Room, port: int, path: str) -> None:
    body = {f"field-{number}": 1 for number in range(90_000)}
    with answering(rooms):
        told = sent(port, path, body)
    assert told.status == 400
    assert "over 100 fields" in said(told)


LONG = "an é 日 1 " * 900_000  # a tokenizer reads it for many seconds


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat("chat", messages=[{"role": "user", "content": LONG}])),
        ("/v1/completions", {"model": "chat", "prompt": LONG}),
        ("/v1/embeddings", {"model": "chat", "input": LONG}),
        ("/v1/embeddings", {"model": "chat", "input": ["x"] * 2000 + [LONG]}),
        ("/v1/messages/count_tokens", {"model": "chat", "messages": [TURN | {"content": LONG}]}),
        ("/api/generate", {"model": "chat", "prompt": LONG}),
        ("/api/generate", {"model": "chat", "prompt": LONG, "raw": True}),
    ],
)
def test_what_has_no_place_in_the_context_is_not_read(
    rooms: Room, port: int, path: str, body: Any
) -> None:
    with answering(rooms):
        begun = time.monotonic()
        told = sent(port, path, json.dumps(body, ensure_ascii=False).encode())
        assert time.monotonic() - begun < 5
    assert told.status in (400, 413)  # the whole body may be too long already
    assert "room for" in said(told) or "bytes" in said(told)


def test_many_texts_share_the_functions_of_all(port: int) -> None:
    """They are written out once, not ten thousand times."""
    tool = {"name": "f", "description": "x" * 100_000, "parameters": {"type": "object"}}
    told = sent(port, "/tasks/calls", {"texts": ["a"] * 10_000, "tools": [tool]})
    assert told.status == 400
    assert "texts[0]" in said(told)  # with its functions it has no place


def doubling(levels: int) -> dict[str, Any]:
    """Its shortest answer has 2 ** levels objects in it."""
    defs: dict[str, Any] = {
        f"d{n}": {
            "type": "object",
            "properties": {name: {"$ref": f"#/$defs/d{n + 1}"} for name in "ab"},
            "required": ["a", "b"],
        }
        for n in range(levels)
    }
    return {"$defs": defs | {f"d{levels}": {"type": "integer"}}, "$ref": "#/$defs/d0"}


HOSTILE: dict[str, dict[str, Any]] = {
    "it takes long to be followed": doubling(20),
    "a pattern that is searched for for years": {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "^(?:(.*)*c{90}|a{60})$"}},
        "required": ["a"],
    },
    "450 patterns": {
        "type": "object",
        "properties": {
            f"k{n}": {"type": "string", "pattern": f"^(a|b)*a(a|b){{{n}}}$"} for n in range(450)
        },
        "required": [f"k{n}" for n in range(450)],
    },
    "deep": {"anyOf": [{"type": "null"}] * 3 + [doubling(39)]},
    "many parts": {"enum": list(range(90_000))},
    "long": {"type": "string", "description": "x" * 5_000_000},
    "elsewhere": {"$ref": "http://192.0.2.1/schema.json"},
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("model", ["chat", "calls"])
def test_a_hostile_schema_holds_nobody_up(
    rooms: Room, port: int, name: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "SECONDS", 0.5)
    shape = {"type": "json_schema", "json_schema": {"name": "a", "schema": HOSTILE[name]}}
    body = chat(model, max_tokens=4, response_format=shape)
    if model == "calls":
        body["tools"] = [TOOLS["/v1/chat/completions"]]
    with answering(rooms):
        began = time.monotonic()
        told = sent(port, "/v1/chat/completions", body)
        assert time.monotonic() - began < 15
    assert told.status == 400 or "pattern" in name


def test_hostile_functions_hold_nobody_up(
    rooms: Room, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "SECONDS", 0.5)
    tools = [
        {"type": "function", "function": {"name": f"f{n}", "parameters": doubling(20 + n)}}
        for n in range(10)
    ]
    with answering(rooms):
        told = sent(port, "/v1/chat/completions", chat("chat", tools=tools))
    assert told.status == 400
    assert "f0" in said(told)
    assert sent(port, "/v1/chat/completions", chat("chat", max_tokens=1)).status == 200
