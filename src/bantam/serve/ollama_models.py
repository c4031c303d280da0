"""What Ollama tells of its models."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from bantam.errors import BadInput
from bantam.formats import gguf
from bantam.serve.ask import Refusal
from bantam.serve.lent import Book
from bantam.serve.shelf import Shelf

LATEST = ":latest"  # the tag of a name that is told without


@dataclass(frozen=True)
class Head:
    """What the file of a model says of itself."""

    family: str = ""
    type: str = ""  # of most weights
    template: str = ""
    licence: str = ""
    info: tuple[tuple[str, Any], ...] = ()


def found(shelf: Shelf, name: str) -> str:
    """The model's own name: it may be asked for with Ollama's tag. Raises Refusal 404."""
    names = shelf.names()
    plain = name.removesuffix(LATEST)
    return shelf.book(name if name in names or plain not in names else plain).name


def tags(shelf: Shelf) -> dict[str, Any]:
    """All models."""
    return {"models": [_listed(book) | {"modified_at": _time(book.made)} for book in shelf.books()]}


def running(shelf: Shelf) -> dict[str, Any]:
    """The models that are in memory, which is the processor's."""
    held = {one["name"]: one["memory"] for one in shelf.state() if one["loaded"]}
    # They are put away when memory asks, at no certain time.
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    return {
        "models": [
            _listed(book)
            | {"size": held[book.name], "size_vram": 0, "expires_at": until}
            | {"context_length": book.context}
            for book in shelf.books()
            if book.name in held
        ]
    }


def shown(shelf: Shelf, name: str) -> dict[str, Any]:
    """All that is told of one model. Raises Refusal 404."""
    book = shelf.book(name)
    head = _head_of(book)
    capabilities = ["completion"]
    if book.task is None or book.task.most_calls:
        capabilities.append("tools")
    return {
        "modelfile": f"FROM {book.name}\n",
        "parameters": "",
        "template": head.template,
        "license": head.licence,
        "details": _details(book),
        "model_info": dict(head.info) | {"general.parameter_count": book.parameters},
        "capabilities": capabilities,
        "modified_at": _time(book.made),
    }


def refuse_change(name: str) -> Refusal:
    """Why models are not fetched, made or deleted."""
    return Refusal(
        501,
        f"{name}: models are not changed over the network here; name those to serve on the "
        "command line: `bantam serve MODEL ...`",
        code="not_supported",
    )


def _listed(book: Book) -> dict[str, Any]:
    name = book.name if ":" in book.name else book.name + LATEST
    return {
        "name": name,
        "model": name,
        "size": book.bytes,
        "digest": book.sha,
        "details": _details(book),
    }


def _details(book: Book) -> dict[str, Any]:
    head = _head_of(book)
    return {
        "parent_model": "",
        "format": "gguf",
        "family": head.family,
        "families": [head.family] if head.family else [],
        "parameter_size": _short(book.parameters),
        "quantization_level": head.type,
    }


def _head_of(book: Book) -> Head:
    return _head(book.path, book.made, book.bytes)


@lru_cache(256)
def _head(path: Path, made: int, bytes: int) -> Head:
    """What the file of this time and size says; nothing if it is being replaced."""
    try:
        file = gguf.read(path)
    except BadInput:
        return Head()
    sizes: Counter[str] = Counter()
    for tensor in file.tensors.values():
        sizes[tensor.type] += tensor.nbytes
    family = _text(file.metadata.get("general.architecture"))
    told = ("general.", "tokenizer.ggml.", f"{family}.")
    info = {
        key: value
        for key, value in file.metadata.items()
        if key.startswith(told) and not isinstance(value, list)
    }
    return Head(
        family,
        sizes.most_common(1)[0][0] if sizes else "",
        _text(file.metadata.get("tokenizer.chat_template")),
        _text(file.metadata.get("general.license")),
        tuple(info.items()),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _short(number: int) -> str:
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= size:
            return f"{number / size:.{1 if letter == 'B' else 2}f}{letter}"
    return str(number)


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
