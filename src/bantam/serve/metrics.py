"""What is counted, in the text format of Prometheus: numbers, never a text.

Labels are names of models on the shelf, interfaces and statuses, so there are only so many.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # when a series began doubles the lines
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)  # memory and processor time of the server without its engines

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

_requests = Counter(
    "bantam_requests", "Requests by their status.", ["interface", "status"], registry=REGISTRY
)
_request_seconds = Histogram(
    "bantam_request_seconds",
    "From a request to the end of its response.",
    ["interface"],
    buckets=SECONDS,
    registry=REGISTRY,
)
running = Gauge("bantam_requests_running", "Requests being answered.", registry=REGISTRY)
_prompt = Counter("bantam_prompt_tokens", "Tokens of prompts.", ["model"], registry=REGISTRY)
_cached = Counter(
    "bantam_cached_prompt_tokens",
    "Tokens of prompts that the engine knew already.",
    ["model"],
    registry=REGISTRY,
)
_written = Counter("bantam_written_tokens", "Tokens of replies.", ["model"], registry=REGISTRY)
_first = Histogram(
    "bantam_first_token_seconds",
    "From a request to the first of its reply, with its time in the queue.",
    ["model"],
    buckets=SECONDS,
    registry=REGISTRY,
)
_answer = Histogram(
    "bantam_answer_seconds",
    "From a request to the end of its reply.",
    ["model"],
    buckets=SECONDS,
    registry=REGISTRY,
)


def requested(interface: str, status: int, seconds: float) -> None:
    """Count a request that was answered or refused."""
    _requests.labels(interface, str(status)).inc()
    _request_seconds.labels(interface).observe(seconds)


def answered(
    model: str,
    prompt_tokens: int,
    tokens: int,
    cached: int,
    seconds_to_first: float,
    seconds: float,
) -> None:
    """Count an answer; `model` is a name on the shelf, `cached` are tokens of the prompt."""
    _prompt.labels(model).inc(prompt_tokens)
    _cached.labels(model).inc(cached)
    _written.labels(model).inc(tokens)
    _first.labels(model).observe(seconds_to_first)
    _answer.labels(model).observe(seconds)


_GAUGES = {
    "loaded": Gauge("bantam_model_loaded", "1: its process runs.", ["model"], registry=REGISTRY),
    "in_flight": Gauge(
        "bantam_model_requests_running", "Requests it works on.", ["model"], registry=REGISTRY
    ),
    "waiting": Gauge(
        "bantam_model_queue", "Requests that wait for their turn.", ["model"], registry=REGISTRY
    ),
    "loads": Gauge("bantam_model_loads", "Times that it was loaded.", ["model"], registry=REGISTRY),
    "restarts": Gauge(
        "bantam_model_restarts", "Times that its process died.", ["model"], registry=REGISTRY
    ),
    "memory": Gauge(
        "bantam_model_memory_bytes",
        "Memory that its processes hold, mapped weights included.",
        ["model"],
        registry=REGISTRY,
    ),
}


def told(state: Iterable[dict[str, Any]]) -> bytes:
    """All that is counted, and how the shelf is now (`Shelf.state`)."""
    for row in state:
        for what, gauge in _GAUGES.items():
            gauge.labels(row["name"]).set(row[what])
    return generate_latest(REGISTRY)
