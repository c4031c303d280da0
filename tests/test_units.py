import pytest
from hypothesis import given
from hypothesis import strategies as st

from bantam import units


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("5 min", 300),
        ("5min", 300),
        ("90 s", 90),
        ("2 h", 7200),
        ("1h30m", 5400),
        ("1 h 30 min", 5400),
        ("1.5 hours", 5400),
        ("1 d", 86400),
        (" 250 MS ", 0.25),
    ],
)
def test_seconds(text: str, wanted: float) -> None:
    assert units.seconds(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("160 MB", 160_000_000),
        ("160mb", 160_000_000),
        ("1 GB", 1_000_000_000),
        ("1.5 GB", 1_500_000_000),
        ("0.1 MB", 100_000),
        ("512 MiB", 512 * 2**20),
        ("7 B", 7),
    ],
)
def test_size(text: str, wanted: int) -> None:
    assert units.size(text) == wanted


def test_milliseconds() -> None:
    assert units.milliseconds("200 ms") == 200
    assert units.milliseconds("0.2 s") == 200


@pytest.mark.parametrize(
    "text",
    ["", " ", "5", "min", "five min", "-5 min", "0 s", "inf s", "nan s", "1e3 s", "5 parsecs"],
)
def test_unreadable_numbers(text: str) -> None:
    refused(text)


@pytest.mark.parametrize(
    "text", ["5 min ago", "5,5 min", "1 h\0", "٣ s", "9" * 500 + " s", "1 s" * 200]
)
def test_unreadable(text: str) -> None:
    refused(text)


def refused(text: str) -> None:
    for read in (units.seconds, units.milliseconds, units.size):
        with pytest.raises(ValueError, match="such as"):
            read(text)


@given(st.floats(min_value=0, max_value=1e12, exclude_min=True))
def test_a_duration_is_read_back_as_written(value: float) -> None:
    assert units.seconds(units.write_seconds(value)) == value


@given(st.floats(min_value=0.001, max_value=1e9))
def test_a_latency_is_read_back_as_written(value: float) -> None:
    assert units.milliseconds(units.write_milliseconds(value)) == pytest.approx(value, rel=1e-15)


@given(st.integers(min_value=1, max_value=2**63))
def test_a_size_is_read_back_as_written(value: int) -> None:
    assert units.size(units.write_size(value)) == value


@given(st.text(max_size=30))
def test_any_text_is_a_number_or_an_error(text: str) -> None:
    for read in (units.seconds, units.milliseconds, units.size):
        try:
            assert 0 <= read(text) < float("inf")
        except ValueError as error:
            assert "such as" in str(error)
