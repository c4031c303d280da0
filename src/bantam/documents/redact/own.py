"""The user's own patterns and words.

Patterns are expressions of the `regex` package: Python's, and more. They have a time limit, since
an expression can take years on a text that does not fit; one that is reached ends the run with an
error, for a text that was not searched to its end must not pass as redacted.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import regex

from bantam.errors import BadInput

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
LONGEST = 2_000  # characters of an expression
SECONDS, SECONDS_A_MILLION = 5.0, 5.0  # for a text, and for each million characters of it


def finders(
    patterns: Mapping[str, str], words: Mapping[str, Sequence[str]], taken: Sequence[str]
) -> dict[str, Callable[[str], Iterator[tuple[int, int]]]]:
    """What finds each. `taken` are names that they must not have. Raises BadInput."""
    compiled = {}
    for name, source in patterns.items():
        compiled[name] = _compiled(name, source)
    for name, listed in words.items():
        kept = [word.strip() for word in listed if word.strip()]
        if not kept or name in patterns:
            why = "are the name of a pattern too" if kept else "are none"
            raise BadInput(f'the words "{name}" {why}', "give them another name, and at least one")
        # Between letters and digits a word is part of another one.
        compiled[name] = regex.compile(
            r"(?<!\w)\L<words>(?!\w)", words=kept, flags=regex.IGNORECASE
        )
    for name in compiled:
        if not NAME.fullmatch(name) or name in taken:
            raise BadInput(
                f'a pattern or words cannot have the name "{name}"',
                "use small letters, digits and -, and no name of a built-in kind",
            )
    ours = "|".join(_label(name) for name in (*taken, *compiled))
    placeholder = re.compile(rf"<(?:{ours}|\0*)>")  # or a blank
    return {name: _finder(name, one, placeholder) for name, one in compiled.items()}


def _label(name: str) -> str:
    return name.upper().replace("-", "_")


def _compiled(name: str, source: str) -> regex.Pattern[str]:
    mend = "see the documentation of Python's regex package for what an expression can hold"
    if len(source) > LONGEST:
        raise BadInput(f'the pattern "{name}" is longer than {LONGEST} characters', mend)
    try:
        pattern = regex.compile(source)
        empty = pattern.fullmatch("", timeout=SECONDS) is not None
    except (regex.error, RecursionError, MemoryError, OverflowError, TimeoutError) as error:
        raise BadInput(f'the pattern "{name}" cannot be used: {error}', mend) from error
    if empty:
        raise BadInput(f'the pattern "{name}" also fits where there is nothing', "use + for *")
    return pattern


def _finder(
    name: str, pattern: regex.Pattern[str], placeholder: re.Pattern[str]
) -> Callable[[str], Iterator[tuple[int, int]]]:
    def find(text: str) -> Iterator[tuple[int, int]]:
        limit = SECONDS + SECONDS_A_MILLION * len(text) / 1e6
        try:
            spans = [match.span() for match in pattern.finditer(text, timeout=limit)]
        except TimeoutError as error:
            raise BadInput(
                f'the pattern "{name}" took more than {limit:.0f} s on a document of '
                f"{len(text):,} characters",
                "write it without repeats of repeats, as in (a+)+, and without .* at its beginning",
            ) from error
        # What stands in the place of something else is left alone.
        standing = [match.span() for match in placeholder.finditer(text)] if spans else []
        past = 0  # placeholders that end before the match
        for start, end in spans:
            while past < len(standing) and standing[past][1] <= start:
                past += 1
            beside = past
            while beside < len(standing) and standing[beside][0] < end:
                first, last = standing[beside]
                if start < first:
                    yield start, first
                start, beside = last, beside + 1
            if start < end:
                yield start, end

    return find
