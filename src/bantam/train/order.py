"""Which examples make up which step: a pure function of the seed, so that a run can be resumed."""

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

WINDOW = 16  # batches sorted by length together: little padding, still a random order


def batches(lengths: Sequence[int], batch_size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of example numbers, pass after pass, each of texts of like length.

    `lengths` are tokens an example. Every example comes once a pass; the last batch of a pass may
    be smaller.
    """
    chance = random.Random(seed)  # noqa: S311
    while True:
        order = list(range(len(lengths)))
        chance.shuffle(order)
        passed: list[list[int]] = []
        for start in range(0, len(order), batch_size * WINDOW):
            window = order[start : start + batch_size * WINDOW]
            window.sort(key=lambda i: lengths[i])
            passed += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
        chance.shuffle(passed)
        yield from passed


def parts(batch: Sequence[Item], lengths: Sequence[int], most: int) -> Iterator[list[Item]]:
    """A batch in pieces of at most `most` tokens, padding counted, but one item at least.

    `lengths` are tokens an item; a batch whose items are sorted by length is padded least.
    """
    begin = 0
    while begin < len(batch):
        end = begin + 1
        while end < len(batch) and max(lengths[begin : end + 1]) * (end + 1 - begin) <= most:
            end += 1
        yield list(batch[begin:end])
        begin = end
