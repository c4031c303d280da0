"""Text predicted by counts, against the same rule written out byte by byte."""

from collections import Counter

import numpy as np
import pytest

from bantam.judge import ngram, squeezed

TEXTS = ["abracadabra abracadabra", "the cat sees the dog", "", "a"]
UNSEEN = ["abra sees the cat", "zzz", "é"]


def by_hand(text: str, order: int) -> list[float]:
    """Witten and Bell's rule, contexts counted in each text by itself."""
    followers: dict[bytes, Counter[int]] = {}
    for one in TEXTS:
        data = one.encode()
        for at, byte in enumerate(data):
            for length in range(min(order - 1, at) + 1):
                followers.setdefault(data[at - length : at], Counter())[byte] += 1
    found = []
    data = text.encode()
    for at, byte in enumerate(data):
        likely = 1 / 256
        for length in range(min(order - 1, at) + 1):
            if after := followers.get(data[at - length : at]):
                likely = (after[byte] + len(after) * likely) / (after.total() + len(after))
        found.append(likely)
    return found


@pytest.mark.parametrize("order", [1, 2, 4, 6])
@pytest.mark.parametrize("text", [*TEXTS[:2], *UNSEEN])
def test_probabilities_are_those_of_the_rule(order: int, text: str) -> None:
    counts = ngram.learn(TEXTS, order)
    found = ngram.probabilities(counts, np.frombuffer(text.encode(), np.uint8))
    np.testing.assert_allclose(found, by_hand(text, order), rtol=1e-12)


def test_all_bytes_together_are_one() -> None:
    counts = ngram.learn(TEXTS)
    before = np.frombuffer(b"abra", np.uint8)
    ends = [np.append(before, np.uint8(byte)) for byte in range(256)]
    assert sum(ngram.probabilities(counts, end)[-1] for end in ends) == pytest.approx(1)


def test_bits_are_those_of_whole_texts() -> None:
    counts = ngram.learn(TEXTS)
    bits = ngram.bits(counts, ["abra", ""])
    assert bits[0] == pytest.approx(-np.log2(by_hand("abra", ngram.ORDER)).sum())
    assert bits[1] == 0


def test_compression_knows_the_training_text() -> None:
    known = ["To be, or not to be, that is the question: " * 3 + "whether 'tis nobler"]
    (alone,) = squeezed.bits([], [known[0]])
    (told,) = squeezed.bits(known, [known[0]])
    assert told < alone / 2
    assert len(squeezed.bits(known, ["", "a"])) == 2
