"""llama.cpp in a process of its own: `python -m bantam.engine.llama_cpp SETTINGS`.

SETTINGS is a JSON object. Requests come as JSON lines on standard input, each with an `id` and an
`op`; replies go as JSON lines to standard output and bear the id: any number of `{"id", "piece"}`,
then one `{"id", "result"}` or `{"id", "error"}`. Reply 0 says that the model is loaded.

When standard input ends, the parent is gone, and so is this process. It imports little, because
its start is part of every single prediction.
"""

from __future__ import annotations

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
from collections import Counter
from collections.abc import Callable, Set
from functools import cached_property, partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

Request = dict[str, Any]

# Added to the candidates' logits, so that they are the top k whatever the model thinks of them.
# No larger: a float32 of this size still holds a logit to 1e-5.
BIAS = 200.0

# See `choose`: how far an anchor is lifted above the candidates.
ANCHOR_LIFTS = (40.0, 60.0, 80.0)


class Refused(Exception):
    """The model cannot do what was asked; the text says why."""


class Model:
    """xllamacpp's server, asked directly but for the tokenizer, which it offers over HTTP only."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import xllamacpp

        # Locks out whoever else can reach the socket, which matters where it is a loopback port.
        self.key = os.urandom(16).hex()
        self.server = xllamacpp.Server(_parameters(xllamacpp, settings, self.key))
        self.version: str = xllamacpp.__version__

    def complete(self, **request: Any) -> list[dict[str, Any]]:
        """One choice for each of `request["prompt"]`, in order."""
        reply = self.server.handle_completions(request)
        if "error" in reply:
            raise Refused(reply["error"]["message"])
        return sorted(reply["choices"], key=lambda choice: int(choice["index"]))

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
            raise Refused(reply["error"]["message"])
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
    if settings["embeddings"]:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_LAST
        # A prompt whose embedding is wanted must go through in one batch.
        params.n_batch = params.n_ubatch = max(512, settings["context"])
    params.verbosity = 1  # errors
    params.fit_params = False  # reads the whole file once more to guess at GPU layers: 0.15 s
    params.warmup = False  # would cost a request's time, and single predictions make one request
    params.swa_full = True  # sliding-window models too keep a prompt's beginning for the next one
    params.cache_ram_mib = 0  # no second prompt cache beside the slots' own
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


def complete(model: Model, request: Request) -> dict[str, Any]:
    (choice,) = model.complete(
        prompt=[request["prompt"]],
        n_predict=request["max_tokens"],
        samplers=["top_k"],
        top_k=1,
        n_probs=1,
        stop=request["stop"],
        cache_prompt=True,
    )
    told = (choice["logprobs"] or {}).get("content") or []
    return {
        "text": choice["text"],
        "tokens": len(told),
        "log_probability": sum(token["logprob"] or 0.0 for token in told),
        "ended": choice["finish_reason"] == "stop",
    }


def write(
    model: Model, request: Request, say: Callable[..., None], cancelled: threading.Event
) -> dict[str, Any] | None:
    """Says pieces as they come; how the text ended, None if it was cancelled."""
    text = Text(request["stop"])
    ends, asked = set(request["end_ids"]), request["alternatives"] is not None
    done = {"reason": "stop", "stop": None, "tokens": 0, "cached_tokens": 0}
    refusal: list[str] = []

    def tell(piece: str, tokens: list[Any]) -> None:
        if piece:
            say(piece=piece, **({"tokens": tokens} if asked else {}))

    def on_chunk(chunk: dict[str, Any]) -> bool:
        """Takes what llama.cpp tells after each step; True stops it."""
        if cancelled.is_set():
            return True
        if "error" in chunk:
            refusal.append(chunk["error"]["message"])
            return True
        if "prompt_progress" in chunk:
            done["cached_tokens"] = chunk["prompt_progress"]["cache"]
            return False
        choice, more = chunk["choices"][0], chunk["__verbose"]
        done["tokens"] = more["tokens_predicted"]
        if choice["finish_reason"]:
            done["reason"] = choice["finish_reason"]
            return False
        if not ends.isdisjoint(more["tokens"]):
            return True
        told = (choice["logprobs"] or {}).get("content") or []
        tell(*text.add(choice["text"], [_token(choice["text"], one) for one in told]))
        return text.stop is not None

    model.server.handle_completions(_sampled(request), on_chunk)
    if refusal:
        raise Refused(refusal[0])
    if cancelled.is_set():
        return None
    tell(*text.rest())
    return done | {"stop": text.stop}


def _sampled(request: Request) -> dict[str, Any]:
    """The request for llama.cpp's server, which streams what it writes."""
    greedy = request["temperature"] <= 0
    frequency, presence = request["frequency_penalty"], request["presence_penalty"]
    bias: dict[int, float] = dict(request["logit_bias"])
    window = 64  # tokens that a repetition is looked for in, as everybody has it
    if frequency or presence:
        # llama.cpp counts the prompt's tokens too, OpenAI only those that were written: what the
        # prompt's take away is given back.
        window = 1 << 30
        prompt: list[int] = request["prompt"]
        for token, count in Counter(prompt).items():
            bias[token] = bias.get(token, 0.0) + count * frequency + presence
    penalties = frequency or presence or request["repeat_penalty"] != 1
    # In this order everywhere else too: what `top_p` keeps depends on the temperature.
    drawn = ["top_k", "temperature", "top_p", "min_p"]
    return {
        "prompt": request["prompt"],
        "n_predict": request["max_tokens"] or -1,
        "stream": True,
        "return_progress": True,  # so that a prompt that is still being read can be cancelled
        "verbose": True,  # tells tokens and their number
        "samplers": ["penalties"] * bool(penalties) + (["top_k"] if greedy else drawn),
        "top_k": 1 if greedy else request["top_k"],
        "temperature": 1.0 if greedy else request["temperature"],
        "top_p": request["top_p"],
        "min_p": request["min_p"],
        "frequency_penalty": frequency,
        "presence_penalty": presence,
        "repeat_penalty": request["repeat_penalty"],
        "repeat_last_n": window,
        "logit_bias": list(bias.items()),
        "seed": -1 if request["seed"] is None else request["seed"] % (1 << 31),
        # Its own log-probability is told with at least one other.
        "n_probs": 0 if request["alternatives"] is None else max(1, request["alternatives"]),
        "cache_prompt": True,
    }


