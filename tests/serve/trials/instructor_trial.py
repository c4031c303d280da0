"""instructor, in its modes that this server can be asked in. Run with the server's address."""

import asyncio
import sys
from typing import Any, Literal

import instructor
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field

WHERE: dict[str, Any] = {"base_url": f"{sys.argv[1]}/v1", "api_key": "none"}
HELLO: list[Any] = [{"role": "user", "content": "A red thing."}]


class Colour(BaseModel):
    """A colour."""

    colour: Literal["red", "blue"]
    count: int = Field(ge=0, le=5)


def tried(name: str) -> None:
    mode = getattr(instructor.Mode, name)
    client = instructor.from_openai(OpenAI(**WHERE), mode=mode).chat.completions
    asked: dict[str, Any] = {"model": "chat", "messages": HELLO, "max_retries": 0}
    asked |= {} if "RESPONSES" in name else {"temperature": 0}
    made = client.create(response_model=Colour, **asked)
    assert isinstance(made, Colour)
    *_, last = client.create_partial(response_model=Colour, **asked)
    assert Colour.model_validate(last.model_dump())
    some = client.create_iterable(response_model=Colour, **asked)
    assert all(isinstance(one, Colour) for one in some)
    alone, whole = client.create_with_completion(response_model=Colour, **asked)
    assert isinstance(alone, Colour) and whole.id
    if "RESPONSES" not in name:
        assert alone.model_dump() == made.model_dump()

    async def apart() -> Any:
        async with AsyncOpenAI(**WHERE) as plain:
            there = instructor.from_openai(plain, mode=mode).chat.completions
            return await there.create(response_model=Colour, **asked)

    assert isinstance(asyncio.run(apart()), Colour)
    print(name, "whole, partial, iterable, beside the completion, async")


for name in ("TOOLS", "TOOLS_STRICT", "JSON_SCHEMA", "RESPONSES_TOOLS"):
    tried(name)
plain = instructor.from_provider("openai/chat", **WHERE).chat.completions
assert isinstance(plain.create(response_model=Colour, messages=HELLO), Colour)
print("from_provider")
