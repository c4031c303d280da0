"""Bits per byte of a decoder on documents: how well it predicts text, whatever its tokens are.

Every byte of a document counts; that it ends does not. Documents longer than the context are read
in windows, the first token of which is known from the window before.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bantam.corpus.shards import Corpus
from bantam.nets.choose import pad
from bantam.nets.decoder import Decoder

AT_ONCE = 4096  # tokens in a batch
LOGITS_AT_ONCE = 1 << 23


def bits_per_byte(decoder: Decoder, corpus: Corpus, context: int, most: int | None = None) -> float:
    """Over the documents together, of which the first are taken up to `most` tokens."""
    taken = first(corpus, most)
    bits = document_bits(decoder, corpus, context, taken)
    return float(bits.sum() / corpus.sizes[:taken].sum())


def first(corpus: Corpus, most: int | None) -> int:
    """How many of the first documents have `most` tokens; one at least."""
    if most is None:
        return len(corpus)
    return max(1, int(np.searchsorted(np.cumsum(corpus.lengths), most, side="right")))


def document_bits(
    decoder: Decoder, corpus: Corpus, context: int, count: int | None = None
) -> NDArray[np.float64]:
    """The bits that each of the first `count` documents takes, [count]; divided by its bytes
    (`corpus.sizes`) they are its bits per byte."""
    count = len(corpus) if count is None else count
    return bits_of(decoder, [corpus.document(i).tolist() for i in range(count)], context)


@torch.no_grad()
def bits_of(
    decoder: Decoder, documents: Sequence[Sequence[int]], context: int
) -> NDArray[np.float64]:
    """The same for ids; each document's first one is given and takes no bits."""
    where = decoder.lm_head.weight.device
    windows = [
        (number, document[begin : begin + context + 1])
        for number, document in enumerate(documents)
        for begin in range(0, len(document) - 1, context)
    ]
    windows.sort(key=lambda window: len(window[1]))
    bits = np.zeros(len(documents))
    rows = max(1, LOGITS_AT_ONCE // decoder.config.vocab_size)
    begin = 0
    while begin < len(windows):
        end = begin + 1
        while end < len(windows) and len(windows[end][1]) * (end + 1 - begin) <= AT_ONCE:
            end += 1
        batch = [list(ids) for _, ids in windows[begin:end]]
        states = decoder.states(pad([ids[:-1] for ids in batch], where))
        targets = torch.tensor([id for ids in batch for id in ids[1:]], device=where)
        real = torch.cat([states[row, : len(ids) - 1] for row, ids in enumerate(batch)])
        pieces = [slice(at, at + rows) for at in range(0, len(real), rows)]
        losses = [
            F.cross_entropy(decoder.logits(real[piece]), targets[piece], reduction="none")
            for piece in pieces
        ]
        of = [number for number, ids in windows[begin:end] for _ in ids[1:]]
        lost = torch.cat(losses).cpu().double()  # MPS has no float64
        np.add.at(bits, of, lost.numpy() / math.log(2))
        begin = end
    return bits
