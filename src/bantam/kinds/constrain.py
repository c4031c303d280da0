"""Answers held to a JSON Schema while they are written: what comes out parses and follows it.

llguidance turns the schema into an automaton over the model's tokens. Where it leaves no choice
the tokens are appended without asking the model; elsewhere the model is asked for its likeliest
tokens and the likeliest allowed one is taken. What it would take to end the answer is known at
every step (`closing`), so that it is ended within its tokens.
"""

import math
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import llguidance
import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from bantam.engine import Sampling
from bantam.formats.tokenizer import Tokenizer
from bantam.kinds import LONGEST_ANSWER, Choose, closing
from bantam.kinds.closing import Course, TooMuch
from bantam.kinds.grammar import Grammar

FEW = 64  # allowed tokens that are asked for by name; of more the likeliest are asked
LIKELY = 32
MOST_NAMED = 512

Likeliest = Callable[[list[int], int], list[tuple[int, float]]]  # prompt, count -> (id, P), sorted
Draw = Callable[[Sequence[float]], int]  # probabilities -> the number of the one that is taken


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


def drawing(sampling: Sampling) -> Draw:
    """How choices are drawn: as `Sampling` says it, but for biases and penalties."""
    if sampling.temperature <= 0:
        return likeliest_of
    dice = random.Random(sampling.seed)  # noqa: S311

    def draw(shares: Sequence[float]) -> int:
        order = sorted(range(len(shares)), key=shares.__getitem__, reverse=True)
        order = order[: sampling.top_k or None]
        top = shares[order[0]]
        warm = [(shares[at] / top) ** (1 / sampling.temperature) for at in order]
        left, count = sampling.top_p * sum(warm), 0
        while count < len(warm) and (not count or (left > 0 and warm[count] >= sampling.min_p)):
            left -= warm[count]
            count += 1
        return dice.choices(order[:count], warm[:count])[0]

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
    the end; what it raises ends the work. When what has come and what would end it together have
    `max_tokens`, forced ones counted, it is ended so; it has more only where even the shortest
    answer that is known has, or where more than 512 bytes are to come. Raises TooMuch if it cannot
    be ended in 2,000 choices or 100,000 bytes, or is too complex.
    """
    matcher = LLMatcher(vocabulary, grammar.text, log_level=0)
    ids = _forced(matcher)
    course = closing.course(grammar)
    course = course.after(vocabulary.decode_bytes(ids), max_tokens - len(ids))
    log, asked, closed, told = 0.0, 0, False, 0
    while True:
        if tell:
            tell(vocabulary.decode_bytes(ids[told:]))
            told = len(ids)
        if matcher.is_error():
            raise closing.too_complex(matcher)
        if matcher.is_stopped() or closed:
            break
        closed = len(ids) >= max_tokens
        if not closed:
            allowed = _allowed(matcher)
            whole = [*prompt, *ids]
            token, probability = _choice(likeliest, choose, whole, vocabulary, allowed, draw)
            asked += 1
            if token == vocabulary.eos_token:
                log += _log(probability)
                break
            trial = matcher.deep_copy()
            trial.consume_token(token)
            new = [token, *_forced(trial)]
            room = max_tokens - len(ids) - len(new)
            after = course.after(vocabulary.decode_bytes(new), room)
            closed = not _fits(after, trial, vocabulary, room)
        if closed:
            ids += _tokens(course.known().rest, matcher, vocabulary)
        else:
            log += _log(probability)
            ids += new
            matcher, course = trial, after
    text = vocabulary.decode_bytes(ids).decode("utf-8", errors="replace")
    return Decoded(text, log, len(ids), asked, closed)


def _log(probability: float) -> float:
    return math.log(max(probability, 1e-30))


def _forced(matcher: LLMatcher) -> list[int]:
    """The tokens that the grammar leaves no choice about, which are taken."""
    ids: list[int] = []
    while len(ids) <= LONGEST_ANSWER and (forced := matcher.compute_ff_tokens()):
        ids += forced
        matcher.consume_tokens(forced)
    return ids


def _fits(course: Course, matcher: LLMatcher, vocabulary: LLTokenizer, room: int) -> bool:
    """Whether what ends an answer has at most `room` tokens; true where that is not known."""
    if course.most <= room or matcher.is_error():  # a token has a byte at least
        return True
    try:
        return len(_tokens(course.known().rest, matcher, vocabulary)) <= room
    except TooMuch:
        return room >= 0


def _tokens(text: bytes | None, matcher: LLMatcher, vocabulary: LLTokenizer) -> list[int]:
    """What comes next as tokens, as the model would have them if possible."""
    assert text is not None
    ways = [vocabulary.tokenize_bytes(text)]
    with suppress(UnicodeDecodeError):
        ways.append(vocabulary.greedy_tokenize(text.decode()))
    for tokens in ways:
        same = vocabulary.decode_bytes(tokens) == text
        if same and matcher.validate_tokens(tokens) == len(tokens):
            return list(tokens)
    raise TooMuch("an answer could not be closed", "simplify the schema")


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
