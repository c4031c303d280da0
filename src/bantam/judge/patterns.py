"""A simple rival for fields: each field by what finds it best.

A field is a leaf of the outputs: a value within objects within objects. For each, validation says
whether it is best given by its commonest value, by values known from the training rows, by numbers
or dates in the text, by patterns learned from where its values stand, or, if it has few values, by
counting words.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from bantam.errors import BadInput
from bantam.judge import finders
from bantam.judge.classified import STRENGTHS, SURE, Classified, fitting
from bantam.judge.finders import DATE, NOTHING, NUMBER, Finder, Known, Patterns, learned
from bantam.judge.plain import Plain, Score, check_rows, sample, written_bytes

MOST_FIELDS = 200  # the commonest are kept
MOST_DEPTH = 8  # of objects within objects; what is deeper is one value

Path = tuple[str, ...]


@dataclass(frozen=True)
class _Way:
    """How a field is answered: by which finder, and what where it finds nothing: "commonest",
    "null", "[]" or "left out"."""

    by: str
    missing: str


@dataclass(frozen=True)
class _Field:
    path: Path
    find: Finder
    missing: Any

    def answer(self, text: str) -> Any:
        found = self.find(text)
        return self.missing if found is NOTHING else found


def patterns(
    texts: Sequence[str],
    outputs: Sequence[str],
    val_texts: Sequence[str],
    val_outputs: Sequence[str],
    score: Score,
) -> Plain:
    """Answers JSON objects field by field.

    Chosen on validation, for each field by how often it is right: what finds its value, and what
    is given where nothing is found: the commonest value, or null, an empty list or no field at all
    if the training rows do so. The simpler of equals is taken; of lists that are equally often
    right, those with more right items.

    Raises BadInput if there is no training or no validation row, or an output is no JSON.
    """
    check_rows(texts, val_texts)
    kept = sample(len(texts))
    texts, values = [texts[row] for row in kept], [_parsed(outputs[row]) for row in kept]
    val_values = [_parsed(output) for output in val_outputs]
    shape = _shape(values)
    ways = {
        path: _best(texts, _column(values, path), val_texts, _column(val_values, path))
        for path in shape
    }
    first = [_fitted(path, way, texts, _column(values, path)) for path, way in ways.items()]
    validation_score = score(val_outputs, _answers(first, _absent(values, shape), val_texts))

    texts, values = [*texts, *val_texts], [*values, *val_values]
    last = [_fitted(path, way, texts, _column(values, path)) for path, way in ways.items()]
    absent = _absent(values, shape)
    return Plain(
        name="patterns",
        choice={
            "fields": {
                ".".join(path): {"by": way.by, "missing": way.missing} for path, way in ways.items()
            },
            "rows": len(texts),
        },
        validation_score=float(validation_score),
        answer=lambda asked: _answers(last, absent, asked),
        bytes=sum(_bytes(field) for field in last),
    )


def _parsed(output: str) -> Any:
    try:
        return json.loads(output)
    except (ValueError, RecursionError):
        raise BadInput(f"an output is no JSON: {output[:60]!r}", "write it as JSON") from None


# Fields


def _leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, dict) and value and len(path) < MOST_DEPTH:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path


def _shape(values: Sequence[Any]) -> list[Path]:
    """The paths of the fields, in the order of the outputs. A value that is an object elsewhere is
    no field of its own."""
    counts = Counter(path for value in values for path in _leaves(value))
    objects = {path[:end] for path in counts for end in range(len(path))}
    fields = [path for path in counts if path not in objects]
    kept = set(sorted(fields, key=lambda path: -counts[path])[:MOST_FIELDS])
    return _ordered([path for path in fields if path in kept], values)


def _ordered(paths: list[Path], values: Sequence[Any]) -> list[Path]:
    """Fields that some outputs leave out stand where they stand in those that have them: after
    the field that comes before them most often."""
    before: dict[Path, Counter[Path]] = {path: Counter() for path in paths}
    for value in values[:1000]:
        row = [path for path in _leaves(value) if path in before]
        for one, other in pairwise([(), *row]):
            before[other][one] += 1
    ordered: list[Path] = []
    for path in paths:
        common = [one for one, _ in before[path].most_common() if one in ordered]
        place = ordered.index(common[0]) + 1 if common else len(ordered)
        ordered.insert(place, path)
    return ordered


def _column(values: Sequence[Any], path: Path) -> list[Any]:
    return [_at(value, path) for value in values]


def _at(value: Any, path: Path) -> Any:
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return NOTHING
        value = value[key]
    return value


def _absent(values: Sequence[Any], shape: Sequence[Path]) -> dict[Path, Any]:
    """What stands in place of an object that has no fields: null most often, if anything."""
    objects = {path[:end] for path in shape for end in range(len(path))}
    found = {}
    for path in objects:
        others = [one for one in _column(values, path) if one is not NOTHING]
        others = [one for one in others if not isinstance(one, dict) or not one]
        if others:
            found[path] = json.loads(_commonest(others))
    return found


def _answers(fields: Sequence[_Field], absent: dict[Path, Any], texts: Sequence[str]) -> list[str]:
    return [json.dumps(_assembled(fields, absent, text), ensure_ascii=False) for text in texts]


def _assembled(fields: Sequence[_Field], absent: dict[Path, Any], text: str) -> Any:
    found = {field.path: field.answer(text) for field in fields}
    # In their order all the same, so a key stands where its field stands.
    root: dict[str, Any] = {}
    for path, value in found.items():
        if path == () and value is not NOTHING:
            return value
        if value is NOTHING:
            value, path = _stand_in(path, found, absent)
        if value is not NOTHING and path:
            inner = root
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner.setdefault(path[-1], value)
    return root if root or () not in absent else absent[()]


def _stand_in(path: Path, found: dict[Path, Any], absent: dict[Path, Any]) -> tuple[Any, Path]:
    """For a field without a value: what stands for the outermost object around it that has no
    field with one."""
    for end in range(1, len(path)):
        outer = path[:end]
        empty = all(v is NOTHING for one, v in found.items() if one[:end] == outer)
        if empty and outer in absent:
            return absent[outer], outer
    return NOTHING, path


# Ways


def _best(
    texts: Sequence[str], values: list[Any], val_texts: Sequence[str], expected: list[Any]
) -> _Way:
    """What is right most often on validation."""
    best, best_worth = _Way("commonest", "commonest"), (-1.0, -1.0)
    for by in _methods(values):
        find = _finder(by, texts, values)
        found = [find(text) for text in val_texts]
        if by != "commonest" and all(one is NOTHING for one in found):
            continue
        for name, missing in _missing(values).items():
            answers = [missing if one is NOTHING else one for one in found]
            pairs = list(zip(expected, answers, strict=True))
            worth = (
                sum(_same(*pair) for pair in pairs) / len(pairs),
                sum(_overlap(*pair) for pair in pairs) / len(pairs),
            )
            if worth > best_worth:
                best, best_worth = _Way(by, name), worth
    return best


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1, but 1.0 is."""
    if one is NOTHING or other is NOTHING:
        return one is other
    if isinstance(one, (dict, list)) or isinstance(other, (dict, list)):
        return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _overlap(one: Any, other: Any) -> float:
    """How many items two lists of strings share, of all that they hold."""
    if not _strings(one) or not _strings(other):
        return float(_same(one, other))
    return len(set(one) & set(other)) / max(1, len(set(one) | set(other)))


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _given(values: Sequence[Any]) -> list[Any]:
    """What there is to find: neither null nor an empty list."""
    return [value for value in values if value is not NOTHING and value is not None and value != []]


