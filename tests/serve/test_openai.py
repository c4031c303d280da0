"""OpenAI's interface, as its official client speaks to it, with real models behind it."""

import asyncio
import base64
import json
import math
import os
import signal
import time
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import httpx
import jsonschema
import numpy as np
import openai
import psutil
import pytest
from openai.types.chat import ChatCompletionMessageFunctionToolCall
from pydantic import BaseModel
from served import served
from shelved import LABELS, models

from bantam.kinds import declarations
from bantam.model import Model
from bantam.serve.shelf import Shelf
from tiny_tasks import TOOLS

HELLO: list[Any] = [{"role": "user", "content": "What does this camera feel?"}]
FORM = {
    "type": "object",
    "properties": {"thing": {"enum": ["camera", "phone"]}, "count": {"type": "integer"}},
    "required": ["thing", "count"],
    "additionalProperties": False,
}
JSON_FORM: Any = {
    "type": "json_schema",
    "json_schema": {"name": "form", "strict": True, "schema": FORM},
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


def chat(client: openai.OpenAI, **asked: Any) -> Any:
    """A whole completion; the likeliest words unless asked otherwise."""
    usual = {"model": "chat", "messages": HELLO, "temperature": 0, "max_completion_tokens": 12}
    return client.chat.completions.create(**(usual | asked))


def said(client: openai.OpenAI, **asked: Any) -> str:
    return str(chat(client, **asked).choices[0].message.content)


def refused(address: str, path: str, status: int = 400, **asked: Any) -> dict[str, Any]:
    """The error that a body gets, whatever a client would have thought of it."""
    response = httpx.post(f"{address}/v1/{path}", json=asked)
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


# Models


def test_models_are_listed(client: openai.OpenAI) -> None:
    listed = list(client.models.list())
    assert [one.id for one in listed] == ["chat", "labels", "calls"]
    assert all(one.object == "model" and one.owned_by == "bantam" for one in listed)
    told = listed[1].model_extra["bantam"]  # type: ignore[index]
    assert (told["task"], told["labels"], told["context"]) == ("classify", list(LABELS), 512)
    assert listed[0].model_extra["bantam"]["task"] is None  # type: ignore[index]
    assert client.models.retrieve("labels") == listed[1]


def test_an_unknown_model(client: openai.OpenAI) -> None:
    for ask in (
        lambda: client.models.retrieve("no/such"),
        lambda: chat(client, model="gpt-4o-mini"),
        lambda: chat(client, model="gpt-4o-mini", stream=True),
        lambda: client.embeddings.create(model="gpt-4o-mini", input="a"),
        lambda: client.completions.create(model="gpt-4o-mini", prompt="a", stream=True),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert caught.value.code == "model_not_found"
        assert caught.value.param == "model"


def test_anthropics_clients_find_their_own_list(address: str) -> None:
    head = {"anthropic-version": "2023-06-01"}
    told = httpx.get(f"{address}/v1/models", headers=head, params={"limit": 2}).json()
    assert [one["type"] for one in told["data"]] == ["model", "model"] and told["has_more"]
    told = httpx.get(f"{address}/v1/models/chat", headers=head).json()
    assert told["type"] == "model" and told["id"] == "chat"


# Conversations


def test_a_reply_is_what_the_model_itself_says(client: openai.OpenAI, tiny_model: Path) -> None:
    with Model(tiny_model, threads=1) as model:
        wanted = model.chat(HELLO, max_tokens=12, temperature=0)
    told = chat(client)
    assert told.choices[0].message.content == wanted
    assert told.choices[0].message.role == "assistant"
    assert told.choices[0].message.tool_calls is None
    assert told.choices[0].model_extra == {}  # nothing is claimed of a model without a task
    assert told.object == "chat.completion" and told.model == "chat"
    assert abs(told.created - time.time()) < 60
    assert told.id.startswith("chatcmpl-") and told.id != chat(client).id


def test_usage(client: openai.OpenAI) -> None:
    used = chat(client).usage
    assert used.completion_tokens == 12
    assert used.total_tokens == used.prompt_tokens + 12
    longer = chat(client, messages=[{"role": "user", "content": "day " * 40}]).usage
    assert longer.prompt_tokens > used.prompt_tokens
    three = chat(client, n=3, temperature=1, logit_bias=NO_END)
    assert three.usage.completion_tokens == 36
    again = chat(client, messages=[{"role": "user", "content": "day " * 40}]).usage
    assert again.prompt_tokens_details.cached_tokens > 20


def test_a_stream_is_the_reply_in_pieces(client: openai.OpenAI) -> None:
    whole = chat(client)
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert {one.id for one in chunks} == {chunks[0].id}
    assert all(one.object == "chat.completion.chunk" for one in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 6
    reasons = [one.choices[0].finish_reason for one in chunks if one.choices]
    assert reasons == [None] * (len(reasons) - 1) + ["length"]
    assert chunks[-1].choices == [] and all(one.usage is None for one in chunks[:-1])
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert all(one.usage is None for one in chat(client, stream=True))


def test_the_bytes_of_a_stream(address: str) -> None:
    asked = {"model": "chat", "messages": HELLO, "max_tokens": 3, "stream": True}
    response = httpx.post(f"{address}/v1/chat/completions", json=asked)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert all(one.startswith("data: ") for one in response.text.strip().split("\n\n"))
    assert response.text.endswith("\n\ndata: [DONE]\n\n")


def test_max_tokens_and_max_completion_tokens(client: openai.OpenAI) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        told = chat(client, **{"max_completion_tokens": openai.omit, name: 3})
        assert told.usage.completion_tokens == 3
        assert told.choices[0].finish_reason == "length"
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, max_tokens=3)
    assert caught.value.param == "max_tokens"


def test_stop(client: openai.OpenAI) -> None:
    whole = said(client)
    stop = whole[4:6]
    for asked in (stop, ["no such thing", stop], [stop, ""]):
        told = chat(client, stop=asked)
        assert told.choices[0].message.content == whole[: whole.index(stop)]
        assert told.choices[0].finish_reason == "stop"


def test_seed_and_temperature(client: openai.OpenAI) -> None:
    warm: dict[str, Any] = {"temperature": openai.omit}  # the default is 1
    assert said(client, seed=7, **warm) == said(client, seed=7, **warm)
    assert len({said(client, seed=seed, **warm) for seed in range(4)}) == 4
    assert said(client, seed=-1, temperature=1) == said(client, seed=-1, temperature=1)
    assert said(client, seed=7, **warm) != said(client)
    assert said(client, seed=7, **warm) == said(client, seed=7, temperature=1.0)


def test_n(client: openai.OpenAI) -> None:
    told = chat(client, n=3, seed=5, temperature=1)
    assert [one.index for one in told.choices] == [0, 1, 2]
    texts = [one.message.content for one in told.choices]
    assert len(set(texts)) == 3
    pieces: list[str] = ["", "", ""]
    for chunk in chat(client, n=3, seed=5, temperature=1, stream=True):
        for choice in chunk.choices:
            pieces[choice.index] += choice.delta.content or ""
    assert pieces == texts


@pytest.mark.parametrize("narrow", [{"top_p": 0.001}, {"top_k": 1}, {"min_p": 1.0}])
def test_top_p_top_k_and_min_p(client: openai.OpenAI, narrow: dict[str, float]) -> None:
    """Each leaves only the likeliest token, however warm it is."""
    assert said(client, temperature=2, extra_body=narrow) == said(client)
    assert said(client, temperature=2, seed=1) != said(client)


@pytest.mark.parametrize("narrow", [{"top_p": 0.001}, {"top_k": 1}, {"min_p": 1.0}])
def test_json_is_drawn_as_asked(client: openai.OpenAI, narrow: dict[str, float]) -> None:
    def told(**how: Any) -> Any:
        return chat(client, response_format=JSON_FORM, max_completion_tokens=90, **how)

    cold = told(temperature=0)
    warm = told(temperature=2, seed=1, extra_body=narrow | {"repeat_penalty": 1})
    assert warm.choices[0].message.content == cold.choices[0].message.content
    free = told(temperature=2, seed=1)
    assert free.choices[0].message.content != cold.choices[0].message.content


def test_logit_bias(client: openai.OpenAI, tiny_model: Path) -> None:
    with Model(tiny_model) as model:
        (token,) = model.encode([("a", False)])
    assert said(client, logit_bias={str(token): 100}) == "a" * 12


@pytest.mark.parametrize(
    "penalty", [{"frequency_penalty": 2}, {"presence_penalty": 2}, {"repeat_penalty": 5}]
)
def test_penalties(client: openai.OpenAI, penalty: dict[str, float]) -> None:
    """With few tokens to choose from, those written already give way to others."""
    few: dict[str, Any] = {"logit_bias": {str(token): 50 for token in range(60, 70)}}
    plain, told = said(client, **few), said(client, extra_body=penalty, **few)
    assert plain != told
    assert len(set(told)) > len(set(plain))


def test_logprobs(client: openai.OpenAI) -> None:
    told = chat(client, logprobs=True, top_logprobs=3).choices[0]
    assert len(told.logprobs.content) == 12
    for token in told.logprobs.content:
        logs = [one.logprob for one in token.top_logprobs]
        assert len(logs) == 3 and logs == sorted(logs, reverse=True)
        assert token.logprob == logs[0] < 0  # the likeliest was taken
        assert bytes(token.bytes).decode() == token.token
        assert sum(map(math.exp, logs)) < 1
    streamed = [
        token
        for chunk in chat(client, logprobs=True, top_logprobs=3, stream=True)
        if chunk.choices and chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    assert [one.token for one in streamed] == [one.token for one in told.logprobs.content]
    alone = chat(client, logprobs=True).choices[0].logprobs.content
    assert len(alone) == 12 and alone[0].top_logprobs == []
    assert chat(client).choices[0].logprobs is None


def test_roles_and_parts(client: openai.OpenAI) -> None:
    """What differs in form only gets the same reply; what differs in meaning another."""
    system = {"role": "system", "content": "Answer no."}
    plain = said(client, messages=[system, *HELLO])
    parts = [{"type": "text", "text": HELLO[0]["content"]}]
    assert said(client, messages=[system, {"role": "user", "content": parts}]) == plain
    developer = system | {"role": "developer"}
    assert said(client, messages=[developer, *HELLO], user="somebody", store=True) == plain
    assert said(client) != plain
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "Never."}]}
    never = said(client, messages=[*HELLO, {"role": "assistant", "content": "Never."}, *HELLO])
    assert said(client, messages=[*HELLO, refusal, *HELLO]) == never
    stored = {"role": "assistant", "content": None, "refusal": "Never."}  # a reply of the client's
    assert said(client, messages=[*HELLO, stored, *HELLO]) == never


