"""Training text that holds what a model will be judged by: test rows, validation rows, benchmarks.

A document is contaminated when it shares a run of 13 words with a row, case and symbols set aside
(Brown et al. 2020, appendix C). Of a row of 8 to 12 words the whole must stand in it; a shorter row
must be the whole document. Runs that more than ten rows share are the frame of a benchmark, not its
content, and are not looked for.

`index` reads the rows, `search` finds them in a shard and tells which row, and the shared words.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from bantam.documents import words
from bantam.documents.compiled import compiled
from bantam.documents.document import reject
from bantam.documents.tables import ODD, Counts, bits_for, place
from bantam.documents.words import STIR, SYMBOL, Bytes, Hashes, Places, Words

GRAM = 13  # words
FEWEST = 8  # words of a row that is looked for within documents
MOST_ROWS = 10  # that share a run
SPARSE = 3  # marks are 2**3 times as many as places in the table

FOUND = pl.Schema(
    {
        "id": pl.String(),
        "benchmark": pl.String(),
        "row": pl.Int64(),
        "runs": pl.Int64(),
        "shared": pl.String(),
    }
)


@dataclass(frozen=True)
class Index:
    """The runs of words to look for."""

    rows: list[tuple[str, int, list[str]]]  # benchmark, number there, words
    runs: dict[int, list[tuple[int, int, int]]]  # by hash: which row, first word, one behind
    lengths: Places  # of the runs that are looked for within documents
    keys: Hashes  # the hashes once more, as a table of `tables`
    taken: Counts
    marks: Bytes  # sparse: 1 where a hash points to, so that most words need no look at the table


def index(rows: pl.DataFrame) -> Index:
    """What to look for, from rows with `benchmark` (a name), `row` (its number there) and `text`.
    Of rows with the same words the first stands for all.
    """
    found = words.split(rows["text"])
    told: list[tuple[str, int, list[str]]] = []
    runs: defaultdict[int, dict[int, tuple[int, int, int]]] = defaultdict(dict)  # by row
    lengths, seen = set(), set()
    for at, (benchmark, number, text) in enumerate(
        rows.select("benchmark", "row", "text").iter_rows()
    ):
        tokens = slice(found.first[at], found.first[at + 1])
        spoken = found.kind[tokens] != SYMBOL
        line = found.folded[tokens][spoken]
        if len(line) == 0 or line.tobytes() in seen:
            continue
        seen.add(line.tobytes())
        length = min(len(line), GRAM)
        lengths.add(length)
        for begin, run in enumerate(_runs(line, length).tolist()):
            runs[run].setdefault(len(told), (len(told), begin, begin + length))
        spelled = zip(words.WORD.findall(text), spoken, strict=True)
        told.append((benchmark, number, [word for word, is_word in spelled if is_word]))
    few = {run: list(held.values()) for run, held in runs.items() if len(held) <= MOST_ROWS}
    keys, taken, marks = _table(np.fromiter(few, np.uint64, len(few)), ODD)
    within = np.array(sorted(length for length in lengths if length >= FEWEST), np.int64)
    return Index(told, few, within, keys, taken, marks)


def search(frame: pl.DataFrame, found: Words, sought: Index) -> pl.DataFrame:
    """What a shard's documents, whose words were `found`, share with the rows: `FOUND`, one row for
    each document and row of a benchmark, with the number of runs of words that the document has of
    it, and the longest stretch of shared words as it stands in the benchmark.
    """
    ids = frame["id"]
    met = np.zeros(len(found), np.int64)
    hits = np.empty(0, np.uint64)
    for _ in range(2):  # first only counted, then noted
        _meet(
            found.first,
            found.folded,
            found.kind,
            sought.lengths,
            FEWEST,
            sought.keys,
            sought.taken,
            sought.marks,
            ODD,
            met,
            hits,
        )
        if len(hits) == met.sum():
            break
        hits = np.empty(met.sum(), np.uint64)
    told = []
    ends = np.cumsum(met)
    for at in np.flatnonzero(met).tolist():
        shared: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for run in hits[ends[at] - met[at] : ends[at]].tolist():
            for row, begin, end in sought.runs[run]:
                shared[row].append((begin, end))
        for row, stretches in sorted(shared.items()):
            benchmark, number, spelled = sought.rows[row]
            begin, end = max(_joined(stretches), key=lambda stretch: stretch[1] - stretch[0])
            told.append((ids[at], benchmark, number, len(stretches), " ".join(spelled[begin:end])))
    return pl.DataFrame(told, FOUND, orient="row")


def mark(frame: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """The documents with reason "contaminated" where `search` found one, and as value the row that
    shares most, as in "test, row 17: the shared words". Documents that have a reason keep it.
    """
    most = found.sort("runs", descending=True, maintain_order=True).unique(
        "id", keep="first", maintain_order=True
    )
    told = most.select("id", told=pl.format("{}, row {}: {}", "benchmark", "row", "shared"))
    frame = frame.join(told, on="id", how="left", maintain_order="left")
    hit = pl.col("told").is_not_null()
    return reject(frame, hit, pl.lit("contaminated"), pl.col("told")).drop("told")


def _joined(runs: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Runs, each its first word and the one behind its last, made one where they overlap."""
    begin, end = -1, -1
    for first, behind in sorted(runs):
        if first > end:
            if end > begin:
                yield begin, end
            begin, end = first, behind
        end = max(end, behind)
    yield begin, end


