"""langchain-openai, by both of OpenAI's interfaces. Run with the server's address."""

import asyncio
import sys
from typing import Any, Literal

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

WHERE: dict[str, Any] = {"base_url": f"{sys.argv[1]}/v1", "api_key": "none"}


class Colour(BaseModel):
    """A colour."""

    colour: Literal["red", "blue"]
    count: int = Field(ge=0, le=5)


@tool
def weather(city: Literal["Paris", "Rome"]) -> str:
    """The weather of a city."""
    return f"rain in {city}"


def added(pieces: Any) -> Any:
    whole = None
    for piece in pieces:
        whole = piece if whole is None else whole + piece
    return whole


for responses in (False, True):
    how = {**WHERE, "temperature": 0, "use_responses_api": responses}
    chat = ChatOpenAI(model="chat", max_tokens=40, **how)
    told = chat.invoke("Name a colour.")
    text = told.text
    assert text and told.usage_metadata["output_tokens"] == 40
    assert added(chat.stream("Name a colour.")).text == text
    assert asyncio.run(chat.ainvoke("Name a colour.")).text == text
    assert [one.text for one in chat.batch(["Name a colour."] * 3)] == [text] * 3
    roomy = ChatOpenAI(model="chat", **how)
    for method in ("json_schema", "function_calling"):
        asked = roomy.with_structured_output(Colour, method=method)
        assert isinstance(asked.invoke("A red thing."), Colour)
        assert isinstance(list(asked.stream("A red thing."))[-1], Colour)
    for choice in ("any", "weather"):
        calling = roomy.bind_tools([weather], tool_choice=choice, parallel_tool_calls=False)
        (call,) = calling.invoke("Weather?").tool_calls
        assert call["args"]["city"] in ("Paris", "Rome")
        assert len(added(calling.stream("Weather?")).tool_calls) == 1
    labels = ChatOpenAI(model="labels", **how)
    assert labels.invoke("It is good.").text in ("yes", "no", "not at all")
    # An agent, until it calls no more.
    agent = ChatOpenAI(model="calls", **how).bind_tools([weather])
    turns: list[Any] = [HumanMessage("Weather in Rome?")]
    for _ in range(3):
        turns.append(agent.invoke(turns))
        if not turns[-1].tool_calls:
            break
        turns += [weather.invoke(call) for call in turns[-1].tool_calls]
    assert len(turns) > 3 and "rain in" in turns[-1].text, turns
    print("responses" if responses else "chat completions", "whole, in pieces, forms, an agent")
cold = ChatOpenAI(model="chat", temperature=0, logprobs=True, top_logprobs=2, max_tokens=3, **WHERE)
logs = cold.invoke("Name a colour.").response_metadata["logprobs"]["content"]
assert logs and all(len(one["top_logprobs"]) == 2 for one in logs)
raw = OpenAI(model="chat", temperature=0, max_tokens=5, **WHERE)
assert raw.invoke("Hello") == "".join(raw.stream("Hello"))
# Without it token ids of another vocabulary would be sent, and its list fetched.
embedder = OpenAIEmbeddings(model="chat", check_embedding_ctx_length=False, **WHERE)
assert len(embedder.embed_documents(["a", "b"])) == 2
print("texts, embeddings")
