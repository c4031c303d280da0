"""Dates in the forms that people and programs write, against what wrote them."""

import email.utils
import time
from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bantam.errors import BadInput
from bantam.text import dates

moments = st.datetimes(datetime(1971, 1, 1), datetime(2068, 12, 31)).map(
    lambda when: when.replace(microsecond=0)
)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
DAYS = [  # day and month cannot be mistaken where the day is above 12
    "%d.%m.%Y",
    "%d.%m.%y",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%Y%m%d",
    "%d %b %Y",
    "%d-%b-%y",
    "%d %B %Y",
    "%B %d, %Y",
    "%b %d %Y",
    "%A, %d %B %Y",
    "%a %b %d, %Y",
]


def one(text: str | None) -> datetime | None:
    found: datetime | None = dates.read([text]).when[0]
    return found


@given(moments, zones)
def test_what_python_and_mail_programs_write(when: datetime, zone: timezone) -> None:
    here = when.replace(tzinfo=zone)
    utc = here.astimezone(UTC).replace(tzinfo=None)
    assert one(when.isoformat()) == one(when.isoformat(" ")) == when
    assert one(here.isoformat()) == one(here.isoformat(" ")) == utc
    assert one(email.utils.format_datetime(here)) == utc
    assert one(when.strftime("%Y-%m-%d %H:%M:%S UTC")) == when
    assert one(time.asctime(when.timetuple())) == when
    assert one(str(int(when.replace(tzinfo=UTC).timestamp()) + 10**9)) is not None


@given(moments, st.sampled_from(DAYS), st.sampled_from(["", " %H:%M", ", %H:%M:%S", " %I:%M %p"]))
def test_days_with_and_without_a_time(when: datetime, day: str, clock: str) -> None:
    form = day if day == "%Y%m%d" else day + clock
    written = when.strftime(form)
    assert one(written) == datetime.strptime(written, form), written


@given(st.lists(moments, min_size=1, max_size=30), st.booleans(), st.sampled_from("/-"))
def test_the_column_tells_whether_the_day_or_the_month_comes_first(
    whens: list[datetime], american: bool, mark: str
) -> None:
    form = mark.join(["%m", "%d", "%Y"] if american else ["%d", "%m", "%Y"])
    days = [datetime(when.year, when.month, when.day) for when in whens]
    found = dates.read([when.strftime(form) for when in days])
    clear = any(when.day > 12 for when in days)
    assert bool(found.notes) == (not clear)
    if clear or not american:
        assert found.when.to_list() == days
    else:
        assert found.when.to_list() == [datetime(d.year, d.day, d.month) for d in days]


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("1735639200", datetime(2024, 12, 31, 10)),
        ("1735639200.5", datetime(2024, 12, 31, 10, 0, 0, 500_000)),
        ("1735639200000", datetime(2024, 12, 31, 10)),
        ("1735639200000000", datetime(2024, 12, 31, 10)),
        ("2024", datetime(2024, 1, 1)),
        ("2024-3", datetime(2024, 3, 1)),
        ("2024-12-31T10:00:00.123456789Z", datetime(2024, 12, 31, 10, 0, 0, 123_456)),
        ("December 31st, 2024 at 5:30 p.m.", datetime(2024, 12, 31, 17, 30)),
        ("31. Dec. 2024", datetime(2024, 12, 31)),
        ("12/31/2024 12:05 AM", datetime(2024, 12, 31, 0, 5)),
        ("Tue Dec 31 10:00:00 CET 2024", datetime(2024, 12, 31, 10)),
        ("Tue, 31 Dec 2024 10:00:00 +0100 (CET)", datetime(2024, 12, 31, 9)),
        ("  2024-12-31\n", datetime(2024, 12, 31)),
        *((text, None) for text in ("", " ", "5", "yesterday", "31 Foo 2024", "2024-13-01")),
        *((text, None) for text in ("30.2.2024", "1e9", "0001-01-01T00:00+10:00", "9" * 99, None)),
        *((text, None) for text in ("25:00 1.1.2024", "1.1.2024 25:00", "1/2-2024", "٣.٤.٢٠٢٤")),
    ],
)
def test_forms(text: str | None, when: datetime | None) -> None:
    assert one(text) == when


@given(st.text(max_size=200) | st.from_regex(r"[0-9:./ T+Z-]{1,40}"))
def test_any_text_is_a_date_or_none(text: str) -> None:
    one(text)


def frame(cells: list[str | None], split: str | None = None) -> pl.DataFrame:
    data = {"date": cells, "file": "a.csv", "row": range(1, len(cells) + 1), "split": split}
    nothing = {"reason": pl.String, "split": pl.String, "date": pl.String}
    return pl.DataFrame(data | {"reason": None}, schema_overrides=nothing)


def test_rows_without_a_date_are_marked_and_told_when_they_are_many() -> None:
    found, notes = dates.dated(frame(["2024-01-01"] * 19 + ["soon"]), "day")
    assert found["reason"].to_list() == [None] * 19 + ["no date that can be read"] and not notes
    with pytest.raises(BadInput) as caught:
        dates.dated(frame(["2024-01-01"] * 4 + ["soon", None]), "day")
    assert 'column "day" holds no date in 2 of 6 rows' in str(caught.value)
    assert 'a.csv, row 5: "soon"; a.csv, row 6: empty' in str(caught.value) and caught.value.mend
    assert dates.dated(frame(["soon"], "test"), "day")[0]["reason"].to_list() == [None]
