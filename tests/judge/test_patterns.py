import json
import random
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.errors import BadInput
from bantam.judge import finders
from bantam.judge.finders import DATE, NOTHING, NUMBER, Known, learned
from bantam.judge.patterns import patterns
from bantam.judge.plain import Plain

CITIES = ["Oslo", "New York", "York", "Rome", "Lima", "Bergen"]
COLOURS = ["red", "green", "dark green", "blue"]


def exact(expected, answers) -> float:
    return float(
        np.mean([json.loads(a) == json.loads(b) for a, b in zip(expected, answers, strict=True)])
    )


def orders(seed: int, rows: int) -> tuple[list[str], list[str]]:
    """Orders with a field for every way of finding one."""
    rng = np.random.default_rng(seed)
    texts, outputs = [], []
    for _ in range(rows):
        number, amount = int(rng.integers(1000, 99_999)), int(rng.integers(2, 99))
        day, month = int(rng.integers(1, 29)), int(rng.integers(1, 13))
        city = str(rng.choice(CITIES))
        colours = [
            str(one) for one in rng.choice(COLOURS, size=int(rng.integers(3)), replace=False)
        ]
        name = "".join(chr(97 + int(n)) for n in rng.integers(26, size=6)).title()
        gift = rng.random() < 0.5
        text = (
            f"Order INV-{number} of {day:02}/{month:02}/2024 to {city}\n"
            f"Name: {name} B. Smith\n{amount} pieces {' and '.join(colours)}"
        )
        if gift:
            text += f"\nGift for {name.upper()}!"
        value = {
            "kind": "order",
            "id": f"INV-{number}",
            "date": f"2024-{month:02}-{day:02}",
            "to": {"city": city, "name": f"{name} B. Smith"},
            "pieces": amount,
            "colours": colours,
            "gift": name.upper() if gift else None,
        }
        if gift:
            value["card"] = {"for": name.upper()}
        texts.append(text)
        outputs.append(json.dumps(value))
    return texts, outputs


@pytest.fixture(scope="module")
def fitted() -> Plain:
    return patterns(*orders(0, 120), *orders(1, 60), exact)


def test_every_field_is_found(fitted: Plain) -> None:
    texts, outputs = orders(2, 60)
    assert fitted.validation_score == 1.0
    answers = fitted.answer(texts)
    assert answers == outputs  # the order of keys too
    by = {path: field["by"] for path, field in fitted.choice["fields"].items()}
    assert by["kind"] == "commonest"
    assert by["to.city"].startswith("known")
    assert by["date"].endswith("day first")
    assert by["colours"].startswith("known")
    assert "patterns" in by["id"]
    assert fitted.choice["fields"]["gift"]["missing"] == "null"
    assert fitted.choice["fields"]["card.for"]["missing"] == "left out"
    json.dumps(fitted.choice)
    assert fitted.bytes > 100


def test_where_training_always_has_a_value_the_commonest_is_given() -> None:
    texts = ["size big", "size small", "size big", "no word"]
    outputs = ['{"s": "big"}', '{"s": "small"}', '{"s": "big"}', '{"s": "big"}']
    rival = patterns(texts, outputs, texts, outputs, exact)
    assert rival.answer(["nothing", "small"]) == ['{"s": "big"}', '{"s": "small"}']


def test_an_object_that_is_null_at_times_is_null_where_its_fields_are_not_found() -> None:
    texts = [f"code x{n}" for n in range(20)] + ["none here"] * 15
    outputs = [json.dumps({"a": {"code": f"x{n}"}}) for n in range(20)] + ['{"a": null}'] * 15
    val = ["code x50", "none here"]
    val_outputs = ['{"a": {"code": "x50"}}', '{"a": null}']
    rival = patterns(texts, outputs, val, val_outputs, exact)
    assert rival.answer(["code x77", "no"]) == ['{"a": {"code": "x77"}}', '{"a": null}']


def test_the_last_fit_sees_the_validation_rows_too() -> None:
    texts, outputs = ["in Oslo", "in Rome"] * 5, ['{"c": "Oslo"}', '{"c": "Rome"}'] * 5
    val = ["Oslo", "Rome", "Lima it is", "Rome"]
    val_outputs = ['{"c": "Oslo"}', '{"c": "Rome"}', '{"c": "Lima"}', '{"c": "Rome"}']
    rival = patterns(texts, outputs, val, val_outputs, exact)
    assert rival.answer(["we saw Lima"]) == ['{"c": "Lima"}']
    assert rival.validation_score == 0.75


