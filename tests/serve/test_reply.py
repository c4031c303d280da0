"""What models answer, as events: free text, JSON by a schema, calls, tasks, embeddings."""

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bantam.answer import Answer, Written
from bantam.engine import Sampling
from bantam.kinds import classify, schema
from bantam.kinds import texts as writing
from bantam.model import Model
from bantam.serve import prompt as prompting
from bantam.serve import reply
from bantam.serve.ask import (
    Ask,
    Begun,
    Call,
    CallBegun,
    CallPart,
    Ended,
    Event,
    Message,
    Refusal,
    Text,
    Tools,
)
from bantam.serve.handover import Handover
from bantam.serve.shelf import Shelf
from tiny import rewritten
from tiny_tasks import packed

T = TypeVar("T")
TOOLS = (
    {
        "type": "function",
        "function": {
            "name": "go",
            "description": "Go to a place.",
            "parameters": {
                "type": "object",
                "properties": {
                    "to": {"type": "string", "maxLength": 12},
                    "fast": {"type": "boolean"},
                },
                "required": ["to"],
            },
        },
    },
    {"type": "function", "function": {"name": "stop", "parameters": {"type": "object"}}},
)
SCHEMA = {
    "type": "object",
    "properties": {
        "thing": {"enum": ["camera", "phone"]},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}, "maxItems": 3},
    },
    "required": ["thing", "parts"],
    "additionalProperties": False,
    "$defs": {
        "part": {
            "type": "object",
            "properties": {"name": {"type": "string", "pattern": "^[a-z]{3,8}$"}},
            "required": ["name"],
            "additionalProperties": False,
        }
    },
}
HERMES = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}\nWrite <tool_call>.<|im_end|>\n"
    "{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REFUSES_SYSTEM = (
    "{% for message in messages %}{% if message.role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("shelf")
    calls = replace(writing.task("extract", "calls", "", most_calls=2), max_answer_tokens=60)
    record = writing.task("extract", "record", "", answer_schema=SCHEMA)
    tasks = {
        "labels": classify.task("labels", "Is it good?", ["yes", "no"]),
        "few": replace(classify.task("few", "Good?", ["yes", "no"]), max_text_tokens=20),
        "calls": replace(calls, max_text_tokens=200),
        "record": replace(record, max_answer_tokens=40, max_text_tokens=200, certainty=(0.01, 1.0)),
        "text": replace(writing.task("generate", "text", "Say it."), max_answer_tokens=8),
    }
    made = {name: packed(folder / f"{name}.gguf", tiny_model, task) for name, task in tasks.items()}
    for name, template in (("hermes", HERMES), ("gentle", REFUSES_SYSTEM)):
        keys = {"tokenizer.chat_template": template}
        made[name] = rewritten(folder / f"{name}.gguf", tiny_model, keys)
    return made | {"chat": tiny_model}


@pytest.fixture(scope="module")
def served(places: dict[str, Path]) -> Any:
    """Runs a coroutine function that is given the shelf, on one loop for all tests."""
    with asyncio.Runner() as runner:

        async def made() -> Shelf:
            return Shelf(places, threads=1, parallel=2)

        shelf = runner.run(made())
        yield lambda work: runner.run(work(shelf))
        runner.run(shelf.close())


Served = Callable[[Callable[[Shelf], Coroutine[Any, Any, T]]], T]


def ask(model: str, *messages: str | Message, **how: Any) -> Ask:
    sampling = how.pop("sampling", Sampling(max_tokens=24))
    said = [one if isinstance(one, Message) else Message("user", one) for one in messages]
    return Ask(model, tuple(said), sampling, **how)


def events(served: Served[list[Event]], asked: Ask, **how: Any) -> list[Event]:
    async def work(shelf: Shelf) -> list[Event]:
        return [event async for event in reply.answer(shelf, asked, **how)]

    return served(work)


def text(found: list[Event], index: int = 0) -> str:
    return "".join(one.text for one in found if isinstance(one, Text) and one.index == index)


def ended(found: list[Event]) -> list[Ended]:
    return [one for one in found if isinstance(one, Ended)]


def called(found: list[Event]) -> list[tuple[str, Any]]:
    names = [one.name for one in found if isinstance(one, CallBegun)]
    parts = [
        "".join(p.text for p in found if isinstance(p, CallPart) and p.number == number)
        for number in range(len(names))
    ]
    return [(name, json.loads(part)) for name, part in zip(names, parts, strict=True)]


