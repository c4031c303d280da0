"""What follows each token, learned before anything else: from counts over all of the text.

The blocks of a fresh decoder change nothing, so it is a function of one token: table, first MLP,
head. What that should say is known from counting neighbours, which reads millions of tokens in a
second where training reads hundreds. A step here learns all that ever followed some hundreds of
tokens, at once and without the other layers; training goes on from there, with the context left to
learn.

Counts are smoothed towards how frequent each token is (MacKay & Peto 1995), as much as foretells
other documents best. Frequent tokens are drawn more often for a step and weigh less in it, so that
the mean over steps is the loss over the text (systematic sampling, Madow 1949).
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from bantam.corpus.shards import Corpus, Numbers
from bantam.nets.decoder import Decoder, DecoderConfig
from bantam.train.loop import check_finite
from bantam.train.optimizers import optimizers

MOST = 50_000_000  # tokens that are counted
AT_ONCE = 1 << 22  # of them
ROWS = 512  # tokens whose followers a step learns
RATE, MATRIX_RATE = 1e-2, 0.02  # AdamW's, of the table, and Muon's
WARMUP = 5  # steps
COOLDOWN = 0.5  # of the steps, in which the rates fall to nothing
TRUST = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)  # counts that mere frequency is worth
Report = Callable[[int, float], None]  # steps done, the last one's loss in nats
Step = Callable[[Numbers, NDArray[np.float32], NDArray[np.float32], float], float]


class Followers(NamedTuple):
    """What follows which token, and how often."""

    counts: csr_array  # [vocabulary, vocabulary]
    usual: NDArray[np.float32]  # shares of all tokens, [vocabulary]
    trust: float  # counts that `usual` is worth

    def shares(self, ids: Numbers) -> NDArray[np.float32]:
        """How often each token is to be expected after each of `ids`, [ids, vocabulary]."""
        found = self.counts[ids].toarray() + self.trust * self.usual
        shares: NDArray[np.float32] = found / found.sum(1, keepdims=True)
        return shares


def followers(corpus: Corpus, documents: Numbers, vocab_size: int) -> Followers:
    """Counted in the documents of these numbers, of so many of them that they have about MOST
    tokens. What counts are worth is what those of the others say of every tenth document."""
    documents = documents[:: math.ceil(corpus.lengths[documents].sum() / MOST)]
    tenth = np.arange(len(documents)) % 10 == 0
    others, held = (_counts(corpus, documents[some], vocab_size) for some in (~tenth, tenth))
    counts = others + held
    usual = counts.sum(0) + 0.5  # so that nothing is impossible
    made = Followers(others, (usual / usual.sum()).astype(np.float32), TRUST[0])
    trust = max(TRUST, key=lambda each: _foretold(made._replace(trust=each), held))
    return made._replace(counts=counts, trust=trust)


def _counts(corpus: Corpus, documents: Numbers, vocab_size: int) -> csr_array:
    counts = csr_array((vocab_size, vocab_size), dtype=np.float32)
    for ids in _joined(corpus, documents):
        ones = np.ones(len(ids) - 1, np.float32)
        counts = counts + csr_array((ones, (ids[:-1], ids[1:])), counts.shape)
    return counts


def _foretold(made: Followers, held: csr_array) -> float:
    """The log-probability of other counts."""
    found = held.tocoo()
    before, after = found.coords
    seen = np.asarray(made.counts[before, after]).ravel() + made.trust * made.usual[after]
    all_of_them = np.asarray(made.counts.sum(1)).ravel()[before] + made.trust
    return float(found.data @ np.log(seen / all_of_them))


def _joined(corpus: Corpus, documents: Numbers) -> Iterator[Numbers]:
    """The documents' ids one after another, AT_ONCE of them or a little more at a time."""
    ends = np.cumsum(corpus.lengths[documents]) // AT_ONCE
    for some in np.split(documents, np.flatnonzero(np.diff(ends)) + 1):
        if len(some):
            yield np.concatenate([corpus.document(number) for number in some]).astype(np.int64)


