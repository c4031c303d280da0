"""Rules that tell documents worth learning from, by what can be counted in them.

The rules of Gopher (Rae et al. 2021, table A1 and section A.1.1), C4 (Raffel et al. 2020) and
FineWeb (Penedo et al. 2024), as datatrove computes them, on the words of `words`. Texts must be as
`normalise` leaves them: lines end with "\\n", without outer white space or spaces at line ends.

`measure` counts, `judge` compares with thresholds. A rule is switched off with null. Rules that
need words are skipped for documents in scripts written without spaces (`spaceless`): there each
letter counts as a word.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from bantam.documents import words
from bantam.documents.compiled import compiled
from bantam.documents.document import reject
from bantam.documents.tables import ODD, Counts, bits_for, place
from bantam.documents.words import (
    CLOSER,
    DIGIT,
    LETTER,
    LETTERS,
    NEWLINE,
    PRIME,
    SENTENCE_END,
    SPACE,
    STIR,
    SYMBOL,
    Bytes,
    Hashes,
    Places,
    Words,
    decode,
    stirred,
)
from bantam.recipe_documents import Rules

LONGEST_GRAM = 10
ELLIPSIS, BULLET = 0x2026, 0x2022

# Which measure each rule compares, in the order in which they are told.
RULES = (
    ("gopher", "min_words", "words"),  # of what has few words all else is chance
    ("gopher", "max_words", "words"),
    ("repetition", "max_paragraphs", "repeated_paragraphs"),
    ("repetition", "max_paragraph_characters", "repeated_paragraph_characters"),
    ("repetition", "max_lines", "repeated_lines"),
    ("repetition", "max_line_characters", "repeated_line_characters"),
    *(("repetition", f"max_top_{n}_gram", f"top_{n}_gram") for n in (2, 3, 4)),
    *(("repetition", f"max_{n}_grams", f"repeated_{n}_grams") for n in range(5, 11)),
    ("gopher", "min_word_length", "word_length"),
    ("gopher", "max_word_length", "word_length"),
    ("gopher", "max_hashes", "hashes"),
    ("gopher", "max_ellipses", "ellipses"),
    ("gopher", "max_bullet_lines", "bullet_lines"),
    ("gopher", "max_ellipsis_lines", "ellipsis_lines"),
    ("gopher", "min_alphabetic", "alphabetic"),
    ("gopher", "min_stop_words", "stop_words"),
    ("c4", "lorem_ipsum", "lorem_ipsum"),
    ("c4", "curly_brackets", "curly_brackets"),
    ("c4", "min_sentences", "sentences"),
    ("fineweb", "min_ended_lines", "ended_lines"),
    ("fineweb", "max_short_lines", "short_lines"),
    ("fineweb", "max_repeated_characters", "repeated_characters"),
    ("fineweb", "max_newlines", "newlines"),
)
# The measures that say nothing about a document in a script written without spaces.
BY_WORD = [
    *("words", "word_length", "hashes", "ellipses", "alphabetic", "stop_words", "newlines"),
    *(f"top_{n}_gram" for n in (2, 3, 4)),
    *(f"repeated_{n}_grams" for n in range(5, 11)),
]


_SEEN = np.dtype(  # counted by `_see`
    [
        (name, np.int64)
        for name in (
            *("characters", "newlines", "lines", "filled_lines", "ended_lines", "short_lines"),
            *("bullet_lines", "ellipsis_lines", "hashes", "ellipses", "sentences"),
            *("curly_brackets", "lorem_ipsum", "repeated_lines", "repeated_line_characters"),
            *("paragraphs", "repeated_paragraphs", "repeated_paragraph_characters"),
        )
    ]
)
_TOLD = np.dtype(  # counted by `_tell`
    [(name, np.int64) for name in ("words", "word_characters", "alphabetic", "spaceless")]
)
_LOREM = np.frombuffer(b"lorem ipsum", np.uint8)


def measure(found: Words, rules: Rules, languages: pl.Series | None = None) -> pl.DataFrame:
    """What the rules compare, one row a text: a column for each measure in `RULES`, `characters`,
    and `spaceless`, whether most of its words are letters of scripts written without spaces.

    `languages` are the texts' languages (null where not known). A measure that says nothing about
    a text is null.
    """
    seen = np.zeros(len(found), _SEEN)
    _see(found.data, found.starts, words.classes(), _LOREM, rules.fineweb.short_line, ODD, seen)
    told = np.zeros(len(found), _TOLD)
    _tell(found.first, found.length, found.kind, told)
    grams = np.zeros((len(found), LONGEST_GRAM + 1), np.int64)
    _count_grams(found.first, found.exact, found.length, ODD, grams)

    characters, tokens = seen["characters"], np.diff(found.first)
    measures = {
        "characters": characters,
        "words": told["words"],
        "word_length": _share(told["word_characters"], told["words"]),
        "hashes": _share(seen["hashes"], tokens),
        "ellipses": _share(seen["ellipses"], tokens),
        "alphabetic": _share(told["alphabetic"], tokens),
        "newlines": _share(seen["newlines"], tokens),
        "bullet_lines": _share(seen["bullet_lines"], seen["lines"]),
        "ellipsis_lines": _share(seen["ellipsis_lines"], seen["lines"]),
        "ended_lines": _share(seen["ended_lines"], seen["filled_lines"]),
        "short_lines": _share(seen["short_lines"], seen["filled_lines"]),
        "repeated_lines": _share(seen["repeated_lines"], seen["filled_lines"]),
        "repeated_line_characters": _share(seen["repeated_line_characters"], characters),
        "repeated_characters": _share(
            seen["repeated_line_characters"], characters - seen["newlines"]
        ),
        "repeated_paragraphs": _share(seen["repeated_paragraphs"], seen["paragraphs"]),
        "repeated_paragraph_characters": _share(seen["repeated_paragraph_characters"], characters),
        **{f"top_{n}_gram": _share(grams[:, n], characters) for n in (2, 3, 4)},
        **{f"repeated_{n}_grams": _share(grams[:, n], characters) for n in range(5, 11)},
        **{name: seen[name] for name in ("sentences", "curly_brackets", "lorem_ipsum")},
    }
    stop_words = _stop_words(found, rules.gopher.stop_words, languages)
    spaceless = pl.Series("spaceless", told["spaceless"] > 0)
    frame = pl.DataFrame(measures).with_columns(stop_words, spaceless)
    return frame.with_columns(pl.when(~pl.col("spaceless")).then(pl.col(BY_WORD)))


def judge(frame: pl.DataFrame, measures: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """The documents with `reason` and `value` where a rule is against them: the first such rule in
    the order of `RULES`, as "gopher.min_words", and what was measured. `measures` are of the same
    rows; documents that have a reason keep it.
    """
    which = np.full(len(frame), -1)  # the first rule against each document
    value = np.zeros(len(frame))
    names = ["no text"]
    which[(measures["characters"] == 0).to_numpy()] = 0
    for section, key, name in RULES:
        threshold = getattr(getattr(rules, section), key)
        if threshold is None or threshold is False:
            continue
        measured = measures[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        if key.startswith("min_"):
            against = measured < threshold
        else:
            against = measured > (0 if threshold is True else threshold)
        against &= which == -1
        which[against], value[against] = len(names), measured[against]
        names.append(f"{section}.{key}")
    told = pl.DataFrame({"which": which, "value": value}).select(
        reason=pl.col("which").replace_strict(
            range(len(names)), names, default=None, return_dtype=pl.String
        ),
        value=pl.when(pl.col("which") > 0).then(
            pl.col("value").round(4).cast(pl.String).str.strip_suffix(".0")
        ),
    )
    reason = pl.lit(told["reason"])
    return reject(frame, reason.is_not_null(), reason, pl.lit(told["value"]))


def _share(part: Places, whole: Places) -> npt.NDArray[np.float64]:
    return part / np.maximum(whole, 1)


def _stop_words(
    found: Words, lists: Mapping[str, Sequence[str]], languages: pl.Series | None
) -> pl.Series:
    """How many different stop words of its language each text holds; null without a list."""
    named = sorted(lists)
    if languages is None:
        languages = pl.repeat("en", len(found), eager=True)
    at = languages.replace_strict(
        named, range(len(named)), default=None, return_dtype=pl.Int64
    ).fill_null(-1)
    sorted_hashes = [np.sort(words.hashes(list(lists[name]))) for name in named]
    begins = np.cumsum([0, *map(len, sorted_hashes)])
    stops = np.concatenate([*sorted_hashes, np.empty(0, np.uint64)])
    counts = np.zeros(len(found), np.int64)
    _count_stops(found.first, found.exact, at.to_numpy(), stops, begins, counts)
    return pl.select(pl.when(at >= 0).then(pl.Series(counts)).alias("stop_words")).to_series()


@compiled
def _count_stops(
    first: Places, exact: Hashes, which: Places, stops: Hashes, begins: Places, counts: Places
) -> None:
    """Count the different ones of a sorted list (`which` of them) among the tokens of each text."""
    met = np.full(len(stops), -1, np.int64)  # the last text that held it
    ends = np.uint64(0)  # the ends of the hashes, as bits: most words need no closer look
    for stop in stops:
        ends |= np.uint64(1) << (stop & np.uint64(63))
    for text in range(len(first) - 1):
        if which[text] < 0:
            continue
        begin, end = begins[which[text]], begins[which[text] + 1]
        for token in range(first[text], first[text + 1]):
            if (ends >> (exact[token] & np.uint64(63))) & np.uint64(1) == 0:
                continue
            at = begin + np.searchsorted(stops[begin:end], exact[token])
            if at < end and stops[at] == exact[token] and met[at] != text:
                met[at] = text
                counts[text] += 1


@compiled
def _tell(first: Places, length: Counts, kind: Bytes, told: npt.NDArray[np.void]) -> None:
    """Count the kinds of words of each text."""
    for text in range(len(first) - 1):
        out = told[text]
        alone = 0
        for token in range(first[text], first[text + 1]):
            if kind[token] != SYMBOL:
                out.words += 1
                out.word_characters += length[token]
                out.alphabetic += kind[token] >= LETTERS
                alone += kind[token] == LETTER
        out.spaceless = 2 * alone > out.words


@compiled
def _see(
    data: Bytes,
    starts: Places,
    classes: Bytes,
    lorem: Bytes,
    short: int,
    odd: np.uint64,
    seen: npt.NDArray[np.void],
) -> None:
    """Count what the characters and lines of each text tell."""
    most = _most_lines(data, starts)
    hashes, lengths = np.empty(most, np.uint64), np.empty(most, np.int64)
    keys, taken = np.empty(1 << bits_for(most), np.uint64), np.empty(1 << bits_for(most), np.int32)
    for text in range(len(starts) - 1):
        out = seen[text]
        at, end = starts[text], starts[text + 1]
        lines = 0
        while at < end:
            hash, length, leading, last, dots, matched = np.uint64(0), 0, 0, 0, 0, 0
            begun, ended = False, False  # a sentence: it has a letter, and . ? or ! at its end
            while at < end and data[at] != NEWLINE:
                code, width = decode(data, at)
                at += width
                length += 1
                hash = (hash ^ np.uint64(code)) * PRIME
                if matched < len(lorem) and code | 0x20 == lorem[matched]:
                    matched += 1
                    out.lorem_ipsum += matched == len(lorem)
                else:
                    matched = int(code | 0x20 == lorem[0])
                last, group = code, classes[code]
                if group >= DIGIT:  # most characters
                    if leading == 0:
                        leading = code
                    if dots > 0:
                        out.ellipses += dots // 3
                        dots = 0
                    begun, ended = True, False
                    continue
                if leading == 0 and group != SPACE:
                    leading = code
                if group == SENTENCE_END and code <= 0x7F:
                    ended = True
                elif group == SENTENCE_END or (group == SPACE and ended):
                    out.sentences += begun
                    begun, ended = False, False
                elif group != CLOSER:
                    ended = False
                if code == ord("."):
                    dots += 1
                else:
                    out.ellipses += dots // 3 + (code == ELLIPSIS)
                    dots = 0
                out.hashes += code == ord("#")
                out.curly_brackets += code == ord("{")
            out.sentences += begun
            out.ellipses += dots // 3
            out.characters += length
            if length > 0:
                out.filled_lines += 1
                out.short_lines += length <= short
                out.ended_lines += classes[last] == SENTENCE_END
                out.ellipsis_lines += dots > 2 or last == ELLIPSIS
                out.bullet_lines += leading == ord("-") or leading == BULLET
            hashes[lines], lengths[lines] = stirred(hash), length
            lines += 1
            if at < end:
                at += 1
                out.newlines += 1
        out.characters += out.newlines
        out.lines = lines
        out.repeated_lines, out.repeated_line_characters = _repeated(
            hashes[:lines], lengths[:lines], keys, taken, odd
        )
        out.paragraphs = _join_paragraphs(hashes, lengths, lines)
        out.repeated_paragraphs, out.repeated_paragraph_characters = _repeated(
            hashes[: out.paragraphs], lengths[: out.paragraphs], keys, taken, odd
        )


@compiled
def _most_lines(data: Bytes, starts: Places) -> int:
    """The number of lines of the text that has most."""
    most = 1
    for text in range(len(starts) - 1):
        lines = 1
        for at in range(starts[text], starts[text + 1]):
            lines += data[at] == NEWLINE
        most = max(most, lines)
    return most


@compiled
def _join_paragraphs(hashes: Hashes, lengths: Places, lines: int) -> int:
    """The hashes and lengths of lines become those of the paragraphs that empty lines part; gives
    their number.
    """
    paragraphs, inside = 0, False
    for line in range(lines):
        hash, length = hashes[line], lengths[line]
        if length > 0 and inside:
            hashes[paragraphs - 1] = stirred(hashes[paragraphs - 1] * PRIME ^ hash)
            lengths[paragraphs - 1] += length + 1
        elif length > 0:
            hashes[paragraphs], lengths[paragraphs] = hash, length
            paragraphs += 1
        inside = length > 0
    return paragraphs


@compiled
def _repeated(
    hashes: Hashes, lengths: Places, keys: Hashes, taken: Counts, odd: np.uint64
) -> tuple[int, int]:
    """How many of these have stood there before, and their characters. Empty ones do not count."""
    bits = bits_for(len(hashes))
    taken[: 1 << bits] = 0
    repeated, characters = 0, 0
    for at in range(len(hashes)):
        if lengths[at] == 0:
            continue
        slot = place(keys, taken, bits, odd, hashes[at])
        if taken[slot]:
            repeated += 1
            characters += lengths[at]
        keys[slot], taken[slot] = hashes[at], 1
    return repeated, characters


@compiled
def _count_grams(
    first: Places, exact: Hashes, length: Counts, odd: np.uint64, grams: Places
) -> None:
    """The characters of each text that stand in its commonest n-gram (n = 2 to 4, with the spaces
    between the words), and in n-grams that it has had before (n = 5 to 10; having met one, the
    search goes on behind it). Column n of `grams`.

    An n-gram can only repeat where the one that is a word shorter does, so each round goes through
    the places that the last one left.
    """
    most = 1
    for text in range(len(first) - 1):
        most = max(most, first[text + 1] - first[text])
    room = 1 << bits_for(most)
    gram, left, slots = (
        np.empty(most, np.uint64),
        np.empty(most, np.int64),
        np.empty(most, np.int64),
    )
    ends = np.zeros(most + 1, np.int64)
    keys, counts = np.empty(room, np.uint64), np.empty(room, np.int32)
    once, twice = np.empty(4 * room, np.uint8), np.empty(4 * room, np.uint8)
    for text in range(len(first) - 1):
        tokens = first[text + 1] - first[text]
        word = exact[first[text] : first[text + 1]]
        for at in range(tokens):
            ends[at + 1] = ends[at] + length[first[text] + at]
            gram[at] = word[at]
        open = _may_repeat(word, odd, once, twice, left)  # places, in `left`
        for n in range(2, LONGEST_GRAM + 1):
            if tokens < n:
                break
            bits = bits_for(open)
            counts[: 1 << bits] = 0
            placed = 0
            for at in left[:open]:
                if at + n > tokens:
                    break
                gram[at] = gram[at] * STIR + word[at + n - 1]
                slot = place(keys, counts, bits, odd, gram[at])
                keys[slot] = gram[at]
                counts[slot] += 1
                slots[placed] = slot
                placed += 1
            if n < 5:
                top, commonest = 1, 0
                for at in range(placed):
                    if counts[slots[at]] > top:
                        top, commonest = counts[slots[at]], left[at]
                characters = ends[commonest + n] - ends[commonest] + n - 1
                grams[text, n] = top * characters
            open, beyond = 0, 0
            for at in range(placed):
                slot, where = slots[at], left[at]
                if abs(counts[slot]) < 2:
                    continue
                left[open] = where
                open += 1
                if n >= 5 and where >= beyond:
                    if counts[slot] < 0:  # met before
                        grams[text, n] += ends[where + n] - ends[where]
                        beyond = where + n
                    counts[slot] = -abs(counts[slot])


@compiled
def _may_repeat(word: Hashes, odd: np.uint64, once: Bytes, twice: Bytes, left: Places) -> int:
    """Find all pairs of words that stand twice in a text, and a few others; gives their number.
    Without a branch, so quicker than a table, to which it leaves half of the pairs or less.
    """
    bits = bits_for(len(word)) + 2
    once[: 1 << bits], twice[: 1 << bits] = 0, 0
    shift = np.uint64(64 - bits)
    for at in range(len(word) - 1):
        slot = np.int64(((word[at] * STIR + word[at + 1]) * odd) >> shift)
        twice[slot] |= once[slot]
        once[slot] = 1
    count = 0
    for at in range(len(word) - 1):
        left[count] = at
        count += twice[np.int64(((word[at] * STIR + word[at + 1]) * odd) >> shift)]
    return count
