import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from bantam.errors import BadInput
from bantam.judge import nearest as module
from bantam.judge.fill import STRINGS, arguments
from bantam.judge.nearest import nearest, nearest_call
from bantam.judge.plain import Plain

WORDS = ["apple", "bread", "cheese", "dates", "eggs", "figs", "grapes", "honey", "ice", "jam"]


def exact(expected, answers) -> float:
    return float(np.mean([a == b for a, b in zip(expected, answers, strict=True)]))


def exact_json(expected, answers) -> float:
    return float(
        np.mean([json.loads(a) == json.loads(b) for a, b in zip(expected, answers, strict=True)])
    )


def shopping(seed: int, rows: int) -> tuple[list[str], list[str]]:
    """Lists of words, answered by the first of them in the alphabet."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, size=4)) for _ in range(rows)]
    return texts, [json.dumps({"first": min(text.split())}) for text in texts]


def test_it_finds_what_scikit_learn_finds() -> None:
    train, outputs = shopping(0, 150)
    val, val_outputs = shopping(1, 50)
    rival = nearest(train, outputs, val, val_outputs, exact)
    texts, _ = shopping(2, 80)
    seen, answers = [*train, *val], [*outputs, *val_outputs]
    blocks = {
        "word": {"ngram_range": (1, 2), "token_pattern": r"\w+|[^\w\s]"},
        "char": {"ngram_range": (2, 5), "analyzer": "char_wb"},
    }
    # The cosine of unit vectors side by side is the mean of their cosines.
    alike = np.mean(
        [
            cosine_similarity(vectors.transform(texts), vectors.transform(seen))
            for name in rival.choice["features"].split("+")
            for vectors in [
                TfidfVectorizer(**blocks[name], sublinear_tf=rival.choice["sublinear"]).fit(seen)
            ]
        ],
        axis=0,
    )
    for row, answer in enumerate(rival.answer(texts)):
        best = np.flatnonzero(alike[row] > alike[row].max() - 1e-6)
        assert answer in {answers[place] for place in best}
    assert rival.choice["rows"] == 200
    assert 0 < rival.validation_score <= 1


def test_a_known_text_gets_its_output_and_the_first_of_equals() -> None:
    texts, outputs = ["red car", "blue boat", "red car"], ["1", "2", "3"]
    rival = nearest(texts, outputs, ["blue boat"], ["2"], exact)
    assert rival.answer(["a red car", "the boat"]) == ["1", "2"]
    assert rival.answer(["xyz"]) == ["2"]  # nothing in common: the commonest
    assert rival.validation_score == 1.0


def test_letters_are_chosen_where_words_never_return() -> None:
    texts = [f"{stem}{end}" for stem in ("bak", "sing", "walk", "jump") for end in ("ing", "ed")]
    outputs = ["now", "then"] * 4
    rival = nearest(texts, outputs, ["melting", "melted"], ["now", "then"], exact)
    assert "char" in rival.choice["features"]
    assert rival.answer(["frying", "washed"]) == ["now", "then"]


def test_parts_of_the_product_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (*shopping(0, 60), *shopping(1, 30))
    texts, _ = shopping(2, 40)
    whole = nearest(*rows, exact).answer(texts)
    monkeypatch.setattr(module, "MOST_CELLS", 200)
    assert nearest(*rows, exact).answer(texts) == whole


def test_what_cannot_be_fitted_says_so() -> None:
    with pytest.raises(BadInput, match="blank"):
        nearest([" ", ""], ["a", "b"], ["x"], ["a"], exact)
    with pytest.raises(BadInput, match="no training rows"):
        nearest([], [], ["x"], ["a"], exact)
    with pytest.raises(BadInput, match="no validation rows"):
        nearest(["x"], ["a"], [], [], exact)


@pytest.fixture(scope="module")
def fitted() -> Plain:
    return nearest(*shopping(0, 60), *shopping(1, 30), exact)


@given(st.lists(st.text(), max_size=4))
@settings(deadline=None, max_examples=50)
def test_any_text_is_answered(fitted: Plain, texts: list[str]) -> None:
    answers = fitted.answer(texts)
    assert len(answers) == len(texts)
    assert set(answers) <= {json.dumps({"first": word}) for word in WORDS}


# Function calls


def tool(name: str, description: str, required: list[str] | None = None, **properties) -> dict:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
    }
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": schema},
    }


WEATHER = tool("getWeather", "Tells the weather of a city", city={"type": "string"})
TIMER = tool("set_timer", "Starts a timer of some minutes", minutes={"type": "integer"})
LAMP = tool(
    "lamp.colour",
    "Changes the colour of a lamp",
    colour={"type": "string", "enum": ["red", "green", "warm_white"]},
)
RATES = tool("convert", "Converts an amount of money", amount={"type": "number"})
ALL = [WEATHER, TIMER, LAMP]


def requests(seed: int, rows: int) -> tuple[list[tuple[str, list[dict]]], list[str]]:
    rng = np.random.default_rng(seed)
    asked, outputs = [], []
    for _ in range(rows):
        city, minutes = str(rng.choice(["Oslo", "Rome", "New York"])), int(rng.integers(13, 60))
        text, call = [
            (f"what will the weather be in {city}?", ("getWeather", {"city": city})),
            (f"start a timer for {minutes} minutes", ("set_timer", {"minutes": minutes})),
            ("make the lamp warm white please", ("lamp.colour", {"colour": "warm_white"})),
            ("who wrote that poem about ravens", None),
        ][int(rng.integers(4))]
        calls = [] if call is None else [{"name": call[0], "arguments": call[1]}]
        asked.append((text, [ALL[int(place)] for place in rng.permutation(3)]))
        outputs.append(json.dumps(calls))
    return asked, outputs


@pytest.fixture(scope="module")
def caller() -> Plain:
    return nearest_call(*requests(0, 80), *requests(1, 40), exact_json)


def test_calls_are_learnt_and_none_where_nothing_fits(caller: Plain) -> None:
    assert caller.validation_score == 1.0
    asked, expected = requests(2, 50)
    assert exact_json(expected, caller.answer(asked)) == 1.0
    assert 0 < caller.choice["threshold"] < 1
    json.dumps(caller.choice)


def test_functions_that_were_never_seen_are_called(caller: Plain) -> None:
    asked = [("convert the amount 12.50", [TIMER, RATES]), ("what is the weather", [])]
    assert [json.loads(answer) for answer in caller.answer(asked)] == [
        [{"name": "convert", "arguments": {"amount": 12.5}}],
        [],
    ]


def test_nothing_is_called_where_nothing_ever_is() -> None:
    rows = [(text, ALL) for text, _ in requests(0, 20)[0]]
    rival = nearest_call(rows, ["[]"] * 20, rows, ["[]"] * 20, exact_json)
    assert rival.answer(rows) == ["[]"] * 20


@pytest.mark.parametrize(
    ("text", "spec", "expected"),
    [
        ("add 3 and 4,500", {"a": "integer", "b": "integer"}, {"a": 3, "b": 4500}),
        ("from -2.5 to seven", {"a": "number", "b": "integer"}, {"a": -2.5, "b": 7}),
        ('write "Hi you" to Al', {"a": "string", "b": "string"}, {"a": "Hi you", "b": "Al"}),
        ("go to New York now", {"a": "string"}, {"a": "New York"}),
        ("Fly from Bonn to Rome", {"a": "string", "b": "string"}, {"a": "Bonn", "b": "Rome"}),
        ("look about the old harbour, please", {"a": "string"}, {"a": "old harbour"}),
        ("turn it off", {"a": "boolean"}, {"a": False}),
        ("yes, with sugar", {"a": "boolean"}, {"a": True}),
        ("on 2024-05-06 at noon", {"start_date": "string"}, {"start_date": "2024-05-06"}),
        ("mail a.b@c.org", {"email": "string"}, {"email": "a.b@c.org"}),
        ("nothing", {"a": "integer", "b": "array"}, {"a": 0, "b": []}),
    ],
)  # fmt: skip
def test_arguments_by_type(text, spec, expected) -> None:
    schema = {
        "properties": {name: {"type": kind} for name, kind in spec.items()},
        "required": list(spec),
    }
    found = arguments(text, schema, strings=next(iter(STRINGS)), optional=False, empty=True)
    assert found == expected


def test_lists_objects_choices_and_what_is_not_required() -> None:
    schema = {
        "properties": {
            "note": {"type": "string"},
            "sizes": {"type": "array", "items": {"type": "integer"}},
            "days": {"type": "array", "items": {"enum": ["monday", "friday", "sunday"]}},
            "to": {
                "type": "object",
                "properties": {"name": {"type": ["null", "string"]}},
                "required": ["name"],
            },
            "mode": {"type": "string", "enum": ["fast", "slow"], "default": "slow"},
        },
        "required": ["sizes", "days", "to", "mode"],
    }
    text = "print 3, 5 and 8 on friday and Monday for Ann"
    found = arguments(text, schema, strings=next(iter(STRINGS)), optional=False, empty=True)
    assert found == {
        "sizes": [3, 5, 8],
        "days": ["friday", "monday"],
        "to": {"name": "Monday"},
        "mode": "slow",
    }
    text = 'note "buy milk", fast'
    found = arguments(text, schema, strings=next(iter(STRINGS)), optional=True, empty=False)
    assert found == {"to": {"name": "buy milk"}, "mode": "fast"}


def test_halves_of_letters_are_borne(fitted: Plain, caller: Plain) -> None:
    assert len(fitted.answer(["\ud800"])) == 1
    assert caller.answer([("\ud800", [tool("\ud800", "\ud800 b")])])[0].startswith("[")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "required", "enum", "items", "name", "description"]
            )
            | st.text(max_size=4),
            inner | st.sampled_from(["object", "array", "integer", "string"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.text(), st.lists(st.fixed_dictionaries({"function": anything}), max_size=3))
@settings(deadline=None, max_examples=150)
def test_any_text_and_any_declaration_are_answered(caller: Plain, text, tools) -> None:
    (answer,) = caller.answer([(text, tools)])
    assert isinstance(json.loads(answer), list)


@given(st.text(), anything, st.sampled_from(sorted(STRINGS)), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=150)
def test_any_schema_is_filled(text, schema, strings, optional, empty) -> None:
    json.dumps(arguments(text, schema, strings=strings, optional=optional, empty=empty))