def learn(
    decoder: Decoder,
    found: Followers,
    steps: int,
    precision: str,
    seed: int = 0,
    report: Report = lambda done, loss: None,
) -> None:
    """Teach a fresh decoder, in place, what follows each token. Raises JobFailed if it diverges."""
    take = step_of(decoder, precision)
    chance = np.random.default_rng(seed)
    often = np.asarray(found.counts.sum(1)).ravel()
    there = np.flatnonzero(often)
    share = often[there] / often.sum()
    inclusion = _inclusion(np.sqrt(share), min(ROWS, len(there)))
    for step in range(steps):
        drawn = _drawn(chance, inclusion)
        weights = (share[drawn] / inclusion[drawn]).astype(np.float32)
        falling = (steps - step) / max(1.0, COOLDOWN * steps)
        rates = min(1.0, (step + 1) / WARMUP, falling)
        ids = there[drawn]
        report(step + 1, take(ids, found.shares(ids), weights, rates))


def step_of(decoder: Decoder, precision: str) -> Step:
    """A function that takes one step with ids [n], what should follow each [n, vocabulary], how
    much each weighs [n] and a share of the rates, and returns the loss."""
    first = decoder.model.layers[0]
    learned = [decoder.model.embed_tokens, first.mlp_norm, first.mlp, decoder.model.norm]
    decoder.requires_grad_(False)
    for part in learned:
        part.requires_grad_(True)
    parameters = [p for p in decoder.parameters() if p.requires_grad]
    movers = optimizers(decoder, "muon", precision, RATE, MATRIX_RATE, 0.0)
    where = decoder.lm_head.weight.device

    def take(
        ids: Numbers, shares: NDArray[np.float32], weights: NDArray[np.float32], rates: float
    ) -> float:
        for mover in movers:
            for group in mover.param_groups:
                group["lr"] = group["full"] * rates
        wanted, weight = (torch.from_numpy(some).to(where) for some in (shares, weights))
        with torch.autocast(where.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = decoder.lm_head(states(decoder, torch.from_numpy(ids).to(where)))
        loss = F.cross_entropy(logits.float(), wanted, reduction="none") @ weight
        loss.backward()  # type: ignore[no-untyped-call]
        check_finite(value := loss.item(), RATE)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for mover in movers:
            mover.step()
            mover.zero_grad()
        return value

    return take


def operations(c: DecoderConfig) -> float:
    """Floating-point operations of a step."""
    return 6.0 * ROWS * c.width * (c.vocab_size + 3 * c.hidden_width)


def seconds(decoder: Decoder, precision: str) -> float:
    """That a step takes, tried with a decoder that is of no use afterwards."""
    size = decoder.config.vocab_size
    none = Followers(csr_array((size, size), dtype=np.float32), np.full(size, 1 / size, "f4"), 1.0)
    ids = np.arange(min(ROWS, size))
    take, taken = step_of(decoder, precision), []
    for _ in range(3):  # the first of them does what is done once only
        began = time.perf_counter()
        take(ids, none.shares(ids), np.full(len(ids), 1 / len(ids), "f4"), 1.0)
        taken.append(time.perf_counter() - began)
    return min(taken)


def states(decoder: Decoder, ids: Tensor) -> Tensor:
    """The final states of tokens [n] as long as only the first MLP changes anything, [n, width]."""
    first: Any = decoder.model.layers[0]
    x = decoder.model.embed_tokens(ids)
    x = x + first.mlp(first.mlp_norm(x))
    found: Tensor = decoder.model.norm(x)
    return found


def _inclusion(wish: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The chances, in proportion to a wish but none above 1, by which `count` are drawn."""
    chances = np.zeros(len(wish))
    sure = np.zeros(len(wish), bool)
    while True:
        chances[~sure] = wish[~sure] * (count - sure.sum()) / wish[~sure].sum()
        if not (more := chances > 1).any():
            return chances
        sure |= more
        chances[sure] = 1.0
        if sure.all():
            return chances


def _drawn(chance: np.random.Generator, inclusion: NDArray[np.float64]) -> Numbers:
    """Indices, each with its chance, always as many as the chances' sum."""
    order = chance.permutation(len(inclusion))
    ends = np.cumsum(inclusion[order])
    marks = np.arange(round(ends[-1])) + chance.random()
    # Rounding may put the last mark behind the end.
    found: Numbers = order[np.minimum(np.searchsorted(ends, marks), len(order) - 1)]
    return found
