import copy
import importlib.util
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bantam.judge.calls import mistake, of_outputs

Call = dict[str, Any]


def tool(name: str, required: list[str], **types: Any) -> dict[str, Any]:
    properties = {key: {"type": one} if isinstance(one, str) else one for key, one in types.items()}
    return {
        "name": name,
        "parameters": {"type": "dict", "properties": properties, "required": required},
    }


def array(items: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": items}}


def value_mistake(schema: Any, accepted: list[Any], value: Any) -> str | None:
    """Of one call of f with one parameter x, that need not be given."""
    call = {"name": "f", "arguments": {"x": value}}
    return mistake([call], [{"f": {"x": accepted}}], [tool("f", [], x=schema)])


WEATHER = tool("weather", ["city"], city="string", days="integer", unit="string")
ALARM = tool("set.alarm", ["hour"], hour="integer", loud="boolean")
TOOLS = [WEATHER, ALARM]
ROME = {"name": "weather", "arguments": {"city": "Rome", "days": 3}}
EARLY = {"name": "set.alarm", "arguments": {"hour": 6}}
ACCEPTED_ROME = {"weather": {"city": ["Rome", "Roma"], "days": [3], "unit": ["metric", ""]}}
ACCEPTED_EARLY = {"set.alarm": {"hour": [6], "loud": [True, ""]}}


def with_arguments(call: Call, **changes: Any) -> Call:
    return {"name": call["name"], "arguments": {**call["arguments"], **changes}}


@pytest.mark.parametrize(
    ("answer", "accepted", "told"),
    [
        ([ROME], [ACCEPTED_ROME], None),
        ([with_arguments(ROME, city="roma")], [ACCEPTED_ROME], None),
        ([with_arguments(ROME, unit="Metric")], [ACCEPTED_ROME], None),
        ([with_arguments(ROME, unit="")], [ACCEPTED_ROME], None),
        ([with_arguments(ROME, unit="kelvin")], [ACCEPTED_ROME], "unit of weather is 'kelvin'"),
        ([with_arguments(ROME, city="Paris")], [ACCEPTED_ROME], "'Paris', not 'Rome' or 'Roma'"),
        ([with_arguments(ROME, wind=True)], [ACCEPTED_ROME], "wind of weather should not be"),
        ([with_arguments(EARLY, loud=True)], [ACCEPTED_EARLY], None),
        ([with_arguments(EARLY, loud=False)], [ACCEPTED_EARLY], "is False, not True"),
        ([with_arguments(EARLY, loud=False)], [{"set.alarm": {"hour": [6]}}], "should not be"),
        ([with_arguments(EARLY, loud=True)], [{"set.alarm": {"hour": [6], "loud": [""]}}], "left"),
        (
            [{"name": "weather", "arguments": {"days": 3}}],
            [ACCEPTED_ROME],
            "city of weather is mis",
        ),
        ([{"name": "weather", "arguments": {"city": "Rome"}}], [ACCEPTED_ROME], "days of weather"),
        # A parameter that the schema asks for is asked for, even if leaving it out is accepted.
        ([{"name": "weather", "arguments": {}}], [{"weather": {"city": [""]}}], "city of weather"),
        ([with_arguments(ROME, city="-")], [{"weather": {"city": [""], "days": [3]}}], None),
        ([EARLY], [ACCEPTED_ROME], "set.alarm was called, not weather"),
        ([{"name": "Weather", "arguments": {"city": "Rome"}}], [ACCEPTED_ROME], "was called, not"),
        ([{"name": "set_alarm", "arguments": {"hour": 6}}], [ACCEPTED_EARLY], "was called, not"),
        ([], [ACCEPTED_ROME], "no call instead of 1"),
        ([ROME, ROME], [ACCEPTED_ROME], "2 calls instead of 1"),
        ([ROME], [ACCEPTED_ROME, ACCEPTED_EARLY], "1 call instead of 2"),
        ([ROME, EARLY], [ACCEPTED_ROME, ACCEPTED_EARLY], None),
        ([EARLY, ROME], [ACCEPTED_ROME, ACCEPTED_EARLY], None),
        ([EARLY, EARLY], [ACCEPTED_ROME, ACCEPTED_EARLY], "set.alarm was called, not weather"),
        ([EARLY, with_arguments(ROME, days=4)], [ACCEPTED_ROME, ACCEPTED_EARLY], "is 4, not 3"),
        ([], [], None),
        ([], None, None),
        ([ROME], [], "no call is right here, but weather was called"),
        ([ROME], None, "no call is right here, but weather was called"),
    ],
)
def test_calls(answer: list[Call], accepted: list[Any] | None, told: str | None) -> None:
    found = mistake(answer, accepted, TOOLS)
    assert (found is None) if told is None else told in found
    wrapped = [{"type": "function", "function": one} for one in TOOLS]
    assert mistake(answer, accepted, wrapped) == found


def test_the_first_that_fits_is_taken() -> None:
    """As in the leaderboard: the wide one takes what the narrow one needs, and none is left."""
    wide, narrow = {"set.alarm": {"hour": [6, 7]}}, {"set.alarm": {"hour": [6]}}
    answer = [EARLY, with_arguments(EARLY, hour=7)]
    assert mistake(answer, [narrow, wide], TOOLS) is None
    assert mistake(answer, [wide, narrow], TOOLS) == "hour of set.alarm is 7, not 6"


@pytest.mark.parametrize(
    "answer",
    [None, "weather", 3, [], {}, {"name": "weather"}, {"name": ["weather"], "arguments": {}}]
    + [{"name": "weather", "arguments": one} for one in (None, [], "city=Rome")],
)
def test_what_is_no_call_is_wrong(answer: Any) -> None:
    assert mistake([answer], [ACCEPTED_ROME], TOOLS)
    assert mistake([answer], [], TOOLS)


LONG = "Where's the A-1, B/2. c_3 *D^?"


VALUES: list[tuple[Any, list[Any], Any, bool]] = [
    # Texts: case and some signs do not matter.
    ("string", [LONG], LONG, True),
    ("string", [LONG], 'where"s THEa1b2c3d?', True),
    ("string", [LONG], "Where's the A-1, B/2. c_3 *D^", False),
    ("string", ["a b"], "a\nb", False),
    ("string", ["5"], 5, False),
    ("string", [5], 5, True),
    ("string", [5], "5", False),
    ("string", ["five", 5], 5, False),
    ("string", [5, "Five"], "Five", True),
    ("string", [5, "Five"], "five", False),
    ("string", [None], None, True),
    ("string", ["a", None], None, False),
    ("any", ["a"], "A", True),
    ("any", [5], 5, True),
    # Numbers: an integer will do for a float, nothing else for an integer.
    ("integer", [5], 5, True),
    ("integer", [5], 5.0, False),
    ("integer", [5.0], 5.0, True),
    ("integer", [1], True, False),
    ("integer", [5], "5", False),
    ("integer", ["5"], "5", True),
    ("float", [5.0], 5, True),
    ("float", [5.0], 5.0, True),
    ("float", [5.5], 5, False),
    ("float", [1.0], True, False),
    ("float", [1e300], 10**400, False),
    ("boolean", [True], True, True),
    ("boolean", [True], 1, False),
    ("boolean", [True], "true", False),
    # Lists: in order, texts as above, integers not for floats.
    (array("string"), [["A", "b"]], ["a", "B."], True),
    (array("string"), [["a", "b"]], ["b", "a"], False),
    (array("string"), [["a"], ["b"]], ["b"], True),
    (array("string"), [["a"]], "a", False),
    (array("string"), [["a"]], [1], False),
    (array("string"), [["a"]], [], False),
    (array("string"), [["a"], ""], [], True),
    (array("string"), [[]], [], True),
    (array("string"), [], [], False),
    (array("string"), ["all", ["a"]], ["A"], False),
    (array("string"), ["all", ["a"]], ["a"], True),
    (array("string"), ["all"], "all", True),
    (array("string"), ["all"], "All", False),
    (array("integer"), [[1, 2]], [1, 2], True),
    (array("integer"), [[1, 2]], [1.0, 2], False),
    (array("integer"), [[1, 2]], [True, 2], False),
    (array("integer"), [[1, 2], ""], [True, 2], True),
    (array("float"), [[1.0, 2.5]], [1, 2.5], False),
    (array("float"), [[1, 2.5]], [1, 2.5], True),
    (array("float"), [[1.0, 2.5], ""], [1, 2.5], True),
    (array("array"), [[["a"], ["b"]]], [["a"], ["b"]], True),
    (array("array"), [[["a"], ["b"]]], [["A"], ["b"]], False),
    ({"type": "tuple", "items": {"type": "float"}}, [[1.5, 2.5]], [1.5, 2.5], True),
    # Objects: a list of accepted values a key, compared by no type, deeper ones as they are.
    ("dict", [{"a": ["X", "y"], "b": [1]}], {"a": "x.", "b": 1}, True),
    ("dict", [{"a": ["x"], "b": [1]}], {"a": "x"}, False),
    ("dict", [{"a": ["x"], "b": [1, ""]}], {"a": "x"}, True),
    ("dict", [{"a": ["x"], "b": [1, ""]}], {"a": "x", "b": ""}, True),
    ("dict", [{"a": ["x"]}], {"a": "x", "c": 1}, False),
    ("dict", [{"a": [1]}], {"a": True}, True),
    ("dict", [{"a": [1]}], {"a": 1.0}, True),
    ("dict", [{"a": [["x"]]}], {"a": ["x"]}, True),
    ("dict", [{"a": [["x"]]}], {"a": ["X"]}, False),
    ("dict", [{"a": [{"b": "x"}]}], {"a": {"b": "x"}}, True),
    ("dict", [{"a": [{"b": "x"}]}], {"a": {"b": "X"}}, False),
    ("dict", [{"a": ["x"]}, {"a": ["y"]}], {"a": "y"}, True),
    ("dict", [{"a": ["x"]}, ""], {}, False),
    ("dict", [{}], {}, True),
    ("dict", [""], {}, False),
    ("dict", [{"a": ["x"]}], "a", False),
    ("dict", ["all"], "all", True),
    # Lists of objects: as many, each in its place.
    (array("dict"), [[{"a": ["x"]}, {"b": [1, ""]}]], [{"a": "X"}, {}], True),
    (array("dict"), [[{"a": ["x"]}, {"a": ["y"]}]], [{"a": "y"}, {"a": "x"}], False),
    (array("dict"), [[{"a": ["x"]}]], [{"a": "x"}, {"a": "x"}], False),
    (array("dict"), [[{"a": ["x"]}], ""], [], True),
    (array("dict"), [[{"a": ["x"]}], ""], ["a"], False),
    (array("dict"), [[{"a": ["x"]}]], [["a", "x"]], False),
]

# What the leaderboard does not have.
MORE_VALUES: list[tuple[Any, list[Any], Any, bool]] = [
    ("number", [5.0], 5, True),
    ("object", [{"a": ["x"]}], {"a": "X"}, True),
    # Without a type the first accepted value has the say.
    ({}, ["Rome"], "rome", True),
    ({}, [3], 3.0, False),
    ({}, [None], None, True),
    ({}, [""], "", True),
    ({}, [""], 3, False),
    ({}, [{"a": ["x"]}], {"a": "X"}, True),
    ({"type": "array"}, [["a", 1]], ["A", 1], True),
    ({"type": "array"}, [[{"a": ["x"]}]], [{"a": "X"}], True),
    ({"type": ["null", "string"]}, ["Rome"], "rome", True),
]


@pytest.mark.parametrize(("schema", "accepted", "value", "right"), VALUES + MORE_VALUES)
def test_values(schema: Any, accepted: list[Any], value: Any, right: bool) -> None:
    assert (value_mistake(schema, accepted, value) is None) is right


def test_a_hostile_value_is_only_wrong() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    told = value_mistake(array("array"), [[["a"]]], deep)
    assert told and len(told) < 200
    assert len(value_mistake("string", ["a"], "x" * 10_000) or "") < 200
    while deep:  # so that it is not freed as deep as it is
        deep = deep[0]


def test_tools_that_say_little() -> None:
    accepted = [{"f": {"x": ["Rome"]}}]
    call = {"name": "f", "arguments": {"x": "rome"}}
    assert mistake([call], accepted, []) is None
    assert mistake([call], accepted, [{"name": "f"}]) == "x of f should not be there"
    assert mistake([{"name": "f", "arguments": {}}], [{"f": {}}], [{"name": "f"}]) is None


def test_of_outputs() -> None:
    call = {"name": "f", "arguments": {"x": 1, "y": {"a": [1]}, "z": [{"b": {"c": 2}}], "w": [[]]}}
    assert of_outputs([call, ROME]) == [
        {"f": {"x": [1], "y": [{"a": [[1]]}], "z": [[{"b": [{"c": 2}]}]], "w": [[[]]]}},
        {"weather": {"city": ["Rome"], "days": [3]}},
    ]
    assert of_outputs([]) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["f", "g"]),
            "arguments": st.dictionaries(st.text(max_size=2), JSON, max_size=3),
        }
    ),
    max_size=3,
)


