"""What the clients of `soak.py` send, and what they make of the answers.

Each request carries a mark that no other has. It must not come back to anybody else, and where a
reply has to hold it, it must come back to its sender.
"""

import json
import math
import random
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MARK = re.compile(rb"kanari-[0-9a-f]{12}")
LABELS = ("good", "bad", "neither")
RECORD = {
    "type": "object",
    "properties": {"kind": {"enum": ["praise", "blame"]}, "count": {"type": "integer"}},
    "required": ["kind", "count"],
    "additionalProperties": False,
}
TOKENS = 4  # of a known answer
TIE = 0.1  # nats: tokens nearer than this may change places, as batches round differently
CHAT, MESSAGES, OLLAMA = "/v1/chat/completions", "/v1/messages", "/api/chat"


class Wrong(Exception):
    """What may not be."""


class BrokenOff(Exception):
    """A stream whose end tells an error."""


@dataclass(frozen=True)
class Known:
    """What the models say when nothing else is asked."""

    answers: Mapping[str, str]  # to questions, in words
    labels: Mapping[str, str]  # of texts
    vectors: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Ask:
    """A request, and what checks its reply; `check` raises Wrong."""

    kind: str
    path: str
    body: Any  # bytes are sent as they are
    check: Callable[[bytes], Any]
    mark: str
    status: int = 200
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    again: str = ""  # the text of a conversation that may be asked again, alone


def new_mark() -> str:
    return f"kanari-{secrets.token_hex(6)}"


def judged(ask: Ask, status: int, headers: Mapping[str, str], raw: bytes, killed: bool) -> str:
    """How a whole reply is counted. `killed`: a process was ended while it was made.

    Raises Wrong for a mark of another request, for a status that is not to be, for a refusal that
    does not say when to try again, and for a wrong answer.
    """
    if others := {one.decode() for one in MARK.findall(raw)} - {ask.mark}:
        raise Wrong(f"holds the mark of another request: {', '.join(sorted(others))}")
    if status in (429, 503) and status != ask.status:
        if "retry-after" not in headers or b"error" not in raw:
            raise Wrong(f"{status} that does not say when to try again: {raw[:200]!r}")
        return str(status)
    if status == 422 and b"crashes_model" in raw:
        return "422"
    if status != ask.status:
        raise Wrong(f"status {status}, not {ask.status}: {raw[:300]!r}")
    try:
        ask.check(raw)
    except BrokenOff as error:
        if killed:
            return "broken off"
        raise Wrong(f"broken off, and nothing was killed: {error}") from None
    except (LookupError, ValueError, TypeError) as error:
        raise Wrong(f"cannot be read ({error!r:.100}): {raw[-300:]!r}") from None
    return "right"


# What replies say


def events(raw: bytes) -> list[Any]:
    """The data of server-sent events."""
    found = [line[6:] for line in raw.decode().splitlines() if line.startswith("data: ")]
    return [one if one == "[DONE]" else json.loads(one) for one in found]


def lines(raw: bytes) -> list[Any]:
    return [json.loads(line) for line in raw.splitlines() if line]


def unbroken(told: list[Any]) -> list[Any]:
    """The same, if its end tells no error."""
    last = told[-1] if told else None
    if isinstance(last, dict) and ("error" in last or last.get("type") == "response.failed"):
        raise BrokenOff(json.dumps(last))
    return told


def openai_text(raw: bytes, streamed: bool) -> str:
    if not streamed:
        return str(json.loads(raw)["choices"][0]["message"]["content"])
    *told, end = unbroken(events(raw))
    if end != "[DONE]" or not any(one["choices"][0]["finish_reason"] for one in told):
        raise Wrong(f"a stream without its end: {raw[-200:]!r}")
    return "".join(one["choices"][0]["delta"].get("content") or "" for one in told)


def anthropic_text(raw: bytes, streamed: bool) -> str:
    if not streamed:
        return "".join(part["text"] for part in json.loads(raw)["content"])
    told = unbroken(events(raw))
    if told[-1]["type"] != "message_stop":
        raise Wrong(f"a stream without its end: {raw[-200:]!r}")
    return "".join(one["delta"]["text"] for one in told if one["type"] == "content_block_delta")


def ollama_text(raw: bytes, streamed: bool) -> str:
    told = unbroken(lines(raw)) if streamed else [json.loads(raw)]
    if not told[-1]["done"]:
        raise Wrong(f"a stream without its end: {raw[-200:]!r}")
    return "".join(one["message"]["content"] for one in told)


def responses_text(raw: bytes, streamed: bool) -> str:
    if not streamed:
        said = json.loads(raw)["output"]
        return "".join(part["text"] for one in said for part in one["content"])
    told = unbroken(events(raw))
    if told[-1]["type"] not in ("response.completed", "response.incomplete"):
        raise Wrong(f"a stream without its end: {raw[-200:]!r}")
    return "".join(one["delta"] for one in told if one["type"] == "response.output_text.delta")


