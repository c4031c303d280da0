"""llama.cpp in a process of its own: `python -m bantam.engine.llama_cpp SETTINGS`.

SETTINGS is a JSON object. Requests come as JSON lines on standard input, each with an `id` and an
`op`; replies go as JSON lines to standard output and bear the id: any number of `{"id", "piece"}`,
then one `{"id", "result"}` or `{"id", "error", "status"}`. Reply 0 says that the model is loaded.

When standard input ends, the parent is gone, and so is this process. It imports little, because
its start is part of every single prediction.
"""

from __future__ import annotations

import copy
import http.client
import json
import math
import os
import shutil
import signal
import socket
import string
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from bantam.engine.writing import Refused, Request, Writing, refusal

# Added to the candidates' logits, so that they are the top k whatever the model thinks of them.
# No larger: a float32 of this size still holds a logit to 1e-5.
BIAS = 200.0

SMALL = 300_000_000  # bytes of a file whose model reads 128 tokens in half a second on two cores
KEPT_MIB = 128

# See `choose`: how far an anchor is lifted above the candidates.
ANCHOR_LIFTS = (40.0, 60.0, 80.0)


WINDOW = 1 << 17  # tokens: more than is written at a time


class Model:
    """xllamacpp's server, asked directly but for the tokenizer, which it offers over HTTP only."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import xllamacpp

        # Locks out whoever else can reach the socket, which matters where it is a loopback port.
        self.key = os.urandom(16).hex()
        self.server = xllamacpp.Server(_parameters(xllamacpp, settings, self.key))
        self.version: str = xllamacpp.__version__
        # Which adapter is asked; always said where there are any, since otherwise llama.cpp answers
        # from what it remembers of the adapter before.
        self.lora = {"lora": [{"id": 0, "scale": 0.0}]} if settings["adapters"] else {}

    def complete(self, **request: Any) -> list[dict[str, Any]]:
        """One choice for each of `request["prompt"]`, in order."""
        reply = self.server.handle_completions(request | self.lora)
        if "error" in reply:
            raise refusal(reply["error"])
        return sorted(reply["choices"], key=lambda choice: int(choice["index"]))

    def adapted(self, adapter: int) -> Model:
        """The same model with one of its adapters."""
        other = copy.copy(self)
        other.lora = {"lora": [{"id": adapter, "scale": 1.0}]}
        return other

    @cached_property
    def anchor(self) -> int:
        """A token of plain text."""
        return _anchor(self, [])

    def http(self, method: str, path: str, body: Any = None) -> Any:
        scheme, _, address = self.server.listening_address.partition("://")
        connection = http.client.HTTPConnection(address if scheme == "http" else "localhost")
        if scheme == "unix":
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(address)
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, json.dumps(body), headers)
            reply = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if "error" in reply:
            raise refusal(reply["error"])
        return reply

    def info(self) -> dict[str, Any]:
        meta = self.http("GET", "/v1/models")["data"][0]["meta"]
        return {
            "runtime": "llama.cpp",
            "version": f"xllamacpp {self.version}",
            "context": meta["n_ctx"],
            "vocabulary": meta["n_vocab"],
            "parameters": meta["n_params"],
            "width": meta["n_embd"],
            "bytes": meta["size"],
        }


def _parameters(xllamacpp: Any, settings: dict[str, Any], key: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.n_parallel = settings["parallel"]
    # Not unified: every slot owns its part, so no request can fail for want of another's memory.
    params.kv_unified = False
    params.n_ctx = settings["context"] * settings["parallel"]
    # llama.cpp hears of a cancelled request after each of its batches only.
    small = Path(settings["model"]).stat().st_size < SMALL
    params.n_batch = params.n_ubatch = 128 if small else 64
    if settings["embeddings"]:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_LAST
        # A prompt whose embedding is wanted must go through in one batch.
        params.n_batch = params.n_ubatch = max(512, settings["context"])
    params.verbosity = 1  # errors
    params.fit_params = False  # reads the whole file once more to guess at GPU layers: 0.15 s
    params.warmup = False  # would cost a request's time, and single predictions make one request
    params.swa_full = True  # sliding-window models too keep a prompt's beginning for the next one
    # Prompts that gave up their slot to others are kept, where there is more than one at a time.
    # Not with adapters: llama.cpp does not look whose they were.
    crowded = settings["parallel"] > 1 and not settings["adapters"]
    params.cache_ram_mib = KEPT_MIB if crowded else 0
    params.cache_idle_slots = False  # only when they give it up
    params.lora_adapters = [
        xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in settings["adapters"]
    ]
    if settings["adapters"]:
        # Nor whose slot it takes for one that begins alike: what that knew would be forgotten.
        params.slot_prompt_similarity = 0.5
    # Templates are ours to render: the one in the file, which may be hostile, is never parsed.
    params.chat_template = "chatml"
    params.offline = True
    params.ui = params.endpoint_slots = False
    params.n_threads_http = 1
    params.api_keys = [key]
    if settings["socket"]:
        params.hostnames = [settings["socket"]]
    return params


def choose(model: Model, request: Request) -> list[list[float]]:
    prompts, ids = request["prompts"], request["candidates"]
    rows = _probabilities(model, prompts, ids, {})
    # llama.cpp reports nothing for a sampled token that is only part of a character. Then an
    # anchor, any token that is text, is lifted above the candidates so that it is sampled instead.
    for lift in ANCHOR_LIFTS:
        left = [place for place, row in enumerate(rows) if row is None]
        if not left:
            break
        anchor = {_anchor(model, ids): BIAS + lift}
        again = _probabilities(model, [prompts[place] for place in left], ids, anchor)
        for place, row in zip(left, again, strict=True):
            rows[place] = row
    done = [row for row in rows if row is not None]
    if len(done) < len(rows):
        raise Refused("it gave no probabilities for the candidates")
    return done


def _probabilities(
    model: Model, prompts: list[list[int]], ids: list[int], anchor: dict[int, float]
) -> list[list[float] | None]:
    """The candidates' probabilities for each prompt, None where llama.cpp reports none."""
    bias = dict.fromkeys(ids, BIAS) | anchor
    choices = model.complete(
        prompt=prompts,
        n_predict=1,
        samplers=["top_k"],  # nothing else touches the logits, and only these few are sorted
        top_k=len(bias),
        n_probs=len(bias),
        logit_bias=list(bias.items()),
        post_sampling_probs=True,
        cache_prompt=True,
        seed=0,
    )
    return [_row(choice, ids, bias.keys()) for choice in choices]


