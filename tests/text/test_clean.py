import hashlib
import unicodedata
from collections import Counter

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bantam.text import clean

SCHEMA = dict.fromkeys(("input", "output", "group", "split", "reason"), pl.String)


def frame(rows: list[tuple[str | None, ...]]) -> pl.DataFrame:
    padded = [(*row, *[None] * (5 - len(row))) for row in rows]
    return pl.DataFrame(padded, schema=SCHEMA, orient="row")


def reasons(result: pl.DataFrame) -> list[str | None]:
    return result["reason"].to_list()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Good  movie", " good\tMOVIE\n", True),
        ("caf\u00e9", "cafe\u0301", True),
        ("STRASSE", "straße", True),
        ("a\u00a0b", "a b", True),
        ("good.", "good!", False),
        ("cafe", "café", False),
        ("ab", "a b", False),
    ],
)
def test_which_texts_are_the_same(one: str, other: str, same: bool) -> None:
    assert (clean.normalised(one) == clean.normalised(other)) is same


@given(st.text())
@example("ΐ")
@example("İ")
def test_normalising_is_stable(text: str) -> None:
    once = clean.normalised(text)
    assert clean.normalised(once) == once
    assert clean.normalised(unicodedata.normalize("NFD", text)) == once
    assert "  " not in once and once == once.strip()


def test_rows_without_text_or_label_are_marked_and_white_space_goes() -> None:
    result = clean.missing(
        frame([(" a ", " b\n"), ("  ", "b"), ("a", ""), (None, None), ("a", "b", "  ")])
    )
    assert reasons(result) == [None, "no text", "no label", "no text", None]
    assert result.row(0)[:2] == ("a", "b")
    assert result["group"].to_list() == [None] * 5


def test_spellings_of_a_label_become_the_commonest() -> None:
    rows = [
        ("a", "Spam"),
        ("b", "spam"),
        ("c", "spam"),
        ("d", "SPAM"),
        ("e", "no spam"),
        ("f", "no  Spam"),
    ]
    result, merged = clean.merge_labels(frame(rows))
    assert result["output"].to_list() == ["spam"] * 4 + ["no  Spam"] * 2
    assert merged == {"SPAM": "spam", "Spam": "spam", "no spam": "no  Spam"}


def test_the_id_is_what_the_architecture_says() -> None:
    result = clean.identify(frame([("Some  Text", "x", "g"), ("Some  Text", "x"), (None, "x")]))
    for row_id, content in zip(result["id"], ["some text\0g", "some text\0", "\0"], strict=True):
        assert row_id == hashlib.sha256(content.encode()).hexdigest()[:16]
    assert result["key"][0] == result["key"][1] != result["key"][2]


ROWS = st.lists(
    st.tuples(st.sampled_from(["a", "A", "b ", "b", "c"]), st.sampled_from(["x", "y", "z"])),
    max_size=14,
)


@given(ROWS, st.sampled_from(["drop", "majority", "keep"]))
def test_contradictions_and_duplicates_as_by_hand(rows: list[tuple[str, str]], rule: str) -> None:
    votes: dict[str, Counter[str]] = {}
    for text, label in rows:
        votes.setdefault(clean.normalised(text), Counter())[label] += 1
    seen: set[tuple[str, str]] = set()
    wanted: list[str | None] = []
    for text, label in rows:
        vote = votes[clean.normalised(text)]
        most = [name for name, count in vote.items() if count == max(vote.values())]
        against = len(vote) > 1 and (
            rule == "drop" or (rule == "majority" and (len(most) > 1 or label != most[0]))
        )
        again = (clean.normalised(text), label) in seen
        wanted.append("contradicted label" if against else "duplicate" if again else None)
        if not against:
            seen.add((clean.normalised(text), label))
    result, found = clean.contradictions(clean.identify(frame([*rows])), rule)  # type: ignore[arg-type]
    result = clean.duplicates(result)
    assert reasons(result) == wanted
    assert result["input"].to_list() == [text for text, _ in rows]
    told = {clean.normalised(entry["text"]): entry["labels"] for entry in found}
    assert told == {text: dict(vote) for text, vote in votes.items() if len(vote) > 1}


def test_files_of_their_own_are_not_thinned_and_take_their_texts_and_groups() -> None:
    rows = [
        ("seen in test", "x", "1"),
        ("seen in val", "x", "2"),
        ("own", "x", "7"),
        ("group of test", "x", "8"),
        ("Seen in Val", "y", "3", "val"),
        ("seen in TEST", "y", "4", "val"),
        ("seen in test", "y", "8", "test"),
        ("seen in test", "x", None, "test"),
        ("seen in test", "x", None, "test"),
    ]
    result = clean.identify(frame(rows))
    result, found = clean.contradictions(result, "drop")
    result = clean.apart(clean.duplicates(result))
    assert found == []
    assert reasons(result) == [
        "its text stands in the test file",
        "its text stands in the val file",
        None,
        "its group stands in the test file",
        None,
        "its text stands in the test file",
        None,
        None,
        None,
    ]