def same(found: object, wanted: object) -> None:
    if found != wanted:
        raise Wrong(f"{found!r:.300} where it should be {wanted!r:.300}")


def differs(alone: Sequence[Mapping[str, Any]], text: str) -> bool:
    """Whether a text is another answer than that asked alone, whose tokens these are (as OpenAI
    tells log-probabilities), and not for the sake of two tokens that were as good as equal."""
    there = ""
    for token in alone:
        if not text.startswith(there + token["token"]):
            first, second = token["top_logprobs"][:2]
            return bool(first["logprob"] - second["logprob"] > TIE)
        there += token["token"]
    return text != there


# What is asked


def conversation(path: str, text: str, tokens: int, stream: bool, mark: str) -> dict[str, Any]:
    """The body of one question in the words of an interface; the mark stands where nothing reads
    it. The likeliest words, so that all interfaces have one answer."""
    asked: dict[str, Any] = {"model": "chat", "temperature": 0, "stream": stream}
    messages = [{"role": "user", "content": text}]
    if path == CHAT:
        return asked | {"messages": messages, "max_tokens": tokens, "user": mark}
    if path == MESSAGES:
        told = {"metadata": {"user_id": mark}}
        return asked | {"messages": messages, "max_tokens": tokens} | told
    if path == OLLAMA:
        options = {"temperature": 0, "repeat_penalty": 1, "num_predict": tokens}
        return {"model": "chat", "messages": messages, "stream": stream, "options": options}
    return asked | {"input": text, "max_output_tokens": tokens, "user": mark}


INTERFACES: dict[str, tuple[str, Callable[[bytes, bool], str]]] = {
    CHAT: ("OpenAI's chat", openai_text),
    "/v1/responses": ("OpenAI's responses", responses_text),
    MESSAGES: ("Anthropic's messages", anthropic_text),
    OLLAMA: ("Ollama's chat", ollama_text),
}


def talk(chance: random.Random, known: Known) -> Ask:
    """A question whose answer is known, or one with the mark in it, in one of the interfaces."""
    mark, stream = new_mark(), chance.random() < 0.5
    path, (name, read) = chance.choice(list(INTERFACES.items()))
    kind = f"{name}{', stream' if stream else ''}"
    if chance.random() < 0.5:
        text, answer = chance.choice(list(known.answers.items()))
        body = conversation(path, text, TOKENS, stream, mark)
        return Ask(kind, path, body, lambda raw: same(read(raw, stream), answer), mark)
    text = f"Say {mark} and nothing else."
    body = conversation(path, text, 2 * TOKENS, stream, mark)
    return Ask(kind, path, body, lambda raw: read(raw, stream), mark, again=text)


def echoed(chance: random.Random, known: Known) -> Ask:
    mark = new_mark()
    body = {"model": "chat", "prompt": f"{mark} is", "echo": True, "max_tokens": 4}

    def check(raw: bytes) -> None:
        same(json.loads(raw)["choices"][0]["text"].startswith(f"{mark} is"), True)

    return Ask("a text with its echo", "/v1/completions", body, check, mark)


def by_schema(chance: random.Random, known: Known) -> Ask:
    """JSON that can hold nothing but the mark."""
    mark, stream = new_mark(), chance.random() < 0.5
    shape = {"type": "object", "properties": {"mark": {"enum": [mark]}}, "required": ["mark"]}
    form = {"type": "json_schema", "json_schema": {"name": "mark", "schema": shape}}
    body = conversation(CHAT, "Which?", 60, stream, mark) | {"response_format": form}

    def check(raw: bytes) -> None:
        same(json.loads(openai_text(raw, stream)), {"mark": mark})

    return Ask("JSON by a schema", CHAT, body, check, mark)


def calling(chance: random.Random, known: Known) -> Ask:
    """A call that can have no other argument than the mark."""
    mark = new_mark()
    shape = {"type": "object", "properties": {"mark": {"enum": [mark]}}, "required": ["mark"]}
    function = {"name": "note", "parameters": shape}
    choice = {"type": "function", "function": {"name": "note"}}
    tools = {"tools": [{"type": "function", "function": function}], "tool_choice": choice}

    def check(raw: bytes) -> None:
        (call,) = json.loads(raw)["choices"][0]["message"]["tool_calls"]
        same(json.loads(call["function"]["arguments"]), {"mark": mark})

    body = conversation(CHAT, "Note it.", 80, False, mark) | tools
    return Ask("a call", CHAT, body, check, mark)


