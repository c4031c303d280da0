"""From what is asked to what a model answers, as events: conversations, raw texts, embeddings.

A model that was made for a task answers its task to the last message of the user. Any other
converses: freely, held to a schema, or with calls.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeVar

from bantam.answer import Answer, Written
from bantam.engine import Done, Sampling
from bantam.errors import BadInput, JobFailed
from bantam.kinds import Row, Task, closing, declarations, grammar, schema, texts
from bantam.model import Model, TooLong
from bantam.serve import calls, metrics
from bantam.serve import prompt as prompting
from bantam.serve.ask import (
    Ask,
    Begun,
    CallBegun,
    CallPart,
    Ended,
    Event,
    Message,
    Refusal,
    Text,
)
from bantam.serve.handover import Handover, instead
from bantam.serve.lent import Lent
from bantam.serve.shelf import Shelf
from bantam.serve.watched import given_up

if TYPE_CHECKING:
    from bantam.kinds.constrain import Decoded

T = TypeVar("T")
Tell = Callable[[bytes], None]


@dataclass(frozen=True)
class Prompt:
    ids: list[int]
    room: int  # tokens that may be written


async def answer(
    shelf: Shelf, ask: Ask, handover: Handover | None = None
) -> AsyncGenerator[Event, None]:
    """The replies to a conversation, one after the other.

    `Begun` comes first, then what is written, with one `Ended` for each reply. Raises Refusal.
    """
    began, first = time.monotonic(), 0.0
    prompt_tokens = tokens = cached = 0
    task = shelf.book(ask.model).task
    steps = _task(shelf, task, ask, handover) if task else _conversation(shelf, ask)
    async with aclosing(steps):
        async for event in steps:
            if isinstance(event, Begun):
                prompt_tokens = event.prompt_tokens
            else:
                first = first or time.monotonic() - began
            if isinstance(event, Ended):
                tokens, cached = tokens + event.tokens, cached + event.cached_tokens
            yield event
    took = time.monotonic() - began
    metrics.answered(ask.model, prompt_tokens, tokens, cached, first, took)


async def count(shelf: Shelf, ask: Ask) -> int:
    """How many tokens the prompt of a conversation has. Raises Refusal."""
    async with shelf.lent(ask.model) as lent:
        return len(await lent.blocking(_prompt_of, lent.model, ask))


async def proceed(
    shelf: Shelf, model: str, prompt: str | list[int], sampling: Sampling, n: int = 1
) -> AsyncGenerator[Event, None]:
    """What follows a text, without any template; control tokens in a text are only text."""
    async with shelf.lent(model) as lent:
        [ids] = [prompt] if isinstance(prompt, list) else await _plain(lent, [prompt])
        there = _fitting(lent.model, ids or [lent.model.end])
        yield Begun(len(there.ids))
        for index in range(n):
            steps = _freely(lent, there, _nth(sampling, index), index)
            async with aclosing(steps):
                async for event in steps:
                    yield event


async def embed(shelf: Shelf, model: str, asked: list[str]) -> tuple[list[list[float]], int]:
    """A vector of length 1 for each text, and how many tokens they have together."""
    async with shelf.lent(model) as lent:
        prompts = [ids or [lent.model.end] for ids in await _plain(lent, asked)]
        for ids in prompts:
            _fitting(lent.model, ids)
        rows = await lent.embed(prompts)
    return [_unit(row) for row in rows], sum(map(len, prompts))


def last_text(messages: tuple[Message, ...]) -> str:
    """The text that a task is asked of: the user's last message. Raises Refusal."""
    for message in reversed(messages):
        if message.role == "user":
            return message.content
    raise Refusal(400, "there is no message of the user's to answer", param="messages")


async def _plain(lent: Lent, texts: list[str]) -> list[list[int]]:
    """The ids of texts without any template. Raises Refusal for one that is far too long."""

    def work(model: Model) -> list[list[int]]:
        for text in texts:
            prompting.check_size(model, len(text))
        return [model.start + model.encode([(text, False)]) for text in texts]

    return await lent.blocking(work, lent.model)


def _unit(row: list[float]) -> list[float]:
    length = math.sqrt(sum(number * number for number in row)) or 1.0
    return [number / length for number in row]


