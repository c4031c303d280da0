"""A whole server of tiny random models, on a port of this machine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import uvicorn

from bantam.kinds import classify
from bantam.kinds import texts as writing
from bantam.serve.app import app
from bantam.serve.guard import Settings
from bantam.serve.shelf import Shelf
from tiny_tasks import packed

LABELS = ("yes", "no", "not at all")


def models(folder: Path, tiny: Path) -> dict[str, Path]:
    """One that converses, one that labels and one that calls functions."""
    labels = classify.task("labels", "Is it good?", LABELS)
    labels = replace(labels, thresholds=(0.0, 0.0, 0.0), max_text_tokens=100)
    calls = replace(writing.task("extract", "calls", "", most_calls=2), max_answer_tokens=60)
    return {
        "chat": tiny,
        "labels": packed(folder / "labels.gguf", tiny, labels),
        "calls": packed(folder / "calls.gguf", tiny, replace(calls, max_text_tokens=200)),
    }


@contextmanager
def served(shelf: Shelf, settings: Settings | None = None) -> Iterator[str]:
    """The address of a server; the shelf is closed at its end."""
    config = uvicorn.Config(app(shelf, settings or Settings()), port=0, log_level="warning")
    config.lifespan = "off"
    server = uvicorn.Server(config)

    async def serve() -> None:
        await server.serve()
        await shelf.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
