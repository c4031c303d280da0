"""Tiny random models with tasks, and a server of some of the routes, on a port of this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse

from bantam import kinds
from bantam.serve.ask import Refusal
from bantam.serve.shelf import Shelf
from tiny import rewritten

TEXTS = [f"The picture {number} is sharp and the battery lasts all day." for number in range(70)]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"thing": {"enum": ["camera", "phone"]}},
                "required": ["thing"],
            },
        },
    }
    for name in ("praise", "mend")
]


def packed(path: Path, base: Path, task: kinds.Task) -> Path:
    """The base with a task, as `bantam make` packs one, but not tuned for it."""
    return rewritten(path, base, kinds.to_metadata(task))


@contextmanager
def serving(
    shelf: Shelf, routes: Callable[[Shelf], APIRouter], settings: Any = None
) -> Iterator[httpx.Client]:
    """A client of a server that has these routes and settings."""
    app = FastAPI()
    app.state.settings = settings
    app.include_router(routes(shelf))

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> JSONResponse:
        return JSONResponse(
            {"error": {"message": refusal.message, "param": refusal.param, "code": refusal.code}},
            refusal.status,
        )

    with running(app) as client:
        yield client


@contextmanager
def running(app: FastAPI) -> Iterator[httpx.Client]:
    """A client of an app that is served."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield client
    server.should_exit = True
    thread.join(10)