def test_outputs_that_are_no_objects_are_one_field() -> None:
    texts, outputs = ["3 cats", "5 dogs", "8 birds"], ["3", "5", "8"]
    assert patterns(texts, outputs, texts, outputs, exact).answer(["13 fish"]) == ["13"]


def test_what_cannot_be_fitted_says_so() -> None:
    with pytest.raises(BadInput, match="no JSON"):
        patterns(["a"], ["{"], ["a"], ["{}"], exact)
    with pytest.raises(BadInput, match="no training rows"):
        patterns([], [], ["a"], ["{}"], exact)
    with pytest.raises(BadInput, match="no validation rows"):
        patterns(["a"], ["{}"], [], [], exact)


# Finders


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("12", 12),
        ("-7", -7),
        ("1,234", 1234),
        ("1,234.50", 1234.5),
        ("1.234,50", 1234.5),
        ("1.234.567", 1234567),
        ("3,5", 3.5),
        ("3.125", 3.125),
    ],
)
def test_numbers_are_read(written, number) -> None:
    found = finders.read_number(written)
    assert (found, type(found)) == (number, type(number))
    assert re.search(NUMBER, f"costs {written}.")[0] == written


@pytest.mark.parametrize(
    ("written", "iso"),
    [
        ("2024-03-09", "2024-03-09"),
        ("9.3.2024", "2024-03-09"),
        ("09/03/24", "2024-03-09"),
        ("9 March 2024", "2024-03-09"),
        ("9th of Mar, 2024", "2024-03-09"),
        ("Mar. 9, 2024", "2024-03-09"),
        ("march 9th 2024", "2024-03-09"),
        ("31.2.2024", NOTHING),
    ],
)
def test_dates_are_read(written, iso) -> None:
    assert re.search(DATE, f"on {written}!")[0] == written
    assert finders.read_date(written, day_first=True) == iso
    if written == "09/03/24":
        assert finders.read_date(written, day_first=False) == "2024-09-03"


def test_known_values_are_found_longest_first() -> None:
    known = Known(["x"] * 3, [["New York"], ["York"], ["Rome"]])
    assert known.all("from YORK to new york, york and Romeo") == ["York", "New York"]
    assert known.longest_in("York, New York") == "New York"
    assert known.first_in("York, New York") == "York"
    assert known.longest_in("") is NOTHING


def test_known_values_that_mostly_mean_something_else_are_not_trusted() -> None:
    texts = ["May came in may", "you may go", "may I", "Ann may"]
    values = [["May"], [], [], ["Ann"]]
    assert Known(texts, values, least=0.5).all("may Ann") == ["Ann"]
    assert Known(texts, values).all("may Ann") == ["May", "Ann"]


def test_patterns_tell_values_of_one_shape_by_what_is_before_them() -> None:
    rng = np.random.default_rng(0)
    texts, values = [], []
    for _ in range(40):
        one, other = (str(n) for n in rng.integers(100, 999, size=2))
        texts.append(
            f"from {other} and code {one}" if rng.random() < 0.5 else f"code {one}, {other}"
        )
        values.append(one)
    for careful in (True, False):
        found = learned(texts, values, careful=careful)
        assert found.find("12 from 333 and Code 444 or 555") == "444"
        assert found.find("nothing") is NOTHING
        assert len(found.patterns) <= finders.MOST_PATTERNS


HOSTILE = [
    "(a+)+$",
    "((((((((((",
    "[a-z]*[a-z]*[a-z]*b",
    "\\d+\\",
    "a" * 150,
    "a1" * 12,
    "- " * 40 + "x",
    ". . . . . .",
    "1,1,1,1,1,1",
    "(?P<x>.*)*",
    "x{1,1000}{1,1000}",
]
LONG = [
    "a" * 30_000,
    "a1" * 15_000,
    " " * 30_000,
    "- " * 15_000,
    "1," * 15_000,
    "1" * 30_000,
    "(" * 30_000,
    "a " * 15_000,
    "Name: " * 5_000,
    "\n" * 30_000,
    "1 jan " * 5_000,
]


