"""The user's own patterns and words: found, bounded in time, and never within a placeholder."""

import time

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bantam.documents import redact
from bantam.errors import BadInput


def redacted(text: str, rules: redact.Rules) -> str:
    frame, _ = redact.redact(pl.DataFrame({"text": [text]}), rules, b"key")
    return str(frame["text"][0])


def test_patterns_and_words_stand_beside_what_is_built_in() -> None:
    rules = redact.Rules(
        patterns={"ticket": r"(?<=#)\d{4,}"}, words={"staff-name": ["Ann Lee", "Łukasz", "Ann"]}
    )
    text = "Ann Lee and ŁUKASZ (not Anne), ann@host.org, on #12345 of ann."
    assert redacted(text, rules) == (
        "<STAFF_NAME> and <STAFF_NAME> (not Anne), <EMAIL>, on #<TICKET> of <STAFF_NAME>."
    )


def test_fakes_leave_placeholders_to_own_patterns() -> None:
    rules = redact.Rules(patterns={"digits": r"\d+"}, fakes=True)
    assert "<DIGITS>" in redacted("17 and ann@host.org", rules)


@pytest.mark.parametrize("pattern", [r"(a|aa)+$", r"(?:a?){40}a{40}$|(a|a)+b", r"(a*?a*?)*?b"])
def test_a_pattern_that_takes_for_ever_is_told_in_time(
    pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bantam.documents.redact.own.SECONDS", 0.2)
    by = redact.finders(redact.Rules(kinds=[], patterns={"slow": pattern}))
    began = time.monotonic()
    try:
        redact.find("a" * 20_000 + "!", by)
    except BadInput as error:
        assert '"slow"' in error.message and "aaa" not in str(error)
    assert time.monotonic() - began < 20


def test_such_a_pattern_does_reach_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bantam.documents.redact.own.SECONDS", 0.2)
    by = redact.finders(redact.Rules(kinds=[], patterns={"slow": r"(a|aa)+$"}))
    with pytest.raises(BadInput, match="took more than"):
        redact.find("a" * 60 + "!", by)


@given(
    st.sampled_from([r"\w+", r"[A-Z]+", r"\S+", r"<\w", r"<\w|\w+", r".", r"MINE|EMAIL", r"[^a]+"]),
    st.text("ab <>EMAILINE@.1", max_size=20),
)
def test_placeholders_are_left_alone(pattern: str, text: str) -> None:
    rules = redact.Rules(patterns={"mine": pattern})
    once = redacted(f"{text}<EMAIL>{text} <MINE>", rules)
    assert "<EMAIL>" in once and "<MINE>" in once
    assert redacted(once, rules) == once


def test_what_stands_beside_a_placeholder_is_not_spared() -> None:
    assert redacted("a<EMAIL>b c", redact.Rules(patterns={"mine": r"\S+"})) == (
        "<MINE><EMAIL><MINE> <MINE>"
    )


def test_many_words_are_found_as_whole_words() -> None:
    listed = [f"name{number}" for number in range(5_000)]
    by = redact.finders(redact.Rules(kinds=[], words={"names": listed}))
    text = " ".join(f"x{name} {name}x {name}" for name in listed[:500])
    assert len(redact.find(text, by)) == 500
