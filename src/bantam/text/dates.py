"""Dates as people and programs write them, read a column at a time."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple

import polars as pl

from bantam.errors import BadInput
from bantam.text.clean import POOL, mark

MOST_UNREADABLE = 0.1  # of the rows; beyond, the column is not what it seems to be
NAMED = 3  # cells in an error
LONGEST = 100  # characters of a date
PIVOT = 70  # two digits below are a year from 2000 on, as POSIX has it
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]

_TIME = r"(?:,?[T ](?:at )?(?P<hour>\d\d?):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,]\d+)?)?)?"
_HALF = r"(?: ?(?P<half>[ap])\.?m\.?)?"
_ZONE = r"(?: ?(?P<zone>[A-Z]{1,5}|(?:UTC|GMT)?[+-]\d\d:?\d\d))?(?: \([\w ]+\))?"
_WEEKDAY = r"(?:[A-Z]{3,9},? )?"
_NAME = r"(?P<name>[A-Z]{3,9})\.?"
_DAY = r"(?P<day>\d\d?)(?:st|nd|rd|th|\.)?"


def _form(date: str, rest: str = _TIME + _HALF + _ZONE) -> re.Pattern[str]:
    return re.compile(date + rest, re.ASCII | re.IGNORECASE)


_NUMBERS = _form(r"(?P<one>\d\d?)(?P<between>[./-])(?P<two>\d\d?)(?P=between)(?P<year>\d{4}|\d\d)")
_FORMS = (
    _NUMBERS,
    _form(r"(?P<year>\d{4})(?P<between>[./-])(?P<month>\d\d?)(?P=between)(?P<day>\d\d?)"),
    _form(rf"{_WEEKDAY}{_DAY}[ -]{_NAME},?[ -](?P<year>\d{{4}}|\d\d)"),  # 31 Dec 2024, as in mails
    _form(rf"{_WEEKDAY}{_NAME} {_DAY},? (?P<year>\d{{4}})"),  # December 31, 2024
    _form(rf"{_WEEKDAY}{_NAME} {_DAY}", rf"{_TIME}{_ZONE} (?P<year>\d{{4}})"),  # C's ctime
    _form(r"(?P<year>\d{4})(?:-(?P<month>\d\d?))?", ""),
)
_SINCE_1970 = re.compile(r"\d{9,10}(\.\d+)?|\d{12,13}|\d{15,16}", re.ASCII)


class Dates(NamedTuple):
    """`when`: datetimes in UTC, null where a cell is no date; and what is to be told."""

    when: pl.Series
    notes: list[str]


def read(cells: Sequence[str | None]) -> Dates:
    """The dates of a column, in any of the common forms.

    ISO 8601, 31.12.2024, 12/31/2024, 2024/12/31, 31 Dec 2024, December 31, 2024 and the like with
    English names, a year, or a year and a month; with or without a time and a zone (the name of a
    zone counts as UTC); seconds since 1970, also in thousandths or millionths.

    Whether the day or the month comes first in 3/4/2024 is told by the column's other cells; where
    they do not tell, it is the day, and a note says so.
    """
    texts = [None if cell is None else " ".join(cell[:LONGEST].split()) for cell in cells]
    numbers = [found for text in texts if text and (found := _NUMBERS.fullmatch(text))]
    either = [found for found in numbers if found["between"] != "."]
    day_first = sum(int(found["one"]) > 12 for found in either)
    month_first = sum(int(found["two"]) > 12 for found in either)
    when = [None if text is None else _date(text, month_first > day_first) for text in texts]
    notes = []
    if either and day_first == month_first:
        notes.append(
            f'dates such as "{either[0][0]}" were read as day, month, year: '
            "write them as 2024-12-31 if that is wrong"
        )
    return Dates(pl.Series(when, dtype=pl.Datetime("us")), notes)


def dated(frame: pl.DataFrame, column: str) -> tuple[pl.DataFrame, list[str]]:
    """`date`, as it was read from `column` of the files, becomes `when`; rows without a split that
    have no date are marked.

    Gives the frame and what is to be told. BadInput: more than a tenth of these rows have none.
    """
    found = read(frame["date"].to_list())
    frame = frame.with_columns(found.when.alias("when"))
    pool = frame.filter(POOL)
    bad = pool.filter(pl.col("when").is_null())
    if bad.height > MOST_UNREADABLE * pool.height:
        shown = "; ".join(
            f"{file}, row {row}: " + ("empty" if date is None else f'"{date[:LONGEST]}"')
            for file, row, date in bad.select("file", "row", "date").head(NAMED).iter_rows()
        )
        raise BadInput(
            f'column "{column}" holds no date in {bad.height} of {pool.height} rows: {shown}',
            "write dates as 2024-12-31, or name another column as data.date",
        )
    frame = mark(frame, POOL & pl.col("when").is_null(), "no date that can be read")
    return frame.drop("date"), found.notes


def _date(text: str, month_first: bool) -> datetime | None:
    try:
        return _in_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        pass
    if _SINCE_1970.fullmatch(text):
        digits = len(text.partition(".")[0])
        unit = 1 if digits < 11 else 1e3 if digits < 14 else 1e6
        return datetime(1970, 1, 1) + timedelta(seconds=float(text) / unit)
    found = next((found for form in _FORMS if (found := form.fullmatch(text))), None)
    try:
        return None if found is None else _of(found.groupdict(), month_first)
    except (ValueError, OverflowError):
        return None


def _of(part: dict[str, str | None], month_first: bool) -> datetime:
    """ValueError: there is no such day, month or hour."""
    day, month = part.get("day") or "1", part.get("month") or "1"
    if one := part.get("one"):
        day, month = one, part["two"] or ""
        if month_first and part["between"] != ".":
            day, month = month, day
    if name := part.get("name"):
        month = str(MONTHS.index(name[:3].lower()) + 1)
    year = int(part["year"] or 0)
    if len(part["year"] or "") == 2:
        year += 2000 if year < PIVOT else 1900
    hour = int(part.get("hour") or 0)
    if half := part.get("half"):
        hour = hour % 12 + (12 if half.lower() == "p" else 0)
    minute, second = (int(part.get(name) or 0) for name in ("minute", "second"))
    when = datetime(year, int(month), int(day), hour, minute, min(second, 59))
    return _in_utc(when.replace(tzinfo=_zone(part.get("zone") or "")))


def _zone(text: str) -> timezone:
    digits = re.sub(r"[^\d+-]", "", text)
    if not digits:
        return UTC
    shift = timedelta(hours=int(digits[1:3]), minutes=int(digits[3:5]))
    return timezone(-shift if digits[0] == "-" else shift)


def _in_utc(when: datetime) -> datetime:
    return when if when.tzinfo is None else when.astimezone(UTC).replace(tzinfo=None)
