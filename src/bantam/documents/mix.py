"""The mix: how often the documents of each source are read in training, and in which order.

A source's weight is how often each of its documents is read: 1 where none is named, 2.5 for each
twice and half of them, drawn by chance, a third time; 0.5 for half of them, 0 for none. Up to four
readings are worth nearly as much as new text; from then on each is worth less, and after some forty
nothing (Muennighoff et al. 2023, "Scaling Data-Constrained Language Models").

The order has as many passes as the document that is read most often has copies. The copies of a
document are in different passes, and every pass has its share of every source. Within a pass:

shuffled    by chance, another one in each pass.
quality     by score, the best last. What is read last is remembered best, and large models are
            finished on their best data (MiniCPM, Hu et al. 2024; Llama 3, Dubey et al. 2024;
            Blakeney et al. 2024). Let the learning rate fall little meanwhile, or average the last
            checkpoints: a rate that falls to nothing wastes the best data (Luo et al. 2025).
curriculum  short and easy first: by the mean of two ranks, that of the number of words and that of
            the automated readability index, to which longer words and sentences are harder (Senter
            and Smith 1967). Readability helps most in the first part of a training (Zhang et al.
            2025, "Beyond Random Sampling"); others saw no gain at all (Campos 2021).

All is done with ids and numbers, some hundred bytes a document, and comes out equal on every
machine: chance goes by the documents' ids.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from bantam.documents.draw import drawn
from bantam.errors import BadInput

Order = Literal["shuffled", "quality", "curriculum"]
MOST = 100.0  # the largest weight
WORN = 4  # readings that are worth nearly as much as new text

Numbers = npt.NDArray[np.int64]


def mix(kept: pl.DataFrame, weights: Mapping[str, float], order: Order, seed: int) -> pl.DataFrame:
    """What is read in training, in order: `id`, `source` and `copy` (from 1), one row a reading.

    `kept` has `id` and `source`; for the order "quality" `score`, for "curriculum" `words`,
    `sentences` and `word_length` (null where words say nothing). Raises BadInput for weights that
    fit no source or leave nothing, and for documents without a score.
    """
    copies = _copies(kept, weights, seed)
    passes = int(copies.max(initial=0))
    if passes == 0:
        raise BadInput("the weights leave no document to read", "give a source a larger weight")
    row = np.repeat(np.arange(len(kept), dtype=np.uint32), copies)
    begins = np.cumsum(copies) - copies
    copy = np.arange(len(row)) - begins[row]
    # Where in the order each document begins, of 2^32; its copies follow at equal distances.
    begin = (drawn(kept["id"], seed, "begin") >> np.uint64(32)).astype(np.int64)
    which = ((copy << 32) + begin[row]) * passes // (copies[row] << 32)
    chance = np.empty(len(row), np.uint64)
    for number in range(passes):
        here = which == number
        chance[here] = drawn(kept["id"], seed, f"pass {number}")[row[here]]
    if order == "shuffled":
        read = np.lexsort((chance, which))
    else:
        key = _quality(kept) if order == "quality" else _difficulty(kept)
        read = np.lexsort((chance, key[row], which))
    return kept.select("id", "source")[row[read]].with_columns(
        copy=pl.Series(copy[read] + 1, dtype=pl.UInt8)
    )


def table(kept: pl.DataFrame, weights: Mapping[str, float], seed: int) -> pl.DataFrame:
    """What each source gives, by name: `source`, `documents`, `words`, its `weight`, how many
    documents and words are read of it with all repeats (`read_documents`, `read_words`), and its
    `share` of all words that are read.
    """
    copies = pl.Series("copies", _copies(kept, weights, seed))
    found = (
        kept.select("source", "words", copies)
        .group_by("source")
        .agg(
            pl.len().cast(pl.Int64).alias("documents"),
            pl.col("words").sum(),
            read_documents=pl.col("copies").sum(),
            read_words=(pl.col("words") * pl.col("copies")).sum(),
        )
        .sort("source")
    )
    weight = pl.Series(
        [float(weights.get(name, 1.0)) for name in found["source"]], dtype=pl.Float64
    )
    share = pl.col("read_words") / pl.max_horizontal(pl.col("read_words").sum(), 1)
    return found.with_columns(weight=weight, share=share)


def warnings(weights: Mapping[str, float]) -> list[str]:
    """What to tell somebody before they train on this mix."""
    return [
        f"source {name} is read {weight:g} times: beyond {WORN} readings a text teaches less and "
        "less, and small models begin to know it by heart"
        for name, weight in sorted(weights.items())
        if weight > WORN
    ]


def _copies(kept: pl.DataFrame, weights: Mapping[str, float], seed: int) -> Numbers:
    """How often each document is read."""
    known = set(kept["source"].unique())
    for name, weight in weights.items():
        if name not in known:
            raise BadInput(
                f'the mix gives a weight to "{name}", of which no document is kept',
                f"the sources are {', '.join(sorted(known))}",
            )
        if not 0 <= weight <= MOST:
            raise BadInput(f'the weight of "{name}" is {weight:g}', f"give one from 0 to {MOST:g}")
    copies = np.zeros(len(kept), np.int64)
    chance = drawn(kept["id"], seed, "share")
    for name in sorted(known):
        whole, part = divmod(float(weights.get(name, 1.0)), 1.0)
        here = (kept["source"] == name).arg_true().to_numpy()
        copies[here] = int(whole)
        more = round(part * len(here))
        copies[here[np.argsort(chance[here], kind="stable")[:more]]] += 1
    return copies


def _quality(kept: pl.DataFrame) -> npt.NDArray[np.float64]:
    if "score" not in kept.columns or kept["score"].null_count():
        raise BadInput(
            "documents cannot be ordered by quality without a score",
            'let one be learned, or take order = "shuffled"',
        )
    return kept["score"].to_numpy()


def _difficulty(kept: pl.DataFrame) -> npt.NDArray[np.float64]:
    """From 0 for what is shortest and easiest to 1. Of a text whose words say nothing, because its
    script has no spaces, the length alone."""
    a_sentence = pl.col("words") / pl.max_horizontal("sentences", 1)
    hardness = 4.71 * pl.col("word_length") + 0.5 * a_sentence
    long = pl.col("words").rank() / pl.len()
    hard = hardness.rank() / hardness.count()
    return kept.select((long + hard.fill_null(long)) / 2).to_series().to_numpy()
