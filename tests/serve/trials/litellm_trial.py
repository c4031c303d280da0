"""litellm, by each of its ways to this server. Run with the server's address."""

import asyncio
import os
import sys
from typing import Any, Literal

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches a list of prices

import litellm
from pydantic import BaseModel

ADDRESS = sys.argv[1]
OPENAI: dict[str, Any] = {"api_base": f"{ADDRESS}/v1", "api_key": "none"}
HELLO = [{"role": "user", "content": "Name a colour."}]
CITIES = {"type": "string", "enum": ["Paris", "Rome"]}
WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": CITIES}, "required": ["city"]},
}
TOOLS = [{"type": "function", "function": WEATHER}]


class Colour(BaseModel):
    colour: Literal["red", "blue"]
    count: int


def streamed(**asked: Any) -> str:
    parts = [part for part in litellm.completion(stream=True, **asked) if part.choices]
    assert parts[-1].choices[0].finish_reason == "length", parts[-1]
    return "".join(part.choices[0].delta.content or "" for part in parts)


def ways(provider: str, **where: Any) -> None:
    """What every provider's words are asked for."""
    asked: dict[str, Any] = {"messages": HELLO, "temperature": 0, "max_tokens": 12, **where}
    asked["model"] = f"{provider}/chat"
    whole = litellm.completion(**asked)
    text = whole.choices[0].message.content
    assert text and whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 12
    assert streamed(**asked) == text
    assert asyncio.run(litellm.acompletion(**asked)).choices[0].message.content == text
    label = litellm.completion(**asked | {"model": f"{provider}/labels"}).choices[0].message
    assert label.content in ("yes", "no", "not at all")
    form = litellm.completion(**asked | {"max_tokens": 60}, response_format=Colour)
    Colour.model_validate_json(form.choices[0].message.content)
    if "ollama" not in provider:  # Ollama has no word for a call that must be made
        must: dict[str, Any] = {"tool_choice": "required", "parallel_tool_calls": False}
        told = litellm.completion(**asked | {"max_tokens": 60}, tools=TOOLS, **must)
        (call,) = told.choices[0].message.tool_calls
        assert call.function.name == "weather" and told.choices[0].finish_reason == "tool_calls"
    called = litellm.completion(**asked | {"model": f"{provider}/calls"}, tools=TOOLS)
    results = [
        {"role": "tool", "tool_call_id": one.id, "name": "weather", "content": "rain"}
        for one in called.choices[0].message.tool_calls
    ]
    turns = [*HELLO, called.choices[0].message.model_dump(), *results]
    told = litellm.completion(
        **asked | {"model": f"{provider}/calls", "messages": turns}, tools=TOOLS
    )
    assert set(told.choices[0].message.content.split()) == {"rain"}, told
    print(provider, "chat, stream, label, JSON by a schema, calls and their results")


ways("openai", **OPENAI)
ways("hosted_vllm", **OPENAI)
ways("anthropic", api_base=ADDRESS, api_key="none")
ways("ollama_chat", api_base=ADDRESS)
cold: dict[str, Any] = {"input": "Hello", "max_output_tokens": 16, "temperature": 0, **OPENAI}
told = litellm.responses(model="openai/chat", **cold)
kinds = [event.type for event in litellm.responses(model="openai/chat", stream=True, **cold)]
assert told.output[0].content[0].text
assert kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete")
text = litellm.text_completion(
    model="text-completion-openai/chat", prompt="The", max_tokens=6, temperature=0, **OPENAI
)
assert text.choices[0].text
for model, where in (("openai/chat", OPENAI), ("ollama/chat", {"api_base": ADDRESS})):
    assert len(litellm.embedding(model=model, input=["a", "b"], **where).data) == 2
try:
    litellm.completion(model="openai/nobody", messages=HELLO, **OPENAI)
except litellm.NotFoundError:
    print("responses, texts, embeddings, errors")