def _fitting(model: Model, ids: list[int]) -> Prompt:
    room = model.context - 1 - len(ids)
    if room < 1:
        raise TooLong(
            f"the prompt has {len(ids)} tokens: this model has room for {model.context - 2}",
            "shorten it, or start the server with a larger --context",
        )
    return Prompt(ids, room)


def _nth(sampling: Sampling, index: int) -> Sampling:
    """Several replies to one seed differ, and are the same each time."""
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + index)


def _prompt_of(model: Model, ask: Ask) -> list[int]:
    if not (task := model.task):
        return prompting.ids(model, ask)
    return model.prompt(task, prompting.readable(model, task, last_text(ask.messages)))


async def _conversation(shelf: Shelf, ask: Ask) -> AsyncGenerator[Event, None]:
    async with shelf.lent(ask.model) as lent, aclosing(_replies(lent, ask)) as steps:
        async for event in steps:
            yield event


async def _replies(lent: Lent, ask: Ask) -> AsyncGenerator[Event, None]:
    there, tools, held = await lent.blocking(_planned, lent.model, ask)
    yield Begun(len(there.ids))
    for index in range(ask.n):
        sampling = _nth(ask.sampling, index)
        if tools:
            steps = _maybe_calls(lent, there, ask, tools, held, sampling, index)
        elif held:
            steps = _held(lent, there, held, sampling, index)
        else:
            steps = _freely(lent, there, sampling, index)
        async with aclosing(steps):
            async for event in steps:
                yield event


async def _freely(
    lent: Lent, prompt: Prompt, sampling: Sampling, index: int
) -> AsyncGenerator[Event, None]:
    # Without a template nothing else tells the model where its turn ends.
    ours = () if lent.model.template else ("\nUser:",)
    asked = replace(sampling, stop=(*sampling.stop, *ours))
    writing = lent.write(prompt.ids, asked)
    async with aclosing(writing):
        async for told in writing:
            if isinstance(told, Done):
                stop = None if told.stop in ours else told.stop
                yield Ended(index, told.reason, told.tokens, stop, told.cached_tokens)
            else:
                yield Text(index, told.text, told.tokens)


async def _held(
    lent: Lent, prompt: Prompt, schema_text: str, sampling: Sampling, index: int
) -> AsyncGenerator[Event, None]:
    """A reply that follows a schema, also when its tokens are used up: then it is closed."""
    done: Decoded | None = None
    read = codecs.getincrementaldecoder("utf-8")("replace")
    steps = _writing(lent, prompt, schema_text, sampling)
    async with aclosing(steps):
        async for told in steps:
            if isinstance(told, bytes):
                if text := read.decode(told):
                    yield Text(index, text)
            else:
                done = told
    assert done
    yield Ended(index, "length" if done.closed else "stop", done.tokens)


def _writing(
    lent: Lent, prompt: Prompt, schema_text: str, sampling: Sampling
) -> AsyncGenerator[bytes | Decoded, None]:
    """JSON by a schema, as it comes, then how it ended."""
    most = min(sampling.max_tokens or prompt.room, prompt.room)

    def work(tell: Tell) -> Decoded:
        from bantam.kinds import constrain  # brings NumPy, which is long to import

        draw = constrain.drawing(sampling)
        made = _grammar(schema_text)
        try:
            return lent.model.held(prompt.ids, made, most, draw=draw, tell=tell)
        except closing.TooMuch as error:  # the client's own
            raise BadInput(error.message, error.mend) from None

    return _told(lent, work)


def _planned(model: Model, ask: Ask) -> tuple[Prompt, list[dict[str, Any]], str]:
    """The prompt, the functions that may be called, and the schema of the reply as JSON, if any.
    Raises BadInput and Refusal."""
    tools = calls.usable(ask.tools)
    held = "" if ask.schema is None else json.dumps(ask.schema)
    if tools or held:
        _check_held(ask, "functions" if tools else "JSON by a schema")
    if held:
        held = _checked(held)
    return _fitting(model, prompting.ids(model, ask)), tools, held


@lru_cache(64)
def _checked(schema_text: str) -> str:
    """What replies are held to; the same are asked for again. Raises BadInput for what they cannot
    be held to."""
    return json.dumps(schema.closed(schema.check(json.loads(schema_text), "the schema")))


@lru_cache(64)
def _grammar(schema_text: str) -> grammar.Grammar:
    return grammar.grammar(json.loads(schema_text))


