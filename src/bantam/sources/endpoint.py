"""An endpoint that speaks OpenAI's chat completions: the one place where texts leave this machine.

    with connect(parse("https://api.openai.com/v1#gpt-4o-mini"), key) as line:
        line.ask([{"role": "user", "content": "Hello"}], max_tokens=20)

Nothing asks one but a hand-over that was allowed to. No redirect is followed, since the key would
go with it.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from bantam.errors import BadInput, BantamError
from bantam.sources.door import RETRY, Unreached, offline

KEY = "BANTAM_HANDOVER_KEY"  # the variable of the environment with the key, unless another is named
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
CONNECT, WHOLE = 5.0, 30.0  # seconds until it answers, and until the answer is here
MOST_BYTES = 1 << 20  # of an answer
MEND = "write https://HOST/v1#MODEL, such as https://api.openai.com/v1#gpt-4o-mini"
# What some models will not be told, and what they would rather hear.
OTHERWISE = {"max_tokens": "max_completion_tokens", "temperature": None}


@dataclass(frozen=True)
class Endpoint:
    """Where it is, and which of its models is meant."""

    address: str  # without a slash at its end
    model: str

    @property
    def name(self) -> str:
        return f"{self.address}#{self.model}"


@dataclass(frozen=True)
class Said:
    """What an endpoint answered."""

    text: str
    calls: tuple[tuple[str, str], ...]  # names of functions, and their arguments as JSON
    whole: bool  # false: its tokens were used up


def is_one(told: str) -> bool:
    """Whether a text means an endpoint: an address with the name of a model after a "#"."""
    return re.match(r"https?://[^#]*#.", told) is not None


def parse(told: str) -> Endpoint:
    """Raises BadInput for an address that is not safe to send texts and a key to."""
    address, _, model = told.partition("#")
    try:
        parts = urlsplit(address)
    except ValueError:
        raise BadInput("the endpoint's address cannot be read", MEND) from None
    secure = parts.scheme == "https" or parts.hostname in LOOPBACK
    if parts.username or parts.password or parts.query:
        # It would end up in reports and logs.
        raise BadInput(
            f"the address at {parts.hostname} holds a password or a query",
            "take it out; the key is told in a variable of the environment",
        )
    if not (parts.hostname and secure and model.strip()):
        raise BadInput(
            f"{told} is no endpoint that texts can be sent to",
            MEND,
        )
    return Endpoint(address.rstrip("/"), model)


def connect(endpoint: Endpoint, key: str, *, seconds: float = WHOLE) -> Line:
    """A line to it; nothing is sent yet. Raises BadInput where the network is forbidden."""
    if offline():
        raise BadInput(
            f"{endpoint.name} cannot be asked: the network is forbidden",
            "leave out --offline (and BANTAM_OFFLINE and HF_HUB_OFFLINE), or hand over to a file",
        )
    return Line(endpoint, key, seconds)


class Line:
    """Connections to an endpoint that are kept; several threads may ask. Use it in a `with`, or
    call `close()`."""

    def __init__(self, endpoint: Endpoint, key: str, seconds: float) -> None:
        import httpx

        self.endpoint, self._seconds = endpoint, seconds
        headers = {"User-Agent": "bantam"} | ({"Authorization": f"Bearer {key}"} if key else {})
        timeout = httpx.Timeout(seconds, connect=min(CONNECT, seconds))
        self._client = httpx.Client(headers=headers, timeout=timeout, follow_redirects=False)
        self._untold: frozenset[str] = frozenset()  # parameters that it would not take

    def ask(self, messages: list[dict[str, str]], max_tokens: int, **more: Any) -> Said:
        """Its answer to a conversation, at temperature 0.

        Raises Unreached when it does not answer in time, is too busy or says nothing sensible;
        BadInput when it refuses.
        """
        asked = {
            "model": self.endpoint.model,
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": 0,
            **more,
        }
        for _ in range(len(OTHERWISE) + 1):
            status, told = self._post(_told_as(asked, self._untold))
            error = told.get("error")
            param = error.get("param") if isinstance(error, dict) else None
            if status != 400 or param not in OTHERWISE or param in self._untold:
                break
            self._untold |= {param}
        if status != 200:
            raise self._refusal(status, error)
        if (said := _said(told)) is None:
            raise self._unreached("says nothing that can be read")
        return said

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _post(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """The status and the object that came, {} for anything else."""
        import httpx

        address = f"{self.endpoint.address}/chat/completions"
        until = time.monotonic() + self._seconds
        try:
            with self._client.stream("POST", address, json=asked) as response:
                content = b""
                for piece in response.iter_bytes():
                    content += piece
                    if len(content) > MOST_BYTES:
                        raise self._unreached("answers without end")
                    if time.monotonic() > until:
                        raise self._unreached("is too slow")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreached(f"does not answer ({type(error).__name__})") from None
        try:
            told = json.loads(content)
        except (ValueError, RecursionError):
            told = None
        return response.status_code, told if isinstance(told, dict) else {}

    def _unreached(self, why: str) -> Unreached:
        return Unreached(f"{self.endpoint.name} {why}", RETRY)

    def _refusal(self, status: int, error: Any) -> BantamError:
        said = error.get("message") if isinstance(error, dict) else None
        more = f"\nit says: {said:.200}" if isinstance(said, str) else ""
        if status >= 500 or status in (408, 429):
            return self._unreached(f"cannot answer now ({status}){more}")
        mend = {
            401: f"look at the key: it is in {KEY}, or the variable that handover.key_env names",
            403: "look at what the key may ask",
            404: "look at the address and the name of the model",
        }
        return BadInput(
            f"{self.endpoint.name} refuses ({status}){more}",
            mend.get(status, "look at the address, the model and what it can do"),
        )


def _told_as(asked: dict[str, Any], untold: frozenset[str]) -> dict[str, Any]:
    """The same in the words that this endpoint takes."""
    found = {}
    for name, value in asked.items():
        other = OTHERWISE[name] if name in untold else name
        if other is not None:
            found[other] = value
    return found


def _said(told: dict[str, Any]) -> Said | None:
    try:
        (choice, *_) = told["choices"]
        message = choice["message"]
        calls = tuple(
            (str(call["function"]["name"]), str(call["function"]["arguments"]))
            for call in message.get("tool_calls") or ()
        )
        text = message.get("content") or ""
    except (LookupError, TypeError, ValueError, AttributeError):
        return None
    if not isinstance(text, str):
        return None
    return Said(text, calls, choice.get("finish_reason") != "length")
