import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import classification_report, f1_score
from seqeval.scheme import IOB2

from bantam.errors import BadInput
from bantam.judge.records import extraction, same

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)  # JSON has no others
LEAVES = st.none() | st.booleans() | st.integers() | NUMBERS | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
# Few keys and few leaves, so that expected and answered values have some in common.
ALIKE = st.recursive(
    st.sampled_from([None, True, 1, 1.0, 0, "a", "b", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (5, 5.0, True),
        (1, True, False),
        (0, False, False),
        ([1], [True], False),
        (None, None, True),
        (None, False, False),
        ("5", 5, False),
        ("a", "A", False),
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ([], {}, False),
        ({"a": [{"b": [1, {"c": True}]}]}, {"a": [{"b": [1, {"c": 1}]}]}, False),
    ],
)
def test_same(one: Any, other: Any, equal: bool) -> None:
    assert same(one, other) is same(other, one) is equal


@given(VALUES)
def test_a_value_equals_itself_written_and_read(value: Any) -> None:
    assert same(value, value)
    assert same(value, json.loads(json.dumps(value, sort_keys=True)))
    assert same([value], [json.loads(json.dumps(value))])
    assert not same([value], [value, value])


@given(ALIKE, ALIKE)
def test_same_is_equality_of_the_text_in_one_spelling(one: Any, other: Any) -> None:
    def spelled(value: Any) -> str:
        return json.dumps(value, sort_keys=True).replace("1.0", "1")

    assert same(one, other) == (spelled(one) == spelled(other))


INVOICES = [
    {"vendor": {"name": "Ada", "vat": None}, "total": 12, "tags": ["x", "x", "y"]},
    {"vendor": {"name": "Bob"}, "total": 3.5, "items": [{"price": 1}, {"price": 2}]},
    {"vendor": {"name": "Cy"}, "paid": True},
]
ANSWERED = [
    '{"tags": ["y", "x", "z"], "total": 12.0, "vendor": {"name": "Ada"}}',
    '{"vendor": {"name": "Bo"}, "items": [{"price": 2}, {"price": 1}], "note": "hm"}',
    '{"vendor": {"name": "Cy"',
]


def test_fields_counted_by_hand() -> None:
    scores = extraction([json.dumps(one) for one in INVOICES], ANSWERED)
    assert scores["exact_match"] == 0
    assert scores["parsed"] == pytest.approx(2 / 3)
    # Expected: 5 + 4 + 2 fields; answered: 5 + 4; right: name, total, x, y, and two prices.
    assert scores["precision"] == pytest.approx(6 / 9)
    assert scores["recall"] == pytest.approx(6 / 11)
    assert scores["f1"] == pytest.approx(12 / 20)
    rows = {row["label"]: row for row in scores["per_field"]}
    assert list(rows) == ["items[].price", "note", "paid", "tags[]", "total", "vendor.name"]
    assert [row["support"] for row in rows.values()] == [2, 0, 1, 3, 2, 3]
    assert [row["f1"] for row in rows.values()] == pytest.approx([1, 0, 0, 2 / 3, 2 / 3, 2 / 5])
    assert rows["note"]["recall"] is None
    assert rows["paid"]["precision"] is None
    assert scores["macro_f1"] == pytest.approx((1 + 0 + 2 / 3 + 2 / 3 + 2 / 5) / 5)
    assert scores["span_f1"] is scores["per_span"] is None


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        ("word", ["$"]),
        ([1, [2, [3]]], ["[]", "[][]", "[][][]"]),
        ([{"name": "f", "arguments": {"x": 1}}], ["[].arguments.x", "[].name"]),
        ({"a.b": 1, "": 2, "c[]": 3, "d e": 4}, ['""', '"a.b"', '"c[]"', "d e"]),
        ({"a": None, "b": [], "c": {}, "d": [None]}, []),
    ],
)
def test_paths(value: Any, labels: list[str]) -> None:
    scores = extraction([json.dumps(value)], [json.dumps(value)])
    assert [row["label"] for row in scores["per_field"]] == labels
    assert scores["exact_match"] == 1
    assert scores["f1"] == (1 if labels else None)


