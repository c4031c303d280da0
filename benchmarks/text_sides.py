"""The other side of `benchmarks/text.py`: datatrove's rules and MinHash, in a Python of its own.

    PYTHON text_sides.py CORPUS.jsonl WORDS.txt OUT.json

CORPUS has a document a line, {"id", "text"}; WORDS the pattern that finds words. datatrove is given
our words, and our sentences to count, so that only the engines differ: its own words are spaCy's
(790 MB), which are ten times slower. One process, one core.
"""

import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from struct import iter_unpack

import datatrove.pipeline.dedup.minhash as minhash
import datatrove.pipeline.filters.c4_filters as c4
import datatrove.utils.word_tokenizers as tokenizers
import regex
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

SENTENCE = regex.compile(
    r"""(?V1)(?<=[.?!][\p{Pe}\p{Pf}"'.?!]*)\s+|(?<=[\p{Sentence_Terminal}--[.?!]])"""
)
LETTER = regex.compile(r"[\p{L}\p{M}\p{N}]")


class OurWords:
    def __init__(self, pattern: str) -> None:
        self.word_tokenize = regex.compile(pattern).findall


def main() -> None:
    corpus, pattern, out = map(Path, sys.argv[1:])
    with corpus.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    words = OurWords(pattern.read_text("utf-8"))
    tokenizers.load_word_tokenizer = minhash.load_word_tokenizer = lambda language: words
    c4.split_into_sentences = lambda text, language: list(
        filter(LETTER.search, SENTENCE.split(text))
    )
    rules = {
        "repetition": GopherRepetitionFilter(),
        "gopher": GopherQualityFilter(),
        "c4": C4QualityFilter(filter_no_terminal_punct=False, min_words_per_line=-1),
        "fineweb": FineWebQualityFilter(),
    }
    seconds = dict.fromkeys(rules, 0.0)
    dropped: dict[str, dict[str, str]] = {name: {} for name in rules}
    for row in rows:
        for name, rule in rules.items():  # a document at a time: its words are then found once
            document, began = Document(text=row["text"], id=row["id"]), time.process_time()
            told = rule.filter(document) if document.text else (False, "empty")
            seconds[name] += time.process_time() - began
            if told is not True:
                dropped[name][document.id] = told[1]
    documents = [Document(text=row["text"], id=row["id"]) for row in rows]
    began = time.process_time()
    removed, clusters = near([document for document in documents if document.text])
    seconds["near duplicates"] = time.process_time() - began
    told = {"seconds": seconds, "dropped": dropped, "removed": removed, "clusters": clusters}
    out.write_text(json.dumps(told), "utf-8")


def near(documents: list[Document]) -> tuple[list[str], list[list[str]]]:
    """The ids that are removed, and those of each cluster."""
    with tempfile.TemporaryDirectory() as folder:
        drawn, pairs, found = (f"{folder}/{name}" for name in ("drawn", "pairs", "found"))
        config = minhash.MinhashConfig()
        minhash.MinhashDedupSignature(drawn, config).run(iter(documents))
        for bucket in range(config.num_buckets):
            step = minhash.MinhashDedupBuckets(drawn, pairs, config=config)
            step.run(None, bucket, config.num_buckets)
        minhash.MinhashDedupCluster(pairs, found, config, save_cluster_id=True).run(None, 0, 1)
        gone = [at for (at,) in iter_unpack("<I", Path(f"{found}/000000.remove").read_bytes())]
        clusters: defaultdict[int, list[str]] = defaultdict(list)
        for at, cluster in iter_unpack("<2I", Path(f"{found}/000000.clusters").read_bytes()):
            clusters[cluster].append(documents[at].id)
    return [documents[at].id for at in gone], list(clusters.values())


if __name__ == "__main__":
    sys.setrecursionlimit(100_000)
    main()
