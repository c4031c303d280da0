"""What answers in JSON scored against the expected JSON: whole, field by field, and as spans."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bantam.errors import BadInput

WHOLE = "$"  # the label of an output that is one bare value
PLAIN = re.compile(r'[^.$"\[\]]+')  # keys that may stand in a path as they are

# A count of things, each with the label under which it is scored first.
Bag = Counter[tuple[Any, ...]]


def same(expected: Any, answer: Any) -> bool:
    """Whether two JSON values are equal.

    5 equals 5.0 and true does not equal 1; the order of keys says nothing, that of items does.
    """
    left = [(expected, answer)]  # no recursion: an answer may be nested as deep as its text is long
    while left:
        one, other = left.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            if one.keys() != other.keys():
                return False
            left.extend((one[key], other[key]) for key in one)
        elif isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return False
            left.extend(zip(one, other, strict=True))
        elif isinstance(one, bool) is not isinstance(other, bool) or one != other:
            return False
    return True


def extraction(expected: Sequence[str], answers: Sequence[str | None]) -> dict[str, Any]:
    """Score JSON texts, one a row; an answer that is None or no JSON holds nothing and is wrong.

    A field is a leaf of the value: its path, such as `vendor.name`, and what stands there. Items
    of lists are a multiset under `tags[]`, those of lists of objects under `items[].price`. Null
    and missing count alike as nothing. `precision`, `recall` and `f1` are over all fields of all
    rows, `per_field` over one path. `macro_f1` is the mean over the paths that the expected outputs
    hold: a path that one answer in a thousand invented costs precision, not a share of this mean.

    A span is an object with the whole numbers `start` and `end` (characters, end exclusive) and
    perhaps a `label` or `type`. It is right if label, start and end all are (the strict match of
    CoNLL-2003, Tjong Kim Sang and De Meulder). `span_f1` (over all spans) and `per_span` are None
    where no expected output holds a span.

    `exact_match` is the share of rows that are `same`, `parsed` the share of answers that are JSON.
    What is undefined (the precision of a path never answered) is None.

    Raises BadInput for no rows, or an expected output that is no JSON.
    """
    if not expected:
        raise BadInput("there are no test rows to judge", "give more examples or a test file")
    wanted = [_expected(text, row) for row, text in enumerate(expected, 1)]
    given = [_answered(answer) for answer in answers]
    exact = [bool(got) and same(one, got[0]) for one, got in zip(wanted, given, strict=True)]
    fields, per_field = _scores(wanted, given, _fields)
    spans, per_span = _scores(wanted, given, _spans)
    occurring = [row["f1"] for row in per_field if row["support"]]
    has_spans = bool(spans["support"])
    return {
        "exact_match": sum(exact) / len(exact),
        "parsed": sum(map(bool, given)) / len(given),
        "precision": fields["precision"],
        "recall": fields["recall"],
        "f1": fields["f1"],
        "macro_f1": sum(occurring) / len(occurring) if occurring else None,
        "per_field": per_field,
        "span_f1": spans["f1"] if has_spans else None,
        "per_span": per_span if has_spans else None,
    }


def _expected(text: str, row: int) -> Any:
    try:
        return _read(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"the expected output of test row {row} is no JSON: {error}", "mend that row"
        ) from None


def _answered(answer: str | None) -> list[Any]:
    """The value in a list, or an empty list: null is an answer too."""
    if answer is None:
        return []
    try:
        return [_read(answer)]
    except (ValueError, RecursionError):
        return []


def _read(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    """Python reads NaN and Infinity, which JSON does not have."""
    raise ValueError(f"{constant} is no number")


def _scores(
    wanted: Sequence[Any], given: Sequence[list[Any]], things: Callable[[Any], Bag]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The scores of all things, and of the things of each label, in the order of the labels."""
    support: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for value, answer in zip(wanted, given, strict=True):
        here = things(value)
        there = things(answer[0]) if answer else Counter()
        for counts, bag in ((support, here), (answered, there), (right, here & there)):
            for thing, count in bag.items():
                counts[thing[0]] += count
    labels = sorted(support | answered)
    per_label = [
        {"label": label, **_score(right[label], answered[label], support[label])}
        for label in labels
    ]
    return _score(right.total(), answered.total(), support.total()), per_label


def _score(right: int, answered: int, support: int) -> dict[str, Any]:
    return {
        "precision": right / answered if answered else None,
        "recall": right / support if support else None,
        "f1": 2 * right / (answered + support) if answered + support else None,
        "support": support,
    }


def _fields(value: Any) -> Bag:
    """How often each (path, whether it is a truth value, leaf) stands in a value."""
    return Counter(
        (path or WHOLE, isinstance(leaf, bool), leaf)
        for path, leaf in _walk(value)
        if leaf is not None and not isinstance(leaf, dict | list)
    )


def _spans(value: Any) -> Bag:
    """How often each (label, start, end) stands in a value; the label of a bare span is ""."""
    return Counter(
        (_label(part), int(part["start"]), int(part["end"]))
        for _, part in _walk(value)
        if isinstance(part, dict) and _is_place(part.get("start")) and _is_place(part.get("end"))
    )


def _label(span: dict[str, Any]) -> str:
    names = (span.get("label"), span.get("type"))
    return next((name for name in names if isinstance(name, str)), "")


def _is_place(value: Any) -> bool:
    """A whole number; 5.0 is one in JSON."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return whole and not isinstance(value, bool)


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """A value and all that it holds, each with its path."""
    left = [("", value)]
    while left:
        path, part = left.pop()
        yield path, part
        if isinstance(part, dict):
            start = f"{path}." if path else ""
            left.extend((start + _key(key), inner) for key, inner in part.items())
        elif isinstance(part, list):
            left.extend((f"{path}[]", inner) for inner in part)


def _key(key: str) -> str:
    """A key as it stands in a path: `"a.b"` if it could be taken for a path itself."""
    return key if PLAIN.fullmatch(key) else json.dumps(key, ensure_ascii=False)