@given(CALLS)
def test_calls_match_themselves_where_the_schema_says_nothing(calls: list[Call]) -> None:
    assert mistake(calls, of_outputs(calls), []) is None


@given(CALLS, CALLS)
def test_any_answer_is_right_or_told_why(answer: list[Call], expected: list[Call]) -> None:
    tools = [tool("f", [], a="string", b=array("integer")), tool("g", ["a"], a="dict")]
    told = mistake(answer, of_outputs(expected), tools)
    assert told is None or told


# The leaderboard's own checker. Its module is loaded alone: the rest needs much more.

CATEGORIES = ["simple_python", "multiple", "live_simple", "live_multiple"]
SEVERAL = ["parallel", "parallel_multiple", "live_parallel", "live_parallel_multiple"]
# Ground truths that the leaderboard's own checker refuses: they hold a parameter which the
# function does not have, or for one that must be given no accepted value.
REFUSED = {
    *("live_simple_106-63-0", "live_simple_112-68-0"),
    *("live_multiple_862-181-3", "live_multiple_964-207-0"),
}
STUBS: dict[str, dict[str, Any]] = {
    "bfcl_eval": {},
    "bfcl_eval.constants": {},
    "bfcl_eval.constants.enums": {"Language": SimpleNamespace(PYTHON=1, JAVA=2, JAVASCRIPT=3)},
    "bfcl_eval.constants.model_config": {
        "MODEL_CONFIG_MAPPING": {"model": SimpleNamespace(underscore_to_dot=False)}
    },
    "bfcl_eval.constants.type_mappings": {"JAVA_TYPE_CONVERSION": {}, "JS_TYPE_CONVERSION": {}},
    "bfcl_eval.eval_checker": {},
    "bfcl_eval.eval_checker.ast_eval": {},
    "bfcl_eval.eval_checker.ast_eval.type_convertor": {},
    "bfcl_eval.eval_checker.ast_eval.type_convertor.java_type_converter": {
        "java_type_converter": None
    },
    "bfcl_eval.eval_checker.ast_eval.type_convertor.js_type_converter": {"js_type_converter": None},
}
Checker = Callable[[str, list[Call], list[Any], list[Any]], bool]
Row = tuple[str, list[Any], list[Any]]  # id, tools, accepted