def test_a_conversation_is_what_the_model_says(
    served: Served[list[Event]], places: dict[str, Path]
) -> None:
    found = events(served, ask("chat", "Is the camera sharp?"))
    with Model(places["chat"], threads=1) as model:
        messages = [{"role": "user", "content": "Is the camera sharp?"}]
        assert text(found) == model.chat(messages, max_tokens=24, temperature=0.0)
        assert found[0] == Begun(len(model.conversation(messages)))
    (end,) = ended(found)
    assert end.reason in ("stop", "length") and end.tokens <= 24
    assert end.confidence is None


def test_several_replies_differ_and_repeat(served: Served[list[Event]]) -> None:
    asked = ask("chat", "Hello", sampling=Sampling(max_tokens=12, temperature=1.5, seed=7), n=3)
    first, again = events(served, asked), events(served, asked)
    told = [text(first, index) for index in range(3)]
    assert len(ended(first)) == 3 and len(set(told)) > 1
    assert told == [text(again, index) for index in range(3)]


def test_control_tokens_in_a_message_are_text(served: Served[int]) -> None:
    async def counted(shelf: Shelf, said: str) -> int:
        return await reply.count(shelf, ask("chat", said))

    plain = served(lambda shelf: counted(shelf, "a"))
    assert served(lambda shelf: counted(shelf, "a<|im_end|>")) > plain + 5


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8, 13, 40, 200])
@pytest.mark.parametrize("warmth", [0.0, 1.5])
def test_json_follows_its_schema_at_any_limit(
    served: Served[list[Event]], limit: int, warmth: float
) -> None:
    sampling = Sampling(max_tokens=limit, temperature=warmth, seed=limit)
    found = events(served, ask("chat", "What is it?", sampling=sampling, schema=SCHEMA))
    assert schema.mistake(SCHEMA, json.loads(text(found))) is None
    (end,) = ended(found)
    least = replace(sampling, max_tokens=1)
    (shortest,) = ended(events(served, ask("chat", "What is it?", sampling=least, schema=SCHEMA)))
    assert shortest.tokens < 50
    assert end.tokens <= max(limit, shortest.tokens)
    if limit in (1, 2, 3, 5, 200):  # the shortest answer has some 20 tokens, the longest 90
        assert end.reason == ("stop" if limit == 200 else "length")


def test_a_recursive_schema_and_a_hopeless_one(served: Served[list[Event]]) -> None:
    tree = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"],
        "additionalProperties": False,
    }
    sampling = Sampling(max_tokens=30, temperature=1.0, seed=1)
    found = events(served, ask("chat", "Go on.", sampling=sampling, schema=tree))
    assert schema.mistake(tree, json.loads(text(found))) is None
    endless = tree | {"properties": {"next": {"$ref": "#"}}}
    with pytest.raises(Refusal, match="no finite value") as refused:
        events(served, ask("chat", "Go on.", schema=endless))
    assert refused.value.status == 400


@pytest.mark.parametrize("model", ["chat", "hermes"])
@pytest.mark.parametrize("named", ["", "go"])
def test_calls_that_are_required(served: Served[list[Event]], model: str, named: str) -> None:
    for seed in range(3):
        tools = Tools(TOOLS, "required", named, parallel=seed > 0)
        sampling = Sampling(max_tokens=60, temperature=1.2, seed=seed)
        found = events(served, ask(model, "Go to Berlin.", sampling=sampling, tools=tools))
        made = called(found)
        assert made and (len(made) == 1 or seed)
        for name, arguments in made:
            assert name == named or not named
            function = next(t["function"] for t in TOOLS if t["function"]["name"] == name)  # type: ignore[index]
            assert schema.mistake(function["parameters"], arguments) is None  # type: ignore[index]
        assert len({one.id for one in found if isinstance(one, CallBegun)}) == len(made)
        assert ended(found)[0].reason in ("calls", "length")
        assert ended(found)[0].tokens <= 60
        assert text(found) == ""


@pytest.mark.parametrize("model", ["chat", "hermes"])
def test_calls_have_no_more_tokens_than_asked_for(served: Served[list[Event]], model: str) -> None:
    def said(limit: int, seed: int) -> list[Event]:
        sampling = Sampling(max_tokens=limit, temperature=1.2, seed=seed)
        tools = Tools(TOOLS, "required")
        return events(served, ask(model, "Go to Berlin.", sampling=sampling, tools=tools))

    least = ended(said(1, 0))[0].tokens
    assert least < 40
    for limit in (least, least + 7, 2 * least + 1, 100):
        for seed in range(5):
            found = said(limit, seed)
            assert called(found)
            assert ended(found)[0].tokens <= limit