def test_every_reply_has_an_id_of_its_request(client: openai.OpenAI) -> None:
    ids = {chat(client)._request_id for _ in range(2)}
    with pytest.raises(openai.NotFoundError) as refused:
        chat(client, model="nobody")
    ids.add(refused.value.request_id)
    assert len(ids) == 3 and all(one and one.startswith("req_") for one in ids)


def test_a_reply_is_never_what_was_said_last(client: openai.OpenAI) -> None:
    last = {"role": "assistant", "content": "It is sharp."}
    assert said(client, messages=[*HELLO, last])


def test_the_integers_of_zod_and_days_that_there_are(client: openai.OpenAI) -> None:
    most = 2**53 - 1
    shape = {
        "type": "object",
        "properties": {
            "age": {"type": "integer", "minimum": -most, "maximum": most, "default": 2**63 - 1},
            "day": {"type": "string", "format": "date"},
            "at": {"type": "string", "format": "date-time"},
        },
        "required": ["age", "day", "at"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": shape}}
    for seed in range(8):
        text = said(
            client, response_format=form, temperature=2, seed=seed, max_completion_tokens=90
        )
        found = json.loads(text)
        assert abs(found["age"]) <= most
        assert date.fromisoformat(found["day"]) and datetime.fromisoformat(found["at"])


def test_what_only_openais_own_service_needs_is_taken(client: openai.OpenAI) -> None:
    assert said(client) == said(
        client,
        user="u",
        store=False,
        metadata={"a": "b"},
        service_tier="auto",
        safety_identifier="s",
        prompt_cache_key="k",
        prediction={"type": "content", "content": "x"},
        modalities=["text"],
        reasoning_effort="none",
        verbosity="medium",
        parallel_tool_calls=openai.omit,
        response_format={"type": "text"},
    )


# Structured output


class Form(BaseModel):
    thing: Literal["camera", "phone"]
    count: int


def test_a_schema_is_followed(client: openai.OpenAI) -> None:
    for seed in range(3):
        told = chat(
            client, response_format=JSON_FORM, temperature=1, seed=seed, max_completion_tokens=60
        )
        jsonschema.validate(json.loads(told.choices[0].message.content), FORM)
    parsed = client.chat.completions.parse(
        model="chat", messages=HELLO, response_format=Form, max_tokens=60, temperature=0
    )
    assert isinstance(parsed.choices[0].message.parsed, Form)


def test_a_schema_is_followed_when_tokens_run_out(client: openai.OpenAI) -> None:
    told = chat(client, response_format=JSON_FORM, max_completion_tokens=2).choices[0]
    jsonschema.validate(json.loads(told.message.content), FORM)
    assert told.finish_reason == "length"
    least = chat(client, response_format=JSON_FORM, max_completion_tokens=1).usage.completion_tokens
    for most in (least, least + 1, least + 9):  # within them, if the shortest answer is
        within = chat(client, response_format=JSON_FORM, max_completion_tokens=most)
        assert within.usage.completion_tokens <= most
        Form.model_validate_json(within.choices[0].message.content)
    text = "".join(
        chunk.choices[0].delta.content or ""
        for chunk in chat(client, response_format=JSON_FORM, max_completion_tokens=2, stream=True)
    )
    assert text == told.message.content


def test_properties_that_are_not_named_are_not_written(client: openai.OpenAI) -> None:
    """As pydantic writes schemas; where they may come this model writes some till it is stopped."""
    for more, names in (({}, {"thing", "count"}), ({"additionalProperties": {}}, None)):
        shape = Form.model_json_schema() | more
        for form in (
            {"type": "json_schema", "json_schema": {"name": "form", "schema": shape}},
            {"type": "json_object", "schema": shape},
        ):
            told = chat(client, response_format=form, max_completion_tokens=90).choices[0]
            found = json.loads(told.message.content)
            assert (found.keys() == names) == (names is not None)
            Form.model_validate(found)


def test_json_object(client: openai.OpenAI) -> None:
    form = {"type": "json_object"}
    told = chat(client, response_format=form, max_completion_tokens=30, temperature=1, seed=3)
    assert isinstance(json.loads(told.choices[0].message.content), dict)


# Functions


def calls_of(told: Any) -> list[ChatCompletionMessageFunctionToolCall]:
    return list(told.choices[0].message.tool_calls)


def follows(calls: list[Any]) -> None:
    wanted = declarations.of_tools(declarations.tools(TOOLS, "tools"), 8)
    value = [
        {"name": one.function.name, "arguments": json.loads(one.function.arguments)}
        for one in calls
    ]
    jsonschema.validate(value, wanted)
    assert len({one.id for one in calls}) == len(calls)


def test_a_function_must_be_called(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"tool_choice": "required", "parallel_tool_calls": False}
    told = chat(client, tools=TOOLS, max_completion_tokens=80, **asked)
    follows(calls_of(told))
    assert told.choices[0].finish_reason == "tool_calls"
    assert told.choices[0].message.content is None


@pytest.mark.parametrize("name", ["praise", "mend"])
def test_a_named_function_is_called(client: openai.OpenAI, name: str) -> None:
    choice = {"type": "function", "function": {"name": name}}
    some = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [choice]},
    }
    for one in (choice, some):
        told = chat(client, tools=TOOLS, tool_choice=one, max_completion_tokens=80)
        assert {call.function.name for call in calls_of(told)} == {name}
    asked: dict[str, Any] = {"tools": TOOLS, "tool_choice": choice, "temperature": 1.5}
    for seed in range(6):  # among which several calls come where they may
        told = chat(client, seed=seed, max_completion_tokens=120, **asked)
        assert len(calls_of(told)) == 1


