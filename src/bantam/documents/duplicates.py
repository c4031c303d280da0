"""Documents that stand there twice: word by word the same, or nearly so.

*Exact* copies have the same words and symbols in the same order, case and white space set aside.
*Near* copies share most of their runs of five words: a MinHash signature of 112 numbers stands for
the set of these runs, documents are compared when they agree in one of 16 bands of 7, and are near
when 83 of the 112 agree, which says that they share three quarters (Broder 1997; Lee et al. 2022).
Of near copies one stays that is near to each that goes: a chain of small differences takes nothing
along. With 14 bands of 8 a tenth of the pairs that share 0.75 to 0.85 would never be compared.

The signature is drawn with one permutation (Li, Owen and Zhang 2012): a run's hash says which of
the 112 numbers it may become, and the smallest becomes it. A number that no run asks for is the
smallest of all runs under a hash of its own. Any two signatures so agree in each number with the
probability of the sets' Jaccard similarity.

`sketch` looks at a shard. `find` works on all sketches together: it keeps some hundred bytes a
document in memory; the signatures, 448 bytes each, may lie in a file.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from bantam.documents import words
from bantam.documents.compiled import compiled
from bantam.documents.document import reject
from bantam.documents.words import PRIME, START, STIR, SYMBOL, Bytes, Hashes, Places, Words, stirred

GRAM = 5  # words
NUMBERS, BANDS = 112, 16
NEAR = 83  # numbers of a signature that agree; a little under 0.75, so that few are missed
COMPARED = 64  # the best documents of a band's bucket, with which all others of it are compared
NEIGHBOURS = 16  # better near copies that are remembered of a document

NOTHING = 0xFFFFFFFF  # in place of each number of a signature, of a document without words

Signatures = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Sketch:
    """What is kept of a shard's documents to compare them with all others."""

    exact: Hashes  # (documents, 2)
    signatures: Signatures  # (documents, NUMBERS); NOTHING of a document without words


def sketch(found: Words) -> Sketch:
    """The sketch of each of a shard's texts."""
    exact = np.empty((len(found), 2), np.uint64)
    _hash_texts(found.first, found.folded, exact)
    grams = np.empty(len(found.folded) + len(found), np.uint64)
    begins = np.zeros(len(found) + 1, np.int64)
    _grams(found.first, found.folded, found.kind, GRAM, grams, begins)
    signatures = np.full((len(found), NUMBERS), NOTHING, np.uint32)
    _sign(grams, begins, signatures)
    return Sketch(exact, signatures)


def find(documents: pl.DataFrame, exact: Hashes, signatures: Signatures) -> pl.DataFrame:
    """Which documents are copies of which: one row a document, in the order given.

    `documents` has `id`, `licence` (null where unknown), `words` and `symbols` (their numbers);
    `exact` and `signatures` are their sketches, and the latter may be a memory map. The best copy
    stays: with a known licence, then the longest, then the one with the fewest symbols.

    Gives `id`; `survivor`, the id of the copy that stays in its place (null where it stays itself);
    `similarity` to the survivor, 1 for an exact copy; and `cluster`, a number that all documents
    share which copies link with each other: no cluster may straddle a split.
    """
    best_first = (
        documents.with_row_index("row")
        .sort(pl.col("licence").is_null(), -pl.col("words").cast(pl.Int64), "symbols", "id")
        .get_column("row")
        .to_numpy()
        .astype(np.int64)
    )
    # From here on documents are numbered from the best to the worst.
    original = _originals(exact[best_first])
    unique = np.flatnonzero(original == np.arange(len(original)))
    unique = unique[signatures[best_first[unique], 0] != NOTHING]
    near, agreed, linked = _near(signatures, best_first[unique])

    survivor, similarity = original.copy(), np.ones(len(original))
    cluster = original.copy()
    survivor[unique], cluster[unique] = unique[near], unique[linked]
    similarity[unique] = agreed / NUMBERS
    survivor, similarity, cluster = survivor[original], similarity[original], cluster[original]

    ids = documents["id"].gather(best_first)
    stays = pl.Series(survivor == np.arange(len(survivor)))
    found = pl.DataFrame(
        {
            "row": best_first,
            "id": ids,
            "survivor": ids.gather(survivor),
            "similarity": similarity,
            "cluster": best_first[cluster],
        }
    )
    gone = pl.when(~stays)
    return found.with_columns(gone.then("survivor").alias("survivor")).sort("row").drop("row")


