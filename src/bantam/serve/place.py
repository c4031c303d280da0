"""A file on the shelf and the names that it answers to: as it is, and with adapters over it."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path

from bantam.errors import BadInput, BantamError
from bantam.formats import lora
from bantam.model import Model
from bantam.serve.ask import Refusal
from bantam.serve.copies import Copy, Identity, identity
from bantam.serve.lent import Book, worded
from bantam.serve.turns import Turns

AGAIN = 5.0  # seconds until files that could not be opened are tried again


@dataclass
class Failure:
    """Files that could not be opened."""

    identities: list[Identity | None]
    at: float
    error: BantamError | Refusal
    lasting: bool  # until they change


class Place:
    """`names` with the adapters that they mean, if any; `model` reads the file.

    Raises BadInput when a file cannot be read, or an adapter is for another one.
    """

    def __init__(
        self,
        path: Path,
        names: Mapping[str, Path | None],
        turns: Turns,
        model: Callable[[Path], Model],
    ) -> None:
        self.path, self.names, self.turns, self._model = path, names, turns, model
        self.title = ", ".join(names)  # for the log
        self._adapters = [*dict.fromkeys(path for path in names.values() if path)]
        # What takes its time must not keep others from beginning or from being stopped, and what
        # was given up may hold its thread for a moment longer.
        self.quick = ThreadPoolExecutor(turns.at_once + 2, "bantam-quick")
        self.slow = ThreadPoolExecutor(2 * turns.at_once, "bantam-slow")
        self.copy: Copy | None = None
        self.opening: asyncio.Task[Copy] | None = None
        self.failure: Failure | None = None
        self.opened = self.restarts = 0
        self.hashing: list[Identity | None] = []  # the files that are hashed, or were
        self._hashed: dict[Path, tuple[Identity | None, str]] = {}
        self._ended = threading.Event()
        self._read = self.identities()  # the files whose heads were last read
        self._books = self.checked().books

    def identities(self) -> list[Identity | None]:
        """Of the file and of the adapters."""
        return [*map(identity, (self.path, *self._adapters))]

    def found(self) -> Copy:
        """The files as they are now, not opened. Raises BadInput."""
        identities = self.identities()
        plain = self._model(self.path)
        models = {
            name: plain.adapted(adapter) if adapter else plain
            for name, adapter in self.names.items()
        }
        books = {name: _book(name, model) for name, model in models.items()}
        return Copy(models, books, self._adapters, identities)

    def checked(self) -> Copy:
        """As `found`, and adapters are for this very file, which may be read whole for that. Raises
        BadInput."""
        found = self.found()
        for model in found.models.values():
            wanted = model.adapter and model.adapter.metadata.get(lora.BASE)
            if model.adapter and wanted not in (None, self._sha(self.path)):
                raise BadInput(
                    f"{model.adapter.path} was trained over another file than {self.path}",
                    f"use the one whose sha256 is {wanted!r:.80}",
                )
        return found

    def book(self, name: str) -> Book:
        """What is told of a name, open or not."""
        identities = self.identities()
        if None not in identities and identities != self._read:
            self._read = identities
            with suppress(BantamError):  # what cannot be read is told when it is to be opened
                self._books = self.found().books
        return replace(self._books[name], sha=self._known(name))

    def usable(self) -> Copy | None:
        """The copy, when it lives and nothing better can be had now. Raises BantamError or Refusal
        when there is none and the files have only just failed."""
        identities, failed, copy = self.identities(), self.failure, self.copy
        alive = copy is not None and copy.alive
        if failed and failed.identities == identities:
            recent = time.monotonic() - failed.at < AGAIN
            if alive and (recent or failed.lasting):
                return copy
            if recent and not alive:
                raise failed.error
        return copy if copy and alive and copy.identities == identities else None

    def refusal(self, name: str, error: BantamError) -> Refusal:
        """Why nothing answers to `name`, for whoever asked: no paths and no other names."""
        shown = dict.fromkeys(self._adapters, "another adapter")
        shown |= {path: name for path in (self.path, self.names[name]) if path}
        texts = {text: name for path, name in shown.items() for text in (str(path), path.name)}
        longest = sorted(texts, key=len, reverse=True)
        hide = partial(
            re.compile("|".join(map(re.escape, longest))).sub, lambda found: texts[found[0]]
        )
        told = worded(self._books[name], BantamError(hide(error.message), hide(error.mend)))
        return Refusal(503, f"{name} cannot be opened: {told}", retry_after=5)

    def hash(self) -> None:
        """Learn the sha256 of the files, each once."""
        for path in (self.path, *self._adapters):
            self._sha(path)

    def close(self) -> None:
        self._ended.set()
        for pool in (self.quick, self.slow):
            pool.shutdown(wait=False, cancel_futures=True)

    def _known(self, name: str) -> str:
        """The sha256 of a name's file; with an adapter that of both; "" while it is not known."""
        paths = [path for path in (self.path, self.names[name]) if path]
        held = [self._hashed.get(path, (None, "")) for path in paths]
        if [one for one, _ in held] != [identity(path) for path in paths]:
            return ""
        whole = "".join(sha for _, sha in held)
        return whole if len(held) == 1 else hashlib.sha256(whole.encode()).hexdigest()

    def _sha(self, path: Path) -> str:
        now = identity(path)
        if path in self._hashed and self._hashed[path][0] == now:
            return self._hashed[path][1]
        sha = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while (piece := file.read(1 << 20)) and not self._ended.is_set():
                    sha.update(piece)
        except OSError as error:
            raise BadInput(
                f"{path} cannot be read: {error.strerror}", "look at its rights"
            ) from None
        if identity(path) == now and not self._ended.is_set():
            self._hashed[path] = (now, sha.hexdigest())
        return sha.hexdigest()


def _book(name: str, model: Model) -> Book:
    files = [file for file in (model.file, model.adapter) if file]
    told = [file.path.stat() for file in files]
    return Book(
        name,
        model.path,
        int(max(one.st_mtime for one in told)),
        sum(one.st_size for one in told),
        model.task,
        model.context,
        sum(prod(tensor.shape) for file in files for tensor in file.tensors.values()),
        "",
        model.temperature,
        model.completes,
    )
