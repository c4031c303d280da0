"""Some small documents, their vocabulary and shards, and a tiny decoder for them."""

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bantam.corpus import shards, vocabulary
from bantam.corpus.shards import Corpus
from bantam.formats.tokenizer import Tokenizer

WORDS = ["the", "cat", "dog", "house", "sees", "finds", "likes", "small", "large", "red", "never"]
WORDS += ["garden", "window", "yesterday", "morning", "quickly", "where", "under", "between"]
SIZE = 350  # tokens


def texts(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return [
        "\n".join(
            " ".join(chance.choices(WORDS, k=chance.randint(2, 9))).capitalize() + "."
            for _ in range(chance.randint(1, 6))
        )
        for _ in range(count)
    ]


def tokenizer(read: Sequence[str] = (), size: int = SIZE) -> Tokenizer:
    return vocabulary.learn(read or texts(300, 0), size)


def corpus(folder: Path, made: Tokenizer, *parts: Sequence[str]) -> Corpus:
    return shards.write(folder, [partial(list, part) for part in parts], made, workers=1)