def _row(choice: dict[str, Any], ids: list[int], expected: Set[int]) -> list[float] | None:
    if not choice["logprobs"] or not choice["logprobs"]["content"]:
        return None
    # Zeros are left out of the list, NaN is null.
    found = {top["id"]: top["prob"] for top in choice["logprobs"]["content"][0]["top_probs"]}
    values = [found.get(candidate, 0.0) for candidate in ids]
    if None in values or not found.keys() <= expected or not sum(values) > 0:
        raise Refused("its logits are not numbers or too far apart: the weights are broken")
    total = sum(values)
    return [value / total for value in values]


def _anchor(model: Model, ids: list[int]) -> int:
    """A token of plain text that is no candidate."""
    text = " ".join(string.ascii_letters + string.digits + string.punctuation)
    plain: list[int] = tokenize(model, {"text": text, "special": False})
    free = [token for token in plain if token not in ids]
    if not free:
        raise Refused("no token of plain text is left beside the candidates")
    return free[0]


def likeliest(model: Model, request: Request) -> list[tuple[int, float]]:
    """[token, probability] pairs. What is sampled is lifted text, since llama.cpp reports nothing
    for a token that is only part of a character; the list is from before the lift."""
    (choice,) = model.complete(
        prompt=[request["prompt"]],
        n_predict=1,
        samplers=["top_k"],
        top_k=1,
        n_probs=request["count"],
        logit_bias=[(model.anchor, BIAS)],
        cache_prompt=True,
    )
    top = choice["logprobs"]["content"][0]["top_logprobs"]
    if any(one["logprob"] is None for one in top):
        raise Refused("its logits are not numbers: the weights are broken")
    return [(one["id"], math.exp(one["logprob"])) for one in top]


def write(
    model: Model, request: Request, say: Callable[..., None], cancelled: threading.Event
) -> dict[str, Any] | None:
    def ask(asked: Request, hear: Callable[[Any], bool]) -> None:
        model.server.handle_completions(asked | model.lora, hear)

    def ids(text: str) -> list[int]:
        found: list[int] = tokenize(model, {"text": text, "special": False})
        return found

    return Writing(request, say, cancelled, ids).write(ask)


def embed(model: Model, request: Request) -> list[list[float]]:
    reply = model.server.handle_embeddings({"input": request["prompts"], "embd_normalize": -1})
    if "error" in reply:
        raise refusal(reply["error"])
    rows = sorted(reply["data"], key=lambda row: int(row["index"]))
    return [row["embedding"] for row in rows]


def tokenize(model: Model, request: Request) -> Any:
    body = {
        "content": request["text"],
        "parse_special": request["special"],
        "add_special": False,
    }
    return model.http("POST", "/tokenize", body)["tokens"]


