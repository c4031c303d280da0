"""The door to endpoints: what is sent, what is taken for an answer, and what is never done."""

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from away import Told, away, said, wrong
from bantam.errors import BadInput
from bantam.sources import door, endpoint

TURN = [{"role": "user", "content": "Hello"}]


def asked(answer: Callable[[dict[str, Any]], Told], key: str = "k-1", **how: Any) -> Any:
    with away(answer) as there:
        found = endpoint.parse(there.address)
        with endpoint.connect(found, key, **how) as line:
            return line.ask(TURN, 9), there


def test_what_is_asked_and_what_is_said() -> None:
    told, there = asked(lambda _: said("Hi."))
    assert told == endpoint.Said("Hi.", (), True)
    assert there.paths == ["/v1/chat/completions"]
    assert there.asked == [{"model": "big", "messages": TURN, "max_tokens": 9, "temperature": 0}]
    assert there.headers[0]["Authorization"] == "Bearer k-1"


def test_without_a_key_none_is_sent() -> None:
    _, there = asked(lambda _: said("Hi."), key="")
    assert "Authorization" not in there.headers[0]


def test_calls_and_an_end_of_the_tokens() -> None:
    call = {"function": {"name": "f", "arguments": '{"a": 1}'}}
    told, _ = asked(lambda _: said(None, "length", tool_calls=[call]))
    assert told == endpoint.Said("", (("f", '{"a": 1}'),), False)


def test_what_a_model_will_not_be_told_is_told_otherwise() -> None:
    """As those of OpenAI's that think first; it is remembered."""

    def answer(body: dict[str, Any]) -> Told:
        for name in ("max_tokens", "temperature"):
            if name in body:
                return wrong(400, "Unsupported", param=name, code="unsupported_parameter")
        return said("Hi.")

    with away(answer) as there, endpoint.connect(endpoint.parse(there.address), "") as line:
        for _ in range(2):
            assert line.ask(TURN, 9).text == "Hi."
        assert len(there.asked) == 4
        assert there.asked[-1] == {"model": "big", "messages": TURN, "max_completion_tokens": 9}


@pytest.mark.parametrize(
    "told",
    [
        wrong(500), wrong(503), wrong(429), wrong(408), Told(b"<html>", 502), Told(b""),
        Told(b"{"), Told([1]), Told({"choices": []}), Told({"choices": [{}]}),
        Told({"choices": [{"message": {"content": 5}}]}), Told(b"[" * 100_000),
        Told({"choices": [{"message": {"tool_calls": [{"function": 1}]}}]}),
        Told(b" " * (2 << 20)), Told({}, wait=3.0),
    ],
)  # fmt: skip
def test_what_is_no_answer(told: Told) -> None:
    began = time.monotonic()
    with pytest.raises(door.Unreached, match="#big"):
        asked(lambda _: told, seconds=1.0)
    assert time.monotonic() - began < 10


def test_an_answer_that_never_ends_is_given_up() -> None:
    """Each of its bytes comes in time, all of them do not."""
    over = threading.Event()

    def drip() -> None:
        client, _ = server.accept()
        with client, suppress(OSError):
            client.recv(1 << 16)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not over.wait(0.1):
                client.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip, daemon=True).start()
        there = endpoint.parse(f"http://127.0.0.1:{server.getsockname()[1]}/v1#big")
        began = time.monotonic()
        with (
            endpoint.connect(there, "", seconds=1.0) as line,
            pytest.raises(door.Unreached, match="too slow"),
        ):
            line.ask(TURN, 9)
        assert time.monotonic() - began < 10
        over.set()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 301, 302, 307])
def test_what_it_refuses_is_told_with_a_mend(status: int) -> None:
    told = wrong(status, "so it is")
    with pytest.raises(BadInput, match=rf"#big refuses \({status}\)") as error:
        asked(lambda _: told)
    assert "it says: so it is" in error.value.message
    assert error.value.mend


def test_no_redirect_is_followed() -> None:
    """The key would go with it."""
    with away(lambda _: said("No.")) as other:
        target = other.address.partition("#")[0] + "/chat/completions"
        with pytest.raises(BadInput, match="307"):
            asked(lambda _: Told(b"", 307, (("Location", target),)))
        assert other.asked == []


def test_a_closed_port_is_no_answer() -> None:
    with away(lambda _: said("Hi.")) as there:
        pass
    with (
        endpoint.connect(endpoint.parse(there.address), "", seconds=2.0) as line,
        pytest.raises(door.Unreached, match="does not answer"),
    ):
        line.ask(TURN, 9)


@pytest.mark.parametrize(
    "told",
    [
        "http://example.org/v1#m", "https://#m", "https://u:p@example.org/v1#m",
        "https://example.org/v1?key=k#m", "https://example.org/v1# ", "https://u:p@[::1#m",
    ],
)  # fmt: skip
def test_addresses_that_nothing_is_sent_to(told: str) -> None:
    with pytest.raises(BadInput) as error:
        endpoint.parse(told)
    assert "u:p" not in str(error.value)
    assert "key=k" not in str(error.value)


def test_what_is_an_endpoint() -> None:
    assert endpoint.is_one("https://api.example.com/v1#owner/model:7b")
    assert (
        endpoint.parse("https://api.example.com/v1/#a=b").name == "https://api.example.com/v1#a=b"
    )
    for other in ("model.gguf", "https://example.org/model.gguf", "pypi:a==1#b", "hf:a/b"):
        assert not endpoint.is_one(other)


def test_nothing_is_asked_offline() -> None:
    with (
        door.closed(),
        pytest.raises(BadInput, match="the network is forbidden"),
    ):
        endpoint.connect(endpoint.parse("https://api.example.com/v1#m"), "")


def test_several_threads_may_ask() -> None:
    told: list[str] = []

    def answer(body: dict[str, Any]) -> Told:
        return said(json.dumps(body["messages"]))

    with away(answer) as there, endpoint.connect(endpoint.parse(there.address), "") as line:

        def ask(number: int) -> None:
            text = line.ask([{"role": "user", "content": str(number)}], 9).text
            assert json.loads(text)[0]["content"] == str(number)
            told.append(text)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(told) == 20
