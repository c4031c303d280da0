"""A response that is sent while the request is still received, and work that keeps its order.

No more is held of a stream than is being worked on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bantam.serve import wire

Piece = TypeVar("Piece")
Made = TypeVar("Made")


async def ordered(
    pieces: AsyncGenerator[Piece, None],
    work: Callable[[Piece], Coroutine[Any, Any, Made]],
    ahead: int,
) -> AsyncGenerator[Made, None]:
    """What `work` makes of pieces, in their order. At most `ahead` of them are under way, or done
    and not yet taken."""
    free = asyncio.Semaphore(ahead)
    under_way: asyncio.Queue[asyncio.Task[Made] | None] = asyncio.Queue()
    working: list[asyncio.Task[Made]] = []

    async def begin() -> None:
        await free.acquire()
        async for piece in pieces:
            working.append(asyncio.create_task(work(piece)))
            under_way.put_nowait(working[-1])
            await free.acquire()

    beginning = asyncio.create_task(begin())
    beginning.add_done_callback(lambda _: under_way.put_nowait(None))
    try:
        while (task := await under_way.get()) is not None:
            yield await task
            working.remove(task)
            free.release()
        await beginning
    finally:
        await _ended(beginning, *working)


async def _ended(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Duplex(Response):
    """Sends lines while it still receives some; it ends when the client goes."""

    def __init__(
        self,
        answered: Callable[[AsyncIterator[bytes]], AsyncGenerator[bytes, None]],
        media: str,
    ) -> None:
        self.status_code, self.background, self.answered = 200, None, answered
        self.media_type = media
        self.init_headers(wire.HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Two chunks at most wait here; then the client has to.
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue(2)

        async def read() -> None:
            """Ends when the client has gone."""
            more = True
            while (message := await receive())["type"] != "http.disconnect":
                if more:
                    more = message.get("more_body", False)
                    await chunks.put(message.get("body", b""))
                    if not more:
                        await chunks.put(None)

        async def received() -> AsyncGenerator[bytes, None]:
            while (chunk := await chunks.get()) is not None:
                yield chunk

        async def write() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with aclosing(self.answered(received())) as pieces:
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        reading, writing = asyncio.create_task(read()), asyncio.create_task(write())
        try:
            tasks = {reading, writing}
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _ended(reading, writing)
