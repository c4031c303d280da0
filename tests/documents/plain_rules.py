"""The rules on documents once more, slowly and plainly, as the papers and datatrove have them."""

import re
from collections import Counter
from functools import cache

import regex

STOPS = {"the", "be", "to", "of", "and", "that", "have", "with"}
END = regex.compile(r"\p{Sentence_Terminal}")


def tokens(text: str) -> list[str]:
    """Letters, digits, marks and "_" make words, apostrophes within them too; letters of scripts
    without spaces are words by themselves; all else but white space is a symbol.
    """
    found: list[str] = []
    at = 0
    while at < len(text):
        start = at
        if alone(text[at]):
            at += 1
            while at < len(text) and regex.match(r"\p{M}", text[at]):
                at += 1
        elif spaced(text[at]):
            while at < len(text) and (
                spaced(text[at])
                or (text[at] in "'’" and spaced(text[at - 1]) and spaced(text[at + 1 : at + 2]))
            ):
                at += 1
        else:
            at += 1
            if regex.match(r"\s", text[start]):
                continue
        found.append(text[start:at])
    return found


@cache
def alone(letter: str) -> bool:
    scripts = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Line_Break=Complex_Context}]"
    return bool(regex.fullmatch(scripts, letter) and regex.fullmatch(r"\p{L}", letter))


@cache
def spaced(letter: str) -> bool:
    return bool(regex.fullmatch(r"[\p{L}\p{M}\p{N}_]", letter)) and not alone(letter)


@cache
def is_word(token: str) -> bool:
    return bool(regex.search(r"[\p{L}\p{M}\p{N}]", token))


def folded(token: str) -> str:
    return "".join(c.casefold() if len(c.casefold()) == 1 else c for c in token)


def repeated(things: list[str]) -> tuple[int, int]:
    """How many have stood before in the list, and their characters."""
    seen: set[str] = set()
    count = characters = 0
    for thing in things:
        if thing in seen:
            count += 1
            characters += len(thing)
        seen.add(thing)
    return count, characters


def top_gram(found: list[str], n: int) -> int:
    grams = [" ".join(found[at : at + n]) for at in range(len(found) - n + 1)]
    if not grams:
        return 0
    gram, count = Counter(grams).most_common(1)[0]
    return len(gram) * count


def repeated_grams(found: list[str], n: int) -> int:
    seen: set[tuple[str, ...]] = set()
    at = characters = 0
    while at + n <= len(found):
        gram = tuple(found[at : at + n])
        if gram in seen:
            characters += sum(map(len, gram))
            at += n
        else:
            seen.add(gram)
            at += 1
    return characters


def sentences(line: str) -> int:
    """Parts with a letter or digit, cut behind . ? ! and what closes a quotation, if white space
    follows, and behind every other mark that ends a sentence.
    """
    parts = regex.split(
        r"""(?V1)(?<=[.?!][\p{Pe}\p{Pf}"'.?!]*)\s+|(?<=[\p{Sentence_Terminal}--[.?!]])""", line
    )
    return sum(map(is_word, parts))


def measures(text: str) -> dict[str, float]:
    """All measures of a normalised text that is not empty."""
    found = tokens(text)
    words = [token for token in found if is_word(token)]
    lines = text.split("\n")
    filled = [line for line in lines if line]
    paragraphs = re.split(r"\n{2,}", text)
    size, total = len(text), max(1, len(found))
    letters = [token for token in found if regex.search(r"\p{L}", token)]
    return {
        "characters": size,
        "words": len(words),
        "word_length": sum(map(len, words)) / max(1, len(words)),
        "hashes": text.count("#") / total,
        "ellipses": (text.count("...") + text.count("…")) / total,
        "alphabetic": len(letters) / total,
        "stop_words": len(STOPS & set(found)),
        "newlines": text.count("\n") / total,
        "bullet_lines": sum(line.lstrip()[:1] in ("-", "•") for line in filled) / len(lines),
        "ellipsis_lines": sum(line.endswith(("...", "…")) for line in lines) / len(lines),
        "ended_lines": sum(bool(END.match(line[-1])) for line in filled) / len(filled),
        "short_lines": sum(len(line) <= 30 for line in filled) / len(filled),
        "repeated_lines": repeated(filled)[0] / len(filled),
        "repeated_line_characters": repeated(filled)[1] / size,
        "repeated_characters": repeated(filled)[1] / len(text.replace("\n", "")),
        "repeated_paragraphs": repeated(paragraphs)[0] / len(paragraphs),
        "repeated_paragraph_characters": repeated(paragraphs)[1] / size,
        **{f"top_{n}_gram": top_gram(found, n) / size for n in (2, 3, 4)},
        **{f"repeated_{n}_grams": repeated_grams(found, n) / size for n in range(5, 11)},
        "sentences": sum(map(sentences, lines)),
        "curly_brackets": text.count("{"),
        "lorem_ipsum": text.lower().count("lorem ipsum"),
    }


@cache
def grams(text: str, n: int = 5) -> set[tuple[str, ...]]:
    """The runs of n words, case set aside; all words of a shorter text."""
    words = [folded(token) for token in tokens(text) if is_word(token)]
    if len(words) < n:
        return {tuple(words)} if words else set()
    return {tuple(words[at : at + n]) for at in range(len(words) - n + 1)}


def jaccard(one: str, other: str) -> float:
    a, b = grams(one), grams(other)
    return len(a & b) / len(a | b)
