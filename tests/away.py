"""An endpoint that speaks OpenAI's chat completions, on this machine, and answers as it is told."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Answer = Callable[[dict[str, Any]], "Told"]


@dataclass(frozen=True)
class Told:
    """What is answered; bytes as they are, anything else as JSON."""

    body: Any
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    wait: float = 0.0  # seconds before it


@dataclass
class Away:
    address: str  # with the model's name
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


def said(text: str | None, reason: str = "stop", **more: Any) -> Told:
    """A message with this text."""
    message = {"role": "assistant", "content": text, **more}
    return Told({"choices": [{"index": 0, "message": message, "finish_reason": reason}]})


def called(*calls: tuple[str, str]) -> Told:
    made = [
        {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(calls)
    ]
    return said(None, "tool_calls", tool_calls=made)


def wrong(status: int, message: str = "no", **more: Any) -> Told:
    return Told({"error": {"message": message, **more}}, status)


@contextmanager
def away(answer: Answer) -> Iterator[Away]:
    """It runs while the block does; what it was asked is kept."""
    made = Away("")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            made.asked.append(body)
            made.headers.append(dict(self.headers.items()))
            made.paths.append(self.path)
            told = answer(body)
            time.sleep(told.wait)
            sent = told.body if isinstance(told.body, bytes) else json.dumps(told.body).encode()
            self.send_response(told.status)
            self.send_header("Content-Length", str(len(sent)))
            for name, value in told.headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.address = f"http://127.0.0.1:{server.server_port}/v1#big"
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
