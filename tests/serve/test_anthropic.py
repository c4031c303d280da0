"""Anthropic's interface, as its official client speaks to it, with real models behind it."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, Literal

import anthropic
import httpx
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message as TheirMessage
from anthropic.types import RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter
from served import served
from shelved import LABELS, models

from bantam.model import Model
from bantam.serve import anthropic as ours
from bantam.serve.anthropic_request import Asked, ask
from bantam.serve.ask import (
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
from bantam.serve.guard import Settings
from bantam.serve.keys import read
from bantam.serve.lent import Book
from bantam.serve.shelf import Shelf

HELLO: list[Any] = [{"role": "user", "content": "What does this camera feel?"}]
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
COLD = {"temperature": 0}  # the client has no name for it any more
BOOK = Book("chat", Path("chat.gguf"), 0, 0, None, 512, 0, "", None)
FORM = {
    "type": "object",
    "properties": {"thing": {"enum": ["camera", "phone"]}, "count": {"type": "integer"}},
    "required": ["thing", "count"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {
        "name": name,
        "description": "Say so.",
        "input_schema": {
            "type": "object",
            "properties": {"thing": {"enum": ["camera", "phone"]}},
            "required": ["thing"],
        },
    }
    for name in ("praise", "mend")
]
UNIQUE = {"type": "array", "items": {"type": "boolean"}, "maxItems": 2, "uniqueItems": True}


class Form(BaseModel):
    thing: Literal["camera", "phone"]
    count: int


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Shelf:
    return Shelf(models(tmp_path_factory.mktemp("models"), tiny_model), threads=1, parallel=2)


@pytest.fixture(scope="module")
def address(shelf: Shelf) -> Iterator[str]:
    with served(shelf) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=address, api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def web(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as web:
        yield web


def request(**change: Any) -> dict[str, Any]:
    return {"model": "chat", "max_tokens": 8, "messages": HELLO} | change


def events(web: httpx.Client, **change: Any) -> list[tuple[str, dict[str, Any]]]:
    """The names of the events of a stream, with what they tell."""
    told = web.post("/v1/messages", json=request(stream=True, **(COLD | change))).text
    found = []
    for one in told.split("\n\n")[:-1]:
        name, data = one.split("\n")
        assert name.startswith("event: ")
        assert data.startswith("data: ")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


# What is written, whole and in events


def test_a_message_is_whole_and_typed(client: anthropic.Anthropic) -> None:
    raw = client.messages.with_raw_response.create(**request(extra_body=COLD))
    assert raw.headers["request-id"].startswith("req_")
    told = TheirMessage.model_validate(json.loads(raw.read()))  # strictly, unlike the client
    assert told.role == "assistant"
    assert told.model == "chat"
    assert told.id.startswith("msg_")
    (block,) = told.content
    assert block.type == "text"
    assert block.text
    assert told.stop_reason == "max_tokens"
    assert told.stop_sequence is None
    assert told.usage.output_tokens == 8


def test_events_come_in_order_and_are_typed(web: httpx.Client) -> None:
    told = events(web)
    names = [name for name, _ in told]
    assert names[:3] == ["message_start", "content_block_start", "ping"]
    assert set(names[3:-3]) == {"content_block_delta"}
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    for name, data in told:
        assert data["type"] == name
        if name != "ping":
            EVENT.validate_python(data)
    assert told[0][1]["message"]["content"] == []
    assert told[0][1]["message"]["usage"]["input_tokens"] > 0
    assert told[-2][1]["usage"]["output_tokens"] == 8


def test_the_client_puts_a_stream_together(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(**request(extra_body=COLD))
    with client.messages.stream(**request(extra_body=COLD)) as stream:
        pieces = list(stream.text_stream)
        last = stream.get_final_message()
    assert len(pieces) > 1
    assert "".join(pieces) == whole.content[0].text  # type: ignore[union-attr]
    assert last.content[0].text == whole.content[0].text  # type: ignore[union-attr]
    assert last.stop_reason == whole.stop_reason
    assert last.usage.output_tokens == whole.usage.output_tokens


def test_a_stop_sequence_ends_the_text_and_is_told(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(**request(max_tokens=30, extra_body=COLD))
    text: str = whole.content[0].text  # type: ignore[union-attr]
    stop = text[4:6]
    cut = client.messages.create(
        **request(max_tokens=30, stop_sequences=["never said", stop], extra_body=COLD)
    )
    assert cut.stop_reason == "stop_sequence"
    assert cut.stop_sequence == stop
    assert cut.content[0].text == text[: text.index(stop)]  # type: ignore[union-attr]


def test_sampling_is_as_asked(client: anthropic.Anthropic) -> None:
    """One token may be chosen: the text of temperature 0, whatever the temperature."""
    cold = client.messages.create(**request(extra_body=COLD)).content[0]
    for narrow in ({"top_k": 1}, {"top_p": 1e-9}):
        told = client.messages.create(**request(extra_body={"temperature": 1} | narrow)).content[0]
        assert told == cold, narrow
    warm = {
        client.messages.create(**request()).model_dump_json(include={"content"}) for _ in range(4)
    }
    assert len(warm) > 1  # left out, the temperature is 1


def test_a_client_that_goes_frees_the_model(client: anthropic.Anthropic, shelf: Shelf) -> None:
    with client.messages.stream(**request(max_tokens=400)) as stream:
        next(iter(stream))
    end = time.monotonic() + 1
    while shelf.state()[0]["in_flight"]:
        assert time.monotonic() < end
        time.sleep(0.01)


# What is read


def test_tokens_are_counted_as_they_are_used(client: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {
        "model": "chat",
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": HELLO,
        "tools": TOOLS,
    }
    counted = client.messages.count_tokens(**asked).input_tokens
    for _ in range(2):  # the second time the prompt is known
        usage = client.messages.create(max_tokens=1, **asked).usage
        assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted
    assert usage.cache_read_input_tokens
    asked["system"] = "Be brief."  # nothing is to be kept, so nothing is counted apart
    for _ in range(2):
        usage = client.messages.create(max_tokens=1, **asked).usage
        assert (usage.input_tokens, usage.cache_read_input_tokens) == (counted, 0)
    shorter = client.messages.count_tokens(**asked | {"system": "Be."}).input_tokens
    assert shorter < counted


def test_a_last_turn_of_the_assistant_is_gone_on_with(
    client: anthropic.Anthropic, tiny_model: Path
) -> None:
    begun = "It is sharp"
    plain = client.messages.count_tokens(model="chat", messages=HELLO).input_tokens
    turn: Any = {"role": "assistant", "content": begun}
    with_it = client.messages.count_tokens(model="chat", messages=[*HELLO, turn]).input_tokens
    assert with_it == plain + len(Model(tiny_model).encode([(begun, False)]))


def test_turns_are_told_to_the_model_in_its_own_words() -> None:
    body = Asked.model_validate(
        request(
            system="Be brief.",
            messages=[
                {"role": "user", "content": "One."},
                {"role": "user", "content": [{"type": "text", "text": "Two."}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                        {"type": "text", "text": "I look."},
                        {"type": "tool_use", "id": "a", "name": "look", "input": {"at": "é"}},
                        {"type": "tool_use", "id": "b", "name": "see", "input": {}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "b", "content": "Blue."},
                        {
                            "type": "tool_result",
                            "tool_use_id": "a",
                            "is_error": True,
                            "content": [
                                {"type": "text", "text": "Dark"},
                                {"type": "text", "text": "."},
                            ],
                        },
                        {"type": "text", "text": "And?"},
                    ],
                },
                {"role": "system", "content": "Now be long."},
                {"role": "user", "content": [{"type": "text", "text": "Go on."}]},
            ],
        )
    )
    assert ask(body, BOOK).messages == (
        Message("system", "Be brief."),
        Message("user", "One.\n\nTwo."),
        Message("assistant", "I look.", (Call("a", "look", '{"at": "é"}'), Call("b", "see", "{}"))),
        Message("tool", "Blue.", call_id="b", name="see"),
        Message("tool", "Error: Dark\n.", call_id="a", name="look"),
        Message("user", "And?"),
        Message("system", "Now be long."),
        Message("user", "Go on."),
    )


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        (None, ("auto", "", True)),
        ({"type": "auto", "disable_parallel_tool_use": True}, ("auto", "", False)),
        ({"type": "any"}, ("required", "", True)),
        ({"type": "tool", "name": "mend"}, ("required", "mend", True)),
        ({"type": "none"}, ("none", "", True)),
    ],
)
def test_tools_are_told_in_openais_form(choice: Any, told: tuple[str, str, bool]) -> None:
    one = TOOLS[1] | {"input_examples": [{"thing": "phone"}], "type": "custom"}
    found = ask(Asked.model_validate(request(tools=[one], tool_choice=choice)), BOOK).tools
    function = {
        "name": "mend",
        "description": 'Say so.\nExample: {"thing": "phone"}',
        "parameters": one["input_schema"],
    }
    declared = ({"type": "function", "function": function},)
    assert found == Tools(declared, *told)


# Calls and JSON


def test_a_tool_is_called_and_its_result_is_read(client: anthropic.Anthropic) -> None:
    choice = {"type": "tool", "name": "mend", "disable_parallel_tool_use": True}
    asked = request(max_tokens=200, tools=TOOLS, tool_choice=choice, extra_body=COLD)
    told = client.messages.create(**asked)
    assert told.stop_reason == "tool_use"
    (use,) = told.content
    assert use.type == "tool_use"
    assert use.name == "mend"
    assert use.input in ({"thing": "camera"}, {"thing": "phone"})
    with client.messages.stream(**asked) as stream:
        last = stream.get_final_message()
    assert last.content[0].input == use.input  # type: ignore[union-attr]
    assert last.stop_reason == "tool_use"
    tokens = []
    for result in ("Done.", "Done, and the battery lasts all day."):
        block = {"type": "tool_result", "tool_use_id": use.id, "content": result}
        talk: Any = [*HELLO, told.to_param(), {"role": "user", "content": [block]}]
        after = client.messages.create(
            **request(messages=talk, tools=TOOLS, tool_choice={"type": "none"})
        )
        assert [block.type for block in after.content] == ["text"]
        tokens.append(client.messages.count_tokens(model="chat", messages=talk).input_tokens)
    assert tokens[0] < tokens[1]


def test_a_clients_own_loop_of_calls_ends(client: anthropic.Anthropic) -> None:
    """It asks for a conversation that is kept, and goes on without where none is."""
    asked = []

    @anthropic.beta_tool
    def mend(thing: str) -> str:
        """Mends a thing."""
        asked.append(thing)
        return "Done."

    runner = client.beta.messages.tool_runner(
        **request(tools=[mend], max_tokens=60, max_iterations=2)
    )
    assert runner.until_done().content
    with pytest.raises(anthropic.BadRequestError, match="thread: ") as refused:
        client.messages.create(**request(extra_body={"thread": {"type": "create"}}))
    body: Any = refused.value.body
    assert body["error"]["details"]["error_code"] == "thread_unsupported_request"
    assert refused.value.request_id == body["request_id"]


def test_tools_as_programs_make_them(client: anthropic.Anthropic) -> None:
    """Names of MCP servers, no description, what only tightens; and text that may be stopped."""
    name = "mcp__" + "x" * 90
    properties = {"tags": UNIQUE, "key": {"type": "string", "format": "password"}}
    shape = {"type": "object", "properties": properties, "propertyNames": {"type": "string"}}
    tool = {"name": name, "description": None, "input_schema": shape, "cache_control": None}
    told = client.messages.create(
        **request(tools=[tool], tool_choice={"type": "any"}, max_tokens=120)
    )
    assert {block.name for block in told.content} == {name}  # type: ignore[union-attr]
    talk = request(tools=[tool], stop_sequences=["e", "a"], max_tokens=60, extra_body=COLD)
    assert client.messages.create(**talk).stop_reason == "stop_sequence"


def test_one_call_where_parallel_ones_are_not_wanted(client: anthropic.Anthropic) -> None:
    choice = {"type": "any", "disable_parallel_tool_use": True}
    for _ in range(4):
        told = client.messages.create(**request(max_tokens=200, tools=TOOLS, tool_choice=choice))
        assert len(told.content) == 1


def test_each_call_is_a_block_of_its_own(web: httpx.Client) -> None:
    told = events(web, tools=TOOLS, tool_choice={"type": "any"}, max_tokens=200)
    open_block, inputs = None, []
    for name, data in told:
        if name == "content_block_start":
            assert open_block is None
            assert data["content_block"]["input"] == {}
            open_block = data["index"]
            assert open_block == len(inputs)
            inputs.append("")
        elif name == "content_block_delta":
            assert data["index"] == open_block
            inputs[-1] += data["delta"]["partial_json"]
        elif name == "content_block_stop":
            assert data["index"] == open_block
            open_block = None
    assert inputs
    assert all(json.loads(one)["thing"] in ("camera", "phone") for one in inputs)


def test_json_follows_a_schema_also_when_tokens_run_out(client: anthropic.Anthropic) -> None:
    told = client.messages.parse(**request(max_tokens=60), output_format=Form)
    assert isinstance(told.parsed_output, Form)
    form: Any = {"format": {"type": "json_schema", "schema": FORM}}
    short = client.messages.create(**request(max_tokens=1, output_config=form))
    assert Form.model_validate_json(short.content[0].text)  # type: ignore[union-attr]
    assert short.stop_reason == "max_tokens"
    with client.messages.stream(**request(max_tokens=60), output_format=Form) as stream:
        assert isinstance(stream.get_final_message().parsed_output, Form)


def test_a_task_answers_and_says_how_sure_it_is(
    client: anthropic.Anthropic, web: httpx.Client
) -> None:
    told = client.messages.create(**request(model="labels"))
    assert told.content[0].text in LABELS  # type: ignore[union-attr]
    assert told.stop_reason == "end_turn"
    known: Any = told.model_extra["bantam"]  # type: ignore[index]
    assert known["confidence"] == max(known["probabilities"].values())
    assert known["sure"] is True
    delta = dict(events(web, model="labels"))["message_delta"]
    assert delta["bantam"]["probabilities"] == pytest.approx(known["probabilities"], abs=0.02)


# What is refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_tokens": None}, "max_tokens: "),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"messages": []}, "messages: "),
        ({"messages": "Hello"}, "messages: "),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages.0.role: "),
        (
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "messages.0.content.0.type: ",
        ),
        ({"temperature": 1.1}, "temperature: "),
        ({"temperature": "NaN"}, "temperature: "),
        ({"top_p": -1}, "top_p: "),
        ({"top_k": -1}, "top_k: "),
        ({"stop_sequences": [""]}, "stop_sequences.0: "),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking: "),
        ({"mcp_servers": [{"name": "x"}]}, "mcp_servers: "),
        ({"context_management": {"edits": [{"type": "x"}]}}, "context_management: "),
        ({"betas": ["x"]}, "betas: Extra inputs are not permitted"),
        ({"stop_sequences": ["x"], "tools": TOOLS, "tool_choice": {"type": "any"}}, "stop cannot"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0: "),
        ({"tools": [TOOLS[0] | {"defer_loading": True}]}, "tools.0: "),
        ({"tools": [{"name": "x"}]}, "tools.0: "),
        ({"tools": [TOOLS[0] | {"input_schema": {"type": "x"}}]}, "tools"),
        ({"tools": [TOOLS[0] | {"strict": True, "input_schema": UNIQUE}]}, "uniqueItems"),
        ({"tool_choice": {"type": "any"}}, "tool_choice: "),
        ({"tools": TOOLS, "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice.name: "),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"$ref": "http://x"}}}},
            "$ref",
        ),
        ({"system": [{"type": "image", "text": "x"}]}, "system.0: a block of type 'image'"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    client: anthropic.Anthropic, change: dict[str, Any], said: str
) -> None:
    for stream in (False, True):
        with pytest.raises(anthropic.BadRequestError) as refused:
            client.messages.create(**request(stream=stream, extra_body=change))
        body: Any = refused.value.body
        assert body["type"] == "error"
        assert body["error"]["type"] == "invalid_request_error"
        assert said in body["error"]["message"]
        assert body["request_id"].startswith("req_")


@pytest.mark.parametrize(
    ("role", "block", "place"),
    [
        ("user", {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1:9/x"}}, ""),
        ("user", {"type": "document", "source": {"type": "text", "data": "x"}}, ""),
        ("user", {"type": "tool_result", "tool_use_id": "x"}, ".tool_use_id"),
        ("user", {"type": "tool_use", "id": "x", "name": "x", "input": {}}, ""),
        ("user", {"type": "text"}, ".text"),
        ("assistant", {"type": "tool_use", "id": "x"}, ""),
        ("assistant", {"type": "server_tool_use", "id": "x", "name": "x", "input": {}}, ""),
    ],
)
def test_blocks_that_are_no_text_are_refused(
    client: anthropic.Anthropic, role: str, block: dict[str, Any], place: str
) -> None:
    turn: Any = {"role": role, "content": [{"type": "text", "text": "See."}, block]}
    for act in (client.messages.create, client.messages.count_tokens):
        asked = {"model": "chat", "messages": [turn]}
        if act == client.messages.create:
            asked["max_tokens"] = 1
        with pytest.raises(anthropic.BadRequestError, match=rf"messages\.0\.content\.1{place}: "):
            act(**asked)


def test_what_changes_no_answer_is_taken(client: anthropic.Anthropic) -> None:
    extra: dict[str, Any] = {
        "metadata": {"user_id": "x"},
        "service_tier": "auto",
        "thinking": {"type": "disabled"},
        "cache_control": {"type": "ephemeral"},
        "inference_geo": "eu",
        "output_config": {"effort": "low"},
        "speed": "fast",
    }
    plain = client.messages.create(**request(extra_body=COLD)).content
    assert client.messages.create(**request(**extra, extra_body=COLD)).content == plain
    nothing = {"stream": None, "container": None, "mcp_servers": [], "context_management": None}
    assert client.messages.create(**request(extra_body=COLD | nothing)).content == plain
    adaptive: Any = {"type": "adaptive"}
    assert client.messages.create(**request(thinking=adaptive, extra_body=COLD)).content == plain


def test_a_prompt_that_does_not_fit_is_refused_with_the_numbers(
    client: anthropic.Anthropic,
) -> None:
    long: Any = [{"role": "user", "content": "the battery lasts all day " * 300}]
    with pytest.raises(anthropic.BadRequestError, match=r"the prompt has \d+ tokens"):
        client.messages.create(**request(messages=long))


def test_bodies_that_are_no_requests(web: httpx.Client) -> None:
    for body in (b"", b"{", b"[1]", b'"x"', b"\xff", b"[" * 100_000):
        head = {"content-type": "application/json"}
        told = web.post("/v1/messages", content=body, headers=head)
        assert told.status_code == 400, body[:20]
        assert told.json()["error"]["type"] == "invalid_request_error"
    half = web.post("/v1/messages", content=json.dumps(request(system="\ud800")), headers=head)
    assert half.status_code == 400
    assert "half of a character" in half.json()["error"]["message"]


def test_an_unknown_model_is_not_found(client: anthropic.Anthropic) -> None:
    for act in (
        lambda: client.messages.create(**request(model="gpt/../x")),
        lambda: client.models.retrieve("x"),
        lambda: client.messages.count_tokens(model="x", messages=HELLO),
    ):
        with pytest.raises(anthropic.NotFoundError) as refused:
            act()
        assert refused.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]


def test_keys_are_told_in_x_api_key(tmp_path: Path, tiny_model: Path) -> None:
    key = "a-key-of-enough-characters"
    settings = Settings(keys=read(f"{key} models=one", "the test"))
    shelf = Shelf({"one": tiny_model, "two": tiny_model}, threads=1, parallel=1)
    with served(shelf, settings) as address:
        with anthropic.Anthropic(base_url=address, api_key=key, max_retries=0) as client:
            assert client.messages.create(**request(model="one", extra_body=COLD)).content
            assert [model.id for model in client.models.list()] == ["one"]
            with pytest.raises(anthropic.NotFoundError):
                client.messages.create(**request(model="two"))
        with anthropic.Anthropic(base_url=address, api_key="another", max_retries=0) as client:
            with pytest.raises(anthropic.AuthenticationError) as refused:
                client.messages.create(**request(model="one"))
            assert refused.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((400, "invalid_request_error"), (401, "authentication_error")),
        *((403, "permission_error"), (404, "not_found_error"), (413, "request_too_large")),
        *((422, "invalid_request_error"), (429, "rate_limit_error"), (500, "api_error")),
        *((503, "overloaded_error"), (529, "overloaded_error")),
    ],
)
def test_errors_have_their_types(status: int, kind: str) -> None:
    assert ours.wrong(Refusal(status, "no"))["error"] == {"type": kind, "message": "no"}


# Models


def test_models_are_listed_by_pages(client: anthropic.Anthropic, shelf: Shelf) -> None:
    names = [book.name for book in shelf.books()]
    assert [model.id for model in client.models.list()] == names
    page = client.models.list(limit=2)
    assert (page.has_more, page.first_id, page.last_id) == (True, names[0], names[1])
    assert [model.id for model in page] == names  # the client turns the pages
    assert [model.id for model in client.models.list(limit=1, before_id=names[2]).data] == [
        names[1]
    ]
    one = client.models.retrieve("chat")
    assert one.type == "model"
    assert one.max_input_tokens == shelf.book("chat").context
    assert one.created_at.timestamp() == shelf.book("chat").made
    for bad in ({"limit": 0}, {"limit": 1001}, {"after_id": "x"}, {"before_id": "x"}):
        with pytest.raises(anthropic.BadRequestError):
            client.models.list(**bad)


# Whatever a model does


async def happening(made: list[Event]) -> AsyncGenerator[Event, None]:
    for event in made:
        yield event


async def failing(made: list[Event]) -> AsyncGenerator[Event, None]:
    for event in made:
        yield event
    raise Refusal(503, "the model died")


def sent(body: Asked, steps: AsyncGenerator[Event, None]) -> list[dict[str, Any]]:
    async def gather() -> list[bytes]:
        return [piece async for piece in ours._pieces(body, steps)]

    told = b"".join(asyncio.run(gather())).decode()
    return [json.loads(line[6:]) for line in told.split("\n") if line.startswith("data: ")]


words = st.text(max_size=5)
one_call = st.tuples(st.just("call"), st.lists(st.sampled_from(["é", "b", "\u2028"]), max_size=4))
done = Ended(0, "stop", 5, None, 3)


@settings(max_examples=60)
@given(st.lists(st.one_of(words, one_call), max_size=6))
def test_any_events_are_the_same_whole_and_in_pieces(parts: list[Any]) -> None:
    made: list[Event] = [Begun(7)]
    number = 0
    for part in parts:
        if isinstance(part, str):
            made.append(Text(0, part))
        else:
            made.append(CallBegun(0, number, f"call_{number}", "f"))
            made += [CallPart(0, number, piece) for piece in ('{"a": "', *part[1], '"}')]
            number += 1
    body = Asked.model_validate(request(cache_control={"type": "ephemeral"}))
    whole = asyncio.run(ours._message(body, happening([*made, done])))
    snapshot, buffers = None, {}
    for told in sent(body, happening([*made, done])):
        if told["type"] != "ping":
            snapshot = accumulate_event(
                event=EVENT.validate_python(told),
                current_snapshot=snapshot,
                json_bufs=buffers,
            )
    assert snapshot is not None
    found = [
        {k: v for k, v in block.to_dict().items() if v is not None} for block in snapshot.content
    ]
    assert found == whole["content"]
    assert snapshot.stop_reason == whole["stop_reason"] == "end_turn"
    assert snapshot.usage.input_tokens == whole["usage"]["input_tokens"] == 4
    assert snapshot.usage.cache_read_input_tokens == 3


def test_what_fails_midway_is_told_as_an_event() -> None:
    body = Asked.model_validate(request())
    told = sent(body, failing([Begun(7), Text(0, "It")]))
    assert [one["type"] for one in told][-1] == "error"
    assert told[-1]["error"] == {"type": "overloaded_error", "message": "the model died"}
    with pytest.raises(Refusal):  # with its status, while nothing is sent
        sent(body, failing([]))
