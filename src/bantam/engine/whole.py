"""A whole text by `Runtime.write`, which can be stopped while it is written."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue

from bantam.engine import Completion, Done, Piece, Runtime, Sampling
from bantam.errors import BantamError, JobFailed

LOOK = 0.1  # seconds between looks at whether it is still wanted

Told = Piece | Done | BantamError


def complete(
    runtime: Runtime,
    prompt: Sequence[int],
    max_tokens: int,
    stop: Sequence[str],
    given_up: threading.Event | None = None,
) -> Completion:
    """See `Runtime.complete`. Once `given_up` is set the text is stopped and JobFailed raised."""
    told: SimpleQueue[Told] = SimpleQueue()
    sampling = Sampling(max_tokens=max_tokens, stop=tuple(stop), alternatives=0, whole=True)
    cancel = runtime.write(prompt, sampling, told.put)
    text, log = "", 0.0
    try:
        while not isinstance(one := _next(told, given_up), Done):
            text += one.text
            log += sum(token.log_probability or 0.0 for token in one.tokens)  # null: NaN
    finally:
        cancel()
    return Completion(text, one.tokens, log, one.reason == "stop")


def _next(told: SimpleQueue[Told], given_up: threading.Event | None) -> Piece | Done:
    while True:
        if given_up and given_up.is_set():
            raise JobFailed("the request was given up")
        try:
            one = told.get(timeout=LOOK if given_up else None)
        except Empty:
            continue
        if isinstance(one, BantamError):
            raise one
        return one
