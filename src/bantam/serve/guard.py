"""What stands before every request: who is asked, from where, by whom, and how much.

It is plain ASGI, since it passes on every piece of every stream: these go through untouched.
"""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bantam.serve import keys, metrics, refusals
from bantam.serve.ask import Refusal
from bantam.serve.bodies import check_encoding, check_values
from bantam.serve.openai_reply import new_id

if TYPE_CHECKING:
    from bantam.serve.handover import Handover

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
PROBES = frozenset({"/health", "/ready", "/metrics"})  # answered also when there is too much to do
LINGER = 2.0  # seconds in which the rest of a refused body is read, so that its sender hears why
GONE = 499  # in the log, a client that did not wait for its answer

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(:[0-9]{1,5})?")
_NAMES = re.compile(rb"[A-Za-z0-9-]+(?:, ?[A-Za-z0-9-]+)*")  # of headers, with commas

# A page may say more of itself; nothing else is ever to be run or framed by a browser.
REQUEST_IDS = {"openai": b"x-request-id", "anthropic": b"request-id"}  # where clients read them
HEADERS = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
}

STOPPING = Refusal(503, "the server is stopping", code="stopping", retry_after=5)

log = logging.getLogger("bantam.serve")
access = logging.getLogger("bantam.access")


@dataclass(frozen=True)
class Settings:
    """Who may ask, how much, and what is made of it."""

    hosts: frozenset[str] = frozenset()  # names of this server, besides those of loopback
    origins: frozenset[str] = frozenset()  # "scheme://host:port" of other sites that may ask
    keys: tuple[keys.Key, ...] = ()  # none: everybody may ask
    body_bytes: int = 10 << 20
    body_seconds: float = 30  # in which a body must be here
    requests: int = 256  # at the same time
    feedback: Path | None = None  # the file that it is kept in; None: it is not kept
    handover: Handover | None = None


@dataclass
class Traffic:
    """How many requests are being answered, and whether new ones are sent away."""

    running: int = 0
    draining: bool = False


class Gone(Exception):
    """The client has gone; nobody is left to be told."""