def _token(text: str, told: dict[str, Any]) -> list[Any]:
    """`text` is the whole character where the token only ends it."""
    others = [
        [one["id"], bytes(one["bytes"]).decode(errors="replace"), one["logprob"]]
        for one in told["top_logprobs"]
    ]
    return [told["id"], text, told["logprob"], others]


class Text:
    """What was written, of which the end is kept back while it may begin a stop string."""

    def __init__(self, stops: list[str]) -> None:
        self.stops = stops
        self.stop: str | None = None  # the one that ended it
        self.kept, self.tokens = "", list[Any]()
        self.at = 0  # where the first of `tokens` begins in `kept`

    def add(self, text: str, tokens: list[Any]) -> tuple[str, list[Any]]:
        """What can be told now, and the tokens that begin in it."""
        self.kept += text
        self.tokens += tokens
        found = [(self.kept.find(stop), stop) for stop in self.stops if stop in self.kept]
        if found:
            end, self.stop = min(found)
            told = self._upto(end)
            self.kept = ""
            return told
        return self._upto(len(self.kept) - max(map(self._begun, self.stops), default=0))

    def _begun(self, stop: str) -> int:
        """How many of the last characters are how `stop` begins."""
        lengths = range(min(len(stop) - 1, len(self.kept)), 0, -1)
        return next((n for n in lengths if self.kept.endswith(stop[:n])), 0)

    def rest(self) -> tuple[str, list[Any]]:
        return self._upto(len(self.kept))

    def _upto(self, end: int) -> tuple[str, list[Any]]:
        tokens: list[Any] = []
        while self.tokens and self.at < end:
            tokens.append(self.tokens.pop(0))
            self.at += len(tokens[-1][1])
        self.at -= end
        text, self.kept = self.kept[:end], self.kept[end:]
        return text, tokens


def embed(model: Model, request: Request) -> list[list[float]]:
    reply = model.server.handle_embeddings({"input": request["prompts"], "embd_normalize": -1})
    if "error" in reply:
        raise Refused(reply["error"]["message"])
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
    "complete": complete,
    "embed": embed,
    "tokenize": tokenize,
    "detokenize": detokenize,
}


def main() -> None:
    # Ctrl-C goes to every process of the terminal: the parent decides what becomes of this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Idle threads must sleep: when they spin, two threads on a busy machine are ten times slower
    # than one. Read when xllamacpp loads OpenMP.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
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
        model = Model(settings)
        reply(0, result=model.info())
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)  # not _exit: llama.cpp writes the end of its log when the process ends

    running: dict[int, threading.Event] = {}

    def answer(request: Request, cancelled: threading.Event) -> None:
        number = request["id"]
        try:
            if cancelled.is_set():
                return
            if request["op"] == "write":
                result = write(model, request, partial(reply, number), cancelled)
            else:
                result = ANSWERS[request["op"]](model, request)
        except Exception as error:
            reply(number, error=str(error) or type(error).__name__)
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