def test_a_number_is_no_truth_value_and_null_is_nothing() -> None:
    scores = extraction(['{"a": 1, "b": null}', '{"a": true}'], ['{"a": true}', '{"a": true}'])
    assert scores["per_field"] == [
        {"label": "a", "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    ]
    scores = extraction(['{"a": 1, "b": null}'], ['{"a": 1.0}'])
    assert (scores["f1"], scores["exact_match"]) == (1, 0)


@pytest.mark.parametrize(
    "answer",
    [None, "", "{", "{'a': 1}", '{"a": 1} and more', '{"a": NaN}', "-Infinity", "[" * 100_000],
)
def test_what_is_no_json_holds_nothing(answer: str | None) -> None:
    scores = extraction(['{"a": 1}'], [answer])
    assert scores["parsed"] == scores["exact_match"] == scores["recall"] == scores["f1"] == 0
    assert scores["precision"] is None


def test_null_is_json() -> None:
    scores = extraction(["null", "null"], ["null", "None"])
    assert (scores["parsed"], scores["exact_match"]) == (0.5, 0.5)
    assert scores["f1"] is scores["macro_f1"] is None


def test_depth_is_no_matter() -> None:
    for depth in (10, 200, 900):
        text = "[" * depth + "1" + "]" * depth
        scores = extraction([text], [text])
        assert scores["f1"] == scores["exact_match"] == 1


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="no test rows"):
        extraction([], [])
    with pytest.raises(BadInput, match="row 2 is no JSON"):
        extraction(["1", "[1,"], ["1", "1"])
    with pytest.raises(BadInput, match="row 1 is no JSON"):
        extraction(["NaN"], ["1"])


def shares(scores: dict[str, Any]) -> list[float | None]:
    rows = [scores, *scores["per_field"], *(scores["per_span"] or [])]
    return [
        row[key]
        for row in rows
        for key in ("precision", "recall", "f1", "exact_match", "parsed", "macro_f1", "span_f1")
        if key in row
    ]


@given(st.lists(st.tuples(ALIKE, ALIKE | st.just("broken")), min_size=1, max_size=5), st.randoms())
def test_shares_are_shares_and_the_order_of_rows_is_none_of_theirs(
    pairs: list[tuple[Any, Any]], order: random.Random
) -> None:
    rows = [(json.dumps(one), "{" if two == "broken" else json.dumps(two)) for one, two in pairs]
    scores = extraction(*zip(*rows, strict=True))
    assert all(share is None or 0 <= share <= 1 for share in shares(scores))
    order.shuffle(rows)
    assert shares(extraction(*zip(*rows, strict=True))) == pytest.approx(shares(scores))


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_perfect_answers_score_one(values: list[Any]) -> None:
    texts = [json.dumps(value) for value in values]
    scores = extraction(texts, [json.dumps(value, sort_keys=True) for value in values])
    assert scores["exact_match"] == scores["parsed"] == 1
    assert set(shares(scores)) <= {1, None}


# Spans, with seqeval as the reference. Sentences of 30 characters, tagged by character.

LENGTH = 30


def random_spans(dice: random.Random) -> list[tuple[str, int, int]]:
    """Some labelled spans of a sentence that do not overlap, which tags could not say."""
    cuts = sorted(dice.sample(range(LENGTH + 1), 8))
    places = zip(cuts[::2], cuts[1::2], strict=True)
    return [(dice.choice(["LOC", "ORG", "PER"]), *place) for place in places if dice.random() < 0.7]


def altered(spans: list[tuple[str, int, int]], dice: random.Random) -> list[tuple[str, int, int]]:
    kept = [span for span in spans if dice.random() < 0.8]
    relabelled = [("PER" if dice.random() < 0.2 else label, *place) for label, *place in kept]
    return [
        (label, start, end - (dice.random() < 0.2 and end - start > 1))
        for label, start, end in relabelled
    ]


def tags(spans: list[tuple[str, int, int]]) -> list[str]:
    told = ["O"] * LENGTH
    for label, start, end in spans:
        told[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
    return told


def entities(spans: list[tuple[str, int, int]], key: str) -> str:
    return json.dumps({"entities": [{"start": s, "end": e, key: label} for label, s, e in spans]})


@pytest.mark.parametrize("seed", range(10))
def test_spans_agree_with_seqeval(seed: int) -> None:
    dice = random.Random(seed)
    truth = [random_spans(dice) for _ in range(40)]
    answers = [
        altered(spans, dice) if dice.random() < 0.9 else random_spans(dice) for spans in truth
    ]
    scores = extraction(
        [entities(spans, "label") for spans in truth],
        [entities(spans, "type") for spans in answers],
    )
    both = [tags(spans) for spans in truth], [tags(spans) for spans in answers]
    assert scores["span_f1"] == pytest.approx(f1_score(*both, mode="strict", scheme=IOB2))
    report = classification_report(*both, mode="strict", scheme=IOB2, output_dict=True)
    assert [row["label"] for row in scores["per_span"]] == ["LOC", "ORG", "PER"]
    for row in scores["per_span"]:
        told = report[row["label"]]
        assert row["support"] == told["support"]
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx(
            [told["precision"], told["recall"], told["f1-score"]]
        )


def test_spans_by_hand() -> None:
    expected = [
        '{"who": {"start": 0, "end": 3}, "rest": [{"start": 5, "end": 7, "type": "ORG"}]}',
        '[{"start": 1, "end": 2, "label": "ORG"}, {"start": true, "end": 2}, '
        '{"start": 1.5, "end": 2}]',
        '{"start": 1, "end": 2, "label": 7}',
    ]
    answers = [
        '[{"start": 0.0, "end": 3}, {"start": 5, "end": 8, "type": "ORG"}]',
        expected[1],
        None,
    ]
    scores = extraction(expected, answers)
    assert scores["span_f1"] == pytest.approx(2 * 2 / (4 + 3))
    assert scores["per_span"] == [
        {"label": "", "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2},
        {"label": "ORG", "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2},
    ]


def test_a_span_told_twice_is_wrong_once() -> None:
    span = '{"start": 0, "end": 3, "label": "ORG"}'
    scores = extraction([f"[{span}]"], [f"[{span}, {span}]"])
    assert scores["span_f1"] == pytest.approx(2 / 3)


def test_no_spans_are_scored_where_none_are_expected() -> None:
    scores = extraction(["[]"], ['[{"start": 0, "end": 3}]'])
    assert scores["span_f1"] is scores["per_span"] is None