def test_hostile_data_cannot_make_patterns_slow() -> None:
    texts = [
        f"{left} {value}{right}" for value in HOSTILE for left in HOSTILE for right in (" -", "")
    ]
    values = [value for value in HOSTILE for _ in range(2 * len(HOSTILE))]
    outputs = [json.dumps({"v": value, "n": 11.5}) for value in values]
    rival = patterns(texts, outputs, texts[::5], outputs[::5], exact)
    every = learned(texts, values, careful=False).patterns
    assert every
    for text in LONG:
        start = time.perf_counter()
        rival.answer([text])
        for pattern in every:
            pattern.find(text)
            pattern.find(text + "!")
        assert time.perf_counter() - start < 5


def test_every_candidate_is_linear() -> None:
    """Whatever may be learned from one place reads the longest texts in no time."""
    sources = {NUMBER, DATE}
    for value in HOSTILE:
        text = f"Name: 1 {value} - x"
        sources |= finders._sources(text, 8, 8 + len(value), "")
        sources |= finders._sources(text, 8, 8 + len(value), NUMBER)
    for text in LONG:
        for source in sources:
            compiled = re.compile(source)
            start = time.perf_counter()
            compiled.search(text[:20_000])
            assert time.perf_counter() - start < 1, (source, text[:10])


@given(st.text(max_size=30), st.text(min_size=1, max_size=12), st.text(max_size=30))
@settings(deadline=None, max_examples=150)
def test_what_is_learned_from_a_place_finds_it(before, value, after) -> None:
    text = before + value + after
    for start, end in finders._places(text, value):
        sources = finders._sources(text, start, end, "")
        for source in sources:
            assert re.compile(source).search(text), source


@given(st.lists(st.text(max_size=40), max_size=4))
@settings(deadline=None, max_examples=100)
def test_any_text_is_answered(fitted: Plain, texts: list[str]) -> None:
    answers = fitted.answer(texts)
    assert len(answers) == len(texts)
    assert all(json.loads(answer)["kind"] == "order" for answer in answers)


@given(st.from_regex(NUMBER, fullmatch=True), st.from_regex(DATE, fullmatch=True))
@settings(deadline=None, max_examples=150)
def test_what_looks_like_a_number_or_a_date_is_read(number, day) -> None:
    assert isinstance(finders.read_number(number), (int, float))
    assert finders.read_date(day, True) is NOTHING or len(finders.read_date(day, True)) == 10


values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(st.tuples(st.text(max_size=20), values), min_size=1, max_size=5), st.text())
@settings(deadline=None, max_examples=150)
def test_any_outputs_are_learned_from(rows, other) -> None:
    # Texts that hold their outputs, so that something is there to be found.
    outputs = [json.dumps(value) for _, value in rows]
    texts = [f"{text} {output}" for (text, _), output in zip(rows, outputs, strict=True)]
    rival = patterns(texts, outputs, texts, outputs, exact)
    answers = rival.answer([*texts, other])
    assert len(answers) == len(texts) + 1
    for answer in answers:
        json.loads(answer)


def test_fields_with_few_values_that_no_text_holds() -> None:
    """Such as a mood: only counting words can tell it, as scikit-learn does by itself."""
    chance = random.Random(3)
    words = {"good": ["bright", "sharp", "lovely"], "poor": ["broken", "dull", "awful"]}
    texts, outputs = [], []
    for number in range(300):
        moods = [mood for mood in words if chance.random() < 0.5]
        told = [chance.choice(words[mood]) for mood in moods] + [f"row {number}"]
        chance.shuffle(told)
        texts.append(" ".join(told))
        whole = "mixed" if len(moods) == 2 else moods[0] if moods else None
        outputs.append(json.dumps({"mood": whole, "moods": sorted(moods)}))
    fitted = patterns(texts[:200], outputs[:200], texts[200:250], outputs[200:250], exact)
    chosen = fitted.choice["fields"]
    assert chosen["mood"]["by"].startswith("classified")
    assert chosen["moods"]["by"].startswith("classified")
    assert exact(outputs[250:], fitted.answer(texts[250:])) > 0.9
    assert fitted.bytes > 1000