@pytest.fixture(scope="module")
def leaderboard() -> Path:
    from bantam import sources

    return sources.resolve("pypi:bfcl-eval==2026.3.23").path / "bfcl_eval"


@pytest.fixture
def checker(leaderboard: Path, monkeypatch: pytest.MonkeyPatch) -> Checker:
    for name, attributes in STUBS.items():
        stub = ModuleType(name)
        vars(stub).update(attributes)
        monkeypatch.setitem(sys.modules, name, stub)
    path = leaderboard / "eval_checker" / "ast_eval" / "ast_checker.py"
    spec = importlib.util.spec_from_file_location("leaderboard_checker", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def right(category: str, answer: list[Call], accepted: list[Any], tools: list[Any]) -> bool:
        called = [{call["name"]: call["arguments"]} for call in answer]
        try:
            told = module.ast_checker(tools, called, accepted, 1, category, "model")
        except (AttributeError, KeyError, OverflowError, TypeError):
            return False  # it trips over what has a form that it does not foresee
        return bool(told["valid"])

    return right


def rows(leaderboard: Path, category: str) -> Iterator[Row]:
    file = f"BFCL_v4_{category}.json"
    asked = (leaderboard / "data" / file).read_text("utf-8").splitlines()
    told = (leaderboard / "data" / "possible_answer" / file).read_text("utf-8").splitlines()
    for one, other in zip(map(json.loads, asked), map(json.loads, told), strict=True):
        assert one["id"] == other["id"]
        yield one["id"], one["function"], other["ground_truth"]


def as_calls(accepted: list[Any], tools: list[Any]) -> list[Call]:
    """The calls that take the first accepted value everywhere, and leave out what may be."""
    known = {one["name"]: one["parameters"] for one in tools}
    calls = []
    for ((name, parameters),) in (one.items() for one in accepted):
        arguments = {
            key: opened(first(values))
            for key, values in parameters.items()
            if key in known[name]["required"]
            or (key in known[name]["properties"] and values and values != [""])
        }
        calls.append({"name": name, "arguments": arguments})
    return calls


def first(values: list[Any]) -> Any:
    return next((value for value in values if value != ""), "")


def opened(value: Any) -> Any:
    """An accepted object as a call has it: of each key the first accepted value."""
    if isinstance(value, dict):
        return {key: first(values) for key, values in value.items() if values != [""]}
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return [opened(one) for one in value]
    return value


@pytest.mark.slow
def test_the_table_is_judged_as_the_leaderboard_does(checker: Checker) -> None:
    for schema, accepted, value, right in VALUES:
        call = {"name": "f", "arguments": {"x": value}}
        told = checker("simple", [call], [{"f": {"x": accepted}}], [tool("f", [], x=schema)])
        assert told is right, (schema, accepted, value)


@pytest.mark.slow
@pytest.mark.parametrize("category", [*CATEGORIES, *SEVERAL])
def test_ground_truths_match(leaderboard: Path, checker: Checker, category: str) -> None:
    seen = 0
    for identity, tools, accepted in rows(leaderboard, category):
        calls = as_calls(accepted, tools)
        right = checker(category, calls, accepted, tools)
        assert right is (identity not in REFUSED), identity
        assert (mistake(calls, accepted, tools) is None) is right, identity
        assert mistake([], accepted, tools)
        assert mistake(calls, [], tools)
        seen += 1
    assert seen >= (200 if category in CATEGORIES else 16)


ALTERED = 20_000  # calls of each category
# Other values in place of one, whatever its type.
ODD = [None, True, False, 0, 1, -3, 2.5, 1.0, "", "-", "x", "true", "5", [], [1], ["x"], [[]], {}]
ODD += [{"x": 1}, [{}], [{"x": "y"}], ["x", 1], 10**400]


def changed(value: Any, dice: random.Random) -> Any:
    """A value that is nearly the same, or not at all."""
    ways: list[Callable[[], Any]] = [lambda: dice.choice(ODD), lambda: [value], lambda: str(value)]
    if isinstance(value, bool):
        ways += [lambda: not value, lambda: int(value)]
    elif isinstance(value, int | float):
        ways += [lambda: value + 1, lambda: float(value), lambda: int(value), lambda: -value]
    elif isinstance(value, str):
        ways += [value.upper, value.lower, value.title, lambda: value.replace(" ", "_")]
        ways += [lambda: f"{value}.", lambda: f"{value}!", lambda: value[:-1], lambda: f" {value}"]
        ways += [lambda: value.replace("'", '"'), lambda: value.replace(",", ""), value.split]
    elif isinstance(value, list):
        ways += [lambda: value[::-1], lambda: value[1:], lambda: value + value[:1], lambda: []]
        ways += 4 * [lambda: [changed(one, dice) if dice.random() < 0.5 else one for one in value]]
        ways += [lambda: dice.sample(value, len(value)), lambda: dict(enumerate(value))]
        ways += [lambda: [float(one) if type(one) is int else one for one in value]]
        ways += [lambda: [int(one) if type(one) is float else one for one in value]]
    elif isinstance(value, dict):
        ways += 4 * [lambda: {key: changed(one, dice) for key, one in value.items()}]
        ways += [lambda: dict(list(value.items())[1:]), lambda: {**value, "more": 1}]
        ways += [lambda: dict(reversed(value.items())), lambda: list(value)]
        ways += [lambda: {key.upper(): one for key, one in value.items()}]
    return copy.deepcopy(dice.choice(ways)())


def altered(calls: list[Call], accepted: list[Any], tools: list[Any], dice: random.Random):
    """The name of what was altered, and the calls with it."""
    calls = copy.deepcopy(calls)
    call = dice.choice(calls)
    arguments, name = call["arguments"], call["name"]
    parameters = next(one[name] for one in accepted if name in one)
    way = dice.choice(["value"] * 8 + ["accepted"] * 3 + ["missing", "extra", "name", "calls"])
    if way == "value" and arguments:
        for key in dice.sample(list(arguments), dice.choice([1, 1, 1, min(2, len(arguments))])):
            arguments[key] = changed(arguments[key], dice)
    elif way == "accepted" and (told := [key for key in parameters if parameters[key]]):
        key = dice.choice(told)  # another of the accepted values, "" among them
        arguments[key] = opened(dice.choice(parameters[key]))
    elif way == "missing" and arguments:
        del arguments[dice.choice(list(arguments))]
    elif way == "extra":
        own = next(one for one in tools if one["name"] == name)["parameters"]["properties"]
        key = dice.choice(["more", *own, *parameters])
        arguments[key] = dice.choice([*ODD, first(parameters.get(key, []))])
    elif way == "name":
        names = [one["name"] for one in tools]
        call["name"] = dice.choice([*names, name.upper(), name.replace(".", "_"), f"{name}2"])
    elif way == "calls":
        calls = dice.choice([[], calls * 2, calls[::-1], calls[1:], [*calls[1:], calls[-1]]])
    return way, calls


@pytest.mark.slow
@pytest.mark.parametrize("category", [*CATEGORIES, *SEVERAL])
def test_altered_calls_are_judged_as_the_leaderboard_does(
    leaderboard: Path, checker: Checker, category: str
) -> None:
    dice = random.Random(category)
    verdicts: Counter[tuple[str, bool]] = Counter()
    held = list(rows(leaderboard, category))
    for identity, tools, accepted in held:
        truth = as_calls(accepted, tools)
        for _ in range(ALTERED // len(held)):
            way, calls = altered(truth, accepted, tools, dice)
            right = checker(category, calls, accepted, tools)
            told = mistake(calls, accepted, tools)
            assert (told is None) is right, (identity, way, calls, accepted, told)
            verdicts[way, right] += 1
    assert verdicts.total() > ALTERED - len(held)
    for way in ("value", "accepted", "missing", "extra"):
        assert verdicts[way, True] and verdicts[way, False], verdicts
