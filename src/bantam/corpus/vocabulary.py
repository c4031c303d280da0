"""A vocabulary learned from texts: byte-level BPE (Sennrich et al. 2016), by `tokenizers`.

Words are cut as Llama 3 does it: transformers, llama.cpp, Ollama, MLX and vLLM know that rule, so
all of them give the tokens that training saw. A document begins with the one special token, and its
last token is followed by the next one's: the token begins and ends a text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bantam.errors import BadInput
from bantam.formats import pretokenize
from bantam.formats.token_types import CONTROL, NORMAL
from bantam.formats.tokenizer import Tokenizer

PRE = "llama-bpe"
EDGE = "<|endoftext|>"
LEAST, MOST = 512, 32_768  # tokens that are chosen unasked
BYTES_A_TOKEN = 50  # of text that a token of the vocabulary needs at least to be learned from
READ = 200_000_000  # bytes of text that a vocabulary is learned from; more change it little


def size_for(text_bytes: int) -> int:
    """The power of two below twice the square root of the text's bytes: 8,192 for 18 MB.

    A vocabulary should grow more slowly than what is spent on the model (Tao et al. 2024, arXiv
    2407.13623, find a power of 0.83 of its other parameters, which grow with the square root of
    compute at most).
    """
    wanted = int(2 * text_bytes**0.5)
    return min(MOST, max(LEAST, 1 << max(wanted, 1).bit_length() - 1))


def learn(texts: Iterable[str], size: int) -> Tokenizer:
    """A tokenizer of exactly `size` tokens: 256 bytes, the special token and merges.

    The first READ bytes of `texts` are read. Raises BadInput when the text has too few bytes for
    so many tokens, or the tokens would be fewer than the bytes there are.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if size < len(alphabet) + 1:
        raise BadInput(
            f"a vocabulary of {size} tokens has no room for the 256 bytes and the end of a text",
            "give train.vocabulary at least 257 tokens, or leave it out",
        )
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pretokenize.make(PRE)
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1, initial_alphabet=alphabet, min_frequency=2, show_progress=False
    )
    read = _Counted(texts)
    bpe.train_from_iterator(read, trainer)
    ids = bpe.get_vocab()
    most = min(len(ids) + 1, 257 + read.bytes // BYTES_A_TOKEN)
    if size > most:
        raise BadInput(
            f"{read.bytes:,} bytes of text are too few to learn a vocabulary of {size} tokens from",
            f"give more text, or train.vocabulary = {most} at most",
        )
    # The merges of a trained model are only to be had from its JSON.
    merges = json.loads(bpe.to_str())["model"]["merges"]
    return Tokenizer(_keys(sorted(ids, key=ids.__getitem__), merges), "the new vocabulary")


class _Counted:
    """Texts up to READ bytes, and how many bytes they had."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts, self.bytes = texts, 0

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.bytes += len(text.encode())
            yield text
            if self.bytes >= READ:
                return


def _keys(tokens: list[str], merges: list[list[str]]) -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": PRE,
        "tokenizer.ggml.tokens": [EDGE, *tokens],
        "tokenizer.ggml.token_type": [CONTROL] + [NORMAL] * len(tokens),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
    }


def bytes_a_token(tokenizer: Tokenizer, texts: Iterable[str]) -> float:
    """How many bytes of UTF-8 a token stands for, over all texts."""
    size = tokens = 0
    for text in texts:
        size += len(text.encode())
        tokens += len(tokenizer.encode([(text, False)]))
    return size / max(1, tokens)


def load(folder: Path) -> Tokenizer:
    """The tokenizer that was saved into a folder."""
    return Tokenizer.from_folder(folder)
