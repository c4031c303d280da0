"""Words: the one definition that every rule on documents goes by, and the fast way to find them.

A *word* is a run of letters, digits, marks and `_`; an apostrophe between two such characters
belongs to it ("don't" is one word). In scripts written without spaces (Chinese, Japanese, Thai,
Lao, Khmer, Burmese) each letter with its marks is a word. Any other character that is not white
space is a *symbol*, by itself. `WORD` is this definition as a pattern, `split` finds the same in a
shard at once. Unicode's tables come from the `regex` package, so every Python finds the same words.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import polars as pl
import regex

from bantam.documents.compiled import compiled

Bytes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

UNSPACED = r"[[\p{Han}\p{Hiragana}\p{Katakana}\p{Line_Break=SA}]&&\p{L}]"
PART = r"[\p{L}\p{M}\p{N}_]"
SPACED = rf"[{PART}--{UNSPACED}]"
WORD = regex.compile(rf"(?V1){UNSPACED}\p{{M}}*|{SPACED}+(?:['’]{SPACED}+)*|\S")

# What a token can be. "___" is a symbol; a number is a word without a letter.
SYMBOL, NUMBER, LETTERS, LETTER = 0, 1, 2, 3  # the last is one of a script without spaces

# Classes of characters. Those from DIGIT on are parts of words.
OTHER, SPACE, CLOSER, SENTENCE_END, LINE, DIGIT, MARK, ALPHABETIC, ALONE = range(9)
CLASSES = (  # the later ones count
    (r"\s", SPACE),
    (r"[\p{Pe}\p{Pf}\"']", CLOSER),
    (r"\p{Sentence_Terminal}", SENTENCE_END),
    ("_", LINE),
    (r"\p{N}", DIGIT),
    (r"\p{M}", MARK),
    (r"\p{L}", ALPHABETIC),
    (UNSPACED, ALONE),
)

START, PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # of FNV-1a
STIR = np.uint64(0xFF51AFD7ED558CCD)  # the first multiplier of MurmurHash3's finish
NEWLINE = 10
FOLDED_BELOW = 0x1E944  # no character from here on has a case


@dataclass(frozen=True)
class Words:
    """The texts of a shard, and their tokens (words and symbols), in order."""

    data: Bytes  # the texts in UTF-8, one after the other
    starts: Places  # where each begins, and the end of the last: one more than there are texts
    first: Places  # the first token of each text, and the number of all
    exact: Hashes  # the hash of each token
    folded: Hashes  # its hash with case set aside
    length: npt.NDArray[np.int32]  # in characters
    kind: Bytes  # SYMBOL, NUMBER, LETTERS or LETTER

    def __len__(self) -> int:
        return len(self.first) - 1


def joined(column: pl.Series) -> tuple[Bytes, Places]:
    """A column of texts (none of them null) as `Words` has them: `data` and `starts`."""
    starts = np.zeros(len(column) + 1, np.int64)
    np.cumsum(column.str.len_bytes().to_numpy(), out=starts[1:])
    return np.frombuffer(b"".join(column.cast(pl.Binary).to_list()), np.uint8), starts


def split(column: pl.Series) -> Words:
    """The tokens of texts (none of them null), as `WORD` finds them."""
    data, starts = joined(column)
    first, most = np.zeros(len(starts), np.int64), len(data)
    exact, folded = np.empty(most, np.uint64), np.empty(most, np.uint64)
    length, kind = np.empty(most, np.int32), np.empty(most, np.uint8)
    n = _split(data, starts, classes(), _folding(), first, exact, folded, length, kind)
    return Words(data, starts, first, exact[:n], folded[:n], length[:n], kind[:n])


def hashes(words: list[str], fold: bool = False) -> Hashes:
    """The hash of each of these words, which must be one token each."""
    found = split(pl.Series(words, dtype=pl.String))
    if len(found.exact) != len(words):
        raise ValueError(f"not one word each: {words}")
    return found.folded if fold else found.exact


@cache
def classes() -> Bytes:
    """The class of each code point."""
    table = np.full(0x110000, OTHER, np.uint8)
    for plane in range(0, 0x110000, 0x10000):  # all at once would take 130 MB
        codes = (code for code in range(plane, plane + 0x10000) if not 0xD800 <= code < 0xE000)
        characters = "".join(map(chr, codes))
        for pattern, value in CLASSES:
            found = "".join(regex.findall(f"(?V1){pattern}", characters))
            table[np.frombuffer(found.encode("utf-32-le"), np.uint32)] = value
    return table


@cache
def _folding() -> npt.NDArray[np.uint32]:
    """Each code point without its case, where that is one code point too."""
    table = np.arange(FOLDED_BELOW, dtype=np.uint32)
    for code in range(FOLDED_BELOW):
        folded = chr(code).casefold()
        if len(folded) == 1:
            table[code] = ord(folded)
    return table


@compiled
def decode(data: Bytes, at: int) -> tuple[int, int]:
    """The code point that begins at a byte of valid UTF-8, and how many bytes it has."""
    first = int(np.int64(data[at]))
    if first < 0x80:
        return first, 1
    code, width = first & 0x1F, 2
    if first >= 0xF0:
        code, width = first & 0x07, 4
    elif first >= 0xE0:
        code, width = first & 0x0F, 3
    for later in range(at + 1, at + width):
        code = code << 6 | int(np.int64(data[later] & 0x3F))
    return code, width


@compiled
def stirred(value: np.uint64) -> np.uint64:
    """All bits of a hash made to depend on all others."""
    value ^= value >> np.uint64(33)
    value *= STIR
    return value ^ (value >> np.uint64(29))


@compiled
def _split(
    data: Bytes,
    starts: Places,
    classes: Bytes,
    folding: npt.NDArray[np.uint32],
    first: Places,
    exact: Hashes,
    folded: Hashes,
    length: npt.NDArray[np.int32],
    kind: Bytes,
) -> int:
    """Fill the arrays of `Words`; gives the number of tokens."""
    count = 0
    for text in range(len(starts) - 1):
        first[text] = count
        at, end = starts[text], starts[text + 1]
        while at < end:
            code, width = decode(data, at)
            at += width
            group = classes[code]
            if group == SPACE:
                continue
            whole, plain, letters = START, START, 0
            highest = group
            while True:
                letters += 1
                whole = (whole ^ np.uint64(code)) * PRIME
                fold = folding[code] if code < FOLDED_BELOW else code
                plain = (plain ^ np.uint64(fold)) * PRIME
                if (group < LINE and code != 0x27 and code != 0x2019) or at == end:
                    break  # a symbol, or nothing follows
                code, width = decode(data, at)
                group = classes[code]
                if code == 0x27 or code == 0x2019:  # an apostrophe: does a word go on behind it?
                    if highest == ALONE or highest < LINE or at + width == end:
                        break
                    after = classes[decode(data, at + width)[0]]
                    if after < LINE or after == ALONE:
                        break
                elif highest == ALONE:
                    if group != MARK:
                        break
                elif group < LINE or group == ALONE or highest < LINE:
                    break
                elif group > highest:
                    highest = group
                at += width
            exact[count] = stirred(whole)
            folded[count] = stirred(plain)
            length[count] = letters
            if highest <= LINE:
                kind[count] = SYMBOL
            elif highest <= MARK:
                kind[count] = NUMBER
            else:
                kind[count] = LETTERS if highest == ALPHABETIC else LETTER
            count += 1
    first[len(starts) - 1] = count
    return count