class Guard:
    """ASGI middleware. Whatever goes wrong is told in the interface's words and never in detail."""

    def __init__(self, app: ASGIApp, settings: Settings, traffic: Traffic) -> None:
        self._app, self._settings, self._traffic = app, settings, traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = perf_counter(), 0
        head = _head(scope)
        unread = _has_body(head)
        extra = HEADERS
        key: keys.Key | None = None

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                there = [*message.get("headers", ())]
                names = {name for name, _ in there}
                there += [(name, value) for name, value in extra.items() if name not in names]
                message = {**message, "headers": there}
            await send(message)

        async def refuse(refusal: Refusal) -> None:
            """Say why, if nothing was said yet; else the connection is cut when this returns."""
            if status:
                return
            sent = refusals.response(refusals.asked(scope), refusal)
            close = [(b"connection", b"close")] * (unread or self._traffic.draining)
            start = {"status": sent.status_code, "headers": [*sent.raw_headers, *close]}
            await tell({"type": "http.response.start", **start})
            await tell({"type": "http.response.body", "body": sent.body, "more_body": unread})
            if unread:
                await _swallow(receive)
                await tell({"type": "http.response.body", "body": b""})

        self._traffic.running += 1
        metrics.running.inc()
        try:
            extra = HEADERS | self._crossing(scope, head)
            if named := REQUEST_IDS.get(refusals.interface(refusals.asked(scope))):
                extra |= {named: new_id("req_").encode()}
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in head:
                await _preflight(head, tell)
                return
            key = self._key(scope, head)
            keys.asking.set(key)
            self._room(scope["path"], key)
            if unread and _is_stream(scope["path"]):
                receive = self._in_time(receive)
            elif unread:
                body = await self._body(head, receive)
                unread, receive = False, _again(body, receive)
                check_encoding(body)
                check_values(body)
            await self._app(scope, receive, tell)
        except Refusal as refusal:
            await refuse(refusal)
        except Gone:
            status = GONE
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():  # the server ends
                await refuse(STOPPING)
            else:
                status = GONE
        except Exception as error:
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s at %s\n%s", type(error).__name__, _target(scope), where)
            await refuse(Refusal(500, "the server failed; its log says where", code="server_error"))
        finally:
            self._traffic.running -= 1
            metrics.running.dec()
            seconds = perf_counter() - begun
            metrics.requested(refusals.interface(scope["path"]), status or GONE, seconds)
            name = key.name if key else "-"
            told = (scope["method"][:20], _target(scope), status or GONE, 1000 * seconds, name)
            access.info("%s %s %d %.0f ms %s", *told)

    def _crossing(self, scope: Scope, head: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """The headers that let another site read the response, for one that may.

        Refuses a Host that is no name of this server: the page of another site whose name was
        pointed at this machine would send it. Refuses other sites, as a browser tells of them.
        """
        host = head.get(b"host", b"").decode("latin-1").lower()
        found = _HOST.fullmatch(host)
        name = found[1].strip("[]") if found else ""
        if name not in LOOPBACK and name not in self._settings.hosts:
            raise Refusal(
                403,
                f"{host!r:.100} is no name of this server; "
                "start it with --allow-host NAME to be called so",
                code="host_not_allowed",
            )
        origin = head.get(b"origin", b"").decode("latin-1").lower()
        if origin in self._settings.origins:
            return {b"access-control-allow-origin": origin.encode(), b"vary": b"Origin"}
        own = origin in (f"http://{host}", f"https://{host}")
        embedded = (
            not origin
            and head.get(b"sec-fetch-site") in (b"cross-site", b"same-site")
            and head.get(b"sec-fetch-mode") != b"navigate"
        )
        if (origin and not own) or embedded:
            raise Refusal(
                403,
                f"the site {origin!r:.100} may not ask; start the server with "
                "--allow-origin SCHEME://HOST:PORT to let it",
                code="origin_not_allowed",
            )
        return {}

    def _key(self, scope: Scope, head: Mapping[bytes, bytes]) -> keys.Key | None:
        path = scope["path"]
        if not self._settings.keys or path in ("/health", "/ready"):
            return None
        if scope["method"] in ("GET", "HEAD") and refusals.interface(path) == "page":
            return None  # a browser has no key until its page has asked for one
        scheme, _, bearer = head.get(b"authorization", b"").partition(b" ")
        told = [head.get(b"x-api-key", b"")]
        if scheme.lower() == b"bearer":
            told.append(bearer.strip())
        found = [key for one in told if one and (key := keys.known(self._settings.keys, one))]
        if not found:
            how = "send it as `Authorization: Bearer KEY` or `x-api-key: KEY`"
            what = "the key is not known" if any(told) else "a key is needed"
            raise Refusal(401, f"{what}; {how}", code="invalid_api_key")
        return found[0]

    def _room(self, path: str, key: keys.Key | None) -> None:
        """Refuses what there is no room for."""
        if path in PROBES:
            if path == "/metrics" and key and key.models is not None:
                raise Refusal(403, "this key may only ask its models", code="key_not_allowed")
            return
        if self._traffic.draining:
            raise STOPPING
        if self._traffic.running > self._settings.requests:
            raise Refusal(
                503,
                f"{self._settings.requests} requests are being answered already; try again",
                code="overloaded",
            )
        if key and key.rate and (seconds := key.rate.take()):
            rate = f"{key.rate.requests} times in {key.rate.seconds} s"
            raise Refusal(
                429,
                f"the key {key.name} may ask {rate}; wait {ceil(seconds)} s",
                code="rate_limit_exceeded",
                retry_after=ceil(seconds),
            )

    async def _body(self, head: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """The whole body, within its limits. A body that says that it is too long is not read."""
        most = self._settings.body_bytes
        too_long = Refusal(
            413, f"the body has more than {most:,} bytes; send less at once", code="body_too_long"
        )
        if int(head.get(b"content-length", b"0")) > most:
            raise too_long
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise too_long
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise self._too_slow() from None

    def _in_time(self, receive: Receive) -> Receive:
        """As `receive`, for a body that is worked on while it comes, however long it is; each piece
        has the time of a whole body."""
        whole = False

        async def next_one() -> Message:
            nonlocal whole
            try:
                async with asyncio.timeout(None if whole else self._settings.body_seconds):
                    message = await receive()
            except TimeoutError:
                raise self._too_slow() from None
            whole = not message.get("more_body", False)
            return message

        return next_one

    def _too_slow(self) -> Refusal:
        seconds = self._settings.body_seconds
        why = f"no more of the body came in {seconds:g} s; send it at once"
        return Refusal(408, why, code="body_too_slow")


def _head(scope: Scope) -> dict[bytes, bytes]:
    """The headers; values of one that is there twice are joined, as HTTP has it."""
    head: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        head[name] = head[name] + b", " + value if name in head else value
    return head


def _has_body(head: Mapping[bytes, bytes]) -> bool:
    return b"transfer-encoding" in head or head.get(b"content-length", b"0") != b"0"


def _is_stream(path: str) -> bool:
    """Whether lines are answered while they come in, so that no bound is on all of them."""
    return path.startswith("/tasks/") and path.endswith("/stream")


def _target(scope: Scope) -> str:
    """The path as it was sent, without what came after it; percent-encoded, so always one line."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode("ascii", "backslashreplace")
    return ascii(raw.partition(b"?")[0][:200].decode("latin-1"))[1:-1]


def _again(body: bytes, receive: Receive) -> Receive:
    """As `receive`, with the body that was read already before what is still to come."""
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_one() -> Message:
        return whole.pop() if whole else await receive()

    return next_one


async def _swallow(receive: Receive) -> None:
    """Read on for a while: a connection that is closed before loses what was said."""
    try:
        async with asyncio.timeout(LINGER):
            while (await receive()).get("more_body", False):
                pass
    except TimeoutError:
        pass


async def _preflight(head: Mapping[bytes, bytes], tell: Send) -> None:
    """What a browser asks before another site's request; the site is known to be allowed."""
    wanted = head.get(b"access-control-request-headers", b"")
    headers = [
        (b"access-control-allow-methods", b"GET, POST, DELETE"),
        (b"access-control-allow-headers", wanted if _NAMES.fullmatch(wanted) else b"content-type"),
        (b"access-control-max-age", b"600"),
    ]
    await tell({"type": "http.response.start", "status": 204, "headers": headers})
    await tell({"type": "http.response.body", "body": b""})
