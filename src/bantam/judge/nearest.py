"""Simple rivals by likeness: the nearest training row's output, and the nearest function's call.

Likeness is the cosine of TF-IDF over words (1-2), letters within words (2-5), or both; which of
them is chosen on validation.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import (
    HashingVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
)
from sklearn.pipeline import FeatureUnion, make_pipeline

from bantam.errors import BadInput
from bantam.judge.fill import STRINGS, arguments
from bantam.judge.linear import ANALYSERS
from bantam.judge.plain import Plain, Score, check_rows, commonest, sample, whole, written_bytes

FEATURES = ("word", "char", "word+char")
MOST_TERMS = 300_000  # of words, and of letters; the commonest are kept
MOST_TEXT = 20_000  # characters of a text that are looked at
MOST_CELLS = 4_000_000  # of the product of queries and rows worked on at once
THRESHOLDS = 24  # how many are tried
HASHES = 2**18  # terms of texts and declarations that are told apart

Request = tuple[str, list[dict[str, Any]]]
# For each request how near the nearest function is, and which it is.
_Near = list[tuple[float, dict[str, Any] | None]]


def nearest(
    texts: Sequence[str],
    outputs: Sequence[str],
    val_texts: Sequence[str],
    val_outputs: Sequence[str],
    score: Score,
) -> Plain:
    """Answers with the output of the training row whose text is nearest.

    Chosen on validation by `score`: words, letters or both, with plain or sublinear counts. Of
    rows equally near the first is taken; a text that shares nothing with any row gets the
    commonest output. Of more than `plain.MOST_ROWS` rows a sample is used.

    Raises BadInput if there is no training or no validation row, or no text that is not blank.
    """
    check_rows(texts, val_texts)
    kept = sample(len(texts))
    texts, outputs = [texts[row] for row in kept], [outputs[row] for row in kept]
    best: tuple[str, bool] = (FEATURES[0], True)
    best_score = -np.inf
    for way in product(FEATURES, (True, False)):
        found = score(val_outputs, _Nearest(texts, outputs, *way)(val_texts))
        if found > best_score:
            best, best_score = way, found
    last = _Nearest([*texts, *val_texts], [*outputs, *val_outputs], *best)
    return Plain(
        name="nearest",
        choice={"features": best[0], "sublinear": best[1], "rows": len(last.outputs)},
        validation_score=float(best_score),
        answer=last,
        bytes=last.bytes(),
    )


class _Nearest:
    """Training rows and their vectors."""

    def __init__(
        self, texts: Sequence[str], outputs: Sequence[str], features: str, sublinear: bool
    ) -> None:
        self.outputs = list(outputs)
        self.commonest = commonest(self.outputs)
        self.features = _features(texts, features, sublinear)
        self.rows = _unit(self.features.transform([text[:MOST_TEXT] for text in texts]))

    def __call__(self, texts: Sequence[str]) -> list[str]:
        step = max(1, MOST_CELLS // self.rows.shape[0])
        answers = []
        for start in range(0, len(texts), step):
            part = [text[:MOST_TEXT] for text in texts[start : start + step]]
            alike = (_unit(self.features.transform(part)) @ self.rows.T).toarray()
            # Rounded, so that rows that are equally near but for the last bit are a tie.
            alike = alike.round(6)
            for row, best in enumerate(alike.argmax(axis=1)):
                known = alike[row, best] > 0
                answers.append(self.outputs[best] if known else self.commonest)
        return answers

    def bytes(self) -> int:
        stored = 8 * int(self.rows.nnz) + written_bytes(set(self.outputs))
        return stored + _vocabulary_bytes(self.features)


def _check_text(texts: Sequence[str]) -> None:
    if not any(text[:MOST_TEXT].strip() for text in texts):
        raise BadInput("every training text is blank", "name the column that holds the text")


def _features(texts: Sequence[str], features: str, sublinear: bool) -> Any:
    """Fitted TF-IDF. Raises BadInput if every text is blank."""
    _check_text(texts)
    parts = [
        (
            name,
            TfidfVectorizer(
                **ANALYSERS[name],
                sublinear_tf=sublinear,
                max_features=MOST_TERMS,
                dtype=np.float32,
            ),
        )
        for name in features.split("+")
    ]
    return FeatureUnion(parts).fit([text[:MOST_TEXT] for text in texts])


def _unit(x: Any) -> Any:
    """Rows made one long, since unit vectors side by side are longer; rows of zeros stay."""
    x = x.tocsr()
    lengths = np.sqrt(np.asarray(x.multiply(x).sum(axis=1), dtype=np.float64).ravel())
    x.data /= np.repeat(np.where(lengths > 0, lengths, 1), np.diff(x.indptr)).astype(x.dtype)
    return x


def _vocabulary_bytes(features: Any) -> int:
    """The terms and one idf each."""
    vocabularies = [part.vocabulary_ for _, part in features.transformer_list]
    return sum(4 * len(terms) + written_bytes(terms) for terms in vocabularies)


@dataclass(frozen=True)
class _Rules:
    """How a call is made: which words of a declaration count, and how arguments are filled."""

    features: str = FEATURES[0]
    parameters: bool = True  # whether names and descriptions of parameters are looked at
    threshold: float = 0.0
    strings: str = next(iter(STRINGS))
    optional: bool = False
    empty: bool = True


def nearest_call(
    rows: Sequence[Request],
    outputs: Sequence[str],
    val_rows: Sequence[Request],
    val_outputs: Sequence[str],
    score: Score,
) -> Plain:
    """Calls the declared function that is nearest to the text, or none.

    Rows are (text, tools), tools as OpenAI declares them. The functions of new rows were never
    seen, so the outputs of training rows say nothing: TF-IDF is fitted on their texts and
    declarations. Chosen on validation by `score`, one after the other: words, letters or both,
    whether parameters are part of a declaration, the likeness below which nothing is called, which
    stretches of the text fill strings, whether optional arguments are filled when found, and
    whether required ones that are not found are left out or empty.

    Raises BadInput if there is no training or no validation row, or no text that is not blank.
    """
    check_rows(rows, val_rows)
    _check_text([text for text, _ in rows])
    rows = [rows[row] for row in sample(len(rows))]

    def cut(near: _Near, rules: _Rules) -> tuple[_Rules, float]:
        """The rules with the best threshold, the middle one of those equally good."""
        calls, thresholds = _calls(val_rows, near, rules), _thresholds(near)
        scores = [score(val_outputs, _above(calls, near, one)) for one in thresholds]
        equals = [place for place, found in enumerate(scores) if found == max(scores)]
        return replace(rules, threshold=thresholds[equals[len(equals) // 2]]), max(scores)

    best_near: _Near = []
    best, best_score = _Rules(), -np.inf
    for features, parameters in product(FEATURES, (True, False)):
        way = _Rules(features=features, parameters=parameters)
        near = _near(_declared_features(rows, way), val_rows, way)
        way, found = cut(near, way)
        if found > best_score:
            best, best_score, best_near = way, found, near
    for strings, optional, empty in product(STRINGS, (False, True), (True, False)):
        way = replace(best, strings=strings, optional=optional, empty=empty)
        calls = _calls(val_rows, best_near, way)
        found = score(val_outputs, _above(calls, best_near, way.threshold))
        if found > best_score:
            best, best_score = way, found
    # Arguments filled well may make calls worth while that were not.
    rules, best_score = cut(best_near, best)
    last = _declared_features([*rows, *val_rows], rules)

    def answer(asked: Sequence[Request]) -> list[str]:
        near = _near(last, asked, rules)
        return _above(_calls(asked, near, rules), near, rules.threshold)

    return Plain(
        name="nearest",
        choice={**vars(rules), "rows": len(rows) + len(val_rows)},
        validation_score=float(best_score),
        answer=answer,
        bytes=4 * HASHES * (1 + rules.features.count("+")),
    )


def _functions(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is declared, without what has no name."""
    found = [tool.get("function") for tool in tools]
    return [one for one in found if isinstance(one, dict) and isinstance(one.get("name"), str)]


