"""Events to a client as they come, and work that ends when its client has gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse

from bantam.serve.ask import Refusal

T = TypeVar("T")

# How far a response may run ahead of its reader: more than most answers have in all. Who does not
# take a part of that in time would keep the model from others.
AHEAD, PART = 1 << 19, 1 << 15  # bytes
PATIENCE = 0.8  # seconds

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


def streamed(
    pieces: AsyncGenerator[bytes, None], media: str = "text/event-stream"
) -> StreamingResponse:
    """`pieces` as they come, made ahead of a slow reader as far as there is room. When the client
    goes, or takes nothing for long while there is no room, what makes them is ended."""
    return StreamingResponse(_ahead(pieces), media_type=media, headers=HEADERS)


async def begun(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The same pieces, of which the first is there already: what is refused before it is raised
    here, while a status can still be sent."""
    first = await anext(pieces, b"")

    async def all_of_them() -> AsyncGenerator[bytes, None]:
        async with aclosing(pieces):
            yield first
            async for piece in pieces:
                yield piece

    return all_of_them()


async def _ahead(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The same pieces, those that wait for their reader joined."""
    waiting = bytearray()
    there, taken = asyncio.Event(), asyncio.Event()

    async def make() -> None:
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    waiting.extend(piece)
                    there.set()
                    while len(waiting) > AHEAD:
                        taken.clear()
                        async with asyncio.timeout(PATIENCE):
                            await taken.wait()
        finally:
            there.set()

    making = asyncio.create_task(make())
    try:
        while waiting or not making.done():
            await there.wait()
            part = bytes(waiting[:PART])
            del waiting[:PART]
            if not waiting and not making.done():
                there.clear()
            taken.set()
            if part:
                yield part
        making.result()
    except TimeoutError:
        raise Refusal(408, "the client takes nothing of its answer") from None
    finally:
        making.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await making


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