def mark(frame: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """The documents with reason "duplicate" or "near duplicate" where `find` knows a copy that
    stays, and value "ID" or "ID, 0.87 alike". Documents that have a reason keep it.
    """
    joined = frame.join(found, on="id", how="left", maintain_order="left")
    alike = pl.col("similarity") < 1
    reason = pl.when(alike).then(pl.lit("near duplicate")).otherwise(pl.lit("duplicate"))
    shared = pl.format("{}, {} alike", "survivor", pl.col("similarity").round(2))
    value = pl.when(alike).then(shared).otherwise("survivor")
    copy = pl.col("survivor").is_not_null()
    return reject(joined, copy, reason, value).select(frame.columns)


def clusters(texts: pl.Series) -> pl.Series:
    """For each of some texts the number of its cluster: texts that exact or near copies link with
    each other have the same. All is done in memory, for frames of up to some hundred thousand rows.
    """
    found = words.split(texts)
    drawn = sketch(found)
    count = len(texts)
    documents = pl.DataFrame(
        {"id": pl.int_range(count, eager=True).cast(pl.String), "licence": [None] * count}
    ).with_columns(words=0, symbols=0)
    return find(documents, drawn.exact, drawn.signatures)["cluster"]


def _originals(exact: Hashes) -> Places:
    """Of documents, the best first: the best that has the same hashes."""
    hashed = pl.DataFrame(exact, schema=["high", "low"]).with_row_index("at")
    first = hashed.select(pl.col("at").first().over("high", "low")).to_series()
    return first.to_numpy().astype(np.int64)


def _near(signatures: Signatures, rows: Places) -> tuple[Places, Bytes, Places]:
    """Of documents without exact copies, the best first (`rows` of the signatures): for each the
    one that stays in its place, how many permutations agree with it, and the best of its cluster.
    """
    width = NUMBERS // BANDS
    neighbours = np.full((len(rows), NEIGHBOURS), -1, np.int32)
    agreeing = np.zeros((len(rows), NEIGHBOURS), np.uint8)
    linked = np.arange(len(rows))
    keys = np.empty(len(rows), np.uint64)
    for band in range(0, NUMBERS, width):
        _hash_band(signatures, rows, band, band + width, keys)
        order = np.argsort(keys, kind="stable")  # equal keys stay in order: the best first
        _compare(signatures, rows, keys, order, NEAR, neighbours, agreeing, linked)
    near, agreed = np.arange(len(rows)), np.full(len(rows), NUMBERS, np.uint8)
    _settle(neighbours, agreeing, near, agreed, linked)
    return near, agreed, linked


@compiled
def _hash_texts(first: Places, folded: Hashes, exact: Hashes) -> None:
    """Two hashes of the tokens of each text, which no two different texts will share."""
    for text in range(len(first) - 1):
        high, low = START, np.uint64(0)
        for token in range(first[text], first[text + 1]):
            high = (high ^ folded[token]) * PRIME
            low = low * STIR + folded[token]
        exact[text, 0], exact[text, 1] = stirred(high), stirred(low)


@compiled
def _grams(
    first: Places, folded: Hashes, kind: Bytes, size: int, grams: Hashes, begins: Places
) -> None:
    """The hashes of the runs of `size` words of each text, one after the other; of a text with
    fewer words that of all its words. `begins` says where those of each text begin.
    """
    count = 0
    latest = np.zeros(size, np.uint64)  # words, the last in a ring
    for text in range(len(first) - 1):
        met = 0
        for token in range(first[text], first[text + 1]):
            if kind[token] == SYMBOL:
                continue
            latest[met % size] = folded[token]
            met += 1
            if met >= size:
                grams[count] = _gram(latest, met, size)
                count += 1
        if 0 < met < size:
            grams[count] = _gram(latest, met, met)
            count += 1
        begins[text + 1] = count


@compiled
def _gram(latest: Hashes, met: int, size: int) -> np.uint64:
    hash = np.uint64(size)
    for word in range(met - size, met):
        hash = hash * STIR + latest[word % len(latest)]
    return stirred(hash)


@compiled
def _sign(grams: Hashes, begins: Places, signatures: Signatures) -> None:
    """The signature of each text, from the hashes of its runs."""
    numbers = signatures.shape[1]
    free = np.empty(numbers, np.int64)
    factors, smallest = np.empty(numbers, np.uint64), np.empty(numbers, np.uint32)
    for text in range(len(signatures)):
        mine, signature = grams[begins[text] : begins[text + 1]], signatures[text]
        if len(mine) == 0:
            continue
        for gram in mine:
            at = ((gram >> np.uint64(32)) * np.uint64(numbers)) >> np.uint64(32)
            signature[at] = min(signature[at], np.uint32(gram))
        count = 0
        for at in range(numbers):
            if signature[at] == NOTHING:
                free[count], factors[count] = at, stirred(np.uint64(at + 1)) | np.uint64(1)
                count += 1
        smallest[:count] = NOTHING
        for gram in mine:
            for at in range(count):
                smallest[at] = min(smallest[at], np.uint32((gram * factors[at]) >> np.uint64(32)))
        for at in range(count):
            signature[free[at]] = smallest[at]


@compiled
def _hash_band(signatures: Signatures, rows: Places, begin: int, end: int, keys: Hashes) -> None:
    for at in range(len(rows)):
        key = START
        for number in signatures[rows[at], begin:end]:
            key = stirred((key ^ np.uint64(number)) * PRIME)
        keys[at] = key


@compiled
def _compare(
    signatures: Signatures,
    rows: Places,
    keys: Hashes,
    order: Places,
    least: int,
    neighbours: npt.NDArray[np.int32],
    agreeing: Bytes,
    linked: Places,
) -> None:
    """Compare the documents whose keys of a band are equal, note those that are near, link them."""
    begin = 0
    for end in range(1, len(order) + 1):
        if end < len(order) and keys[order[end]] == keys[order[begin]]:
            continue
        for one in range(begin + 1, end):
            worse = order[one]
            for other in range(begin, min(one, begin + COMPARED)):
                better = order[other]
                free = 0
                while free < NEIGHBOURS and neighbours[worse, free] not in (-1, better):
                    free += 1
                if free == NEIGHBOURS:
                    break
                if neighbours[worse, free] == better:
                    continue
                agreed = 0
                mine, others = signatures[rows[worse]], signatures[rows[better]]
                for at in range(len(mine)):
                    agreed += mine[at] == others[at]
                if agreed >= least:
                    neighbours[worse, free], agreeing[worse, free] = better, agreed
                    a, b = _root(linked, worse), _root(linked, better)
                    linked[max(a, b)] = min(a, b)
        begin = end


@compiled
def _root(linked: Places, at: int) -> int:
    """The best document of a cluster."""
    while linked[at] != at:
        linked[at] = linked[linked[at]]
        at = linked[at]
    return at


@compiled
def _settle(
    neighbours: npt.NDArray[np.int32],
    agreeing: Bytes,
    near: Places,
    agreed: Bytes,
    linked: Places,
) -> None:
    """From the best document on: one goes when it is near to one that stays, in favour of the
    nearest such.
    """
    for at in range(len(near)):
        linked[at] = _root(linked, at)
        most = 0
        for which in range(NEIGHBOURS):
            better = neighbours[at, which]
            if better >= 0 and near[better] == better and agreeing[at, which] > most:
                most = agreeing[at, which]
                near[at], agreed[at] = better, most