def _runs(line: Hashes, length: int) -> Hashes:
    """The hash of each run of so many words."""
    count = max(0, len(line) - length + 1)
    hashes = np.zeros(count, np.uint64)
    for word in range(length):
        hashes = hashes * STIR + line[word : word + count]
    return hashes


@compiled
def _table(runs: Hashes, odd: np.uint64) -> tuple[Hashes, Counts, Bytes]:
    bits = bits_for(len(runs))
    keys, taken = np.zeros(1 << bits, np.uint64), np.zeros(1 << bits, np.int32)
    marks = np.zeros(1 << (bits + SPARSE), np.uint8)
    for run in runs:
        at = place(keys, taken, bits, odd, run)
        keys[at], taken[at] = run, 1
        marks[np.int64((run * odd) >> np.uint64(64 - bits - SPARSE))] = 1
    return keys, taken, marks


@compiled
def _meet(
    first: Places,
    folded: Hashes,
    kind: Bytes,
    lengths: Places,
    fewest: int,
    keys: Hashes,
    taken: Counts,
    marks: Bytes,
    odd: np.uint64,
    met: Places,
    hits: Hashes,
) -> None:
    """Count the runs of the table that each text holds, and note them as far as there is room."""
    most, bits = 1, 0
    for text in range(len(first) - 1):
        most = max(most, first[text + 1] - first[text])
    while 1 << bits < len(keys):
        bits += 1
    shift = np.uint64(64 - bits - SPARSE)
    line, whole = np.empty(most, np.uint64), np.empty(1, np.int64)
    noted = 0
    for text in range(len(first) - 1):
        count = 0
        for token in range(first[text], first[text + 1]):
            if kind[token] != SYMBOL:
                line[count] = folded[token]
                count += 1
        whole[0] = count
        met[text] = 0
        for length in lengths if count >= fewest else whole:
            if length == 0 or length > count:
                continue
            hash, power = np.uint64(0), np.uint64(1)
            for _ in range(length):
                power *= STIR
            for at in range(count):  # a word joins, another leaves
                hash = hash * STIR + line[at]
                if at >= length:
                    hash -= power * line[at - length]
                if at + 1 < length or marks[np.int64((hash * odd) >> shift)] == 0:
                    continue
                if taken[place(keys, taken, bits, odd, hash)] != 0:
                    if noted < len(hits):
                        hits[noted] = hash
                    noted += 1
                    met[text] += 1
