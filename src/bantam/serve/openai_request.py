"""What the requests of OpenAI's interfaces hold in common, checked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError, PydanticKnownError

from bantam.serve.ask import MOST_PARTS, MOST_TOOLS
from bantam.serve.bodies import Body

MOST_REPLIES, MOST_STOPS, MOST_BIASES, MOST_ALTERNATIVES = 16, 4, 1024, 20
LEAST_PENALTY = 0.001  # of `repeat_penalty`; what is nearly none the runtime takes for none
NOTHING: list[Any] = [None, False, "", [], {}]


def _listed(value: Any) -> Any:
    return [] if value is None else [value] if isinstance(value, str) else value


def _parts(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else _listed(value)


def _choice(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


def _unsupported(value: Any) -> Any:
    if value not in NOTHING:
        raise PydanticCustomError("unsupported_parameter", "it is not supported here; leave it out")
    return value


def _at_most(most: int) -> BeforeValidator:
    """Few entries: there is no end at the first that is wrong, as lists have it."""

    def checked(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > most:
            told = {"field_type": "Dictionary", "max_length": most, "actual_length": len(value)}
            raise PydanticKnownError("too_long", told)
        return value

    return BeforeValidator(checked)


# What would change the answer and cannot be honoured.
Unsupported = Annotated[Any, AfterValidator(_unsupported), WithJsonSchema({"enum": NOTHING})]
Number = Annotated[float, Field(allow_inf_nan=False)]
Metadata = dict[
    Annotated[str, Field(max_length=64)],
    Annotated[str, Field(max_length=512)],
]


class Part(BaseModel):
    """A piece of a message. Only texts can be read."""

    type: str
    text: str | None = None
    refusal: str | None = None


Parts = Annotated[list[Part], Field(max_length=MOST_PARTS, fail_fast=True)]
Content = Annotated[Parts, BeforeValidator(_parts, json_schema_input_type=str | Parts | None)]


class FunctionCall(BaseModel):
    """A call of an earlier reply; `arguments` are JSON, as the model wrote them."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    id: str
    type: str = "function"
    function: FunctionCall | None = None


class ChatMessage(BaseModel):
    """A turn of a conversation."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: Content = []
    refusal: str | None = None  # in place of a content
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = (
        None
    )
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    audio: Unsupported = None


class Function(BaseModel):
    """A function that may be called; `parameters` are a JSON Schema of its arguments."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None  # arguments always follow the schema


class Tool(BaseModel):
    type: str
    function: Function | None = None


class Named(BaseModel):
    name: str


class AllowedTool(BaseModel):
    type: str = "function"
    name: str | None = None
    function: Named | None = None


class Allowed(BaseModel):
    mode: Literal["auto", "required"] = "auto"
    tools: Annotated[list[AllowedTool], Field(max_length=MOST_TOOLS, fail_fast=True)] = []


class ToolChoice(Allowed):
    """Whether functions are called, and which: "none", "auto", "required", one, or some."""

    type: str
    name: str | None = None
    function: Named | None = None
    allowed_tools: Allowed | None = None


Choice = Annotated[
    ToolChoice | None, BeforeValidator(_choice, json_schema_input_type=str | ToolChoice | None)
]


class Described(BaseModel):
    """A JSON Schema with its name; a reply always follows it, strict or not."""

    name: str | None = None
    description: str | None = None
    shape: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class Format(Described):
    """What a reply is: text, any JSON object, or JSON that follows a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Described | None = None


class Sampled(Body):
    """How replies are drawn. `top_k`, `min_p` and `repeat_penalty` are not of OpenAI's."""

    model: str
    stream: bool | None = None
    temperature: Annotated[Number | None, Field(ge=0, le=2)] = None
    top_p: Annotated[Number | None, Field(ge=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=0, le=1 << 20)] = None
    min_p: Annotated[Number | None, Field(ge=0, le=1)] = None
    frequency_penalty: Annotated[Number | None, Field(ge=-2, le=2)] = None
    presence_penalty: Annotated[Number | None, Field(ge=-2, le=2)] = None
    repeat_penalty: Annotated[Number | None, Field(ge=LEAST_PENALTY, le=10)] = None
    logit_bias: Annotated[
        dict[Annotated[int, Field(ge=0, lt=1 << 31)], Annotated[Number, Field(ge=-100, le=100)]]
        | None,
        Field(
            max_length=MOST_BIASES,
            json_schema_extra={"propertyNames": {"pattern": "^[0-9]{1,10}$"}},
        ),
        _at_most(MOST_BIASES),
    ] = None
    seed: Annotated[int | None, Field(ge=-(1 << 63), lt=1 << 63)] = None
    stop: Annotated[
        Annotated[
            list[Annotated[str, Field(max_length=1000)]],
            Field(max_length=MOST_STOPS, fail_fast=True),
        ],
        BeforeValidator(_listed, json_schema_input_type=str | list[str] | None),
    ] = Field(default_factory=list)
    # What only OpenAI's own service has a use for, and what makes it quicker.
    user: Any = None
    store: Any = None
    metadata: Annotated[Metadata | None, Field(max_length=16), _at_most(16)] = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    moderation: Unsupported = None


class StreamOptions(BaseModel):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # nothing is padded here
