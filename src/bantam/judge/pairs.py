"""Minimal pairs: two sentences that differ in one point of grammar, of which one is right.

A model knows the point if it finds the right sentence likelier than the wrong one, each as a whole
(Warstadt et al. 2020, BLiMP). It needs no prompt and no labels, so models that were trained on few
words can be compared. A tie counts as wrong: whoever finds all sentences equally likely knows
nothing.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bantam.errors import BadInput
from bantam.judge.statistics import bootstrap_interval

LARGEST = 64 << 20  # bytes of a file
LONGEST = 2000  # characters of a sentence
UNNAMED = "other"  # the phenomenon of pairs that name none
ALL = "all"
FORM = '{"good": "This file is new.", "bad": "This files is new.", "phenomenon": "number"}'


class Pair(NamedTuple):
    good: str
    bad: str
    phenomenon: str = UNNAMED


class Accuracy(NamedTuple):
    """How often the right sentence of a phenomenon was likelier, and the interval of that."""

    phenomenon: str
    pairs: int
    accuracy: float
    low: float
    high: float


Score = Callable[[Sequence[str]], Sequence[float]]  # sentences to ln P of each as a whole


def read(path: Path) -> list[Pair]:
    """The pairs of a file of JSON lines: `good`, `bad` and, where it is known, `phenomenon`.

    Other keys are passed over. Raises BadInput for a file without pairs, a line that is none, and
    sentences that are empty, alike or longer than LONGEST.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise BadInput(f"{path} has {size >> 20} MiB", f"at most {LARGEST >> 20} are read")
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}", "name a file of pairs") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is no UTF-8: {error.reason}", "save it as UTF-8") from None
    pairs = [
        _pair(line, f"{path}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not pairs:
        raise BadInput(f"{path} holds no pairs", f"each line is a pair: {FORM}")
    return pairs


def _pair(line: str, where: str) -> Pair:
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise BadInput(f"{where} is no JSON", f"each line is a pair: {FORM}") from None
    if not isinstance(found, dict):
        raise BadInput(f"{where} is no object", f"each line is a pair: {FORM}")
    for key in ("good", "bad"):
        sentence = found.get(key)
        if not isinstance(sentence, str) or not sentence.strip():
            raise BadInput(f'{where}: "{key}" is no sentence', f"each line is a pair: {FORM}")
        if len(sentence) > LONGEST:
            raise BadInput(
                f'{where}: "{key}" has {len(sentence)} characters', f"at most {LONGEST} are read"
            )
    if found["good"] == found["bad"]:
        raise BadInput(f"{where}: both sentences are alike", "they differ in one point")
    phenomenon = found.get("phenomenon", UNNAMED)
    if not isinstance(phenomenon, str) or phenomenon in ("", ALL):
        raise BadInput(f'{where}: "phenomenon" is no name', f'write another one than "{ALL}"')
    return Pair(found["good"], found["bad"], phenomenon)


def judge(pairs: Sequence[Pair], score: Score, *, seed: int = 0) -> list[Accuracy]:
    """The accuracy over all pairs, then of each phenomenon, by name; 95% intervals.

    `score` gives the logarithm of each sentence's probability. Each pair counts once; pairs whose
    score is not a number count as wrong.
    """
    scores = list(score([sentence for pair in pairs for sentence in (pair.good, pair.bad)]))
    right: dict[str, list[bool]] = {}
    for pair, good, bad in zip(pairs, scores[::2], scores[1::2], strict=True):
        for name in (ALL, pair.phenomenon):
            right.setdefault(name, []).append(good > bad)
    names = [ALL, *sorted(right.keys() - {ALL})]
    return [
        Accuracy(
            name,
            len(right[name]),
            sum(right[name]) / len(right[name]),
            *bootstrap_interval(right[name], seed=seed),
        )
        for name in names
    ]


def table(found: Sequence[Accuracy]) -> str:
    """The accuracies as a table in Markdown."""
    lines = ["| phenomenon | pairs | right | 95% interval |", "|---|---|---|---|"]
    lines += [
        f"| {one.phenomenon} | {one.pairs} | {one.accuracy:.3f} | {one.low:.3f} to {one.high:.3f} |"
        for one in found
    ]
    return "\n".join(lines)
