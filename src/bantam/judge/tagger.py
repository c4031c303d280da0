"""A simple rival for spans: a linear tagger over tokens, begin-inside-outside.

Each token's tag is chosen by a linear model from the words around it and the tag before it. At
training time that is the true tag, in use the one just given.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack, vstack
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import SGDClassifier

from bantam.errors import BadInput
from bantam.judge.plain import Plain, Score, check_rows, sample, whole

LABELS = ("label", "type")
MOST_TOKENS = 300_000  # of training; rows beyond are not learned from
MOST_TEXT = 100_000  # characters of a text that are tagged
AT_ONCE = 256  # texts that are tagged together
HASHES = 2**18  # features that are told apart
ALPHAS = (1e-5, 1e-6, 1e-4)  # regularisation, in the order tried
OUTSIDE = "O"

_TOKEN = re.compile(r"\w+|[^\w\s]")
Span = tuple[int, int, str]


@dataclass(frozen=True)
class _Form:
    """How the outputs write spans: where the list is, and how one span and the rest look.

    `path` are the keys to the list, `keys` a span's keys in order. `others` are the commonest
    values of keys that say nothing that a tagger knows. `full` and `blank` are outputs to fill in,
    with spans and without.
    """

    path: tuple[str, ...]
    keys: tuple[str, ...]
    label: str
    others: dict[str, Any]
    full: str
    blank: str

    def write(self, text: str, spans: Sequence[Span]) -> str:
        if not spans:
            return self.blank
        output = _replaced(json.loads(self.full), self.path, [self._one(text, *s) for s in spans])
        return json.dumps(output, ensure_ascii=False)

    def _one(self, text: str, start: int, end: int, label: str) -> dict[str, Any]:
        known = {"start": start, "end": end, "text": text[start:end], self.label: label}
        return {key: known[key] if key in known else self.others[key] for key in self.keys}


def has_spans(outputs: Sequence[str]) -> bool:
    """Whether the outputs, JSON texts, hold a list of spans: objects with whole numbers `start`
    and `end` and a string `label` or `type`. It must be at one place and hold nothing else."""
    return _place([_parsed(output) for output in outputs]) is not None


def check(outputs: Sequence[str]) -> None:
    """Raises BadInput if `has_spans` denies that there is something to find."""
    if not has_spans(outputs):
        raise BadInput(
            'judge.rivals: "tagger" finds spans, and the outputs hold no list of such',
            "take it out; a span has whole numbers `start` and `end` and a text `label` or `type`",
        )


def tagger(
    texts: Sequence[str],
    outputs: Sequence[str],
    val_texts: Sequence[str],
    val_outputs: Sequence[str],
    score: Score,
) -> Plain:
    """Tags tokens (words and single signs) and writes the spans as the training outputs do.

    Features are the word, its beginnings and endings, its shape, two words to each side and the
    tag before. Chosen on validation by `score`: the regularisation, then whether the tag before
    is looked at. Of spans that overlap the longer is learned.

    Raises BadInput if there is no training or no validation row, or if `has_spans` denies it.
    """
    check_rows(texts, val_texts)
    form = _form([_parsed(output) for output in outputs])
    kept = _bounded(texts)
    texts, outputs = [texts[row] for row in kept], [outputs[row] for row in kept]
    train = _tokens(texts, [_spans(output, form) for output in outputs])
    val = _tokens(val_texts, [_spans(output, form) for output in val_outputs])

    def attempt(alpha: float, previous: bool) -> float:
        spans = _Model(train, alpha, previous).spans(val)
        return score(val_outputs, _written(form, val_texts, spans))

    best, best_score = (ALPHAS[0], True), -np.inf
    for alpha in ALPHAS:
        found = attempt(alpha, True)
        if found > best_score:
            best, best_score = (alpha, True), found
    found = attempt(best[0], False)
    if found > best_score:
        best, best_score = (best[0], False), found

    model = _Model(_together(train, val), *best)
    last_form = _form([_parsed(output) for output in (*outputs, *val_outputs)])

    def answer(asked: Sequence[str]) -> list[str]:
        answers: list[str] = []
        for start in range(0, len(asked), AT_ONCE):
            part = asked[start : start + AT_ONCE]
            answers += _written(last_form, part, model.spans(_tokens(part)))
        return answers

    return Plain(
        name="tagger",
        choice={"alpha": best[0], "previous_tag": best[1], "rows": len(texts) + len(val_texts)},
        validation_score=float(best_score),
        answer=answer,
        bytes=model.bytes(),
    )


def _written(form: _Form, texts: Sequence[str], spans: Sequence[list[Span]]) -> list[str]:
    return [form.write(text, found) for text, found in zip(texts, spans, strict=True)]


def _bounded(texts: Sequence[str]) -> list[int]:
    """The rows that are learned from: so many that their tokens stay within bounds."""
    kept: list[int] = []
    tokens = 0
    for row in sample(len(texts)):
        tokens += sum(1 for _ in _TOKEN.finditer(texts[row][:MOST_TEXT]))
        if kept and tokens > MOST_TOKENS:
            break
        kept.append(row)
    return kept


# The form of the outputs


def _parsed(output: str) -> Any:
    try:
        return json.loads(output)
    except (ValueError, RecursionError):
        return None


def _lists(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """Every list in objects within objects, with the keys that lead to it."""
    if isinstance(value, list):
        yield path, value
    elif isinstance(value, dict) and len(path) < 8:
        for key, inner in value.items():
            yield from _lists(inner, (*path, key))


def _label_key(item: Any) -> str | None:
    """Under which key a span has its label; None if it is no span."""
    if not isinstance(item, dict) or not (type(item.get("start")) is type(item.get("end")) is int):
        return None
    return next((key for key in LABELS if isinstance(item.get(key), str)), None)


def _place(values: Sequence[Any]) -> tuple[str, ...] | None:
    """The keys to the list of spans; where several lists hold spans, the one with most."""
    spans: Counter[tuple[str, ...]] = Counter()
    others = set()
    for value in values:
        for path, items in _lists(value):
            if all(_label_key(item) is not None for item in items):
                spans[path] += len(items)
            else:
                others.add(path)
    found = [path for path, count in spans.most_common() if count and path not in others]
    return found[0] if found else None


def _at(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _replaced(value: Any, path: Sequence[str], spans: list[Any]) -> Any:
    if not path:
        return spans
    return {**value, path[0]: _replaced(value[path[0]], path[1:], spans)}


def _form(values: Sequence[Any]) -> _Form:
    """Raises BadInput if the outputs hold no spans."""
    path = _place(values)
    if path is None:
        raise BadInput(
            "the outputs hold no list of spans",
            "a span has whole numbers `start` and `end` and a text `label` or `type`",
        )
    lists = [(value, _at(value, path)) for value in values]
    full = [_replaced(value, path, []) for value, items in lists if items]
    blank = [value for value, items in lists if not items and value is not None]
    items = [item for _, found in lists for item in found or []]
    label = Counter(str(_label_key(item)) for item in items).most_common(1)[0][0]
    keys = Counter(tuple(item) for item in items if label in item).most_common(1)[0][0]
    others = {
        key: json.loads(_commonest([item[key] for item in items if key in item]))
        for key in keys
        if key not in ("start", "end", "text", label)
    }
    whole = _commonest(full)
    return _Form(path, keys, label, others, whole, _commonest(blank) if blank else whole)


def _commonest(values: Sequence[Any]) -> str:
    return Counter(json.dumps(value, ensure_ascii=False) for value in values).most_common(1)[0][0]


def _spans(output: str, form: _Form) -> list[Span]:
    """The spans of an output; those that overlap a longer one are left out."""
    items = _at(_parsed(output), form.path)
    found: list[Span] = []
    for item in sorted(
        (item for item in (items if isinstance(items, list) else []) if _label_key(item)),
        key=lambda item: (item["start"] - item["end"], item["start"]),
    ):
        start, end, label = item["start"], item["end"], item.get(form.label)
        free = all(end <= other[0] or start >= other[1] for other in found)
        if 0 <= start < end and free and isinstance(label, str):
            found.append((start, end, label))
    return found


# Tokens and their features


@dataclass(frozen=True)
class _Tokens:
    """The tokens of texts: where they stand, the features of all in a row, and known tags."""

    places: list[list[tuple[int, int]]]
    x: Any
    tags: list[list[str]]


def _tokens(texts: Sequence[str], spans: Sequence[Sequence[Span]] = ()) -> _Tokens:
    found = [list(_TOKEN.finditer(text[:MOST_TEXT])) for text in texts]
    places = [[token.span() for token in tokens] for tokens in found]
    words = ([token[0] for token in tokens] for tokens in found)
    x = csr_matrix((0, HASHES), dtype=np.float32)
    if any(found):
        hasher = FeatureHasher(HASHES, input_type="string", alternate_sign=False, dtype=np.float32)
        x = hasher.transform(features for each in words for features in _features(each))
    tags = [_tags(each, known) for each, known in zip(places, spans, strict=False)]
    return _Tokens(places, x, tags)


def _together(one: _Tokens, other: _Tokens) -> _Tokens:
    x = vstack([one.x, other.x], format="csr")
    return _Tokens(one.places + other.places, x, one.tags + other.tags)


def _tags(places: Sequence[tuple[int, int]], spans: Sequence[Span]) -> list[str]:
    """B-label for the first token that a span touches, I-label for the others."""
    tags = [OUTSIDE] * len(places)
    for start, end, label in spans:
        inside = [n for n, (first, last) in enumerate(places) if first < end and last > start]
        for n in inside:
            tags[n] = f"{'B' if n == inside[0] else 'I'}-{label}"
    return tags


@lru_cache(maxsize=100_000)
def _own(word: str) -> tuple[str, ...]:
    """The features of a word by itself; the last two are those that its neighbours look at."""
    word = whole(word[:60])
    lower = word.lower()
    shape = re.sub(r"\d", "0", re.sub(r"[^\W\d_]", lambda m: "X" if m[0].isupper() else "x", word))
    short = re.sub(r"(.)\1+", r"\1", shape)
    ends = [f"pre={lower[:n]}" for n in range(1, 5)] + [f"suf={lower[-n:]}" for n in range(1, 5)]
    return (f"word={word}", f"shape={shape[:12]}", *ends, f"lower={lower}", f"short={short}")


def _features(words: Sequence[str]) -> Iterator[list[str]]:
    edge = ("edge",) * 2
    owns = [edge, edge, *(_own(word) for word in words), edge, edge]
    for n in range(2, len(owns) - 2):
        found = ["all", *owns[n]]
        for step in (-2, -1, 1, 2):
            found += [f"{step}{feature}" for feature in owns[n + step][-2:]]
        before, here, after = owns[n - 1][-2], owns[n][-2], owns[n + 1][-2]
        found += [f"{before}|{here}", f"{here}|{after}", f"{owns[n - 1][-1]}|{owns[n][-1]}"]
        yield found


# The model


class _Model:
    """A linear model of tags. The tag before is one more feature, kept apart, so that the scores
    of all tokens by their words are one product."""

    def __init__(self, tokens: _Tokens, alpha: float, previous: bool) -> None:
        flat = [tag for tags in tokens.tags for tag in tags] or [OUTSIDE]
        self.tags = sorted({OUTSIDE, *flat})
        place = {tag: n for n, tag in enumerate(self.tags)}
        self.legal = _legal(self.tags)
        y = np.array([place[tag] for tag in flat])
        self.known = np.unique(y)
        self.weights: NDArray[np.float64] = np.zeros((HASHES, len(self.known)))
        self.bias: NDArray[np.float64] = np.zeros(len(self.known))
        self.after: NDArray[np.float64] = np.zeros((len(self.tags), len(self.known)))
        if len(self.known) > 1:  # else every token has the same tag
            before = [place[tag] for tags in tokens.tags for tag in [OUTSIDE, *tags][: len(tags)]]
            self._fit(tokens.x, np.array(before), y, alpha, previous)

    def _fit(
        self, x: Any, before: NDArray[Any], y: NDArray[Any], alpha: float, previous: bool
    ) -> None:
        fit = SGDClassifier(
            loss="log_loss", alpha=alpha, average=True, max_iter=12, tol=None, random_state=0
        )
        if previous:
            hot = csr_matrix((np.ones(len(y), np.float32), before, np.arange(len(y) + 1)))
            hot.resize(len(y), len(self.tags))
            x = hstack([x, hot], format="csr")
        fit.fit(x, y)
        weights, bias = fit.coef_, fit.intercept_
        if len(weights) == 1:  # of two tags scikit-learn keeps one
            weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
        self.weights, self.bias = np.ascontiguousarray(weights[:, :HASHES].T), bias
        if previous:
            self.after = weights[:, HASHES:].T

    def bytes(self) -> int:
        return 4 * int(np.count_nonzero(self.weights) + self.after.size + self.bias.size)

    def spans(self, tokens: _Tokens) -> list[list[Span]]:
        """For each text the spans, from its first token to its last."""
        scores = tokens.x @ self.weights + self.bias
        found, start = [], 0
        for places in tokens.places:
            tags = self._decoded(scores[start : start + len(places)])
            found.append(_joined(places, tags))
            start += len(places)
        return found

    def _decoded(self, scores: NDArray[np.float64]) -> list[str]:
        """Tag after tag the best that may follow."""
        tags, before = [], self.tags.index(OUTSIDE)
        for row in scores:
            allowed = self.legal[before, self.known]
            before = int(self.known[np.where(allowed, row + self.after[before], -np.inf).argmax()])
            tags.append(self.tags[before])
        return tags


def _legal(tags: Sequence[str]) -> NDArray[np.bool_]:
    """[before, tag]: whether a tag may follow; I-x follows only B-x and I-x."""
    return np.array(
        [[not tag.startswith("I-") or before[1:] == tag[1:] for tag in tags] for before in tags]
    )


def _joined(places: Sequence[tuple[int, int]], tags: Sequence[str]) -> list[Span]:
    spans: list[Span] = []
    for (start, end), tag in zip(places, tags, strict=True):
        if tag.startswith("I-"):
            spans[-1] = (spans[-1][0], end, tag[2:])
        elif tag != OUTSIDE:
            spans.append((start, end, tag[2:]))
    return spans