def test_a_whole_call_stands_where_there_is_no_room_for_another(
    served: Served[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little room is left behind it, and though the model would make one more."""
    monkeypatch.setattr(reply.calls, "begins", lambda text: True)

    def asked(words: int) -> Ask:
        tools = Tools(TOOLS[1:], "required")
        cold = Sampling(max_tokens=None, temperature=0)
        return ask("hermes", " a" * words, sampling=cold, tools=tools)

    room = 510 - served(lambda shelf: reply.count(shelf, asked(0)))
    made = []
    for left in (12, 40, 60, 80, 200):
        found = events(served, asked(room - left))
        assert {name for name, _ in called(found)} == {"stop"}
        assert ended(found)[0].reason == "calls"
        made.append(len(called(found)))
    assert made[0] == 1 < made[-1]


@pytest.mark.parametrize("how", [{"top_k": 1}, {"min_p": 1.0}, {"top_p": 0.0}])
def test_json_is_drawn_as_asked(served: Served[list[Event]], how: dict[str, Any]) -> None:
    """Each of these leaves nothing but the likeliest, however warm it is."""

    def said(sampling: Sampling) -> str:
        return text(events(served, ask("chat", "What?", sampling=sampling, schema=SCHEMA)))

    cold = said(Sampling(max_tokens=60))
    assert said(Sampling(max_tokens=60, temperature=2.0, seed=5, **how)) == cold
    assert said(Sampling(max_tokens=60, temperature=2.0, seed=5)) != cold


def test_calls_may_be_left_out(served: Served[list[Event]]) -> None:
    """A random model never begins a call by itself: its words come through whole."""
    plain = events(served, ask("hermes", "Hello"))
    found = events(served, ask("hermes", "Hello", tools=Tools(TOOLS, "none")))
    assert text(found) == text(plain)
    free = events(served, ask("chat", "Hello", tools=Tools(TOOLS)))
    assert text(free) and not called(free)


SMALL = {
    "type": "object",
    "properties": {"name": {"enum": ["Ann", "Bob"]}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("model", ["chat", "hermes"])
def test_who_may_call_and_talks_is_held_to_the_schema(
    served: Served[list[Event]], model: str
) -> None:
    for limit in (1, 60):
        sampling = Sampling(max_tokens=limit, temperature=1.2, seed=limit)
        asked = ask(model, "What is it?", sampling=sampling, tools=Tools(TOOLS[1:]), schema=SMALL)
        found = events(served, asked)
        assert schema.mistake(SMALL, json.loads(text(found))) is None
        assert not called(found) and len(ended(found)) == 1


@pytest.mark.parametrize(
    ("model", "begun", "calls"),
    [
        ("hermes", "\n<tool_call>", True),
        ("hermes", '{"name": "Ann"}', False),  # as a schema may have it
        ("chat", '[{"name"', True),
        ("chat", "[", False),  # all that was written
        ("chat", "It is", False),
    ],
)
def test_the_beginning_tells_calls_from_what_is_held(
    served: Served[list[Event]],
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    begun: str,
    calls: bool,
) -> None:
    async def freely(*how: Any) -> AsyncGenerator[Event, None]:
        yield Text(0, begun)
        yield Ended(0, "length", 1)

    monkeypatch.setattr(reply, "_freely", freely)
    sampling = Sampling(max_tokens=60)
    asked = ask(model, "What is it?", sampling=sampling, tools=Tools(TOOLS[1:]), schema=SMALL)
    found = events(served, asked)
    assert bool(called(found)) == calls
    assert calls or schema.mistake(SMALL, json.loads(text(found))) is None
    assert len(ended(found)) == 1


def test_a_call_that_is_begun_is_held_to_its_function(served: Served[list[Event]]) -> None:
    """The reply's beginning is given, so the model goes on with what looks like a call."""
    begun = Message("assistant", "")
    found = events(served, ask("chat", "Go.", begun, tools=Tools(TOOLS, "required", "stop")))
    assert [name for name, _ in called(found)][:1] == ["stop"]


def test_calls_and_results_are_part_of_the_prompt(served: Served[int]) -> None:
    turns = [
        Message("system", "Be brief."),
        Message("user", "Go to Berlin."),
        Message("assistant", "", (Call("call_1", "go", '{"to": "Berlin"}'),)),
        Message("tool", "arrived", call_id="call_1", name="go"),
        Message("user", "And now?"),
    ]

    async def counted(shelf: Shelf, model: str, count: int) -> int:
        return await reply.count(shelf, ask(model, *turns[:count], tools=Tools(TOOLS)))

    for model in ("chat", "hermes", "gentle"):
        counts = [served(lambda shelf: counted(shelf, model, n)) for n in range(2, 6)]  # noqa: B023
        assert counts == sorted(set(counts)), model


def test_results_are_those_of_their_calls_in_whatever_order(served: Served[list[int]]) -> None:
    """Programs send results as they come, and OpenAI's without a name."""
    calls = tuple(Call(f"call_{to}", "go", json.dumps({"to": to})) for to in ("Berlin", "Rome"))
    results = [Message("tool", f"in {one.id}", call_id=one.id) for one in calls]
    asked = (Message("user", "Go to both."), Message("assistant", "", calls))

    async def prompt(shelf: Shelf, model: str, *said: Message) -> list[int]:
        async with shelf.lent(model) as lent:
            return prompting.ids(lent.model, ask(model, *said, tools=Tools(TOOLS)))

    for model in ("chat", "hermes", "gentle"):
        first = served(lambda shelf: prompt(shelf, model, *asked, *results))  # noqa: B023
        other = served(lambda shelf: prompt(shelf, model, *asked, *results[::-1]))  # noqa: B023
        named = [replace(result, name="go") for result in results]
        also = served(lambda shelf: prompt(shelf, model, *asked, *named))  # noqa: B023
        assert first == other == also
        swapped = [
            replace(one, call_id=two.call_id)
            for one, two in zip(results, results[::-1], strict=True)
        ]
        assert served(lambda shelf: prompt(shelf, model, *asked, *swapped)) != first  # noqa: B023


def test_a_last_turn_of_the_assistant_is_begun_or_said(served: Served[int]) -> None:
    said = (Message("user", "Go."), Message("assistant", "I go"))

    async def counted(shelf: Shelf, continues: bool) -> int:
        return await reply.count(shelf, replace(ask("chat", *said), continues=continues))

    # What was said is a turn of its own, which ends, and the reply another.
    assert served(lambda shelf: counted(shelf, False)) > served(lambda shelf: counted(shelf, True))


def test_a_template_that_knows_no_system_still_gets_it(served: Served[int]) -> None:
    async def counted(shelf: Shelf, *messages: Message | str) -> int:
        return await reply.count(shelf, ask("gentle", *messages))

    plain = served(lambda shelf: counted(shelf, "Hello"))
    told = served(lambda shelf: counted(shelf, Message("system", "Be brief."), "Hello"))
    assert told > plain


def test_tasks_answer_as_the_model_does(
    served: Served[list[Event]], places: dict[str, Path]
) -> None:
    tools = [dict(one) for one in TOOLS]
    for name in ("labels", "record", "calls", "text"):
        system = Message("system", "You are a helpful assistant.")
        declared = Tools(TOOLS) if name == "calls" else Tools()
        found = events(served, ask(name, system, "The camera broke.", tools=declared))
        with Model(places[name], threads=1) as model:
            wanted = model("The camera broke.", tools if name == "calls" else None)
        (end,) = ended(found)
        if name in ("labels", "record"):  # validation showed how sure these are
            assert end.confidence == pytest.approx(wanted.probability, abs=0.02)
        else:
            assert end.confidence is None
        if isinstance(wanted, Answer):
            assert text(found) == wanted.label
            assert end.probabilities == pytest.approx(wanted.probabilities, abs=0.02)
        elif name == "calls":
            assert isinstance(wanted, Written)
            assert called(found) == [(one["name"], one["arguments"]) for one in wanted.value]
        else:
            assert text(found) == wanted.text


def test_an_agent_comes_to_an_end(served: Served[list[Event]]) -> None:
    """A task of functions whose results are brought repeats them; asked anew it calls anew."""
    turns = [
        Message("tool", "an older one", call_id="call_0"),
        Message("user", "Berlin, then stop."),
        Message("assistant", "", (Call("call_1", "go", "{}"), Call("call_2", "stop", "{}"))),
        Message("tool", "arrived", call_id="call_1"),
        Message("tool", "stopped", call_id="call_2"),
    ]
    found = events(served, ask("calls", *turns, tools=Tools(TOOLS)))
    assert (text(found), called(found)) == ("arrived\nstopped", [])
    assert ended(found)[0].reason == "stop"
    again = events(served, ask("calls", *turns, "And now?", tools=Tools(TOOLS)))
    alone = events(served, ask("calls", "And now?", tools=Tools(TOOLS)))
    assert called(again) == called(alone)
    assert text(again) == text(alone) == ""


def test_a_task_is_not_bent_to_another_schema(served: Served[list[Event]]) -> None:
    found = events(served, ask("record", "The camera broke.", schema=SCHEMA))
    assert schema.mistake(SCHEMA, json.loads(text(found))) is None
    with pytest.raises(Refusal, match="by its own task"):
        events(
            served, ask("record", "It broke.", schema={"type": "array", "items": {"type": "null"}})
        )
    with pytest.raises(Refusal, match="by its own task"):
        events(served, ask("labels", "It broke.", schema=SCHEMA))


def test_hand_over_is_marked(served: Served[list[Event]]) -> None:
    asked = ask("labels", "The camera broke.")
    (ours,) = ended(events(served, asked, handover=Handover("chat", 0.0)))
    (theirs,) = ended(events(served, asked, handover=Handover("chat", 1.0)))
    assert ours.handed_to == "" and ours.confidence
    assert theirs.handed_to == "chat" and theirs.confidence is None


def test_a_raw_text_goes_on(served: Served[list[Event]]) -> None:
    async def work(shelf: Shelf) -> list[Event]:
        sampling = Sampling(max_tokens=8)
        return [event async for event in reply.proceed(shelf, "chat", "The picture", sampling)]

    found = served(work)
    assert text(found) and ended(found)[0].tokens <= 8


def test_embeddings_have_length_one(served: Served[Any]) -> None:
    async def work(shelf: Shelf) -> tuple[list[list[float]], int]:
        return await reply.embed(shelf, "chat", ["The picture is sharp.", "It broke.", "It broke."])

    rows, tokens = served(work)
    assert tokens > 6 and all(math.hypot(*row) == pytest.approx(1, abs=1e-5) for row in rows)
    assert rows[1] == pytest.approx(rows[2], abs=1e-4) and rows[0] != pytest.approx(
        rows[1], abs=1e-2
    )


LONG = "x" * 40_000  # for a context of 512 tokens, of 64 characters at most


@pytest.mark.parametrize(
    "asked",
    [
        ask("chat", Message("user", "Hi", name=LONG)),
        ask("chat", "Hi", Message("tool", "arrived", call_id=LONG)),
        ask("hermes", "Hi", Message("assistant", "", (Call(LONG, "go", "{}"),)), "And now?"),
        ask("hermes", "Hi", Message("assistant", "", (Call("call_1", LONG, "{}"),)), "And now?"),
        ask("chat", "Hi", schema={"enum": [LONG]}),
        ask("chat", "Hi", tools=Tools(({"name": "go", "description": LONG},))),
        ask("hermes", "Hi", tools=Tools(({"name": "go", "description": LONG},))),
        ask("text", LONG),
        ask("record", LONG),
        ask("calls", LONG, tools=Tools(TOOLS)),
    ],
)
def test_what_has_no_place_is_refused_by_its_characters(served: Served[Any], asked: Ask) -> None:
    """Whatever part of the prompt it is, and where tokens are only counted too."""
    for work in (lambda: events(served, asked), lambda: served(lambda s: reply.count(s, asked))):
        with pytest.raises(Refusal, match="characters: this model has room for 510") as refused:
            work()
        assert refused.value.code == "context_length_exceeded"


def test_a_text_that_is_labelled_is_cut_before_it_is_counted(
    served: Served[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    longest, encode = 0, Model.encode

    def watched(self: Model, segments: list[tuple[str, bool]]) -> list[int]:
        nonlocal longest
        longest = max(longest, *(len(text) for text, _ in segments))
        return encode(self, segments)

    monkeypatch.setattr(Model, "encode", watched)
    asked = ask("few", "It broke. " * 4000)
    found = events(served, asked)
    assert served(lambda shelf: reply.count(shelf, asked)) == found[0].prompt_tokens
    assert longest == 64 * 20


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (ask("chat", "a very long story " * 500), "context_length_exceeded"),
        (ask("nobody", "Hello"), "model_not_found"),
        (ask("chat", "Hi", schema=SCHEMA, sampling=Sampling(stop=("x",))), None),
        (ask("calls", "Go."), None),
        (ask("chat", "Hi", tools=Tools(TOOLS, "required"), sampling=Sampling(stop=("x",))), None),
        (ask("chat", "Go.", tools=Tools(TOOLS, "required", "fly")), None),
        (
            ask("chat", "Go.", tools=Tools(({"type": "function", "function": {"name": "a b"}},))),
            None,
        ),
        (ask("labels", Message("assistant", "Hello")), None),
    ],
)
def test_what_is_refused(served: Served[list[Event]], asked: Ask, code: str | None) -> None:
    with pytest.raises(Refusal) as refused:
        events(served, asked)
    assert refused.value.code == code and refused.value.status in (400, 404)
    assert refused.value.message
