"""`/v1/responses`, as OpenAI's official client speaks to it, with real models behind it."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import jsonschema
import openai
import psutil
import pytest
from pydantic import BaseModel
from served import served
from shelved import LABELS, models

from bantam.kinds import declarations
from bantam.serve.shelf import Shelf
from tiny_tasks import TOOLS as NESTED

HELLO = "What does this camera feel?"
TOOLS: list[Any] = [{"type": "function", "strict": True, **one["function"]} for one in NESTED]
FORM = {
    "type": "object",
    "properties": {"thing": {"enum": ["camera", "phone"]}, "count": {"type": "integer"}},
    "required": ["thing", "count"],
    "additionalProperties": False,
}
NO_END = {"0": -100, "1": -100, "2": -100}  # a text goes on as long as it may


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Shelf:
    return Shelf(models(tmp_path_factory.mktemp("models"), tiny_model), threads=1, parallel=2)


@pytest.fixture(scope="module")
def address(shelf: Shelf) -> Iterator[str]:
    with served(shelf) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60
    ) as client:
        yield client


def respond(client: openai.OpenAI, **asked: Any) -> Any:
    """A whole response; the likeliest words unless asked otherwise."""
    usual = {"model": "chat", "input": HELLO, "temperature": 0, "max_output_tokens": 12}
    return client.responses.create(**(usual | asked))


def chat(client: openai.OpenAI, *messages: Any) -> str:
    """What the same model says in a conversation."""
    told = client.chat.completions.create(
        model="chat", messages=list(messages), temperature=0, max_tokens=12
    )
    return str(told.choices[0].message.content)


def test_a_text_is_answered_as_a_conversation_is(client: openai.OpenAI) -> None:
    user = {"role": "user", "content": HELLO}
    told = respond(client)
    assert told.output_text == chat(client, user)
    assert told.id.startswith("resp_") and told.object == "response"
    assert told.store is False and told.previous_response_id is None
    (message,) = told.output
    assert (message.type, message.role) == ("message", "assistant")
    told = respond(client, instructions="Answer no.", metadata={"a": "b"})
    assert told.output_text == chat(client, {"role": "system", "content": "Answer no."}, user)
    assert told.instructions == "Answer no." and told.metadata == {"a": "b"}


def test_a_conversation_as_items(client: openai.OpenAI) -> None:
    earlier = respond(client).output
    told = respond(
        client,
        input=[
            {"role": "developer", "content": "Be short."},
            {"role": "user", "content": [{"type": "input_text", "text": HELLO}]},
            *(item.model_dump() for item in earlier),
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "message", "role": "user", "content": "And this phone?"},
        ],
    )
    assert told.output_text == chat(
        client,
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": HELLO},
        {"role": "assistant", "content": earlier[0].content[0].text},
        {"role": "user", "content": "And this phone?"},
    )


def test_how_a_response_ends(client: openai.OpenAI) -> None:
    told = respond(client, max_output_tokens=3)
    assert told.status == "incomplete" and told.output[0].status == "incomplete"
    assert told.incomplete_details.reason == "max_output_tokens"
    assert told.usage.output_tokens == 3
    assert told.usage.total_tokens == told.usage.input_tokens + 3
    assert told.completed_at is None
    stop = respond(client).output_text[4:6]
    told = respond(client, extra_body={"stop": stop})
    assert told.status == "completed" and told.output[0].status == "completed"
    assert told.incomplete_details is None and told.completed_at is not None
    # An answer without a word is a message as well.
    told = respond(client, extra_body={"logit_bias": {"2": 100}})
    assert told.status == "completed" and told.output_text == ""
    assert len(told.output) == 1


def test_how_words_are_drawn(client: openai.OpenAI) -> None:
    warm: dict[str, Any] = {"temperature": openai.omit}  # the default is 1
    drawn = [respond(client, extra_body={"seed": seed}, **warm) for seed in (1, 1, 2)]
    assert drawn[0].temperature == drawn[0].top_p == 1
    assert drawn[0].output_text == drawn[1].output_text != drawn[2].output_text
    assert respond(client, temperature=2, top_p=0.001).output_text == respond(client).output_text


def test_events_come_in_order(client: openai.OpenAI) -> None:
    whole = respond(client)
    events = list(respond(client, stream=True))
    assert [one.sequence_number for one in events] == list(range(len(events)))
    kinds = [one.type for one in events]
    begin, end = kinds[:4], kinds[-4:]
    assert begin == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"} and len(kinds) > 12
    assert end == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert "".join(one.delta for one in events[4:-4]) == whole.output_text
    assert events[-4].text == whole.output_text
    assert events[0].response.status == "in_progress" and events[0].response.output == []
    final = events[-1].response
    assert final.output_text == whole.output_text and final.id == events[0].response.id
    assert final.usage.output_tokens == whole.usage.output_tokens
    items = {one.item.id for one in events if hasattr(one, "item")}
    items |= {one.item_id for one in events if hasattr(one, "item_id")}
    assert items == {final.output[0].id}


def test_each_event_has_its_name(address: str) -> None:
    asked = {"model": "chat", "input": HELLO, "max_output_tokens": 3, "stream": True}
    response = httpx.post(f"{address}/v1/responses", json=asked)
    assert response.headers["content-type"].startswith("text/event-stream")
    for event in response.text.strip().split("\n\n"):
        name, data = event.split("\n")
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"


def test_log_probabilities(client: openai.OpenAI) -> None:
    include: Any = ["message.output_text.logprobs"]
    told = respond(client, include=include, top_logprobs=2)
    logs = told.output[0].content[0].logprobs
    assert len(logs) == 12 and all(len(one.top_logprobs) == 2 for one in logs)
    assert logs[0].logprob == max(one.logprob for one in logs[0].top_logprobs)
    streamed = [
        log.token
        for event in respond(client, include=include, stream=True)
        if event.type == "response.output_text.delta"
        for log in event.logprobs
    ]
    assert streamed == [one.token for one in logs]
    assert respond(client).output[0].content[0].logprobs == []


class Form(BaseModel):
    thing: Literal["camera", "phone"]
    count: int


def test_a_schema_is_followed(client: openai.OpenAI) -> None:
    form = {"type": "json_schema", "name": "form", "schema": FORM, "strict": True}
    for most in (2, 60):  # also when its tokens run out
        told = respond(client, text={"format": form}, max_output_tokens=most)
        jsonschema.validate(json.loads(told.output_text), FORM)
    assert told.text.format.schema_ == FORM
    parsed = client.responses.parse(
        model="chat", input=HELLO, text_format=Form, max_output_tokens=60, temperature=0
    )
    assert isinstance(parsed.output_parsed, Form)
    told = respond(client, text={"format": {"type": "json_object"}}, max_output_tokens=20)
    assert isinstance(json.loads(told.output_text), dict)


def follows(calls: list[Any]) -> None:
    wanted = declarations.of_tools(declarations.tools(NESTED, "tools"), 8)
    value = [{"name": one.name, "arguments": json.loads(one.arguments)} for one in calls]
    jsonschema.validate(value, wanted)


def test_functions_are_called(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"tools": TOOLS, "max_output_tokens": 80}
    told = respond(client, tool_choice="required", parallel_tool_calls=False, **asked)
    (call,) = told.output
    follows([call])
    assert (call.type, call.status, told.status) == ("function_call", "completed", "completed")
    assert call.id != call.call_id
    assert told.tool_choice == "required" and told.parallel_tool_calls is False
    assert [one.name for one in told.tools] == ["praise", "mend"]
    for name in ("praise", "mend"):
        choice = {"type": "function", "name": name}
        some = {"type": "allowed_tools", "mode": "required", "tools": [choice]}
        for one in (choice, some):
            told = respond(client, tool_choice=one, **asked)
            assert {call.name for call in told.output} == {name}
    assert respond(client, tools=TOOLS, tool_choice="none").output_text
    assert respond(client, tools=TOOLS, tool_choice="none").output[0].type == "message"


def test_calls_are_streamed(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"tools": TOOLS, "tool_choice": "required", "max_output_tokens": 250}
    wanted = respond(client, **asked).output
    events = list(respond(client, stream=True, **asked))
    assert len(wanted) > 1  # several calls, one after the other
    for number, call in enumerate(wanted):
        mine = [one for one in events if getattr(one, "output_index", None) == number]
        deltas = [one.delta for one in mine if one.type.endswith("arguments.delta")]
        assert "".join(deltas) == call.arguments
        kinds = [one.type for one in mine]
        assert kinds == [
            "response.output_item.added",
            *["response.function_call_arguments.delta"] * len(deltas),
            "response.function_call_arguments.done",
            "response.output_item.done",
        ]
        assert mine[0].item.name == call.name and mine[0].item.arguments == ""
    follows([one.item for one in events if one.type == "response.output_item.done"])
    assert events[-1].type in ("response.completed", "response.incomplete")
    with client.responses.stream(
        model="chat", input=HELLO, parallel_tool_calls=False, temperature=0, **asked
    ) as stream:
        final = stream.get_final_response()
    follows(final.output)


def test_results_of_calls(client: openai.OpenAI) -> None:
    calls = respond(client, tools=TOOLS, tool_choice="required", max_output_tokens=80).output
    prompts = {
        respond(
            client,
            tools=TOOLS,
            input=[
                {"role": "user", "content": HELLO},
                *(call.model_dump(exclude_none=True) for call in calls),
                *(
                    {"type": "function_call_output", "call_id": call.call_id, "output": result}
                    for call in calls
                ),
            ],
        ).usage.input_tokens
        for result in ("sharp", "it broke when it fell")
    }
    assert len(prompts) == 2


def test_the_probability_of_a_label(client: openai.OpenAI) -> None:
    told = respond(client, model="labels")
    known = told.model_extra["bantam"]
    assert told.output_text == max(LABELS, key=known["probabilities"].get)
    assert known["confidence"] == max(known["probabilities"].values())
    final = list(respond(client, model="labels", stream=True))[-1]
    assert final.type == "response.completed"
    assert final.response.model_extra["bantam"]["probabilities"].keys() == set(LABELS)


@pytest.mark.parametrize(
    ("asked", "param", "code"),
    [
        ({"input": None}, "input", "invalid_type"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
        ({"input": [{"content": "a"}]}, "input[0].role", "missing_required_parameter"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type", "unsupported_value"),
        ({"input": [{"type": "item_reference"}]}, "input[0].type", "unsupported_value"),
        (
            {"input": [{"type": "function_call", "name": "a"}]},
            "input[0].call_id",
            "missing_required_parameter",
        ),
        (
            {
                "input": [
                    {
                        "role": "user",
                        "content": [{"type": "input_image", "image_url": "http://127.0.0.1:1/a"}],
                    }
                ]
            },
            "input[0].content[0].type",
            "unsupported_content_type",
        ),
        (
            {"previous_response_id": "resp_1"},
            "previous_response_id",
            "previous_response_not_found",
        ),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"background": True}, "background", "unsupported_parameter"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_parameter"),
        ({"context_management": [{"type": "a"}]}, "context_management", "unsupported_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"tools": TOOLS, "tool_choice": {"type": "mcp"}}, "tool_choice", "unsupported_value"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
        (
            {"text": {"format": {"type": "json_schema", "name": "a"}}},
            "text.format.schema",
            "missing_required_parameter",
        ),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "invalid_value"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"repeat_penalty": 2, "tools": TOOLS}, "repeat_penalty", None),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
        ({"stream_options": {}, "stream": False}, "stream_options", None),
        ({"n": 2}, "n", "unknown_parameter"),
        ({"model": "no such"}, "model", "model_not_found"),
    ],
)
def test_what_is_wrong_is_named(
    address: str, asked: dict[str, Any], param: str, code: str | None
) -> None:
    usual = {"model": "chat", "input": "a", "stream": True}
    response = httpx.post(f"{address}/v1/responses", json=usual | asked)
    assert response.status_code == (404 if code == "model_not_found" else 400), response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert error["type"] == "invalid_request_error" and error["message"]


def test_what_changes_no_answer_is_taken(client: openai.OpenAI) -> None:
    assert (
        respond(client).output_text
        == respond(
            client,
            store=True,
            user="u",
            truncation="auto",
            service_tier="auto",
            include=["reasoning.encrypted_content"],
            reasoning={"effort": None, "summary": "auto"},
            max_tool_calls=3,
            prompt_cache_key="k",
            background=False,
        ).output_text
    )


def test_what_does_not_fit_is_refused(client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            respond(client, input="day " * 600, stream=stream, truncation="auto")
        assert caught.value.code == "context_length_exceeded"


def test_an_error_in_the_middle(client: openai.OpenAI, shelf: Shelf) -> None:
    """The runtime's process is killed under it: the response has failed, and says so."""
    asked: dict[str, Any] = {"max_output_tokens": 450, "extra_body": {"logit_bias": NO_END}}
    events = iter(respond(client, stream=True, **asked))
    seen = [next(events) for _ in range(6)]
    copy = shelf._places["chat"].copy
    assert copy and copy.watched
    os.kill(copy.watched.pid, signal.SIGSTOP)  # lest it has ended before it is killed
    psutil.Process(copy.watched.pid).kill()
    seen += events
    assert [one.type for one in seen[-2:]] == ["error", "response.failed"]
    assert [one.sequence_number for one in seen] == list(range(len(seen)))
    assert seen[-1].response.status == "failed"
    assert seen[-1].response.error.code == "server_error"
    assert respond(client).output_text  # and another one is there
