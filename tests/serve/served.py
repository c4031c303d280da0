"""The whole server on a port of its own, in a thread, for tests that ask it as clients do."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from bantam.serve.app import app
from bantam.serve.guard import Settings
from bantam.serve.shelf import Shelf


@contextmanager
def served(shelf: Shelf, settings: Settings | None = None) -> Iterator[str]:
    """The address of a server with these models."""
    config: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "log_level": "warning"}
    server = uvicorn.Server(uvicorn.Config(app(shelf, settings or Settings()), **config))

    async def run() -> None:
        try:
            await server.serve()
        finally:
            await shelf.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
