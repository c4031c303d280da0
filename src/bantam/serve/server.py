"""uvicorn, with an end that waits for what is under way, and clients that must keep up."""

from __future__ import annotations

import asyncio
import os
from time import monotonic
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from bantam.serve.guard import Traffic

GRACE = 30.0  # seconds for what is under way when the server is asked to end
IDLE = 15.0  # seconds between looks at connections: one without a request at two of them is closed
STALLED = 10.0  # seconds in which a client takes nothing of what is sent to it
CONNECTIONS = 512
HEADERS = 32 << 10  # bytes


class Connection(H11Protocol):
    """Closed when its client sends no whole request for long, or takes nothing of its answer."""

    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
        self.loop.call_later(IDLE, self._look, None)

    def _look(self, before: object) -> None:
        if self.transport.is_closing():
            return
        idle = self.cycle is None or self.cycle.response_complete
        seen = (self.cycle,) if idle else None
        if seen is not None and seen == before:
            self.transport.abort()
        else:
            self.loop.call_later(IDLE, self._look, seen)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled:
            self._stalled.cancel()


class Server(uvicorn.Server):
    """The first signal to end lets requests finish and sends new ones away; a second ends all."""

    def __init__(self, api: FastAPI, grace: float = GRACE) -> None:
        super().__init__(
            uvicorn.Config(
                api,
                http=Connection,
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,  # who asks would be what the client says it is
                server_header=False,
                timeout_keep_alive=int(IDLE),
                timeout_graceful_shutdown=1,
                h11_max_incomplete_event_size=HEADERS,
            )
        )
        self._traffic: Traffic = api.state.traffic
        self._grace, self._until = grace, 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._traffic.draining:
            os._exit(128 + sig)  # the engines end when their pipes do
        self._traffic.draining = True
        self._until = monotonic() + self._grace

    async def on_tick(self, counter: int) -> bool:
        if self._traffic.draining:
            self.should_exit = not self._traffic.running or monotonic() > self._until
        return await super().on_tick(counter)