def detokenize(model: Model, request: Request) -> Any:
    return model.http("POST", "/detokenize", {"tokens": request["ids"]})["content"]


ANSWERS = {
    "choose": choose,
    "likeliest": likeliest,
    "embed": embed,
    "tokenize": tokenize,
    "detokenize": detokenize,
}


class Turns:
    """Requests of different adapters take turns, in the order in which they came.

    llama.cpp works on requests of one adapter together; left alone it would let those of another
    wait as long as any of these is left, and would not hear that they are cancelled.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.waiting: deque[object] = deque()
        self.adapter: int | None = None
        self.running = 0

    @contextmanager
    def turn(self, adapter: int | None) -> Iterator[None]:
        mine = object()

        def begins() -> bool:
            free = not self.running or self.adapter == adapter
            return free and self.waiting[0] is mine

        with self.changed:
            self.waiting.append(mine)
            self.changed.wait_for(begins)
            self.waiting.popleft()
            self.adapter = adapter
            self.running += 1
            self.changed.notify_all()
        try:
            yield
        finally:
            with self.changed:
                self.running -= 1
                self.changed.notify_all()


@contextmanager
def _openmp(every_core: bool) -> Iterator[None]:
    """How the computing threads that are started here wait, and where they run.

    Read from the environment when xllamacpp loads; what the user has set there stays.
    """
    # Rounds that a thread spins before it sleeps. OpenMP's 300,000 make two threads on a busy
    # machine far slower than one, none at all costs a fifth and more on a quiet one.
    if "OMP_WAIT_POLICY" not in os.environ:  # over which it would win
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if not every_core or sys.platform != "linux":
        yield
        return
    # Left alone, a woken thread is often put on the core of the one that woke it, where they take
    # turns: half the speed after a pause, or beside a busy program.
    os.environ.setdefault("OMP_PROC_BIND", "true")
    os.environ.setdefault("OMP_PLACES", "cores")
    everywhere = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, everywhere)  # this thread is no part of it, nor are those it starts


def main() -> None:
    # Ctrl-C goes to every process of the terminal: the parent decides what becomes of this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Only replies go to the real standard output; whatever native code prints goes to the log.
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    telling = threading.Lock()

    def reply(number: int, **what: Any) -> None:
        line = json.dumps({"id": number, **what})
        with telling:
            replies.write(line + "\n")
            replies.flush()

    settings = json.loads(sys.argv[1])
    try:
        with _openmp(settings["every_core"]):
            model = Model(settings)
        reply(0, result=model.info())
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)  # not _exit: llama.cpp writes the end of its log when the process ends

    models: dict[int | None, Model] = {None: model}
    models |= {number: model.adapted(number) for number in range(len(settings["adapters"]))}
    turns = Turns()
    running: dict[int, threading.Event] = {}

    def answer(request: Request, cancelled: threading.Event) -> None:
        number, op, adapter = request["id"], request["op"], request["adapter"]
        needs_none = op in ("tokenize", "detokenize")
        try:
            with nullcontext() if needs_none else turns.turn(adapter):
                if cancelled.is_set():
                    return
                if op == "write":
                    say = partial(reply, number)
                    result = write(models[adapter], request, say, cancelled)
                else:
                    result = ANSWERS[op](models[adapter], request)
        except Exception as error:
            why = str(error) or type(error).__name__
            reply(number, error=why, status=error.status if isinstance(error, Refused) else 500)
        else:
            if not cancelled.is_set():
                reply(number, result=result)
        finally:
            del running[number]

    def workers(count: int) -> SimpleQueue[tuple[Request, threading.Event]]:
        asked: SimpleQueue[tuple[Request, threading.Event]] = SimpleQueue()

        def work() -> None:
            while True:
                answer(*asked.get())

        for _ in range(count):
            threading.Thread(target=work, daemon=True).start()
        return asked

    # Texts that wait to be written wait here, so that llama.cpp gives the next free slot to a
    # question, which is short; and nothing waits for a slot that needs none.
    writing, asking = workers(settings["parallel"]), workers(settings["parallel"])
    queues = {"write": writing, "tokenize": workers(1)}
    queues["detokenize"] = queues["tokenize"]

    for line in sys.stdin.buffer:
        request = json.loads(line)
        if request["op"] == "cancel":
            running.get(request["id"], threading.Event()).set()
        else:
            cancelled = running[request["id"]] = threading.Event()
            queues.get(request["op"], asking).put((request, cancelled))

    if settings["socket"]:
        shutil.rmtree(Path(settings["socket"]).parent, ignore_errors=True)
    os._exit(0)  # at once: a thread may be deep in native code


if __name__ == "__main__":
    main()
