"""Whatever the schema, whatever the model says, whenever it has to stop: JSON that follows it."""

import json
import random
from collections.abc import Sequence
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from bantam.engine import Sampling
from bantam.errors import JobFailed
from bantam.formats.tokenizer import Tokenizer
from bantam.kinds import constrain, schema
from bantam.kinds.grammar import grammar

TOKENIZERS = [
    Tokenizer(tiny.tokenizer_metadata(vocab_size=800), "byte level"),
    Tokenizer(tiny.sentencepiece_metadata(), "sentencepiece"),
]
VOCABULARIES = [constrain.vocabulary(tokenizer) for tokenizer in TOKENIZERS]

NAMES = st.sampled_from(["a", "ab", "abc", "name", "nam e", "é", 'quo"te', "back\\slash"])
TEXTS = st.one_of(
    st.builds(
        lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more},
        st.integers(0, 4),
        st.integers(0, 5),
    ),
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "string", "format": "date"},
            {"type": "string", "pattern": "^[A-Z]{3}-[0-9]+$"},
            {"type": "string", "pattern": "^(ab)*c$"},
            {"type": "string", "pattern": "b[0-9]b"},
        ]
    ),
)
BOUNDS = st.floats(-1000, 1000).map(lambda x: round(x, 3))


def number(kind: str, low: float, more: float, open_: tuple[bool, bool]) -> dict[str, Any]:
    # A sum like -361.66400000000004 would be refused: the decoder reads fewer digits of a bound.
    highest = round(low + more, 3)
    least, most = (low, highest) if kind == "number" else (int(low), int(low + more) + 2)
    return {
        "type": kind,
        "exclusiveMinimum" if open_[0] else "minimum": least,
        "exclusiveMaximum" if open_[1] else "maximum": most,
    }


NUMBERS = st.one_of(
    st.builds(
        number,
        st.sampled_from(["number", "integer"]),
        BOUNDS,
        st.floats(0.01, 500).map(lambda x: round(x, 3)),
        st.tuples(st.booleans(), st.booleans()),
    ),
    st.sampled_from([{"type": "integer"}, {"type": "number"}, {"type": "number", "minimum": 0}]),
)
ENUMS = st.one_of(
    st.lists(
        st.sampled_from(["cel", "celsius", "celsius scale", "c", 1, 1.5, None, True, "", "1"]),
        min_size=1,
        max_size=5,
        unique_by=json.dumps,
    ).map(lambda values: {"enum": values}),
    st.sampled_from([{"const": {"a": [1, None]}}, {"type": "boolean"}, {"type": "null"}, {}]),
)
RECURSIVE = {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}
LEAVES = st.one_of(TEXTS, NUMBERS, ENUMS, st.just(RECURSIVE))


def objects(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    properties = st.dictionaries(NAMES, parts, max_size=4)
    return properties.flatmap(
        lambda held: st.builds(
            lambda required: {
                "type": "object",
                "properties": held,
                "required": required,
                "additionalProperties": False,
            },
            st.lists(st.sampled_from(list(held)), unique=True) if held else st.just([]),
        )
    )


def lists(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda items, low, more: {
            "type": "array",
            "items": items,
            "minItems": low,
            "maxItems": low + more,
        },
        parts,
        st.integers(0, 3),
        st.integers(0, 3),
    )


def either(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(parts, min_size=1, max_size=3).map(lambda some: {"anyOf": some})


TREE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "next": RECURSIVE},
    "required": ["next"],
    "additionalProperties": False,
}
SCHEMAS = st.recursive(
    LEAVES, lambda parts: st.one_of(objects(parts), lists(parts), either(parts)), max_leaves=6
).map(lambda node: node | {"$defs": {"tree": TREE}})


class Drunk:
    """A model that says anything, always the same for the same seed."""

    def __init__(self, seed: int, vocabulary: int) -> None:
        self.seed, self.vocabulary = seed, vocabulary

    def likeliest(self, prompt: list[int], count: int) -> list[tuple[int, float]]:
        dice = random.Random(f"{self.seed} {len(prompt)}")
        return [(token, 1 / count) for token in dice.sample(range(self.vocabulary), count)]

    def choose(
        self, prompts: Sequence[list[int]], candidates: Sequence[list[int]]
    ) -> list[list[float]]:
        dice = random.Random(f"{self.seed} {len(prompts[0])}")
        return [[dice.random() for _ in some] for some in candidates]


@pytest.mark.parametrize("which", [0, 1], ids=["byte level", "sentencepiece"])
@settings(max_examples=150, deadline=None)
@given(made=SCHEMAS, seed=st.integers(0, 1000), most=st.integers(1, 80))
def test_any_schema_any_model_any_limit(which: int, made: Any, seed: int, most: int) -> None:
    schema.check(made, "made")
    vocabulary = VOCABULARIES[which]
    drunk = Drunk(seed, TOKENIZERS[which].vocab_size)
    told = constrain.decode(drunk.likeliest, drunk.choose, [1], vocabulary, grammar(made), most)
    value = json.loads(told.text)
    jsonschema.validate(
        value,
        made,
        jsonschema.Draft202012Validator,
        format_checker=jsonschema.FormatChecker(["date"]),
    )
    assert schema.mistake(made, value) is None
    assert told.asked <= most
    assert told.log_probability <= 0
    least = constrain.decode(drunk.likeliest, drunk.choose, [1], vocabulary, grammar(made), 0)
    assert told.tokens <= max(most, least.tokens)


