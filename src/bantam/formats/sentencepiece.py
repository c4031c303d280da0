"""SentencePiece's BPE: characters merged to the tokens of the best scores, bytes as a last resort.

The rules follow llm_tokenizer_spm in src/llama-vocab.cpp of llama.cpp. The `tokenizers` library
ranks pairs, each by its own number, and so cannot follow scores where two are equal or a token can
be made of several pairs; the merging is done here and the words are kept, as words return.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from heapq import heappop, heappush
from itertools import pairwise
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers

from bantam.formats.token_types import BYTE, CONTROL, UNKNOWN, broken

SPACE = "▁"  # how tokens write a space, U+2581
BYTE_NAME = re.compile("<0x[0-9A-F]{2}>")  # how tokens write a byte that is no character

_MAX_KEPT = 1 << 16  # words
_MAX_WORD = 48  # characters of a word that is kept


class SentencePiece:
    """Ids of text that has no special tokens in it."""

    def __init__(
        self,
        tokens: list[str],
        types: list[int],
        scores: list[float],
        prefix: bool,
        origin: str | Path,
    ) -> None:
        """`prefix` says whether a space is put before text at the start or after a special token.

        Raises BadInput for scores that are no numbers, and for bytes without a token.
        """
        if len(scores) != len(tokens) or not set(map(type, scores)) <= {int, float}:
            raise broken(origin, f"it has {len(tokens)} tokens, but {len(scores)} scores")
        if any(map(math.isnan, scores)):
            raise broken(origin, "a score is not a number")
        self._all = {token: id for id, token in enumerate(tokens)}
        self._byte_ids = [_byte_id(byte, self._all, origin) for byte in range(256)]
        self.prefix = prefix
        # No text may become a control token or a byte's name by merging.
        barred = (UNKNOWN, CONTROL, BYTE)
        self._ids = {token: id for id, token in enumerate(tokens) if types[id] not in barred}
        self._costs = {token: -scores[id] for token, id in self._ids.items()}
        self._words = re.compile(_boundary(self._ids))
        self._kept: dict[str, list[int]] = {}

    def encode(self, text: str, first: bool) -> list[int]:
        """The ids of `text`, which stands at the start or after a special token if `first`."""
        text = SPACE * (self.prefix and first) + text.replace(" ", SPACE)
        ids: list[int] = []
        for word in self._words.split(text):
            found = self._kept.get(word)
            if found is None:
                found = self._merged(word)
                if len(word) <= _MAX_WORD:
                    if len(self._kept) == _MAX_KEPT:
                        self._kept.clear()
                    self._kept[word] = found
            ids += found
        return ids

    def _merged(self, word: str) -> list[int]:
        """The ids of a word: the neighbours of the best score are merged first, leftmost first."""
        parts = list(word)
        before = list(range(-1, len(parts)))
        after = list(range(1, len(parts) + 1))
        queue: list[tuple[float, int, int, str]] = []

        def offer(left: int, right: int) -> None:
            if left >= 0 and right < len(parts):
                whole = parts[left] + parts[right]
                cost = self._costs.get(whole)
                if cost is not None:
                    heappush(queue, (cost, left, right, whole))

        for right in range(1, len(parts)):
            offer(right - 1, right)
        while queue:
            _, left, right, whole = heappop(queue)
            if not parts[left] or not parts[right] or parts[left] + parts[right] != whole:
                continue  # one of the two has been merged with another
            parts[left], parts[right] = whole, ""
            after[left] = after[right]
            before[after[left]] = left
            offer(before[left], left)
            offer(left, after[left])

        ids: list[int] = []
        for part in filter(None, parts):
            id = self._ids.get(part)
            ids += [self._byte_ids[byte] for byte in part.encode()] if id is None else [id]
        return ids

    def decode(self, token: str) -> bytes:
        """What a normal token stands for."""
        return token.replace(SPACE, " ").encode()

    def library(self) -> tokenizers.Tokenizer:
        """The same for the `tokenizers` library, with all tokens but none of them special."""
        # Stable: of one token's pairs the one with the longest left part comes first.
        merges = sorted(pairs(self._ids), key=lambda pair: self._costs[pair[0] + pair[1]])
        bpe = models.BPE(self._all, merges, fuse_unk=True, byte_fallback=True)
        whole = tokenizers.Tokenizer(bpe)
        spaces = normalizers.Replace(" ", SPACE)
        back = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        if self.prefix:
            whole.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces])
            back.append(decoders.Strip(" ", 1, 0))
        else:
            whole.normalizer = spaces
        whole.decoder = decoders.Sequence(back)
        return whole


def pairs(tokens: Collection[str]) -> Iterator[tuple[str, str]]:
    """Every two of `tokens` that make a third, the longest left part first."""
    for token in tokens:
        for cut in range(len(token) - 1, 0, -1):
            if token[:cut] in tokens and token[cut:] in tokens:
                yield token[:cut], token[cut:]


def _boundary(tokens: Collection[str]) -> str:
    """A pattern for places that no token spans: before a space, unless tokens go on over it."""
    spanning = (token for token in tokens if SPACE in token[1:])
    joints = {a for token in spanning for a, b in pairwise(token) if b == SPACE}
    lookbehind = f"(?<![{re.escape(''.join(sorted(joints)))}])" if joints else ""
    return f"{lookbehind}(?={SPACE})"


def _byte_id(byte: int, ids: dict[str, int], origin: str | Path) -> int:
    id = ids.get(f"<0x{byte:02X}>")
    if id is None and byte < 0x80:
        id = ids.get(chr(byte))
    if id is None:
        raise broken(origin, f"it has no token for the byte 0x{byte:02X}")
    return id
