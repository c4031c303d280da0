"""The parent's side of llama.cpp: starts the child, asks it, and says how it died."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Self

import psutil

from bantam.engine import (
    Completion,
    Died,
    Done,
    Info,
    Piece,
    Refused,
    Sampling,
    Token,
    cores,
    whole,
)
from bantam.errors import BadInput, BantamError, JobFailed

Reply = dict[str, Any]
# Who hears the replies to a question, by its number. None: the child has died.
Waiting = dict[int, "Callable[[Reply | None], None]"]

LOG_LINES = 20
MAX_SOCKET_PATH = 100  # the system's limit is 104 bytes on macOS, 108 on Linux


class LlamaCpp:
    """A GGUF model in llama.cpp in a child process. See `bantam.engine.Runtime`."""

    def __init__(
        self,
        model: Path,
        *,
        threads: int | None,
        context: int,
        parallel: int,
        embeddings: bool,
        adapters: Sequence[Path],
    ) -> None:
        for path in (model, *adapters):
            if not path.is_file():
                raise BadInput(f"{path} is no file", "name a .gguf file")
        if embeddings and adapters:
            raise ValueError("embeddings are those of the model without adapters")
        self._name = model.name
        self._embeddings = embeddings
        self._adapters = len(adapters)
        self._adapter: int | None = None  # that questions are for
        self._original: LlamaCpp | None = None  # the process lives as long as that
        folder = tempfile.mkdtemp(prefix="bantam-")
        threads = threads or min(cores(), 4)
        settings = {
            "model": str(model.absolute()),
            "threads": threads,
            "every_core": 1 < threads == cores(),
            "context": context,
            "parallel": parallel,
            "embeddings": embeddings,
            "adapters": [str(path.absolute()) for path in adapters],
            "socket": _socket_path(folder),
        }
        # -P: a json.py in the user's folder is not imported in place of the real one.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bantam.engine.llama_cpp", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._stop = weakref.finalize(self, _stop, self._process, folder)
        self._numbers = itertools.count(1)
        self._writing = threading.Lock()
        ready = _Question(0, SimpleQueue())
        self._waiting: Waiting = {0: ready.replies.put}
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._gone = threading.Event()
        # The threads know the pipes, not self, so that a forgotten runtime can be collected.
        _thread(_read_replies, self._process.stdout, self._waiting, self._gone)
        self._logging = _thread(_read_log, self._process.stderr, self._log)
        try:
            self.info = Info(**self._next(ready)["result"])
        except BaseException:
            self.close()
            raise

    @property
    def peak_memory_bytes(self) -> int:
        return _peak_memory(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def choose(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        if len(prompts) != len(candidates):
            raise ValueError(f"{len(prompts)} prompts but {len(candidates)} lists of candidates")
        self._check(prompts)
        # One request for each set of candidates, as the bias goes with the request.
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, ids in enumerate(candidates):
            groups.setdefault(tuple(ids), []).append(place)
        for ids in groups:
            self._check_ids(ids)
            if not ids:
                raise ValueError("a prompt has no candidates")
            if len(set(ids)) < len(ids):
                raise ValueError("a candidate is given twice")
        asked = [
            (places, self._ask("choose", prompts=[prompts[p] for p in places], candidates=ids))
            for ids, places in groups.items()
        ]
        rows: dict[int, list[float]] = {}
        for places, question in asked:
            rows.update(zip(places, self._next(question)["result"], strict=True))
        return [rows[place] for place in range(len(prompts))]

    def generate(
        self,
        prompt: Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int | None = None,
        end_ids: Sequence[int] = (),
    ) -> Iterator[str]:
        sampling = Sampling(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            stop=tuple(stop),
            seed=seed,
            end_ids=tuple(end_ids),
        )
        self._check_writing(prompt, sampling)
        return self._pieces(prompt, sampling)

    def _pieces(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[str]:
        told: SimpleQueue[Piece | Done | BantamError] = SimpleQueue()
        cancel = self.write(prompt, sampling, told.put)
        try:
            while isinstance(one := told.get(), Piece):
                yield one.text
            if isinstance(one, BantamError):
                raise one
        finally:
            cancel()

    def write(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        tell: Callable[[Piece | Done | BantamError], None],
    ) -> Callable[[], None]:
        self._check_writing(prompt, sampling)

        def hear(reply: Reply | None) -> None:
            if reply is None:
                tell(self._death())
            elif "error" in reply:
                tell(self._refusal(reply))
            elif "piece" in reply:
                tell(Piece(reply["piece"], tuple(map(_token, reply.get("tokens", ())))))
            else:
                tell(Done(**reply["result"]))

        number = next(self._numbers)
        room = self.info.context - len(prompt)
        request = vars(sampling) | {
            "op": "write",
            "id": number,
            "adapter": self._adapter,
            "prompt": prompt,
            "max_tokens": min(sampling.max_tokens or room, room),
        }

        def cancel() -> None:
            if self._waiting.pop(number, None):
                with suppress(JobFailed):  # then there is nothing left to stop
                    self._write({"op": "cancel", "id": number})

        self._waiting[number] = hear
        try:
            self._write(request)
        except JobFailed:
            if self._waiting.pop(number, None):  # else it was told
                raise
        return cancel

    def likeliest(self, prompt: Sequence[int], count: int) -> list[tuple[int, float]]:
        self._check([prompt])
        if count < 1:
            raise ValueError("count must be at least 1")
        found = self._answer("likeliest", prompt=prompt, count=count)
        return [(id, probability) for id, probability in found]

    def complete(
        self, prompt: Sequence[int], max_tokens: int, stop: Sequence[str] = ()
    ) -> Completion:
        return whole.complete(self, prompt, max_tokens, stop)

    def embed(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        if not self._embeddings:
            raise ValueError("start the runtime with embeddings=True")
        if not prompts:
            return []
        self._check(prompts)
        states: list[list[float]] = self._answer("embed", prompts=prompts)
        return states

    def tokenize(self, text: str, special: bool) -> list[int]:
        ids: list[int] = self._answer("tokenize", text=text, special=special)
        return ids

    def detokenize(self, ids: Sequence[int]) -> str:
        self._check_ids(ids)
        text: str = self._answer("detokenize", ids=ids)
        return text

    def adapted(self, adapter: int) -> LlamaCpp:
        if not 0 <= adapter < self._adapters:
            raise ValueError(f"the runtime was started with {self._adapters} adapters")
        other = copy(self)
        other._adapter, other._original = adapter, self
        return other

    def close(self) -> None:
        """End the child and wait for it. More than once does no harm."""
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, prompts: Sequence[Sequence[int]]) -> None:
        room = self.info.context - 1
        for place, prompt in enumerate(prompts, 1):
            if not prompt:
                raise ValueError(f"prompt {place} is empty")
            if len(prompt) > room:
                raise BadInput(
                    f"prompt {place} has {len(prompt)} tokens, but there is room for {room}",
                    "shorten the text, or start the runtime with a larger context",
                )
            self._check_ids(prompt)

    def _check_writing(self, prompt: Sequence[int], sampling: Sampling) -> None:
        self._check([prompt])
        if sampling.max_tokens is not None and sampling.max_tokens < 1:
            raise ValueError("max_tokens must be at least 1")
        self._check_ids([token for token, _ in sampling.logit_bias])

    def _check_ids(self, ids: Sequence[int]) -> None:
        if ids and not 0 <= min(ids) <= max(ids) < self.info.vocabulary:
            raise ValueError(f"a token id is not below {self.info.vocabulary}, or negative")

    def _ask(self, op: str, **request: Any) -> _Question:
        question = _Question(next(self._numbers), SimpleQueue())
        self._waiting[question.number] = question.replies.put
        self._write({"op": op, "id": question.number, "adapter": self._adapter, **request})
        return question

    def _write(self, request: dict[str, Any]) -> None:
        line = json.dumps(request).encode() + b"\n"
        assert self._process.stdin
        try:
            with self._writing:
                self._process.stdin.write(line)
                self._process.stdin.flush()
        except (OSError, ValueError):  # the pipe is broken, or closed on this side
            raise self._death() from None
        # Of a process that ends, output may be closed before input: what was written is not read.
        if self._gone.is_set():
            raise self._death()

    def _next(self, question: _Question) -> Reply:
        reply = question.replies.get()
        if reply is None:
            raise self._death()
        if "error" in reply:
            raise self._refusal(reply)
        return reply

    def _answer(self, op: str, **request: Any) -> Any:
        return self._next(self._ask(op, **request))["result"]

    def _refusal(self, reply: Reply) -> Refused:
        asked = 400 <= reply["status"] < 500
        mend = "ask otherwise" if asked else "the file may be broken: make it again"
        return Refused(f"{self._name}: the runtime refused: {reply['error']}", mend, asked)

    def _death(self) -> Died:
        if not self._stop.alive:
            return Died(f"{self._name}: the runtime was closed", "start it again")
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.close()
            return Died(f"{self._name}: the runtime stopped answering", "start it again")
        self._logging.join(timeout=1)
        how = f"of {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"
        lines = [f"{self._name}: the runtime died {how}", *self._log]
        mend = (
            "the system may be out of memory: use a smaller model, context or number in parallel"
            if how == "of SIGKILL"
            else "the file or the runtime may be broken: make the file again"
        )
        return Died("\n".join(lines), mend)


@dataclass(frozen=True)
class _Question:
    number: int
    replies: SimpleQueue[Reply | None]


def _thread(target: Callable[..., None], *args: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, daemon=True)
    thread.start()
    return thread


def _read_replies(replies: IO[bytes], waiting: Waiting, gone: threading.Event) -> None:
    """Hand every reply to whoever waits for it; when the child is gone, tell them all.

    `gone` is set before, so that whoever begins to wait later can see that nobody will tell them.
    Nobody waits any more for a text that was stopped.
    """
    try:
        with replies:
            for line in replies:
                reply = json.loads(line)
                number = reply["id"]
                hear = waiting.get(number) if "piece" in reply else waiting.pop(number, None)
                if hear:
                    with suppress(Exception):  # of one who fails to listen; the others must hear
                        hear(reply)
    finally:
        gone.set()
        while waiting:
            _, hear = waiting.popitem()
            with suppress(Exception):
                hear(None)


def _token(told: list[Any]) -> Token:
    id, text, log_probability, others = told
    return Token(id, text, log_probability, tuple((id, text, log) for id, text, log in others))


def _read_log(log: IO[bytes], lines: deque[str]) -> None:
    with log:
        lines.extend(line.decode(errors="replace").rstrip() for line in log)


def _stop(process: subprocess.Popen[bytes], folder: str) -> None:
    process.kill()  # it has nothing to save
    process.wait()
    if process.stdin:
        with suppress(OSError):
            process.stdin.close()
    shutil.rmtree(folder, ignore_errors=True)


def _socket_path(folder: str) -> str | None:
    """Where the child's server listens; None where it has to take a loopback port."""
    path = str(Path(folder, "llama.sock"))
    fits = len(path.encode()) <= MAX_SOCKET_PATH
    return path if hasattr(socket, "AF_UNIX") and fits else None


def _peak_memory(pid: int) -> int:
    if sys.platform == "linux":
        # Not getrusage: after a fork that would count the parent's memory too.
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    memory = psutil.Process(pid).memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))