@given(
    raw=st.lists(st.integers(1, 40), min_size=1, max_size=8, unique=True),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_p=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    top_k=st.integers(0, 9),
    min_p=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_what_may_be_drawn(
    raw: list[int], temperature: float, top_p: float, top_k: int, min_p: float
) -> None:
    """The likeliest so many, warmed, then the nucleus, then those near to the likeliest."""
    shares = np.array(raw) / sum(raw)
    order = np.argsort(-shares)[: top_k or None]
    warm = np.exp(np.log(shares[order]) / temperature)
    warm /= warm.sum()
    before = np.cumsum(warm) - warm
    may = (before < top_p - 1e-12) & (warm >= min_p * warm[0] - 1e-12)
    may[0] = True
    asked = Sampling(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=len(raw))
    draw = constrain.drawing(asked)
    drawn = [draw(shares.tolist()) for _ in range(400)]
    assert set(drawn) <= set(order[may].tolist())
    counts = np.array([drawn.count(at) for at in order[may]]) / 400
    assert np.abs(counts - warm[may] / warm[may].sum()).max() < 0.12


class Oracle:
    """A model that wants to write one text."""

    def __init__(self, wanted: list[int]) -> None:
        self.wanted = wanted
        self.seen: list[int] = []

    def likeliest(self, prompt: list[int], count: int) -> list[tuple[int, float]]:
        self.seen = prompt[1:]
        assert self.seen == self.wanted[: len(self.seen)]  # forced tokens are those of the text
        return [(self.wanted[len(self.seen)], 0.9)]

    def choose(
        self, prompts: Sequence[list[int]], candidates: Sequence[list[int]]
    ) -> list[list[float]]:
        ((token, _),) = self.likeliest(prompts[0], 1)
        return [[0.9 if one == token else 0.0 for one in some] for some in candidates]


EXAMPLE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "temperature unit": {"enum": ["celsius", "celsius scale", "fahrenheit"]},
        "count": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "count"],
    "additionalProperties": False,
}


@given(
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    unit=st.sampled_from([None, *EXAMPLE["properties"]["temperature unit"]["enum"]]),  # type: ignore[index]
    count=st.integers(-1000, 10**9),
    tags=st.lists(st.sampled_from(["the picture", "", "日本", '"']), max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_what_the_model_wants_to_write_is_written(
    name: str, unit: str | None, count: int, tags: list[str]
) -> None:
    """The tokens are those that the text has as a whole, so that it is read as it was learned."""
    value = {"name": name} | ({"temperature unit": unit} if unit else {})
    text = schema.text(value | {"count": count, "tags": tags})
    wanted = TOKENIZERS[0].encode([(text, False)])
    oracle = Oracle([*wanted, TOKENIZERS[0].eos_id or 0])
    told = constrain.decode(
        oracle.likeliest, oracle.choose, [1], VOCABULARIES[0], grammar(EXAMPLE), 10_000
    )
    assert told.text == text
    assert told.tokens == len(wanted)
    assert told.asked < told.tokens
    assert not told.closed


def test_control_tokens_are_never_written() -> None:
    control = TOKENIZERS[0].control

    def likeliest(_: list[int], count: int) -> list[tuple[int, float]]:
        return [(token, 0.5) for token in sorted(control)]

    drunk = Drunk(0, 10)
    told = constrain.decode(
        likeliest, drunk.choose, [1], VOCABULARIES[0], grammar({"type": "string"}), 30
    )
    assert isinstance(json.loads(told.text), str)
    assert "<|im_end|>" not in told.text


def closed(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


PART = {"$ref": "#/$defs/sum"}
SUM = {
    "$defs": {
        "sum": {
            "anyOf": [
                closed(op={"enum": ["+", "*"]}, left=PART, right=PART),
                closed(opaque={"type": "number"}),
            ]
        }
    },
    **PART,
}
WIDE = closed(**{f"the property {n}": {"type": "integer"} for n in range(300)})


@pytest.mark.parametrize("made", [SUM, WIDE], ids=["recursive", "wide"])
@pytest.mark.parametrize("most", [0, 1, 5, 30])
def test_answers_end_where_a_choice_could_lead_ever_deeper(made: Any, most: int) -> None:
    for seed in range(3):
        drunk = Drunk(seed, TOKENIZERS[0].vocab_size)
        told = constrain.decode(
            drunk.likeliest, drunk.choose, [1], VOCABULARIES[0], grammar(made), most
        )
        assert schema.mistake(made, json.loads(told.text)) is None
        assert told.closed


def test_what_never_ends_is_given_up() -> None:
    link = {"$ref": "#/$defs/link"}
    made = {"$defs": {"link": closed(next=link)}, **link}
    drunk = Drunk(0, TOKENIZERS[0].vocab_size)
    with pytest.raises(JobFailed):
        constrain.decode(drunk.likeliest, drunk.choose, [1], VOCABULARIES[0], grammar(made), 5)
