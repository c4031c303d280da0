"""Whether the untuned base knows the language that it is to be tuned on.

Bits per byte or per character cannot tell: a Chinese character has three bytes and says as much as
a short word. So the base is held against the simplest reader of the same texts, which knows only
how often each character comes. Who knows a language needs far fewer bits than that.
"""

import math
from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from bantam.formats.tokenizer import Tokenizer
from bantam.nets.choose import pad
from bantam.nets.decoder import Decoder

SAMPLE = 64  # texts
LONGEST = 128  # tokens of a text
# SmolLM2-135M, which knows English: 0.34 to 0.54 on English of all sorts, 0.56 to 0.62 on Spanish
# and French, 0.63 and more on German, 0.8 and more on Greek, Hindi and Chinese (docs/LOG.md).
BOUND = 0.6


@torch.no_grad()
def surprise(decoder: Decoder, tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """The bits that the decoder needs for texts, as a share of what counting characters needs.

    Over up to 64 texts from all parts of `texts`, each cut to 128 tokens; a text's first token,
    which nothing foretells, is left out. About 1 means that the decoder knows nothing of them. 0
    when there is nothing to measure.
    """
    some = texts[:: math.ceil(len(texts) / SAMPLE)] if texts else []
    encoded = (tokenizer.encode([(text, False)])[:LONGEST] for text in some)
    rows = [ids for ids in encoded if len(ids) > 1]
    read = [tokenizer.decode(ids) for ids in rows]
    counted = _entropy("".join(read))
    foretold = sum(map(len, read)) - sum(len(tokenizer.decode(ids[:1])) for ids in rows)
    if not counted or not foretold:
        return 0.0
    where = decoder.lm_head.weight.device
    start = tokenizer.start  # without it some bases are at a loss
    begun = decoder.states(pad([start + ids for ids in rows], where))[:, len(start) :]
    bits = 0.0
    for ids, states in zip(rows, begun, strict=True):
        logits = decoder.logits(states[: len(ids) - 1])
        wanted = torch.tensor(ids[1:], device=where)
        bits += F.cross_entropy(logits, wanted, reduction="sum").item() / math.log(2)
    return bits / foretold / counted


def warning(share: float) -> str | None:
    """What to tell of `surprise`; None when the base knows such texts."""
    if share < BOUND:
        return None
    return (
        f"the base hardly knows texts like these: it needs {share:.0%} of the bits that counting "
        "their characters needs, for a language that it was made for it is about half or less. "
        "If they are in another language, name a base that was trained on it in base.model"
    )


def _entropy(text: str) -> float:
    """Bits a character when only the characters' frequencies are known."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)