def test_calls_are_parallel_unless_forbidden(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"tools": TOOLS, "tool_choice": "required", "temperature": 1.5}
    many = [
        len(calls_of(chat(client, seed=seed, max_completion_tokens=120, **asked)))
        for seed in range(6)
    ]
    assert max(many) > 1
    told = chat(client, parallel_tool_calls=False, max_completion_tokens=120, **asked)
    assert len(calls_of(told)) == 1


def test_calls_are_streamed(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"tools": TOOLS, "tool_choice": "required", "seed": 2, "temperature": 1}
    wanted = calls_of(chat(client, max_completion_tokens=80, **asked))
    chunks = list(chat(client, max_completion_tokens=80, stream=True, **asked))
    assert chunks[0].choices[0].delta.content is None
    found: dict[int, list[str]] = {}
    for chunk in chunks:
        for call in chunk.choices[0].delta.tool_calls or []:
            if call.id:
                assert call.index == len(found) and call.type == "function"
                found[call.index] = [call.function.name, call.function.arguments]
            else:
                found[call.index][1] += call.function.arguments
    assert list(found.values()) == [[c.function.name, c.function.arguments] for c in wanted]
    assert len(chunks) > 4
    asked["parallel_tool_calls"] = False
    one = list(chat(client, max_completion_tokens=80, stream=True, **asked))
    assert one[-1].choices[0].finish_reason == "tool_calls"
    with client.chat.completions.stream(
        model="chat", messages=HELLO, max_completion_tokens=80, **asked
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    assert calls_of(final)[0].function.arguments == wanted[0].function.arguments


def test_no_function_is_called(client: openai.OpenAI) -> None:
    """With "none" they are not even told."""
    assert said(client, tools=TOOLS, tool_choice="none") == said(client)
    told = chat(client, tools=TOOLS)  # "auto": this model would rather talk
    assert told.choices[0].message.content
    assert told.choices[0].message.tool_calls is None


def test_results_of_calls(client: openai.OpenAI) -> None:
    """A conversation with calls and results goes on, and their contents count."""
    made = chat(client, tools=TOOLS, tool_choice="required", max_completion_tokens=80)
    message = made.choices[0].message
    prompts = set()
    for result in ("sharp", "it broke when it fell"):
        told = chat(
            client,
            tools=TOOLS,
            messages=[
                *HELLO,
                message,
                *(
                    {"role": "tool", "tool_call_id": call.id, "content": result}
                    for call in message.tool_calls
                ),
            ],
        )
        prompts.add(told.usage.prompt_tokens)
    assert len(prompts) == 2


def test_the_older_words_for_functions(client: openai.OpenAI) -> None:
    functions = [tool["function"] for tool in TOOLS]
    asked: dict[str, Any] = {
        "functions": functions,
        "function_call": {"name": "mend"},
        "max_completion_tokens": 80,
    }
    told = chat(client, **asked).choices[0]
    assert told.finish_reason == "function_call"
    assert told.message.function_call.name == "mend"
    assert json.loads(told.message.function_call.arguments).keys() == {"thing"}
    assert told.message.tool_calls is None
    name, arguments = "", ""
    for chunk in chat(client, stream=True, **asked):
        if call := chunk.choices[0].delta.function_call:
            name += call.name or ""
            arguments += call.arguments
    assert [name, arguments] == ["mend", told.message.function_call.arguments]
    result = {"role": "function", "name": "mend", "content": "done"}
    assert said(client, messages=[*HELLO, told.message, result], functions=functions)


# Models with a task


def test_a_label_with_its_probability(client: openai.OpenAI, tiny_model: Path) -> None:
    text = "The picture is sharp."
    told = chat(client, model="labels", messages=[{"role": "user", "content": text}])
    known = told.choices[0].model_extra["bantam"]
    assert told.choices[0].message.content == max(LABELS, key=known["probabilities"].get)
    assert known["probabilities"].keys() == set(LABELS)
    assert known["confidence"] == max(known["probabilities"].values())
    assert known["sure"] is True and known["handed_to"] is None
    chunks = list(
        chat(client, model="labels", messages=[{"role": "user", "content": text}], stream=True)
    )
    last = chunks[-1].choices[0]
    assert last.finish_reason == "stop"
    assert last.model_extra["bantam"]["confidence"] == pytest.approx(known["confidence"], abs=0.02)


def test_calls_of_a_task(client: openai.OpenAI) -> None:
    told = chat(client, model="calls", tools=TOOLS)
    # No validation showed how sure this model's calls are.
    assert "bantam" not in told.choices[0].model_extra
    if calls := told.choices[0].message.tool_calls:
        follows(calls)
    assert refused_code(client, model="calls") == 400  # it needs functions to choose from


def refused_code(client: openai.OpenAI, **asked: Any) -> int:
    with pytest.raises(openai.APIStatusError) as caught:
        chat(client, **asked)
    return caught.value.status_code


# What is refused


def part(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, more]}]}


