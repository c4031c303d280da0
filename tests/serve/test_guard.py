"""Attacks on a real server, each tried: who is asked, from where, by whom, and how much."""

import asyncio
import http.client
import json
import logging
import select
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anthropic
import openai
import pytest
from rooms import Room, ask, chat, raw, room
from starlette.responses import StreamingResponse

from bantam.errors import BadInput
from bantam.serve import keys, server
from bantam.serve.ask import Refusal
from bantam.serve.guard import Guard, Settings, Traffic

GOOD, SMALL, SLOW = "good-key-0123456789", "small-key-0123456789", "slow-key-0123456789"
KEYS = f"""
{GOOD}  name=all  # may do everything
{SMALL} models=small rate=1000/s name=limited
{SLOW} rate=3/min
"""
SITE = "https://app.example.com"
opened: list[str] = []


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir") and isinstance(args[0], str | bytes):
        opened.append(str(args[0]))


sys.addaudithook(_watch)


@pytest.fixture(scope="module")
def rooms(tiny_model: Path) -> Iterator[Room]:
    with room({"small": tiny_model, "large": tiny_model}) as made:
        yield made


@pytest.fixture(scope="module")
def port(rooms: Room) -> int:
    """Of a server that asks for no keys."""
    hosts, sites = frozenset({"box.lan", "192.0.2.7"}), frozenset({SITE})
    return rooms.serve(Settings(hosts=hosts, origins=sites, body_seconds=1.0))


@pytest.fixture(scope="module")
def keyed(rooms: Room) -> int:
    """Of a server that asks for keys."""
    return rooms.serve(Settings(keys=keys.read(KEYS, "the test")))


# Where a DNS name of somebody else was pointed at this machine, or nobody knows the name.
FOREIGN = [
    *("evil.example", "evil.example:{port}", "localhost.evil.example", "127.0.0.1.nip.io"),
    *("0.0.0.0:{port}", "192.0.2.8", "", "localhost@evil.example", "evil.example#localhost"),
    *("localhost:port", "localhost, evil.example", "[::2]", "127.0.0.1\tx", "box.lan.evil.example"),
]


@pytest.mark.parametrize("host", FOREIGN)
def test_other_names_are_refused(port: int, host: str) -> None:
    for path in ("/", "/health", "/v1/models", "/nothing"):
        told = ask(port, path, Host=host.format(port=port))
        assert told.status == 403
        assert told.json["error"]["code"] == "host_not_allowed"
    told = ask(port, "/v1/chat/completions", "POST", chat("small"), Host=host.format(port=port))
    assert told.status == 403


@pytest.mark.parametrize(
    "host", ["localhost:{port}", "LOCALHOST", "127.0.0.1:1", "[::1]:{port}", "box.lan", "192.0.2.7"]
)
def test_own_names_are_answered(port: int, host: str) -> None:
    assert ask(port, "/v1/models", Host=host.format(port=port)).status == 200


