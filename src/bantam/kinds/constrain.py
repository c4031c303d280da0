"""Answers held to a JSON Schema while they are written: what comes out parses and follows it.

llguidance turns the schema into an automaton over the model's tokens. Where it leaves no choice
the tokens are appended without asking the model; elsewhere the model is asked for its likeliest
tokens and the likeliest allowed one is taken. An answer that has used up its tokens is closed: of
what is allowed, what ends it soonest is taken.
"""

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import llguidance
import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from bantam.errors import JobFailed
from bantam.formats.tokenizer import Tokenizer
from bantam.kinds import LONGEST_ANSWER, Choose
from bantam.kinds.grammar import Grammar

FEW = 64  # allowed tokens that are asked for by name; of more the likeliest are asked
LIKELY = 32
MOST_NAMED = 512
MOST_CLOSING = 2_000  # choices; what the grammar leaves no choice about costs nothing
# How what may come outside of a text ends an answer soonest: what is closed before what is begun.
SOONEST = b'}],n"1234567890-.ft[{'

Likeliest = Callable[[list[int], int], list[tuple[int, float]]]  # prompt, count -> (id, P), sorted
Draw = Callable[[Sequence[float]], int]  # probabilities -> the number of the one that is taken


class TooMuch(JobFailed):
    """Answers cannot be held to the schema: it is too complex, or they cannot be closed."""


@dataclass(frozen=True)
class Decoded:
    text: str
    log_probability: float  # of the tokens that were a choice, each among those allowed
    tokens: int
    asked: int  # how often the model was asked
    closed: bool  # the tokens were used up


def likeliest_of(shares: Sequence[float]) -> int:
    """The number of the largest."""
    return max(range(len(shares)), key=shares.__getitem__)


def drawing(temperature: float, top_p: float, seed: int | None) -> Draw:
    """How choices are drawn at a temperature, among the likeliest that together have `top_p`."""
    if temperature <= 0:
        return likeliest_of
    dice = random.Random(seed)  # noqa: S311

    def draw(shares: Sequence[float]) -> int:
        top = max(shares)
        warm = [(share / top) ** (1 / temperature) for share in shares]
        order = sorted(range(len(warm)), key=warm.__getitem__, reverse=True)
        left, kept = top_p * sum(warm), []
        for at in order:
            kept.append(at)
            left -= warm[at]
            if left <= 0:
                break
        return dice.choices(kept, [warm[at] for at in kept])[0]

    return draw


class _Wrapped:
    """A tokenizer in the form that llguidance takes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.eos_token_id = tokenizer.eos_id or 0
        self.bos_token_id = tokenizer.bos_id
        self.tokens = tokenizer.pieces
        self.special_token_ids = sorted(tokenizer.control | {self.eos_token_id})

    def __call__(self, text: str | bytes) -> list[int]:
        plain = text if isinstance(text, str) else text.decode()
        return self.tokenizer.encode([(plain, False)])


def vocabulary(tokenizer: Tokenizer) -> LLTokenizer:
    """A model's tokens, ready for schemas; made once a model: it takes 0.1 s for 49,000."""
    wrapped = llguidance.TokenizerWrapper(_Wrapped(tokenizer))
    return LLTokenizer(wrapped, slices=LLTokenizer.json_slices())


def close(grammar: Grammar, tell: Callable[[bytes], None] | None = None) -> str:
    """A short answer, written without a model; `tell`, and what is raised, as of `decode`."""
    byte = LLTokenizer("byte")
    return decode(lambda *_: [], lambda *_: [], [], byte, grammar, 0, tell=tell).text