def _declaration(function: Mapping[str, Any], parameters: bool) -> str:
    """A declaration in words: name, description and, if asked for, the parameters' too."""
    parts = [function["name"], function.get("description")]
    if parameters:
        schema = function.get("parameters")
        properties = schema.get("properties") if isinstance(schema, dict) else None
        for name, value in (properties if isinstance(properties, dict) else {}).items():
            parts += [name, value.get("description") if isinstance(value, dict) else None]
    written = " ".join(_in_words(part) for part in parts if isinstance(part, str))
    return whole(written[:MOST_TEXT])


def _in_words(name: str) -> str:
    """`getWeather_now` as words; text of several words stays as it is."""
    if " " in name:
        return name
    spaced = "".join(
        f" {letter}" if letter.isupper() and before.islower() else letter
        for before, letter in zip(f" {name}", name, strict=False)
    )
    return spaced.replace("_", " ").replace(".", " ").replace("-", " ")


def _declared_features(rows: Sequence[Request], rules: _Rules) -> Any:
    """TF-IDF fitted on texts and declarations. Terms are hashed, not listed: those of functions
    that were never seen count too, as rare ones do."""
    declared = {
        _declaration(function, rules.parameters): None
        for _, tools in rows
        for function in _functions(tools)
    }
    parts = [
        (
            name,
            make_pipeline(
                HashingVectorizer(
                    **ANALYSERS[name],
                    n_features=HASHES,
                    alternate_sign=False,
                    norm=None,
                    dtype=np.float32,
                ),
                TfidfTransformer(sublinear_tf=True),
            ),
        )
        for name in rules.features.split("+")
    ]
    return FeatureUnion(parts).fit([*(whole(text[:MOST_TEXT]) for text, _ in rows), *declared])