async def _told(lent: Lent, work: Callable[[Tell], T]) -> AsyncGenerator[bytes | T, None]:
    """What `work` tells from its thread, then what it returns. Closing it gives the work up."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def tell(new: bytes) -> None:
        if (nobody_waits := given_up.get()) and nobody_waits.is_set():
            raise JobFailed("the request was given up")
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(queue.put_nowait, new)

    working = asyncio.ensure_future(lent.blocking(work, tell))
    working.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (new := await queue.get()) is not None:
            yield new
        yield working.result()
    finally:
        working.cancel()


async def _maybe_calls(
    lent: Lent,
    prompt: Prompt,
    ask: Ask,
    tools: list[dict[str, Any]],
    held: str,
    sampling: Sampling,
    index: int,
) -> AsyncGenerator[Event, None]:
    """Calls, or the text of a model that would rather talk and may: by the schema, if there is one,
    so that its beginning only tells which of both it is."""
    style = calls.style(lent.model.template) or calls.PLAIN
    wanted: bool | None = True
    if ask.tools.choice == "auto":
        begun, waiting, wanted = "", [], None
        steps = _freely(lent, prompt, replace(sampling, whole=False), index)
        async with aclosing(steps):
            async for event in steps:
                if wanted is None and isinstance(event, Text):
                    begun += event.text
                    wanted = calls.begins(begun)
                    if wanted and held:  # JSON by the schema may begin as a call does after its tag
                        wanted = begun.lstrip().startswith(style.before.strip())
                if wanted or (held and wanted is False):
                    break
                waiting.append(event)
                if wanted is False or (isinstance(event, Ended) and not held):
                    for one in waiting:
                        yield one
                    waiting.clear()
        if not wanted and not held:
            return
    if wanted:
        steps = _calling(lent, prompt, style, tools, ask.tools.parallel, sampling, index)
    else:
        steps = _held(lent, prompt, held, sampling, index)
    async with aclosing(steps):
        async for event in steps:
            yield event


async def _calling(
    lent: Lent,
    prompt: Prompt,
    style: calls.Style,
    tools: list[dict[str, Any]],
    parallel: bool,
    sampling: Sampling,
    index: int,
) -> AsyncGenerator[Event, None]:
    most = calls.MOST if parallel else 1
    wanted = json.dumps(calls.answer_schema(tools, style, most))
    reader = calls.Reader(index, style.key)
    before = lent.model.encode([(style.before, True)]) if style.before else []
    ids, tokens, closed = [*prompt.ids, *before], 0, False
    for number in range(1 if style.listed else most):
        read = codecs.getincrementaldecoder("utf-8")("replace")
        there = _fitting(lent.model, ids)
        left = None if sampling.max_tokens is None else max(1, sampling.max_tokens - tokens)
        written = b""
        steps = _writing(lent, there, wanted, replace(sampling, max_tokens=left))
        async with aclosing(steps):
            async for told in steps:
                if isinstance(told, bytes):
                    written += told
                    for event in reader.read(read.decode(told)):
                        yield event
                else:
                    tokens, closed = tokens + told.tokens, told.closed
        if closed or style.listed or not style.before or number == most - 1:
            break
        ids += lent.model.encode([(written.decode(), False), (style.after, True)])
        again = [*lent.model.encode([("\n", True)]), *before]
        least = await lent.blocking(_least, lent.model, wanted)
        if lent.model.context - 1 - len(ids) - len(again) < least:
            break  # what is written is whole, and there is no room for another
        follows = await lent.blocking(lent.model.runtime.complete, ids, 4)
        if calls.begins(follows.text) is not True:
            break
        if closed := sampling.max_tokens is not None and sampling.max_tokens - tokens < least:
            break
        ids += again
    yield Ended(index, "length" if closed else "calls", tokens)


def _least(model: Model, schema_text: str) -> int:
    """The tokens of the shortest answer by a schema, as far as one is known; one at least."""
    shortest = closing.course(_grammar(schema_text)).rest or b""
    return max(1, len(model.encode([(shortest.decode(), False)])))


def _check_held(ask: Ask, because: str) -> None:
    """Raises Refusal for what cannot be honoured together with a schema. Who may call and talks
    may be stopped; calls are not."""
    sampling = ask.sampling
    talks = ask.schema is None and ask.tools.choice == "auto"
    refused = {
        "stop": sampling.stop and not talks,
        "logprobs": sampling.alternatives is not None,
        "logit_bias": sampling.logit_bias,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
    }
    for name, there in refused.items():
        if there:
            raise Refusal(400, f"{name} cannot be used together with {because}", param=name)


async def _task(
    shelf: Shelf, task: Task, ask: Ask, handover: Handover | None
) -> AsyncGenerator[Event, None]:
    text = last_text(ask.messages)
    if task.most_calls and ask.messages[-1].role == "tool":
        # The calls to this text were made already: agents that bring their results would ask for
        # ever. The model has no words of its own to add.
        yield Begun(0)
        for index in range(ask.n):
            yield Text(index, _results(ask.messages))
            yield Ended(index, "stop", 0)
        return
    tools = list(ask.tools.declared) or None if task.most_calls else None
    async with shelf.lent(ask.model) as lent:
        book = lent.book

        def work(tell: Tell) -> tuple[int, Answer | Written, Row]:
            read = prompting.readable(lent.model, task, text)
            found = _answered(lent.model, task, read, tools, tell)
            return *found, Row(read, "", _declared(tools))

        answered = None
        async with aclosing(_told(lent, work)) as steps:
            async for told in steps:
                answered = None if isinstance(told, bytes) else told
    assert answered
    prompt_tokens, ours, row = answered
    (theirs,) = await instead(shelf, handover, book, [row], [ours])
    reply = theirs or ours
    known = theirs is None and (isinstance(ours, Answer) or bool(task.certainty))
    if ask.schema is not None:
        await asyncio.to_thread(_check_follows, reply, ask.schema)
    yield Begun(prompt_tokens)
    for index in range(ask.n):
        for event in _as_events(task, reply, index):
            yield event
        yield Ended(
            index,
            _reason(task, reply),
            reply.tokens if isinstance(reply, Written) else 1,
            confidence=reply.probability if known else None,
            sure=reply.sure if known else None,
            probabilities=(isinstance(reply, Answer) and reply.probabilities) or None,
            handed_to=handover.model if handover and theirs else "",
        )


def _results(messages: tuple[Message, ...]) -> str:
    """What the calls at the end of a conversation gave, one below the other."""
    last = takewhile(lambda message: message.role == "tool", reversed(messages))
    return "\n".join(reversed([message.content for message in last]))


def _as_events(task: Task, reply: Answer | Written, index: int) -> list[Event]:
    if not (task.most_calls and isinstance(reply, Written)):
        return [Text(index, str(reply))]
    found: list[Event] = []
    for number, call in enumerate(reply.value):
        found.append(CallBegun(index, number, calls.new_id(), call["name"]))
        found.append(CallPart(index, number, schema.text(call["arguments"])))
    return found or [Text(index, "")]  # no function fits


def _reason(task: Task, reply: Answer | Written) -> str:
    if isinstance(reply, Written) and not reply.whole:
        return "length"
    called = task.most_calls and isinstance(reply, Written) and reply.value
    return "calls" if called else "stop"


def _declared(tools: list[dict[str, Any]] | None) -> str:
    return json.dumps(declarations.tools(tools, "tools")) if tools else ""


def _answered(
    model: Model, task: Task, text: str, tools: list[dict[str, Any]] | None, tell: Tell
) -> tuple[int, Answer | Written]:
    """The tokens of the text with its prompt, and the answer."""
    if task.kind == "classify":
        return len(model.prompt(task, text)), model.batch([text])[0]
    reply = model.write(text, tools, tell)  # first: it says what is wrong
    prompt = texts.prompt(task, model.encode, text, _declared(tools))
    return len(model.start + prompt), reply


def _check_follows(reply: Answer | Written, wanted: dict[str, Any]) -> None:
    """Raises Refusal when a task's answer is not what the client's schema wants."""
    value = reply.value if isinstance(reply, Written) else None
    try:
        sound = schema.sound(wanted, "the schema")
    except BadInput as error:
        raise Refusal(400, f"{error.message}; {error.mend}", param="response_format") from None
    wrong = schema.mistake(sound, value) if value is not None else "its answers are no JSON"
    if wrong:
        raise Refusal(
            400,
            f"this model answers by its own task, not by this schema: {wrong}",
            param="response_format",
        )
