"""Lines that recur across a source, against counting them all in plain Python."""

from collections import Counter
from collections.abc import Sequence

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from bantam.documents import boilerplate
from bantam.recipe_documents import Boilerplate

FOOTER = "Copyright 2024 the authors of this page"
LINES = [
    FOOTER,
    "  indented line of words",
    "SEE ALSO",
    "one two three",
    "版权所有侵权必究",
    "",
    "x",
]
TEXTS = st.lists(st.sampled_from(LINES), max_size=6).map(lambda lines: "\n".join(lines).strip())
SHARDS = st.lists(
    st.lists(st.tuples(st.sampled_from(["web", "mail"]), TEXTS), max_size=8), min_size=1, max_size=4
)


def frames(shards: Sequence[Sequence[tuple[str, str]]]) -> list[pl.DataFrame]:
    return [
        pl.DataFrame(
            [(f"{at}-{row}", source, text) for row, (source, text) in enumerate(shard)],
            schema={"id": pl.String, "source": pl.String, "text": pl.String},
            orient="row",
        )
        for at, shard in enumerate(shards)
    ]


def found(shards: list[pl.DataFrame], rules: Boilerplate) -> pl.DataFrame:
    counted = pl.concat([boilerplate.count(shard, rules) for shard in shards])
    sizes = pl.concat([boilerplate.sizes(shard) for shard in shards])
    return boilerplate.recurring(counted, sizes, rules)


@given(SHARDS)
def test_what_is_told_is_counted_right_and_nothing_common_is_missed(
    shards: list[list[tuple[str, str]]],
) -> None:
    rules = Boilerplate(min_documents=2, min_share=0.2)
    told = found(frames(shards), rules)
    documents = [document for shard in shards for document in shard]
    size = Counter(source for source, _ in documents)
    counts = Counter((source, line) for source, text in documents for line in set(text.split("\n")))
    counted = Counter()  # what shards tell: lines in two of their documents, and half of the share
    for shard in shards:
        here = Counter((source, line) for source, text in shard for line in set(text.split("\n")))
        held = Counter(source for source, _ in shard)
        for line, count in here.items():
            if count >= 2 and count >= 0.1 * held[line[0]]:
                counted[line] += count
    talking = {FOOTER, "  indented line of words", "one two three", "版权所有侵权必究"}
    expected = {
        (source, line): count
        for (source, line), count in counted.items()
        if count >= 2 and count >= 0.2 * size[source] and line.strip() in map(str.strip, talking)
    }
    assert {(source, text): count for source, text, count in told.rows()} == expected
    assert all(count <= counts[line] for line, count in expected.items())


def pages(count: int, source: str = "web") -> list[tuple[str, str]]:
    return [
        (source, f"Page {number} has a title\n\nSEE ALSO\n\n{FOOTER}\n\nIts text {number} here.")
        for number in range(count)
    ]


def test_a_footer_goes_and_headings_stay() -> None:
    shards = frames([pages(30), pages(25), [("mail", f"Hello\n{FOOTER}")] * 9])
    told = found(shards, Boilerplate())
    assert told.rows() == [("web", FOOTER, 55)]  # nine mails are too few to say
    kept, dropped = boilerplate.drop(shards[0], told)
    assert kept["text"][3] == "Page 3 has a title\n\nSEE ALSO\n\nIts text 3 here."
    assert dropped.row(3) == ("0-3", 5, FOOTER, "boilerplate", "55")
    assert len(dropped) == 30
    mails, none = boilerplate.drop(shards[2], told)
    assert mails.equals(shards[2]) and none.is_empty()


def test_a_line_of_one_document_is_none_however_often_it_stands_there() -> None:
    shard = frames([[("web", f"{FOOTER}\n" * 50 + "end")] + [("web", "other words here")] * 3])
    assert FOOTER not in found(shard, Boilerplate(min_documents=2, min_share=0.1))["text"]


def test_a_document_of_boilerplate_alone_is_left_empty() -> None:
    shard = frames([[("web", FOOTER)] * 12])[0]
    kept, dropped = boilerplate.drop(shard, found([shard], Boilerplate()))
    assert kept["text"].to_list() == [""] * 12
    assert len(dropped) == 12


def test_no_documents_have_no_boilerplate() -> None:
    empty = frames([[]])[0]
    told = found([empty], Boilerplate())
    assert told.is_empty()
    assert boilerplate.drop(empty, told)[0].equals(empty)