def _methods(values: Sequence[Any]) -> list[str]:
    """What may find the values of a field, by their kind; the simplest first."""
    ways = _by_kind(values)
    if not fitting(values):
        return ways
    lists = any(isinstance(value, list) for value in values)
    return ways + [
        f"classified, {strength}{how}"
        for how in (SURE if lists else [""])
        for strength in STRENGTHS
    ]


def _by_kind(values: Sequence[Any]) -> list[str]:
    given = _given(values)
    if given and all(_strings(value) for value in given):
        return ["commonest", "known", "known, trusted"]
    if given and all(type(value) in (int, float) for value in given):
        return ["commonest", "first", "last", "largest", "patterns", "careful patterns"]
    if given and all(isinstance(value, str) for value in given):
        ways = ["commonest", "known", "known, trusted", "known, first"]
        if all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", value) for value in given):
            for order in ("day first", "month first"):
                ways += [f"{kind}, {order}" for kind in ("first", "last")]
                ways += [f"{kind}, {order}" for kind in ("patterns", "careful patterns")]
        return [*ways, "patterns", "careful patterns"]
    return ["commonest"]


def _finder(by: str, texts: Sequence[str], values: Sequence[Any]) -> Finder:
    """A method fitted to rows."""
    kind, _, detail = by.partition(", ")
    given = _given(values)
    if kind == "commonest":
        return _nothing
    if kind == "known":
        lists = any(isinstance(value, list) for value in given)
        rows = [_listed(value) for value in values]
        known = Known(texts, rows, least=0.5 if detail == "trusted" else 0.0)
        if lists:
            return known.some
        return known.first_in if detail == "first" else known.longest_in
    if kind == "classified":
        strength, _, how = detail.partition(" ")
        return Classified(texts, values, strength, SURE[f" {how}" if how else ""]).find
    numbers = all(type(value) in (int, float) for value in given)
    stretch, read = "", finders.read_as_is
    if numbers:
        whole = all(isinstance(value, int) for value in given)
        stretch, read = NUMBER, finders.read_whole if whole else finders.read_number
    elif detail:
        stretch, read = DATE, partial(finders.read_date, day_first=detail == "day first")
    if kind in ("first", "last"):
        return finders.nth(stretch, read, 0 if kind == "first" else -1)
    if kind == "largest":
        return finders.largest(stretch, read)
    there = [NOTHING if value is None else value for value in values]
    return learned(
        texts, there, careful=kind == "careful patterns", stretch=stretch, read=read
    ).find


