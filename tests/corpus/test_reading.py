"""Shards and the order in which they are read."""

from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

import tiny_corpus
from bantam.corpus import shards
from bantam.corpus.reading import Reading, positions
from bantam.corpus.shards import Corpus
from bantam.errors import BadInput

TEXTS = tiny_corpus.texts(60, 3)
TOKENIZER = tiny_corpus.tokenizer()
CONTEXT = 16


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return tiny_corpus.corpus(tmp_path, TOKENIZER, TEXTS[:20], ["", *TEXTS[20:50]], [], TEXTS[50:])


def test_documents_come_back(corpus: Corpus, tmp_path: Path) -> None:
    for found in (corpus, shards.read(tmp_path)):
        assert len(found) == len(TEXTS)
        for number, text in enumerate(TEXTS):
            ids = found.document(number)
            assert ids[0] == found.edge == 0
            assert TOKENIZER.decode(ids.tolist()) == text
        assert found.bytes == sum(len(text.encode()) for text in TEXTS)
        assert found.shards[0].dtype == np.uint16


def test_processes_write_the_same(corpus: Corpus, tmp_path: Path) -> None:
    from functools import partial

    sources = [partial(list, TEXTS[:20]), partial(list, TEXTS[20:])]
    other = shards.write(tmp_path / "2", sources, TOKENIZER, workers=2)
    assert [other.document(i).tolist() for i in range(60)] == [
        corpus.document(i).tolist() for i in range(60)
    ]


def test_a_corpus_that_is_torn_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "00001.tokens"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(BadInput, match="no whole corpus"):
        shards.read(tmp_path)


def test_a_pass_has_every_token_once(corpus: Corpus) -> None:
    reading = Reading(corpus, CONTEXT, seed=1)
    one = np.stack([batch[0] for batch in islice(reading.batches(1), reading.rows)])
    other = np.stack([b[0] for b in islice(reading.batches(1, reading.rows), reading.rows)])
    everything = np.bincount(np.concatenate([corpus.document(i) for i in range(60)]))
    for rows in (one, other):
        found = np.bincount(rows[:, :-1].ravel(), minlength=len(everything))
        assert ((everything - found) >= 0).all()
        assert everything.sum() - found.sum() <= CONTEXT  # the rest of a row
    assert not np.array_equal(one, other)


def test_rows_are_pieces_of_documents(corpus: Corpus) -> None:
    whole = {tuple(corpus.document(i).tolist()) for i in range(60)}
    for batch in islice(Reading(corpus, 200, seed=2).batches(2), 5):
        for row in batch.tolist():
            edges = [i for i, id in enumerate(row) if id == 0]
            for begin, end in pairwise(edges):
                assert tuple(row[begin:end]) in whole


@pytest.mark.parametrize("begin", [0, 1, 7, 30, 61])
def test_it_goes_on_anywhere(corpus: Corpus, begin: int) -> None:
    reading = Reading(corpus, CONTEXT, seed=5)
    all_of_it = list(islice(reading.batches(3), begin + 4))
    np.testing.assert_array_equal(
        np.stack(list(islice(reading.batches(3, begin), 4))), np.stack(all_of_it[begin:])
    )


def test_an_order_is_kept_but_for_neighbours(corpus: Corpus) -> None:
    order = np.repeat(np.arange(60), 20)
    reading = Reading(corpus, CONTEXT, seed=0, order=order, kept=True)
    assert reading.tokens == 20 * corpus.tokens
    last = {tuple(corpus.document(59).tolist())}
    rows = np.concatenate(list(islice(reading.batches(1), reading.rows)))
    edges = np.flatnonzero(rows[-1] == 0)
    if len(edges) > 1:
        assert tuple(rows[-1][edges[0] : edges[1]].tolist()) in last


def test_positions_begin_anew() -> None:
    ids = np.array([[5, 6, 0, 7, 8, 0, 0, 9], [0, 1, 2, 3, 4, 5, 6, 7]])
    assert positions(ids, 0).tolist() == [[0, 1, 0, 1, 2, 0, 0, 1], [0, 1, 2, 3, 4, 5, 6, 7]]
