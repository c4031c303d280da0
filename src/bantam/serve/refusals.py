"""What is refused, in the words of the interface that was asked."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Scope

from bantam.serve.ask import Refusal

AGAIN = 1  # second, after which it may be tried again where nobody knows better


def interface(path: str) -> str:
    """Which interface a path belongs to: one of a few words, whatever the path."""
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return "anthropic"
    if path == "/":
        return "page"
    for first in ("v1", "api", "tasks", "feedback", "page"):
        if path.startswith(f"/{first}/") or path == f"/{first}":
            return {"v1": "openai", "api": "ollama"}.get(first, first)
    return "other"


def asked(scope: Scope) -> str:
    """The path by which a refusal is worded. `/v1/models` is both OpenAI's and Anthropic's, whose
    clients tell the version that they speak."""
    path: str = scope["path"]
    theirs = any(name == b"anthropic-version" for name, _ in scope["headers"])
    return "/v1/messages" if theirs and path.startswith("/v1/") else path


def response(path: str, refusal: Refusal) -> JSONResponse:
    """The whole response; 429 and 503 say when to try again."""
    body = _sound(_worded(path, refusal))
    sent = JSONResponse(body, refusal.status)
    if "request_id" in body:  # the same as in the body
        sent.headers["request-id"] = body["request_id"]
    if refusal.status in (429, 503):
        sent.headers["Retry-After"] = str(refusal.retry_after or AGAIN)
    if refusal.status == 401:
        sent.headers["WWW-Authenticate"] = "Bearer"
    return sent


def _worded(path: str, refusal: Refusal) -> dict[str, Any]:
    from bantam.serve import anthropic, ollama, openai

    speaker = {"anthropic": anthropic, "ollama": ollama}.get(interface(path), openai)
    worded: dict[str, Any] = speaker.wrong(refusal)
    return worded


def _sound(value: Any) -> Any:
    """The same without halves of characters, which JSON can tell of and UTF-8 cannot hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _sound(inner) for key, inner in value.items()}
    return value