@pytest.mark.parametrize(
    ("asked", "param", "code"),
    [
        ({"messages": None}, "messages", "invalid_type"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"repeat_penalty": 1e-320}, "repeat_penalty", "invalid_value"),  # 0 in the runtime
        ({"messages": [{"role": "king", "content": "a"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        (
            {"messages": [{"role": "tool", "content": "a"}]},
            "messages[0].tool_call_id",
            "missing_required_parameter",
        ),
        (
            {"messages": [{"role": "assistant"}]},
            "messages[0].content",
            "missing_required_parameter",
        ),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        (
            part(type="image_url", image_url={"url": "http://127.0.0.1:1/a.png"}),
            "messages[0].content[1].type",
            "unsupported_content_type",
        ),
        (
            part(type="input_audio", input_audio={"data": "", "format": "wav"}),
            "messages[0].content[1].type",
            "unsupported_content_type",
        ),
        (
            part(type="file", file={"file_id": "a"}),
            "messages[0].content[1].type",
            "unsupported_content_type",
        ),
        (part(type="text"), "messages[0].content[1].text", "missing_required_parameter"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": "warm"}, "temperature", "invalid_value"),
        ({"top_p": -0.1}, "top_p", "invalid_value"),
        ({"min_p": 2}, "min_p", "invalid_value"),
        ({"frequency_penalty": 3}, "frequency_penalty", "invalid_value"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "invalid_value"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 17}, "n", "invalid_value"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", None),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"temprature": 0}, "temprature", "unknown_parameter"),
        ({"modalities": ["text", "audio"]}, "modalities[1]", "invalid_value"),
        ({"audio": {"voice": "alloy"}}, "audio", "unsupported_parameter"),
        ({"web_search_options": {"a": 1}}, "web_search_options", "unsupported_parameter"),
        ({"moderation": {"model": "m"}}, "moderation", "unsupported_parameter"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "invalid_value"),
        ({"verbosity": "low"}, "verbosity", "invalid_value"),
        ({"response_format": {"type": "grammar"}}, "response_format.type", "invalid_value"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
            "missing_required_parameter",
        ),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice", "unsupported_value"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice",
            None,
        ),
        (
            {"tools": [{"type": "custom", "custom": {"name": "a"}}]},
            "tools[0].type",
            "unsupported_value",
        ),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
        ({"tools": TOOLS, "functions": [TOOLS[0]["function"]]}, "functions", None),
        ({"metadata": {"a": "b" * 513}}, "metadata.a", "invalid_value"),
        ({"repeat_penalty": 1.1, "tools": TOOLS}, "repeat_penalty", None),
        (
            {"repeat_penalty": 1.1, "response_format": {"type": "json_object"}},
            "repeat_penalty",
            None,
        ),
    ],
)
def test_what_is_wrong_is_named(
    address: str, asked: dict[str, Any], param: str, code: str | None
) -> None:
    error = refused(address, "chat/completions", **({"model": "chat", "messages": HELLO} | asked))
    assert error["param"] == param
    assert error["code"] == code
    assert error["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"a"', b'{"model": NaN, "messages": []}', b"[" * 100_000, b"\xff"],
)
def test_what_is_no_request(address: str, body: bytes) -> None:
    response = httpx.post(
        f"{address}/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_halves_of_characters_are_refused(address: str) -> None:
    body = rb'{"model": "chat", "messages": [{"role": "user", "content": "\ud83d"}]}'
    head = {"content-type": "application/json"}
    url = f"{address}/v1/chat/completions"
    assert httpx.post(url, content=body, headers=head).status_code == 400
    whole = body.replace(rb"\ud83d", rb"\ud83d\ude00")
    assert httpx.post(url, content=whole, headers=head).status_code == 200


def test_what_does_not_fit_is_refused(client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            chat(client, messages=[{"role": "user", "content": "day " * 600}], stream=stream)
        assert caught.value.code == "context_length_exceeded"
        assert "tokens" in caught.value.message


def test_a_schema_that_cannot_be_followed_is_refused(address: str) -> None:
    form = {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:1/a.json"}}}
    asked = {"type": "json_schema", "json_schema": {"name": "a", "schema": form}}
    error = refused(
        address, "chat/completions", model="chat", messages=HELLO, response_format=asked
    )
    assert "$ref" in error["message"]


# Texts


def test_a_text_is_continued(client: openai.OpenAI, tiny_model: Path) -> None:
    with Model(tiny_model) as model:
        wanted = model.runtime.complete(model.encode([("The picture", False)]), 16)
    told = client.completions.create(model="chat", prompt="The picture", temperature=0)
    assert told.object == "text_completion"
    assert told.choices[0].text == wanted.text  # 16 tokens unless asked otherwise
    assert told.choices[0].finish_reason == "length"
    assert told.usage and told.usage.completion_tokens == 16
    chunks = list(
        client.completions.create(
            model="chat",
            prompt="The picture",
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(one.choices[0].text for one in chunks if one.choices) == wanted.text
    assert chunks[-1].usage == told.usage.model_copy(
        update={"prompt_tokens_details": chunks[-1].usage.prompt_tokens_details}  # type: ignore[union-attr]
    )


def test_several_texts(client: openai.OpenAI, tiny_model: Path) -> None:
    with Model(tiny_model) as model:
        ids = [model.encode([(text, False)]) for text in ("The picture", "It broke")]
    for prompt in (["The picture", "It broke"], ids):
        told = client.completions.create(
            model="chat", prompt=prompt, n=2, max_tokens=4, seed=3, temperature=0.5
        )
        assert [one.index for one in told.choices] == [0, 1, 2, 3]
        alone = client.completions.create(
            model="chat", prompt="It broke", n=2, max_tokens=4, seed=3, temperature=0.5
        )
        assert [one.text for one in told.choices[2:]] == [one.text for one in alone.choices]
        assert told.usage and told.usage.completion_tokens == 16
        assert told.usage.prompt_tokens == sum(map(len, ids))
    one = client.completions.create(model="chat", prompt=ids[0], max_tokens=4, temperature=0)
    assert one.usage and one.usage.prompt_tokens == len(ids[0])


def test_echo_and_lines_that_some_clients_break(client: openai.OpenAI, address: str) -> None:
    prompt = "one\u2028two\x85three"
    asked = {"model": "chat", "prompt": prompt, "echo": True, "max_tokens": 2, "temperature": 0}
    told = client.completions.create(**asked)  # type: ignore[call-overload]
    assert told.choices[0].text.startswith(prompt)
    raw = httpx.post(f"{address}/v1/completions", json=asked | {"stream": True})
    assert "\u2028" not in raw.text and "\\u2028" in raw.text
    lines = [json.loads(line[6:]) for line in raw.text.splitlines() if line.startswith("data: {")]
    assert "".join(line["choices"][0]["text"] for line in lines) == told.choices[0].text


def test_logprobs_of_a_text(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "chat", "prompt": "It", "logprobs": 2, "max_tokens": 6}
    asked["logit_bias"] = {str(token): 50 for token in range(60, 70)}  # whole characters
    told = client.completions.create(temperature=0, **asked).choices[0]
    logs = told.logprobs
    assert logs and logs.tokens and logs.top_logprobs and logs.token_logprobs and logs.text_offset
    assert len(logs.tokens) == len(logs.top_logprobs) == 6
    assert all(token in there for token, there in zip(logs.tokens, logs.top_logprobs, strict=True))
    assert len(logs.top_logprobs[0]) == 3  # the two likeliest and that which was written
    assert logs.text_offset[:2] == [0, len(logs.tokens[0])]
    chunks = client.completions.create(temperature=0, stream=True, **asked)
    found = [one.choices[0].logprobs for one in chunks if one.choices[0].logprobs]
    assert [at for one in found for at in one.text_offset or []] == logs.text_offset


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True, "prompt": [5, 6]}, "echo"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"logprobs": 6}, "logprobs"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt[1]"),
        ({"prompt": {}}, "prompt"),
        ({"stream_options": {}}, "stream_options"),
    ],
)
def test_what_is_wrong_with_a_text(address: str, asked: dict[str, Any], param: str) -> None:
    error = refused(address, "completions", **({"model": "chat", "prompt": "a"} | asked))
    assert error["param"] == param


# Embeddings


def test_embeddings(client: openai.OpenAI) -> None:
    texts = ["The picture is sharp.", "It broke."]
    packed = client.embeddings.create(model="chat", input=texts)  # the client asks for base64
    plain = client.embeddings.create(model="chat", input=texts, encoding_format="float")
    rows = np.array([one.embedding for one in plain.data])
    assert rows.shape == (2, 64)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1)
    assert np.array([one.embedding for one in packed.data]) == pytest.approx(rows, abs=1e-6)
    assert [one.index for one in plain.data] == [0, 1]
    alone = client.embeddings.create(model="chat", input=texts[1], dimensions=16)
    short = np.array(alone.data[0].embedding)
    assert np.linalg.norm(short) == pytest.approx(1)
    assert short == pytest.approx(rows[1, :16] / np.linalg.norm(rows[1, :16]), abs=1e-5)
    assert plain.usage.prompt_tokens > alone.usage.prompt_tokens > 0


def test_the_bytes_of_an_embedding(address: str) -> None:
    asked = {"model": "chat", "input": "a", "encoding_format": "base64"}
    told = httpx.post(f"{address}/v1/embeddings", json=asked).json()["data"][0]["embedding"]
    assert len(base64.b64decode(told)) == 64 * 4


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"input": ""}, "input[0]"),
        ({"input": []}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": [[1, 2]]}, "input"),
        ({"dimensions": 65}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"more": 1}, "more"),
    ],
)
def test_what_is_wrong_with_texts_to_embed(address: str, asked: dict[str, Any], param: str) -> None:
    assert (
        refused(address, "embeddings", **({"model": "chat", "input": "a"} | asked))["param"]
        == param
    )


