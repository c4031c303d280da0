"""Formats of texts: held to the days and times that there are, and no fewer."""

import datetime
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from bantam.kinds import closing, grammar, schema
from bantam.kinds.text_formats import PATTERNS

READERS: dict[str, Any] = {
    "date": datetime.date,
    "time": datetime.time,
    "date-time": datetime.datetime,
    "duration": datetime.timedelta,
}


def fits(form: str, text: str) -> bool:
    return re.search(PATTERNS[form], text) is not None


@given(st.integers(0, 9999), st.integers(0, 13), st.integers(0, 32))
def test_the_days_are_those_of_the_calendar(year: int, month: int, day: int) -> None:
    text = f"{year:04}-{month:02}-{day:02}"
    try:
        there = datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        there = False
    assert fits("date", text) == there


@pytest.mark.parametrize("year", [4, 1900, 2000, 2023, 2024, 2100, 2400])
def test_leap_years(year: int) -> None:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    assert fits("date", f"{year:04}-02-29") == leap


@given(st.datetimes(timezones=st.just(datetime.UTC)))
def test_moments_are_taken(moment: datetime.datetime) -> None:
    assert fits("date-time", moment.isoformat())
    assert fits("time", moment.timetz().isoformat())


@pytest.mark.parametrize("form", PATTERNS)
@given(data=st.data())
def test_what_is_taken_is_read(form: str, data: st.DataObject) -> None:
    text = data.draw(st.from_regex(re.compile(PATTERNS[form][:-1] + r"\Z", re.ASCII)))
    TypeAdapter(READERS[form]).validate_python(text)


@pytest.mark.parametrize("form", PATTERNS)
def test_an_answer_can_be_ended(form: str) -> None:
    shape = schema.check({"type": "string", "format": form}, "it")
    text = json.loads(closing.course(grammar.grammar(shape)).rest or b"")
    TypeAdapter(READERS[form]).validate_python(text)


@pytest.mark.parametrize(
    "shape",
    [
        {"type": "string", "format": "password"},
        {"type": "string", "format": "jwt", "pattern": "^[A-Za-z]{2}$"},
        {"type": "object", "propertyNames": {"type": "string"}},
        {"type": "integer", "minimum": -(2**53) + 1, "maximum": 2**53 - 1, "default": 2**63},
    ],
)
def test_what_asks_for_nothing_is_taken(shape: dict[str, Any]) -> None:
    assert schema.check(shape, "it") == shape
