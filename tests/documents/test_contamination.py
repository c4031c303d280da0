"""Test rows in training text, against plain Python that looks for every run of words."""

import plain_rules
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from bantam.documents import contamination, words

WORDS = st.sampled_from(["a", "B", "c", "d,", "E!"])
TEXTS = st.lists(WORDS, max_size=30).map(" ".join)


def rows(*texts: str) -> pl.DataFrame:
    schema = {"benchmark": pl.String, "row": pl.Int64, "text": pl.String}
    return pl.DataFrame(
        [("test", at, text) for at, text in enumerate(texts, 1)], schema, orient="row"
    )


def search(texts: list[str], sought: pl.DataFrame) -> pl.DataFrame:
    named = [(f"document {number}", text) for number, text in enumerate(texts)]
    frame = pl.DataFrame(named, {"id": pl.String, "text": pl.String}, orient="row")
    found = words.split(frame["text"])
    return contamination.search(frame, found, contamination.index(sought))


def spoken(text: str) -> list[str]:
    return [plain_rules.folded(t) for t in plain_rules.tokens(text) if plain_rules.is_word(t)]


def shares(text: str, row: str) -> bool:
    mine, theirs = spoken(text), spoken(row)
    if len(theirs) < 8:
        return mine == theirs != []
    n = min(13, len(theirs))
    runs = {tuple(theirs[at : at + n]) for at in range(len(theirs) - n + 1)}
    return any(tuple(mine[at : at + n]) in runs for at in range(len(mine) - n + 1))


@given(st.lists(TEXTS, max_size=5), st.lists(TEXTS, max_size=8))
def test_the_documents_found_are_those_that_share_a_run(texts: list[str], tests: list[str]) -> None:
    found = search(texts, rows(*tests))
    pairs = set(zip(found["id"], found["row"], strict=True))
    first: dict[tuple[str, ...], int] = {}
    for number, row in enumerate(tests, 1):
        first.setdefault(tuple(spoken(row)), number)
    expected = {
        (f"document {at}", number)
        for at, text in enumerate(texts)
        for number in first.values()
        if shares(text, tests[number - 1])
    }
    assert pairs == expected  # at most eight rows share a run here, which is no frame yet


ROW = "The quick brown fox jumps over the lazy dog, and then it sleeps until the sun is up again."


def test_what_is_told() -> None:
    text = "Before. THE QUICK (brown) fox jumps over the lazy dog and then it SLEEPS -- a pause."
    found = search(["nothing of it", text], rows("unasked for words " * 5, ROW))
    shared = "The quick brown fox jumps over the lazy dog and then it sleeps"
    assert found.rows() == [("document 1", "test", 2, 1, shared)]
    frame = pl.DataFrame(
        {
            "id": ["document 0", "document 1", "document 1"],
            "reason": pl.Series([None, None, "language"]),
            "value": pl.Series([None, None, "de 0.9"]),
        }
    )
    marked = contamination.mark(frame, found)
    assert marked.columns == frame.columns
    assert marked["reason"].to_list() == [None, "contaminated", "language"]
    assert marked["value"].to_list() == [None, f"test, row 2: {shared}", "de 0.9"]


def test_a_short_row_must_be_the_whole_document() -> None:
    found = search(["Great product!", "Great product, really"], rows("great product"))
    assert found["id"].to_list() == ["document 0"]
    eight = "one two three four five six seven eight"
    assert len(search([f"zero {eight} nine"], rows(eight))) == 1


def test_the_frame_of_a_benchmark_is_not_looked_for() -> None:
    frame = "Read the review below and say whether the customer was content with it or was not"
    asked = [f"{frame}: {name} broke after {name} days, {ROW} {name}" for name in "abcdefghijk"]
    prompts = [f"{frame}: number {number}" for number in range(11)]
    assert search([frame], rows(*prompts)).is_empty()
    assert not search([frame], rows(*prompts[:10])).is_empty()
    own = search([asked[3]], rows(*prompts, asked[3]))
    assert own["row"].to_list() == [12]


def test_equal_rows_count_once() -> None:
    found = search([ROW], rows(*[ROW] * 20))
    assert found["row"].to_list() == [1]
    assert found["shared"].to_list() == [ROW.replace(",", "").rstrip(".")]


def test_nothing_is_found_with_nothing() -> None:
    assert search([ROW], rows()).is_empty()
    assert search([], rows(ROW)).is_empty()
    assert search(["", "."], rows("", "!")).is_empty()
