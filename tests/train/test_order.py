"""The order of examples: all of them once a pass, of like length, a function of the seed."""

from itertools import islice, pairwise

from hypothesis import given
from hypothesis import strategies as st

from bantam.train.order import batches, parts

LENGTHS = st.lists(st.integers(1, 400), min_size=1, max_size=90)


@given(LENGTHS, st.integers(1, 12), st.integers(0, 3))
def test_every_pass_has_every_example_once(lengths: list[int], size: int, seed: int) -> None:
    in_a_pass = -(-len(lengths) // size)
    stream = batches(lengths, size, seed)
    passes = [list(islice(stream, in_a_pass)) for _ in range(3)]
    for one in passes:
        assert sorted(i for batch in one for i in batch) == list(range(len(lengths)))
        assert sorted(map(len, one))[1:] == [size] * (in_a_pass - 1)
    again = batches(lengths, size, seed)
    assert list(islice(again, 3 * in_a_pass)) == [batch for one in passes for batch in one]


def test_passes_and_seeds_differ() -> None:
    lengths = list(range(1, 65))
    stream = batches(lengths, 4, 0)
    first, second = (list(islice(stream, 16)) for _ in range(2))
    other = list(islice(batches(lengths, 4, 1), 16))
    assert first != second != other != first


def test_little_padding_and_yet_no_order_by_length() -> None:
    lengths = [1 + (i * 37) % 199 for i in range(256)]
    chosen = list(islice(batches(lengths, 8, 0), 32))
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in chosen)
    assert padded < 1.1 * sum(lengths)
    longest = [max(lengths[i] for i in batch) for batch in chosen]
    assert longest != sorted(longest)
    rises = sum(a < b for a, b in pairwise(longest))
    assert 8 <= rises <= 23


@given(LENGTHS, st.integers(1, 900))
def test_parts_are_the_batch_in_pieces_that_fit(lengths: list[int], most: int) -> None:
    found = list(parts(range(len(lengths)), lengths, most))
    assert [i for part in found for i in part] == list(range(len(lengths)))
    for part in found:
        assert len(part) == 1 or max(lengths[i] for i in part) * len(part) <= most
    for part, following in pairwise(found):  # no piece is smaller than it need be
        longest = max(lengths[i] for i in [*part, following[0]])
        assert longest * (len(part) + 1) > most
