"""Stop strings are found whatever pieces a text comes in, and nothing of them is told."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bantam.engine.writing import Text

PIECES = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=12)
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3, unique=True)


def told(pieces: Sequence[str], stops: Sequence[str]) -> tuple[list[str], list[Any], str | None]:
    """What is told after each piece and at the end, the tokens with it, and the stop string."""
    text, said, tokens = Text(list(stops)), [], []
    for number, piece in enumerate(pieces):
        some, with_it = text.add(piece, [[number, piece]])
        said.append(some)
        tokens += with_it
        if text.stop is not None:
            return said, tokens, text.stop
    some, with_it = text.rest()
    return [*said, some], tokens + with_it, None


def cut(pieces: Sequence[str], stops: Sequence[str]) -> tuple[str, str | None]:
    """The text up to the first stop string that is in it once a piece has come, by trying."""
    whole = ""
    for piece in pieces:
        whole += piece
        if there := [(whole.index(stop), stop) for stop in stops if stop in whole]:
            end, stop = min(there)
            return whole[:end], stop
    return whole, None


@given(PIECES, STOPS)
def test_a_text_is_cut_at_its_first_stop_string(pieces: list[str], stops: list[str]) -> None:
    said, tokens, stop = told(pieces, stops)
    assert ("".join(said), stop) == cut(pieces, stops)
    # Each token comes with the piece in which its text begins.
    length, begun = len("".join(said)), []
    for number, piece in enumerate(pieces):
        if sum(map(len, pieces[:number])) < length:
            begun.append([number, piece])
    assert tokens == begun


@given(st.text("ab\n", max_size=30), st.text("ab\n", min_size=1, max_size=4), st.data())
def test_one_stop_string_is_found_wherever_the_text_is_parted(
    whole: str, stop: str, data: st.DataObject
) -> None:
    ends = data.draw(st.lists(st.integers(0, len(whole)), max_size=8).map(sorted))
    pieces = [whole[a:b] for a, b in zip([0, *ends], [*ends, len(whole)], strict=True)]
    said, _, found = told(pieces, [stop])
    before, mark, _ = whole.partition(stop)
    assert ("".join(said), found) == (before, mark or None)


@given(PIECES, STOPS)
def test_no_more_is_kept_back_than_may_begin_a_stop_string(
    pieces: list[str], stops: list[str]
) -> None:
    said, _, stop = told(pieces, stops)
    for number in range(1, len(said) - 1 if stop is None else len(said)):
        there, sent = "".join(pieces[:number]), "".join(said[:number])
        kept = there[len(sent) :]
        assert not kept or any(one.startswith(kept) for one in stops)