def _near(features: Any, rows: Sequence[Request], rules: _Rules) -> _Near:
    """For each row the nearest function, the first of equals, and how near it is."""
    each = [_functions(tools) for _, tools in rows]
    place: dict[str, int] = {}
    columns = [
        [
            place.setdefault(_declaration(function, rules.parameters), len(place))
            for function in functions
        ]
        for functions in each
    ]
    if not place:
        return [(0.0, None)] * len(rows)
    declared = _unit(features.transform(list(place)))
    texts = _unit(features.transform([whole(text[:MOST_TEXT]) for text, _ in rows]))
    found: _Near = []
    for row, functions in enumerate(each):
        if not functions:
            found.append((0.0, None))
            continue
        alike = (texts[row] @ declared[columns[row]].T).toarray()[0].round(6)
        best = int(alike.argmax())
        found.append((float(alike[best]), functions[best]))
    return found


def _thresholds(near: _Near) -> list[float]:
    """From always calling to never. They lie between the likenesses that were seen, since others
    will be seen; a likeness is at most 1."""
    alike = np.unique([value for value, _ in near])
    between: NDArray[np.float64] = (alike[1:] + alike[:-1]) / 2
    if len(between) > THRESHOLDS:
        between = np.quantile(between, np.linspace(0, 1, THRESHOLDS), method="nearest")
    return [0.0, *(float(value) for value in between), 2.0]


def _calls(rows: Sequence[Request], near: _Near, rules: _Rules) -> list[str]:
    """The call of each row's nearest function, however near it is."""
    answers = []
    for (text, _), (_, function) in zip(rows, near, strict=True):
        calls = []
        if function is not None:
            filled = arguments(
                text[:MOST_TEXT],
                function.get("parameters"),
                strings=rules.strings,
                optional=rules.optional,
                empty=rules.empty,
            )
            calls.append({"name": function["name"], "arguments": filled})
        answers.append(json.dumps(calls, ensure_ascii=False))
    return answers


def _above(calls: Sequence[str], near: _Near, threshold: float) -> list[str]:
    """The calls that are near enough; no call for the others."""
    pairs = zip(calls, near, strict=True)
    return [call if alike >= threshold else "[]" for call, (alike, _) in pairs]
