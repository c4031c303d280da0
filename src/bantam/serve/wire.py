"""Events to a client as they come, and work that ends when its client has gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse

T = TypeVar("T")

# Proxies must not hold events back.
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def event(data: Any, name: str = "") -> bytes:
    """A server-sent event; `data` is a text as it is, anything else as JSON.

    The JSON is plain ASCII, here and in `line`: some clients take U+2028 and others for line ends.
    """
    text = data if isinstance(data, str) else json.dumps(data)
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {text}\n\n".encode()


def line(data: Any) -> bytes:
    """A line of newline-delimited JSON."""
    return json.dumps(data).encode() + b"\n"


def streamed(pieces: AsyncIterator[bytes], media: str = "text/event-stream") -> StreamingResponse:
    """`pieces` as they come. When the client goes, the iterator is cancelled where it waits."""
    return StreamingResponse(pieces, media_type=media, headers=HEADERS)


async def begun(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same pieces, of which the first is there already: what is refused before it is raised
    here, while a status can still be sent."""
    first = await anext(pieces, b"")

    async def all_of_them() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return all_of_them()


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """What `work` gives, which is cancelled as soon as the client has gone.

    Raises CancelledError then; nobody is left to be told.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise asyncio.CancelledError
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
