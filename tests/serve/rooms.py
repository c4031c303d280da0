"""Real servers for tests: the whole app behind its sockets, in a thread of this process."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Awaitable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fastapi import FastAPI

from bantam.serve.app import app
from bantam.serve.guard import Settings
from bantam.serve.server import Server
from bantam.serve.shelf import Shelf

T = TypeVar("T")


class Told(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Room:
    """Servers over one shelf, in one event loop."""

    def __init__(self, places: Mapping[str, Path], **how: Any) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        usual: dict[str, Any] = {"threads": 1, "parallel": 2, "memory": 10**9}
        self.shelf = Shelf(places, **usual | how)
        self.servers: list[Server] = []
        self._ends: list[Future[None]] = []

    def wait(self, work: Awaitable[T]) -> T:
        async def waited() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(waited(), self._loop).result(20)

    def api(self, settings: Settings | None = None) -> FastAPI:
        return app(self.shelf, settings or Settings())

    def serve(self, settings: Settings | None = None, api: FastAPI | None = None) -> int:
        """The port of a new server."""
        listening = socket.create_server(("127.0.0.1", 0))
        server = Server(api or self.api(settings), grace=1.0)
        serving = asyncio.run_coroutine_threadsafe(server.serve([listening]), self._loop)
        self.servers.append(server)
        self._ends.append(serving)
        port: int = listening.getsockname()[1]
        return port

    def ended(self, number: int) -> None:
        """Wait until a server has ended."""
        self._ends[number].result(20)

    def close(self) -> None:
        for number, server in enumerate(self.servers):
            server.should_exit = True
            self.ended(number)
        self.wait(self.shelf.close())
        self._loop.call_soon_threadsafe(self._loop.stop)


@contextmanager
def room(places: Mapping[str, Path], **how: Any) -> Iterator[Room]:
    made = Room(places, **how)
    try:
        yield made
    finally:
        made.close()


def ask(
    port: int,
    path: str,
    method: str = "GET",
    body: Any = None,
    timeout: float = 20,
    **headers: str,
) -> Told:
    """A request as it stands; `_` in the names of headers are hyphens."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        return Told(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def raw(port: int, sent: bytes, timeout: float = 20) -> bytes:
    """What comes back for these bytes until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout) as client:
        client.sendall(sent)
        found = b""
        while piece := client.recv(1 << 16):
            found += piece
        return found


def chat(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}]} | more
