"""Byte-level BPE: words cut by a rule, their bytes merged in the order of a list.

The rules follow llm_tokenizer_bpe in src/llama-vocab.cpp of llama.cpp.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import tokenizers
from tokenizers import decoders, models

from bantam.formats import pretokenize
from bantam.formats.token_types import broken

# Batches are of one text: threads of the library's own would only complain of forks.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Stands for a byte that the vocabulary lacks, so that its neighbours are not merged over it; it is
# then left out, as the runtime does. A byte-level token has no space in it.
_MISSING = "a missing byte"


class ByteLevel:
    """Ids of text that has no special tokens in it."""

    def __init__(
        self,
        ids: dict[str, int],
        control: Collection[int],
        merges: list[str],
        pre: str,
        origin: str | Path,
    ) -> None:
        """`control` are the tokens that no text may become; `pre` names the rule to cut words.

        Raises BadInput for a merge of unknown tokens.
        """
        self._ids, self._merges, self._pre, self._origin = ids, merges, pre, origin
        text = {token: id for token, id in ids.items() if id not in control}
        pairs = _pairs(merges, text, ids, origin)
        self._encoder = _library(text | {_MISSING: len(ids)}, pairs, pre, _MISSING)

    def encode(self, text: str, first: bool) -> list[int]:
        """The ids of `text`; `first`, at the start or after a special token, changes nothing."""
        # As a batch, which lets other threads run meanwhile; a single text would not.
        (told,) = self._encoder.encode_batch_fast([text], add_special_tokens=False)
        ids: list[int] = told.ids
        return [id for id in ids if id < len(self._ids)]

    def decode(self, token: str) -> bytes:
        """What a token that is not special stands for."""
        try:
            return token.translate(_BYTE_OF).encode("latin-1")
        except UnicodeEncodeError:  # a token that is no byte-level text stands for itself
            return token.encode()

    def library(self) -> tokenizers.Tokenizer:
        """The same for the `tokenizers` library, with all tokens but none of them special."""
        pairs = _pairs(self._merges, self._ids, self._ids, self._origin)
        whole = _library(self._ids, pairs, self._pre)
        whole.decoder = decoders.ByteLevel()
        return whole


def _library(
    ids: dict[str, int], pairs: list[tuple[str, str]], pre: str, unknown: str | None = None
) -> tokenizers.Tokenizer:
    whole_words = pretokenize.RULES[pre].whole_words
    bpe = models.BPE(ids, pairs, unk_token=unknown, ignore_merges=whole_words)
    encoder = tokenizers.Tokenizer(bpe)
    encoder.pre_tokenizer = pretokenize.make(pre)
    return encoder


def _pairs(
    lines: list[str], ids: dict[str, int], known: dict[str, int], origin: str | Path
) -> list[tuple[str, str]]:
    """The pairs to merge, those with a token outside `ids` left out.

    Raises BadInput when a token is not even `known`: `tokenizers` would crash on it.
    """
    pairs = []
    for line in dict.fromkeys(lines):  # of two equal merges the first counts
        left, _, right = line.partition(" ")
        if left in ids and right in ids and left + right in ids:
            pairs.append((left, right))
        elif left not in known or right not in known or left + right not in known:
            raise broken(origin, f"the merge {line[:80]!r} is not of tokens in its vocabulary")
    return pairs


def _byte_of() -> dict[int, int]:
    """The byte that each character of a byte-level token stands for (GPT-2's table)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: byte for byte in plain} | {256 + i: byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_of()