# When things end early


def freed(shelf: Shelf) -> bool:
    """Whether no turn is taken within a second."""
    until = time.monotonic() + 1
    while shelf.state()[0]["in_flight"] and time.monotonic() < until:
        time.sleep(0.01)
    return shelf.state()[0]["in_flight"] == 0


def test_a_client_that_goes_frees_its_turn(
    client: openai.OpenAI, address: str, shelf: Shelf
) -> None:
    stream = chat(client, stream=True, max_completion_tokens=450, n=16, logit_bias=NO_END)
    next(iter(stream))
    assert shelf.state()[0]["in_flight"] == 1
    stream.close()
    assert freed(shelf)
    body = {"model": "chat", "messages": HELLO, "logit_bias": NO_END, "n": 16}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{address}/v1/chat/completions", json=body, timeout=0.3)
    assert freed(shelf)


def test_an_error_in_the_middle_of_a_stream(
    client: openai.OpenAI, address: str, shelf: Shelf
) -> None:
    """The runtime's process is killed under it: the stream says so and ends."""
    said(client)
    asked: dict[str, Any] = {"max_completion_tokens": 450, "logit_bias": NO_END}
    stream = chat(client, stream=True, **asked)
    seen = iter(stream)
    for _ in range(3):
        next(seen)
    places = shelf._places
    copy = places["chat"].copy
    assert copy and copy.watched
    os.kill(copy.watched.pid, signal.SIGSTOP)  # lest it has ended before it is killed
    psutil.Process(copy.watched.pid).kill()
    with pytest.raises(openai.APIError) as caught:
        list(seen)
    assert not isinstance(caught.value, openai.APIConnectionError)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["type"] == "server_error"
    assert said(client)  # and another one is there


def test_many_at_once_get_their_own_replies(address: str, client: openai.OpenAI) -> None:
    texts = [f"camera {number} " * (number + 1) for number in range(8)]
    wanted = [said(client, messages=[{"role": "user", "content": text}]) for text in texts]

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(
            base_url=f"{address}/v1", api_key="none", max_retries=0
        ) as many:
            told = await asyncio.gather(
                *(
                    many.chat.completions.create(
                        model="chat",
                        messages=[{"role": "user", "content": text}],
                        temperature=0,
                        max_completion_tokens=12,
                    )
                    for text in texts
                )
            )
        return [str(one.choices[0].message.content) for one in told]

    assert asyncio.run(all_of_them()) == wanted
