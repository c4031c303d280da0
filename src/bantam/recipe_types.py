"""What the sections of recipes are built of: sources, columns, numbers with their units."""

import difflib
import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from bantam import units

SCHEMES = ("pypi", "hf", "https")


def source(text: str) -> str:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", text)  # two letters at least: C: is a drive
    if scheme and scheme[1] not in SCHEMES:
        raise ValueError(
            f'"{scheme[1]}:" is no known source; a path, pypi:name==version, hf:owner/name '
            "or https://... is"
        )
    if not text.strip() or "\0" in text:
        raise ValueError("must be a path or a source such as pypi:name==version")
    return text


def _with_unit(read: Any, write: Any, example: str) -> Any:
    """The marks of a number that is written with its unit: text in, number kept, text out."""

    def parse(value: object) -> object:
        if not isinstance(value, str):
            raise ValueError(f'must be written in quotes with its unit, such as "{example}"')
        return read(value)

    return (
        BeforeValidator(parse),
        PlainSerializer(write, when_used="json-unless-none"),
        WithJsonSchema({"type": "string", "examples": [example]}),
    )


Seconds = Annotated[float, *_with_unit(units.seconds, units.write_seconds, "5 min")]
Milliseconds = Annotated[float, *_with_unit(units.milliseconds, units.write_milliseconds, "200 ms")]
Bytes = Annotated[int, *_with_unit(units.size, units.write_size, "160 MB")]
Source = Annotated[str, AfterValidator(source)]
Share = Annotated[float, Field(gt=0, lt=1)]
Files = Annotated[list[Source], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Column = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, serialize_by_alias=True
    )


def nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f'; did you mean "{close[0]}"?' if close else ""
