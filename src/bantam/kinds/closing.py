"""How an answer that has to end is ended: by a short text that completes its JSON.

It is found byte by byte, by an automaton over the 256 bytes in place of a model's tokens: that
takes a hundredth of the time, so that it can be known at every step what an end would take.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

from llguidance import LLMatcher, LLTokenizer

from bantam.errors import JobFailed
from bantam.kinds import LONGEST_ANSWER
from bantam.kinds.grammar import Grammar

MOST_CHOICES = 2_000  # what the grammar leaves no choice about costs nothing
LONG = 512  # bytes of an end that is not looked for at every step
# How what may come outside of a text ends an answer soonest: what is closed before what is begun.
SOONEST = b'}],n"1234567890-.ft[{'

Look = Callable[[], None]


class TooMuch(JobFailed):
    """Answers cannot be held to the schema: it is too complex, or they cannot be closed."""


@dataclass(frozen=True)
class Course:
    """An answer on its way, and what ends it: `rest`, or None where that was not found or not
    looked for. Then it takes about `most` bytes."""

    grammar: Grammar
    matcher: LLMatcher
    text: bytes
    rest: bytes | None
    most: float

    def after(self, new: bytes, room: int) -> Course:
        """With `new` more, where `room` tokens are left for an end."""
        matcher = self.matcher.deep_copy()
        matcher.consume_tokens(list(new))
        there = replace(self, matcher=matcher, text=self.text + new, rest=None)
        for rest in self._perhaps(new):
            if _ends(matcher, rest):
                return replace(there, rest=rest, most=len(rest))
        if self.most > LONG and room > 2 * self.most + LONG:
            return there
        try:
            return there.known()
        except TooMuch:  # from here; further on it may be found again
            return there

    def known(self) -> Course:
        """With what ends it. Raises TooMuch when that is not found."""
        if self.rest is not None:
            return self
        rest = _rest(self, lambda: None)
        return replace(self, rest=rest, most=len(rest))

    def _perhaps(self, new: bytes) -> Iterator[bytes]:
        """What may end it after `new`, without looking for it."""
        if self.rest is None:
            return
        if self.rest.startswith(new):
            yield self.rest[len(new) :]
        quote = self.rest.find(b'"')  # a text that has grown ends as it would have
        if quote >= 0 and b'"' not in new:
            yield self.rest[quote:]


def course(grammar: Grammar, look: Look = lambda: None) -> Course:
    """That of an answer which has not begun; `look` is called now and then, and what it raises ends
    the work. Raises TooMuch when no answer could be ended."""
    matcher = LLMatcher(_bytes(), grammar.text, log_level=0)
    begun = Course(grammar, matcher, b"", None, float("inf"))
    rest = _rest(begun, look)
    return replace(begun, rest=rest, most=len(rest))


def _ends(matcher: LLMatcher, rest: bytes) -> bool:
    trial = matcher.deep_copy()
    whole = trial.try_consume_tokens(list(rest)) == len(rest)
    return whole and (trial.is_stopped() or trial.is_accepting())


@cache
def _bytes() -> LLTokenizer:
    return LLTokenizer("byte")


def _rest(begun: Course, look: Look) -> bytes:
    matcher, text = begun.matcher.deep_copy(), begun.text
    for _ in range(MOST_CHOICES):
        while forced := matcher.compute_ff_tokens():
            text += bytes(forced)
            matcher.consume_tokens(forced)
            if len(text) - len(begun.text) > LONGEST_ANSWER:
                raise TooMuch("an answer could not be closed", "simplify the schema")
        look()
        if matcher.is_error():
            raise too_complex(matcher)
        if matcher.is_stopped() or matcher.is_accepting():
            return text[len(begun.text) :]
        allowed = _allowed(matcher)
        within = _within_text(text)
        ending = _known_ending(matcher, begun.grammar, allowed, text, within)
        new = ending or bytes([_soonest(allowed, text, within)])
        text += new
        matcher.consume_tokens(list(new))
    raise TooMuch("an answer could not be closed", "simplify the schema")


def too_complex(matcher: LLMatcher) -> TooMuch:
    return TooMuch(
        f"the schema is too much for the decoder: {matcher.get_error():.200}",
        "ask for less at a time",
    )


def _allowed(matcher: LLMatcher) -> list[int]:
    """The bytes that may come next."""
    bits = int.from_bytes(matcher.compute_bitmask()[:32], "little")
    return [byte for byte in range(256) if bits >> byte & 1]


def _soonest(allowed: list[int], text: bytes, within: bool) -> int:
    """The byte that ends an answer soonest."""
    if not within:
        return min(allowed, key=lambda byte: SOONEST.find(byte) % 100)
    if ord('"') in allowed:
        return ord('"')
    # A pattern wants more. Drawn, since always the first could go round in a circle.
    return random.Random(len(text)).choice(allowed)  # noqa: S311


def _known_ending(
    matcher: LLMatcher, grammar: Grammar, allowed: list[int], text: bytes, within: bool
) -> bytes:
    """What ends the part that is being written, if that is known: of a text with a pattern what
    meets it, of an object its shortest one."""
    if within:
        endings = [json.dumps(one, ensure_ascii=False)[1:] for one in grammar.endings]
        # The grammar itself has begun the object where all that may stand here are objects.
        begun = text.rpartition(b'{"')[2].decode(errors="ignore")
        keys = [one[2:] for one in grammar.objects if len(one) > 2]
        endings += [one[len(begun) :] for one in keys if one.startswith(begun)]
    else:
        endings = [*grammar.objects]
    for one in endings:
        ending = one.encode()
        may = ending and ending[0] in allowed
        if may and matcher.validate_tokens(list(ending)) == len(ending):
            return ending
    return b""


def _within_text(text: bytes) -> bool:
    """Whether a JSON text ends inside a string."""
    plain = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return plain.count(b'"') % 2 == 1
