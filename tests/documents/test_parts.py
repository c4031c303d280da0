from itertools import groupby

from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.documents.document import document, frame, whole
from bantam.documents.parts import SIZE, Fault, Part, parted

PIECES = st.builds(
    lambda text, times, name: Part(text * times, name),
    st.text(alphabet="ab \n", min_size=1, max_size=40),
    st.integers(1, 60_000),
    st.sampled_from([None, "row 1", "row 2"]),
)


@settings(max_examples=30)
@given(st.lists(PIECES, max_size=4))
def test_pieces_hold_what_was_read_and_no_more_than_fits(parts: list[Part]) -> None:
    found = [part for part in parted(parts) if isinstance(part, Part)]
    assert all(len(part.text) <= SIZE and part.text.strip() for part in found)
    told = [
        "".join("".join(part.text for part in group).split())
        for _, group in groupby(parts, lambda part: part.name)
    ]
    back = [
        "".join("".join(part.text for part in group).split())
        for _, group in groupby(found, lambda part: (part.name or "").partition("piece")[0])
    ]
    assert "".join(told) == "".join(back)


def test_a_long_text_is_cut_where_a_paragraph_ends() -> None:
    paragraph = "x" * 999 + "\n\n"
    first, second, third = parted([Part(paragraph * 1000), Part(paragraph * 1500)])
    assert [part.name for part in (first, second, third)] == ["piece 1", "piece 2", "piece 3"]
    assert first.text.endswith("x\n\n") and second.text.startswith("x")
    assert len(first.text) > SIZE - 2000


def test_a_text_without_an_end_of_anything_is_cut_all_the_same() -> None:
    pieces = list(parted([Part("x" * (3 * SIZE + 5), "row 1")]))
    assert [len(part.text) for part in pieces if isinstance(part, Part)] == [SIZE] * 3 + [5]
    assert [part.name for part in pieces][-1] == "row 1, piece 4"


def test_a_fault_stands_between_parts() -> None:
    parts = [Part("a", "row 1"), Fault("row 2", "bad"), Part(" ", "row 3"), Part("c", "row 4")]
    assert list(parted(parts)) == [parts[0], parts[1], parts[3]]


def test_an_id_tells_places_and_texts_apart() -> None:
    rows = [
        document("a", "s", "p", None, None, "0"),
        document("a", "s", "p", "page 1", None, "0"),
        document("b", "s", "p", None, None, "0"),
        document("a", "s", "q", None, None, "0"),
        document("a", "t", "p", None, None, "0"),
    ]
    assert len({row["id"] for row in rows}) == 5
    assert frame(rows)["id"].str.len_chars().to_list() == [16] * 5
    assert frame(rows)["licence"].null_count() == 5


def test_halves_of_characters_are_joined_or_replaced() -> None:
    assert whole("\ud83d\ude00 \ud800 x") == "😀 \ufffd x"
    assert frame([document("\ud800", "s", "p", None, None, "0")])["text"].to_list() == ["\ufffd"]