def _nothing(text: str) -> Any:
    return NOTHING


def _listed(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str)]


def _missing(values: Sequence[Any]) -> dict[str, Any]:
    """What may be given where nothing is found."""
    ways: dict[str, Any] = {}
    if any(value is NOTHING for value in values):
        ways["left out"] = NOTHING
    if any(value is None for value in values):
        ways["null"] = None
    if any(value == [] for value in values):
        ways["[]"] = []
    if any(value is not NOTHING for value in values):
        ways["commonest"] = json.loads(_commonest([v for v in values if v is not NOTHING]))
    return ways


def _commonest(values: Sequence[Any]) -> str:
    return Counter(json.dumps(value) for value in values).most_common(1)[0][0]


def _fitted(path: Path, way: _Way, texts: Sequence[str], values: list[Any]) -> _Field:
    find = _finder(way.by, texts, values)
    return _Field(path, find, _missing(values).get(way.missing, NOTHING))


def _bytes(field: _Field) -> int:
    """The known values or patterns, the path and what is given where nothing is found."""
    owner = getattr(field.find, "__self__", None)
    held: list[str] = list(field.path)
    if isinstance(owner, Known):
        held += owner.values.values()
    elif isinstance(owner, Patterns):
        held += [pattern.source for pattern in owner.patterns]
    elif isinstance(owner, Classified):
        return written_bytes(held) + 4 * owner.numbers
    return written_bytes(held) + 8