def decode(
    likeliest: Likeliest,
    choose: Choose,
    prompt: Sequence[int],
    vocabulary: LLTokenizer,
    grammar: Grammar,
    max_tokens: int,
    draw: Draw = likeliest_of,
    tell: Callable[[bytes], None] | None = None,
) -> Decoded:
    """Write the answer to a prompt, each choice by `draw`.

    `tell` gets what has come since it was last called, before each question to the model and at
    the end; what it raises ends the work. After `max_tokens`, forced ones counted, the answer is
    closed as soon as the grammar lets it. Raises TooMuch if it does not let it in 2,000 choices
    or 100,000 tokens more, or is too complex.
    """
    matcher = LLMatcher(vocabulary, grammar.text, log_level=0)
    ids: list[int] = []
    log, asked, closing, closed, told = 0.0, 0, 0, False, 0
    while True:
        over = len(ids) - max_tokens
        if closing > MOST_CLOSING or over > LONGEST_ANSWER:
            raise TooMuch("an answer could not be closed", "simplify the schema")
        if forced := matcher.compute_ff_tokens():
            ids += forced
            matcher.consume_tokens(forced)
            continue
        if tell:
            tell(vocabulary.decode_bytes(ids[told:]))
            told = len(ids)
        if matcher.is_error():
            raise TooMuch(
                f"the schema is too much for the decoder: {matcher.get_error():.200}",
                "ask for less at a time",
            )
        if matcher.is_stopped():
            break
        closed = over >= 0
        if closed and matcher.is_accepting():
            break
        closing += closed
        allowed = _allowed(matcher)
        if closed and (ending := _ending(matcher, vocabulary, grammar, ids)):
            ids += ending
            matcher.consume_tokens(ending)
            continue
        if closed:
            token = _closing(vocabulary, allowed, vocabulary.decode_bytes(ids))
        else:
            whole = [*prompt, *ids]
            token, probability = _choice(likeliest, choose, whole, vocabulary, allowed, draw)
            log += math.log(max(probability, 1e-30))
            asked += 1
        if token == vocabulary.eos_token:
            break
        ids.append(token)
        matcher.consume_token(token)
    text = vocabulary.decode_bytes(ids).decode("utf-8", errors="replace")
    return Decoded(text, log, len(ids), asked, closed)


def _allowed(matcher: LLMatcher) -> NDArray[np.int64]:
    """The tokens that may come next."""
    bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
    return np.flatnonzero(bits)


def _choice(
    likeliest: Likeliest,
    choose: Choose,
    prompt: list[int],
    vocabulary: LLTokenizer,
    allowed: NDArray[np.int64],
    draw: Draw,
) -> tuple[int, float]:
    """The allowed token that is drawn, and its probability among those."""
    if len(allowed) == 1:
        return int(allowed[0]), 1.0
    if len(allowed) > FEW:
        # `allowed` is sorted; a set of it would cost more than all the rest of a step.
        told = []
        for token, share in likeliest(prompt, LIKELY):
            at = int(np.searchsorted(allowed, token))
            if at < len(allowed) and allowed[at] == token:
                told.append((token, share))
        total = sum(share for _, share in told)
        if total > 0:
            token, share = told[draw([share / total for _, share in told])]
            return token, share / total
        sizes = [len(vocabulary.decode_bytes([token])) for token in allowed.tolist()]
        allowed = allowed[np.argsort(sizes, kind="stable")[:MOST_NAMED]]
    named = allowed.tolist()
    (shares,) = choose([prompt], [named])
    drawn = draw(shares)
    return named[drawn], shares[drawn]


def _closing(vocabulary: LLTokenizer, allowed: NDArray[np.int64], so_far: bytes) -> int:
    """The allowed token that ends an answer soonest."""
    if vocabulary.eos_token in allowed:
        return int(vocabulary.eos_token)
    named: list[int] = allowed.tolist()
    written = {token: vocabulary.decode_bytes([token]) for token in named}
    least = min(map(len, written.values()))
    if _within_text(so_far):
        ends = [token for token, text in written.items() if text.startswith(b'"')]
        if ends:
            return min(ends, key=lambda token: len(written[token]))
        # A pattern wants more. Drawn, since always the first could go round in a circle.
        short = [token for token, text in written.items() if len(text) == least]
        return random.Random(len(so_far)).choice(short)  # noqa: S311

    def soon(token: int) -> tuple[int, int]:
        first = written[token].lstrip()[:1]
        return SOONEST.find(first) if first and first in SOONEST else 99, len(written[token])

    return min(written, key=soon)


def _ending(
    matcher: LLMatcher, vocabulary: LLTokenizer, grammar: Grammar, ids: list[int]
) -> list[int]:
    """Tokens that end the part of an answer which is being written, if such are known: of a text
    with a pattern what meets it, of an object its shortest one."""
    so_far = vocabulary.decode_bytes(ids)
    texts: list[str] = []
    if _within_text(so_far):
        texts += [json.dumps(text, ensure_ascii=False)[1:] for text in grammar.endings]
        # The grammar itself has begun the object where all that may stand here are objects.
        begun = so_far.rpartition(b'{"')[2].decode(errors="ignore")
        keys = [text[2:] for text in grammar.objects if len(text) > 2]
        texts += [text[len(begun) :] for text in keys if text.startswith(begun)]
    else:
        texts += grammar.objects
    for text in texts:
        tokens = vocabulary.tokenize_str(text)
        if matcher.validate_tokens(tokens) == len(tokens):
            return list(tokens)
    return []


def _within_text(json_text: bytes) -> bool:
    """Whether a JSON text ends inside a string."""
    plain = json_text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return plain.count(b'"') % 2 == 1
