"""Clients that do not read, over real sockets: they keep a model from nobody, and lose no answer
that there is room for."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rooms import Room, ask, chat, room
from starlette.responses import StreamingResponse

from bantam.kinds import texts as writing
from bantam.kinds import to_metadata
from bantam.serve import wire
from tiny import rewritten

ROOM = 16_000  # tokens
LONG = {"logit_bias": {"0": -100, "2": -100}, "temperature": 1.5}  # it cannot end by itself


@pytest.fixture(scope="module")
def rooms(tiny_model: Path) -> Iterator[Room]:
    with room({"small": tiny_model}) as made:
        yield made


def unread(port: int, path: str, body: Any = None) -> socket.socket:
    """A client that has asked and reads nothing, with as little room as its system allows."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect(("127.0.0.1", port))
    sent = json.dumps(body).encode() if body else b""
    head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
    client.sendall(head.encode() + sent)
    return client


def rest(client: socket.socket) -> bytes:
    found = b""
    try:
        while piece := client.recv(1 << 16):
            found += piece
            if found.endswith(b"0\r\n\r\n"):
                break
    except ConnectionResetError:
        pass
    return found


def taken(rooms: Room) -> int:
    """How many turns at the model are taken."""
    return int(rooms.shelf.state()[0]["in_flight"])


def until(true: Any, seconds: float = 20.0) -> None:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)


def test_who_reads_nothing_keeps_the_model_from_nobody(rooms: Room) -> None:
    """Its answer is longer than there is room for: the turn ends long before the answer would."""
    port = rooms.serve()
    asked = chat("small", stream=True, n=16, logprobs=True, top_logprobs=20, **LONG)
    with closing(unread(port, "/v1/chat/completions", asked)) as client:
        until(lambda: taken(rooms) == 1)
        until(lambda: taken(rooms) == 0)
        told = rest(client)
    assert b"data: {" in told
    assert not told.endswith(b"0\r\n\r\n")  # whoever reads on sees that it is not whole


@pytest.mark.parametrize("size", [100, 100_000])
def test_room_that_is_full_for_a_second_ends_the_work(rooms: Room, size: int) -> None:
    made: list[float] = []
    ended: list[float] = []

    async def pieces() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"x" * size
                made.append(time.monotonic())
                await asyncio.sleep(0)
        finally:
            ended.append(time.monotonic())

    async def endless() -> StreamingResponse:
        return wire.streamed(pieces())

    api = rooms.api()
    api.add_api_route("/endless", endless)
    with closing(unread(rooms.serve(api=api), "/endless")):
        until(lambda: ended)
    assert 0.5 < ended[0] - made[-1] < 5  # 0.8 s, on a machine that may be busy
    assert len(made) * size < 20_000_000  # what systems hold of it, and half a megabyte


def test_who_does_not_read_for_a_while_loses_nothing(rooms: Room) -> None:
    """The turn is over as soon as the text is, however late it is read."""
    port = rooms.serve()
    asked = chat("small", stream=True, max_tokens=300, **LONG)
    with closing(unread(port, "/v1/chat/completions", asked)) as client:
        until(lambda: taken(rooms) == 1)
        until(lambda: taken(rooms) == 0)
        time.sleep(1.5)
        told = rest(client)
    assert told.count(b'"finish_reason": "length"') == 1
    assert told.count(b'"content": ') > 100
    assert b"data: [DONE]" in told


def test_room_is_made_by_reading(rooms: Room) -> None:
    """Megabytes go through to one who reads with pauses, each shorter than the patience."""
    size = 16 << 20

    async def pieces() -> AsyncGenerator[bytes, None]:
        for _ in range(size >> 16):
            yield b"x" * 65536

    async def long() -> StreamingResponse:
        return wire.streamed(pieces())

    api = rooms.api()
    api.add_api_route("/long", long)
    with closing(socket.create_connection(("127.0.0.1", rooms.serve(api=api)), 20)) as client:
        client.sendall(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
        found = count = 0
        while piece := client.recv(1 << 16):
            found += piece.count(b"x")
            count += 1
            if count in (1, 20, 40):
                time.sleep(0.15)
            if piece.endswith(b"0\r\n\r\n"):
                break
    assert found >= size


def test_a_client_that_goes_in_the_middle_frees_its_turn(tiny_model: Path, tmp_path: Path) -> None:
    path = rewritten(tmp_path / "small.gguf", tiny_model, {"llama.context_length": ROOM})
    with room({"small": path}, context=ROOM) as made:
        port = made.serve()
        for at, asked in (
            ("/v1/chat/completions", chat("small", stream=True, **LONG)),
            ("/v1/chat/completions", chat("small", **LONG)),
            ("/api/chat", chat("small", options={"num_predict": ROOM, "temperature": 0})),
        ):
            client = unread(port, at, asked)
            until(lambda: taken(made) == 1)
            client.close()
            began = time.monotonic()
            until(lambda: taken(made) == 0)
            assert time.monotonic() - began < 2
        assert ask(port, "/ready").status == 200


def test_the_text_of_a_task_is_stopped_when_nobody_waits_for_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    """It would go on for half a minute with the only slot there is."""
    task = replace(writing.task("generate", "text", "Go on."), max_answer_tokens=ROOM)
    keys = to_metadata(task) | {"llama.context_length": ROOM}
    path = rewritten(tmp_path / "text.gguf", tiny_model, keys)
    with room({"text": path}, parallel=1, context=ROOM) as made:
        port = made.serve()
        asked = {"model": "text", "prompt": "the", "max_tokens": 2}
        assert ask(port, "/v1/completions", "POST", asked).status == 200
        for path, body in (("/tasks/text", {"text": "x"}), ("/api/chat", chat("text"))):
            client = unread(port, path, body)
            until(lambda: taken(made) == 1)
            time.sleep(0.5)
            assert taken(made) == 1
            client.close()
            began = time.monotonic()
            assert ask(port, "/v1/completions", "POST", asked).status == 200
            assert time.monotonic() - began < 5