def test_no_name_and_two_names_are_refused(port: int) -> None:
    assert b" 403 " in raw(port, b"GET /v1/models HTTP/1.0\r\n\r\n")
    assert b" 400 " in raw(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
    assert b" 400 " in raw(port, b"GET / HTTP/1.1\r\n\r\n")
    told = raw(
        port, b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    assert b" 404 " in told


OTHERS = [
    *("https://evil.example", "http://localhost:{other}", "http://127.0.0.1", "null", "file://"),
    *(f"{SITE}.evil.example", f"{SITE}:444", "https://evil.example, " + SITE, "*", "//", "http://"),
]


@pytest.mark.parametrize("origin", OTHERS)
def test_other_sites_are_refused(port: int, origin: str) -> None:
    origin = origin.format(other=port + 1)
    own = f"localhost:{port}"
    for told in (
        ask(port, "/v1/models", Host=own, Origin=origin),
        ask(port, "/", Host=own, Origin=origin),
        ask(port, "/v1/chat/completions", "POST", chat("small"), Host=own, Origin=origin),
        ask(port, "/v1/messages", "OPTIONS", Origin=origin, Access_Control_Request_Method="POST"),
    ):
        assert told.status == 403
        assert "access-control-allow-origin" not in told.headers


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_other_sites_embed_is_refused(port: int, site: str) -> None:
    """A browser sends no Origin for images and scripts of another site."""
    told = ask(port, "/v1/models", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")
    assert told.status == 403
    assert ask(port, "/", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate").status == 200  # a link
    told = ask(port, "/v1/models", Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors")
    assert told.status == 200


def test_its_own_page_and_named_sites_may_ask(port: int) -> None:
    own = f"localhost:{port}"
    told = ask(port, "/v1/models", Host=own, Origin=f"http://{own}")
    assert told.status == 200
    assert "access-control-allow-origin" not in told.headers
    told = ask(port, "/v1/models", Origin=SITE)
    assert told.status == 200
    assert told.headers["access-control-allow-origin"] == SITE
    assert told.headers["vary"] == "Origin"
    told = ask(
        port,
        "/v1/chat/completions",
        "OPTIONS",
        Origin=SITE,
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="authorization,content-type, x-stainless-os",
    )
    assert told.status == 204
    assert told.headers["access-control-allow-origin"] == SITE
    assert "x-stainless-os" in told.headers["access-control-allow-headers"]
    told = ask(port, "/nothing", Origin=SITE)
    assert (told.status, told.headers["access-control-allow-origin"]) == (404, SITE)


def test_a_browser_is_told_to_run_nothing(port: int) -> None:
    told = ask(port, "/v1/models")
    assert told.headers["content-security-policy"].startswith("default-src 'none'")
    for path in ("/", "/v1/models", "/nothing"):
        headers = ask(port, path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


SHAPES = {
    "/v1/chat/completions": lambda told: told["error"]["message"],
    "/v1/responses": lambda told: told["error"]["message"],
    "/v1/messages": lambda told: told["type"] == "error" and told["error"]["message"],
    "/api/chat": lambda told: told["error"],
    "/tasks/small": lambda told: told["error"]["message"],
}


@pytest.mark.parametrize("path", SHAPES)
def test_a_key_is_needed(keyed: int, path: str) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong-key-0123456789"},
        {"Authorization": f"Basic {GOOD}"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {GOOD}x"},
        {"x_api_key": GOOD[:-1]},
    ):
        told = ask(keyed, path, "POST", chat("small"), **headers)
        assert told.status == 401
        assert "key" in SHAPES[path](told.json)
        assert GOOD not in told.body.decode()


def test_a_key_is_told_in_either_header(keyed: int) -> None:
    for path in ("/v1/models", "/api/tags", "/tasks", "/openapi.json", "/metrics"):
        assert ask(keyed, path).status == 401
        assert ask(keyed, path, Authorization=f"Bearer {GOOD}").status == 200
        assert ask(keyed, path, Authorization=f"bearer  {GOOD}").status == 200
        assert ask(keyed, path, x_api_key=GOOD).status == 200
    for path in ("/", "/health", "/ready"):
        assert ask(keyed, path).status == 200
    for path in ("//v1/models", "/page/../v1/models", "/page/%2e%2e/v1/models", "/health/../tasks"):
        assert ask(keyed, path).status in (401, 404)


def test_the_clients_of_openai_and_anthropic_tell_a_wrong_key(keyed: int) -> None:
    address = f"http://127.0.0.1:{keyed}"
    ours = openai.OpenAI(base_url=f"{address}/v1", api_key="wrong-key-0123456789", max_retries=0)
    with ours, pytest.raises(openai.AuthenticationError, match="not known"):
        ours.models.list()
    theirs = anthropic.Anthropic(base_url=address, api_key="wrong-key-0123456", max_retries=0)
    with theirs, pytest.raises(anthropic.AuthenticationError, match="not known"):
        theirs.models.list()


def test_a_key_sees_its_models_only(keyed: int) -> None:
    def names(key: str) -> list[list[str]]:
        return [
            [one["id"] for one in ask(keyed, "/v1/models", x_api_key=key).json["data"]],
            [one["model"] for one in ask(keyed, "/api/tags", x_api_key=key).json["models"]],
        ]

    assert all(len(some) == 2 for some in names(GOOD))
    assert [[name.removesuffix(":latest") for name in some] for some in names(SMALL)] == [
        ["small"],
        ["small"],
    ]
    for path in ("/v1/chat/completions", "/v1/messages", "/api/chat"):
        more = {"max_tokens": 2, "stream": False}
        assert ask(keyed, path, "POST", chat("small", **more), x_api_key=SMALL).status == 200
        secret = ask(keyed, path, "POST", chat("large", **more), x_api_key=SMALL)
        absent = ask(keyed, path, "POST", chat("lerge", **more), x_api_key=SMALL)
        assert secret.status == absent.status == 404
        assert SHAPES[path](secret.json) == SHAPES[path](absent.json).replace("lerge", "large")
    assert ask(keyed, "/v1/models/large", x_api_key=SMALL).status == 404
    assert ask(keyed, "/v1/models/large", x_api_key=GOOD).status == 200
    assert ask(keyed, "/metrics", x_api_key=SMALL).status == 403  # it names them all


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat"])
def test_a_key_has_its_rate(rooms: Room, path: str) -> None:
    port = rooms.serve(Settings(keys=keys.read(f"{SLOW} rate=3/min\n{GOOD}", "the test")))
    for _ in range(3):
        assert ask(port, "/v1/models", x_api_key=SLOW).status == 200
    told = ask(port, path, "POST", chat("small"), x_api_key=SLOW)
    assert told.status == 429
    assert 1 <= int(told.headers["retry-after"]) <= 20
    assert "3 times in 60 s" in SHAPES[path](told.json)
    assert ask(port, "/health").status == 200
    assert ask(port, "/v1/models", x_api_key=GOOD).status == 200


def test_a_rate_is_refilled(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(keys, "monotonic", lambda: now)
    rate = keys.Rate(2, 60)
    assert [rate.take(), rate.take(), rate.take()] == [0, 0, 30]
    now += 29
    assert rate.take() == pytest.approx(1)
    now += 1
    assert [rate.take(), rate.take()] == [0, pytest.approx(30)]
    now += 10_000  # no more than two are saved up
    assert [rate.take(), rate.take(), rate.take()] == [0, 0, pytest.approx(30)]


def test_keys_are_not_kept(keyed: int) -> None:
    read = keys.read(KEYS, "the test")
    assert GOOD not in repr(read)
    assert [key.name for key in read] == ["all", "limited", "key-4"]
    assert read[1].models == {"small"}
    assert keys.known(read, SMALL.encode()) is read[1]
    assert keys.known(read, b"") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no key"),
        ("# none\n", "holds no key"),
        ("short", "line 1: the key has fewer than 16 characters"),
        (f"{GOOD}\n{GOOD}", "the same key twice"),
        (f"{GOOD} name=a\n{SMALL} name=a", "the same name twice"),
        ("name=a", "line 1 has no key"),
        (f"{GOOD} name=a/b", "is not understood"),
        (f"{GOOD} models=", "is not understood"),
        (f"{GOOD} modells=a", "is not understood"),
        (f"{GOOD} rate=60", "60 is no rate"),
        (f"{GOOD} rate=0/s", "0/s is no rate"),
    ],
)
def test_a_file_of_keys_is_read_strictly(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        keys.read(text, "keys.txt")
    assert GOOD not in str(refused.value)
    assert "short" not in refused.value.message


def test_a_body_of_20_mb_is_refused(port: int) -> None:
    """The client hears why, though it sends the whole body first."""
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="-", max_retries=0)
    with client, pytest.raises(openai.APIStatusError, match="10,485,760 bytes") as told:
        client.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "a" * 20_000_000}]
        )
    assert told.value.status_code == 413
    for path in ("/v1/messages", "/api/chat"):
        told_ = ask(port, path, "POST", b"x" * 20_000_000)
        assert told_.status == 413
        assert SHAPES[path](told_.json)


def _chunked(port: int, path: str) -> tuple[bytes, int]:
    """What comes back while chunks are sent without end, and how many bytes could be sent."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk, sent, told = b"10000\r\n" + b"x" * 65536 + b"\r\n", 0, b""
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(head.encode())
        client.setblocking(False)
        end = time.monotonic() + 15
        while time.monotonic() < end:
            can_read, can_write, _ = select.select([client], [client], [], 0.1)
            try:
                if can_write:
                    sent += client.send(chunk[sent % len(chunk) :])
                if can_read:
                    piece = client.recv(1 << 16)
                    told += piece
                    if not piece:
                        return told, sent
            except OSError:
                return told, sent
    pytest.fail("the server reads on for ever")


def test_a_body_without_end_is_refused(rooms: Room) -> None:
    told, sent = _chunked(rooms.serve(), "/v1/chat/completions")
    assert told.startswith(b"HTTP/1.1 413 ")
    assert json.loads(told.partition(b"\r\n\r\n")[2])["error"]["code"] == "body_too_long"
    assert sent > 10 << 20


def test_the_rest_of_a_refused_body_is_not_read_for_ever(keyed: int) -> None:
    began = time.monotonic()
    told, _ = _chunked(keyed, "/v1/chat/completions")
    assert told.startswith(b"HTTP/1.1 401 ")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("length", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_a_slow_body_is_refused(port: int, length: str) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode())
        client.settimeout(0.1)
        told, closed = b"", False
        while time.monotonic() - began < 10 and not closed:
            try:
                client.sendall(b"1\r\n{\r\n" if "chunked" in length else b"{")
                piece = client.recv(1 << 16)
                told, closed = told + piece, not piece
            except TimeoutError:
                continue
            except OSError:
                closed = True
    assert told.startswith(b"HTTP/1.1 408 ")
    assert b"came in 1 s" in told
    assert 0.9 < time.monotonic() - began < 8


def test_bombs_of_headers_are_refused(port: int) -> None:
    for bomb in (b"X: " + b"a" * 200_000, b"\r\n".join(b"X%d: a" % n for n in range(20_000))):
        try:
            told = raw(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + bomb + b"\r\n\r\n")
        except OSError:
            told = b""  # cut off while it was sent
        assert not told or b" 400 " in told.partition(b"\r\n")[0]
    try:
        told = raw(port, b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    except OSError:
        told = b""
    assert not told or b" 400 " in told.partition(b"\r\n")[0]
    assert ask(port, "/health").status == 200


def test_a_request_that_does_not_come_is_not_waited_for(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "IDLE", 0.4)
    busy = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with (
        closing(busy),
        socket.create_connection(("127.0.0.1", port), 20) as silent,
        socket.create_connection(("127.0.0.1", port), 20) as dripping,
    ):
        busy.connect()
        first = busy.sock
        dripping.sendall(b"GET / HTTP/1.1\r\n")
        end, closed = time.monotonic() + 10, set[socket.socket]()
        while time.monotonic() < end and len(closed) < 2:
            busy.request("GET", "/health")
            assert busy.getresponse().read() == b'{"status":"ok"}'
            with suppress(OSError):
                dripping.sendall(b"X: a\r\n")
            for client in select.select([silent, dripping], [], [], 0.1)[0]:
                with suppress(ConnectionError):
                    assert client.recv(1) == b""
                closed.add(client)
        assert closed == {silent, dripping}
        assert busy.sock is first  # it was not closed meanwhile


def test_a_client_that_reads_nothing_is_cut_off(
    rooms: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STALLED", 0.5)
    ended = []

    async def endless() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
                    await asyncio.sleep(0)
            finally:
                ended.append(time.monotonic())

        return StreamingResponse(pieces())

    api = rooms.api()
    api.add_api_route("/endless", endless)
    port = rooms.serve(api=api)
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        began = time.monotonic()
        while not ended and time.monotonic() - began < 10:
            time.sleep(0.05)
    assert ended
    assert api.state.traffic.running == 0


NAMES = [
    *("../../../../etc/passwd", "/etc/passwd", "..%2f..%2fetc%2fpasswd", "file:///etc/passwd"),
    *("tiny.gguf", "http://192.0.2.1/passwd", "small\x00passwd", "a" * 100_000, "\ud800passwd", ""),
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_do_not_reach_the_file_system(port: int, name: str) -> None:
    opened.clear()
    for path in (
        "/v1/chat/completions",
        "/v1/messages",
        "/api/chat",
        "/v1/embeddings",
        "/api/show",
    ):
        told = ask(port, path, "POST", chat(name, max_tokens=1, input="a"))
        assert told.status in (400, 404), path
        assert told.json["error"]
        assert len(told.body) < 2000
    for path in ("/v1/models/", "/tasks/", "/page/", "/"):
        for way in (quote(name[:1000], errors="replace"), quote(name[:1000], "", errors="replace")):
            if way:
                told = ask(port, path + way)
                assert told.status in (404, 405)
    assert not [path for path in opened if "passwd" in path or "tiny.gguf" in path]


@pytest.mark.parametrize("method", ["BREW", "TRACE", "PUT", "PATCH", "DELETE", "CONNECT", "get"])
def test_other_methods_are_refused(port: int, method: str) -> None:
    for path in ("/v1/chat/completions", "/v1/messages", "/api/chat", "/health", "/nothing"):
        told = raw(
            port,
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(),
        )
        assert told.split(b" ", 2)[1] in (b"404", b"405")
        assert json.loads(told.partition(b"\r\n\r\n")[2])["error"]
    told_ = ask(port, "/v1/chat/completions", "OPTIONS")
    assert (told_.status, told_.headers["allow"]) == (405, "POST")


BODIES = [
    b"",
    b"{",
    b"\xff\xfe",
    b"null",
    b"[]",
    b'"a"',
    b"[" * 100_000,
    b'{"model": ' + b"1" * 5000 + b"}",
    b'{"model": "small", "messages": [{"role": "user", "content": "\\ud800"}], "max_tokens": 1}',
    b'{"model": "\\ud800", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}',
    b'{"model": "small", "messages": [], "temperature": NaN, "max_tokens": 1e400}',
    b'{"model": {"\\udfff": 1}, "messages": 7, "\\udfff": []}',
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("path", [*SHAPES, "/v1/embeddings", "/api/generate", "/feedback"])
def test_bodies_that_make_no_sense_are_refused(port: int, path: str, body: bytes) -> None:
    told = ask(port, path, "POST", body, Content_Type="application/json")
    assert told.status in (200, 400, 404, 422), told.body
    if told.status != 200:
        assert told.json["error"]


def test_no_more_than_so_many_are_answered_at_once(rooms: Room) -> None:
    port = rooms.serve(Settings(requests=1))
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        time.sleep(0.2)
        told = ask(port, "/v1/messages", "POST", chat("small"))
        assert (told.status, told.headers["retry-after"]) == (503, "1")
        assert told.json["type"] == "error"
        assert ask(port, "/health").status == ask(port, "/metrics").status == 200
    time.sleep(0.2)
    assert ask(port, "/v1/models").status == 200


def test_what_fails_is_not_told(rooms: Room, caplog: pytest.LogCaptureFixture) -> None:
    """Nor logged in words, which may be a user's."""

    text = "-".join(("canary", "text"))  # a traceback has lines of this file, not what they mean

    async def fails() -> None:
        raise ValueError(text)

    async def late() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"begun"
            raise Refusal(503, text)

        return StreamingResponse(pieces())

    api = rooms.api()
    for path in ("/v1/fails", "/v1/messages/fails", "/api/fails"):
        api.add_api_route(path, fails)
    api.add_api_route("/late", late)
    port = rooms.serve(api=api)
    with caplog.at_level(logging.INFO):
        for path in ("/v1/fails", "/v1/messages/fails", "/api/fails"):
            told = ask(port, path)
            assert told.status == 500
            assert told.json["error"]
            assert b"canary" not in told.body
            assert b"Traceback" not in told.body
        with pytest.raises(http.client.IncompleteRead):
            ask(port, "/late")
    assert "ValueError at /v1/fails" in caplog.text
    assert "in fails" in caplog.text  # where, as in a traceback
    assert text not in caplog.text
    assert ask(port, "/health").status == 200


def test_the_log_has_a_line_a_request_and_no_texts(
    port: int, keyed: int, caplog: pytest.LogCaptureFixture
) -> None:

    def lines() -> list[str]:
        told = [one.getMessage() for one in caplog.records if one.name == "bantam.access"]
        return [line for line in told if "/health" not in line]  # of the test before

    with caplog.at_level(logging.INFO, "bantam"):
        ask(port, "/v1/models?q=canary-query")
        ask(port, "/nothing%0a%1b[31mforged")
        ask(keyed, "/v1/chat/completions", "POST", chat("canary-model"), x_api_key=GOOD)
        body = {"model": "small", "messages": [{"role": "user", "content": "canary"}]}
        ask(port, "/v1/chat/completions", "POST", body | {"max_tokens": 1})
        ask(port, "/v1/chat/completions", "POST", b'{"canary": ')
        end = time.monotonic() + 5
        while len(lines()) < 5 and time.monotonic() < end:  # a line is written after its answer
            time.sleep(0.01)
    first, forged, keyed_one, *rest = lines()
    assert len(rest) == 2
    assert first.startswith("GET /v1/models 200 ")
    assert forged.startswith("GET /nothing%0a%1b[31mforged 404 ")
    assert keyed_one.startswith("POST /v1/chat/completions 404 ")
    assert keyed_one.endswith(" ms all")
    assert "canary" not in caplog.text


def test_pieces_of_streams_are_passed_on_untouched() -> None:
    pieces = [{"type": "http.response.body", "body": b"x", "more_body": True} for _ in range(3)]
    sent: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in pieces:
            await send(piece)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        **{"type": "http", "method": "GET", "path": "/", "raw_path": b"/"},
        "headers": [(b"host", b"localhost")],
    }
    asyncio.run(Guard(inner, Settings(), Traffic())(scope, None, send))  # type: ignore[arg-type]
    assert all(one is piece for one, piece in zip(sent[1:], pieces, strict=True))