def labelled(chance: random.Random, known: Known) -> Ask:
    """Texts whose labels are known, one, some or in lines, with the mark in one more of them."""
    mark, stream = new_mark(), chance.random() < 0.3
    texts = chance.choices(list(known.labels), k=chance.choice((1, 3, 40)))
    wanted = [known.labels[text] for text in texts]
    texts.append(f"{mark} is fine.")

    def check(raw: bytes) -> None:
        told = unbroken_lines(raw) if stream else json.loads(raw)["answers"]
        same([one["label"] for one in told[:-1]], wanted)
        same((len(told), told[-1]["label"] in LABELS), (len(texts), True))
        if stream:
            same([one["line"] for one in told], list(range(1, len(texts) + 1)))

    if stream:
        body = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
        return Ask("labels of lines", "/tasks/labels/stream", body, check, mark)
    return Ask("labels of a batch", "/tasks/labels", {"texts": texts}, check, mark)


def unbroken_lines(raw: bytes) -> list[Any]:
    """The answers to lines, if none of them tells that the model is away."""
    told = lines(raw)
    for one in told:
        if one.get("error", {}).get("status") in (429, 503):
            raise BrokenOff(json.dumps(one))
    return told


def record(chance: random.Random, known: Known) -> Ask:
    mark = new_mark()

    def check(raw: bytes) -> None:
        found = json.loads(raw)["object"]
        same((set(found), found["kind"] in ("praise", "blame")), ({"kind", "count"}, True))

    return Ask("a record", "/tasks/record", {"text": f"{mark} broke twice."}, check, mark)


def embedding(chance: random.Random, known: Known) -> Ask:
    mark = new_mark()
    texts = chance.sample(list(known.vectors), 3)

    def check(raw: bytes) -> None:
        rows = [one["embedding"] for one in json.loads(raw)["data"]]
        same(len(rows), len(texts) + 1)
        for text, row in zip(texts, rows, strict=False):
            alike = math.fsum(a * b for a, b in zip(row, known.vectors[text], strict=True))
            if alike < 0.999:
                raise Wrong(f"a vector of another direction: {alike:.4f}")

    body = {"model": "chat", "input": [*texts, mark]}
    return Ask("embeddings", "/v1/embeddings", body, check, mark)


def senseless(chance: random.Random, known: Known) -> Ask:
    """What is to be refused, and how."""
    mark = new_mark()
    said = {"messages": [{"role": "user", "content": mark}]}
    talk = said | {"model": "chat"}
    image = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a.png"}}
    shape = {"json_schema": {"name": "a", "schema": {"not": {}}}}
    cases: list[tuple[str, Any, int]] = [
        (CHAT, b'{"model": "chat", "' + mark.encode(), 400),
        (CHAT, said | {"model": "nobody"}, 404),
        (CHAT, talk | {"temperature": -1}, 400),
        (CHAT, talk | {"tempratur": 1}, 400),
        (CHAT, talk | {"messages": [{"role": "user", "content": [image]}]}, 400),
        (CHAT, talk | {"messages": [{"role": "user", "content": f"{mark} " * 20_000}]}, 400),
        (CHAT, talk | {"response_format": {"type": "json_schema"} | shape}, 400),
        (MESSAGES, talk, 400),
        (OLLAMA, said | {"model": "nobody"}, 404),
        ("/api/pull", {"model": mark}, 501),
        ("/v1/embeddings", {"model": "chat", "input": [[1, 2]]}, 400),
        ("/tasks/labels", {"text": 7, "more": mark}, 400),
        ("/tasks/chat", {"text": mark}, 404),
        ("/tasks/labels/stream?column=a%00b", b"\xff\xfe", 200),
        ("/feedback", {"answer_id": mark, "thumb": "up"}, 404),
        (f"/{mark}", {}, 404),
        ("/health", {}, 405),
    ]
    path, body, status = chance.choice(cases)
    return Ask("a wrong request", path, body, lambda raw: None, mark, status)


def elsewhere(chance: random.Random, known: Known) -> Ask:
    """What a page of another site would send."""
    mark = new_mark()
    body = conversation(CHAT, mark, 4, False, mark)
    headers = chance.choice(({"host": "evil.example"}, {"origin": "https://evil.example"}))
    return Ask("a foreign page", CHAT, body, lambda raw: None, mark, 403, headers=headers)


# How often each is asked.
KINDS: dict[Callable[[random.Random, Known], Ask], int] = {
    talk: 30,
    echoed: 6,
    by_schema: 10,
    calling: 8,
    labelled: 12,
    record: 5,
    embedding: 8,
    senseless: 10,
    elsewhere: 2,
}


def any_ask(chance: random.Random, known: Known) -> Ask:
    (make,) = chance.choices(list(KINDS), list(KINDS.values()))
    return make(chance, known)
