"""Outputs that are JSON: read from every format, checked, split; calls of functions."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam import kinds
from bantam.errors import BadInput
from bantam.recipe import Data
from bantam.text import values
from bantam.text.prepare import COLUMNS, Prepared, prepare


def save(folder: Path, name: str, cells: list[Any], **more: list[Any]) -> Path:
    """Texts of their own beside these outputs; csv cells that are no text become JSON."""
    path = folder / name
    rows = [
        {"text": f"this is text number {n}", "label": cell}
        | {column: held[n] for column, held in more.items()}
        for n, cell in enumerate(cells)
    ]
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(rows[0])
            for row in rows:
                writer.writerow(c if isinstance(c, str) else json.dumps(c) for c in row.values())
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), "utf-8")
    else:
        pl.DataFrame(rows).write_parquet(path)
    return path


def made(path: Path, schema: dict[str, Any] | None = None, **chosen: Any) -> Prepared:
    wanted: dict[str, Any] = {"examples": ["not read here"], "val": 0.25, "test": 0.25}
    data = Data(**(wanted | chosen))
    return prepare(data, [path], kind="extract", schema=schema)


def outputs(found: Prepared) -> list[str]:
    whole = pl.concat([found.train, found.val, found.test])
    return whole.sort("row")["output"].to_list()


def reasons(found: Prepared) -> dict[int, str]:
    return dict(found.dropped.select("row", "reason").iter_rows())


def refusal(path: Path, **chosen: Any) -> str:
    with pytest.raises(BadInput) as caught:
        made(path, **chosen)
    assert caught.value.mend
    return str(caught.value)


GOOD: list[Any] = [{"n": n, "who": f"Ada {n}"} for n in range(40)]

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    st.sampled_from(['"', "\\", "\x1f", "\0", "\u2028", "é", "{", "}]", "a,b;c\td\r\n"]),
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
OBJECTS = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(OBJECTS, min_size=8, max_size=10), st.sampled_from(["csv", "jsonl", "json", "parquet"])
)
def test_any_objects_survive_every_format(
    tmp_path_factory: pytest.TempPathFactory, objects: list[Any], suffix: str
) -> None:
    cells = [json.dumps(one) for one in objects] if suffix == "parquet" else objects
    path = save(tmp_path_factory.mktemp("any"), f"a.{suffix}", cells)
    try:
        found = outputs(made(path))
    except BadInput as error:
        assert "only one output" in error.message and all(one == objects[0] for one in objects)
        return
    assert [json.loads(output) for output in found] == objects
    for output in found:
        assert output == json.dumps(json.loads(output), ensure_ascii=False)


def test_structs_and_lists_of_parquet_are_json(tmp_path: Path) -> None:
    cells = [{"n": n, "price": n + 0.5, "tags": ["a", None], "to": {"x": True}} for n in range(20)]
    found = outputs(made(save(tmp_path, "a.parquet", cells)))
    assert [json.loads(output) for output in found] == cells
    lists = [[{"n": n}, {"n": None}] for n in range(20)]
    assert [json.loads(o) for o in outputs(made(save(tmp_path, "b.parquet", lists)))] == lists


def test_lists_stay_lists_also_of_texts(tmp_path: Path) -> None:
    cells = [[f"a {n}", "b"] for n in range(19)] + [[]]
    assert outputs(made(save(tmp_path, "a.jsonl", cells))) == [json.dumps(one) for one in cells]


def test_the_frames_are_those_of_the_architecture(tmp_path: Path) -> None:
    found = made(save(tmp_path, "a.csv", GOOD))
    assert found.train.columns == list(COLUMNS)
    report = found.report
    json.dumps(report)
    assert report["kind"] == "extract" and report["labels"] == {} and report["unfit"] == []
    assert report["splits"]["test"] == {"rows": 10, "groups": 0, "labels": {}}
    assert report["lengths"]["output_characters"]["max"] == len('{"n": 10, "who": "Ada 10"}')
    assert not any("label" in warning for warning in report["warnings"])


HOSTILE = [
    ("{oops", "output is not JSON"),
    ("", "no output"),
    ('{"n": NaN}', "output is not JSON"),
    ('{"n": 1e999}', "output is not JSON"),
    ('{"n": ' + "9" * 5000 + "}", "output is not JSON"),
    ("[" * 10_000 + "]" * 10_000, "output is nested too deeply"),
    ('{"a":' * 200 + "1" + "}" * 200, "output is nested too deeply"),
    ('{"a": "b"} {"a": "c"}', "output is not JSON"),
]


@pytest.mark.parametrize(("cell", "reason"), HOSTILE)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_hostile_cell_takes_its_row_alone(
    tmp_path: Path, cell: str, reason: str, suffix: str
) -> None:
    found = made(save(tmp_path, f"a.{suffix}", [*GOOD, cell]))
    assert reasons(found) == {41: reason}
    told = [] if reason == "no output" else [{"row": 41, "reason": reason}]
    assert [{k: row[k] for k in ("row", "reason")} for row in found.report["unfit"]] == told


def test_json_that_is_nested_deeply_in_the_file_itself(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"text {n}", "label": one}) for n, one in enumerate(GOOD)]
    for depth in (150, 700, 10_000):
        deep = "[" * depth + "]" * depth
        path = tmp_path / "a.jsonl"
        path.write_text("\n".join([*lines, f'{{"text": "x", "label": {deep}}}']), "utf-8")
        assert "nested too deeply" in reasons(made(path))[41]


def test_half_a_character_and_large_outputs(tmp_path: Path) -> None:
    cells = ['{"a": "\\ud83d"}', {"a": "x" * 100_000}, *GOOD]
    found = outputs(made(save(tmp_path, "a.csv", cells)))
    assert found[0] == '{"a": "?"}' and len(found[1]) == 100_009


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([f"word {n}" for n in range(30)], "30 of 30 rows do not fit: "),
        (["{", *GOOD[:5]], "a.jsonl, row 1: output is not JSON"),
        ([*GOOD, "5"], "row 41: the output 5 is neither an object nor a list"),
        ([*GOOD, True], 'say kind = "classify"'),
        ([*GOOD, '"a text"'], 'kind = "generate" if they are texts'),
        ([*GOOD, [1]], "row 41: [1]"),
        ([{"a": 1}] * 30, 'only one output, "{"a": 1}" in 30 rows'),
        ([""] * 30, "leaves no output in 0 rows (dropped: 30 no output)"),
        (GOOD[:2], "are too few"),
    ],
)
def test_outputs_that_are_no_extraction(tmp_path: Path, cells: list[Any], words: str) -> None:
    assert words in refusal(save(tmp_path, "a.jsonl", cells))


def test_one_text_with_several_outputs(tmp_path: Path) -> None:
    path = save(tmp_path, "a.jsonl", [*GOOD, {"who": "Ada 0", "n": 0}, {"n": 1}, {"n": 1}])
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for row, other in ((40, 0), (41, 1), (42, 1)):
        rows[row]["text"] = rows[other]["text"].upper()
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    again = {41: "duplicate"}  # its keys stand in another order, and that is all
    found = made(path)
    assert reasons(found) == again | dict.fromkeys((2, 42, 43), "contradicted output")
    [shown] = found.report["contradictions"]["shown"]
    assert shown["labels"] == {'{"n": 1}': 2, '{"n": 1, "who": "Ada 1"}': 1}
    assert reasons(made(path, conflicts="majority")) == again | {
        2: "contradicted output",
        43: "duplicate",
    }


SCHEMA = {"type": "object", "properties": {"n": {"type": "number"}, "who": {"type": "string"}}}


def mistake(_: dict[str, Any], value: Any) -> str | None:
    """A stand-in for the rules of schemas: `n` must be a number."""
    n = value.get("n")
    return None if isinstance(n, int | float) else f"n: {n!r} is not of type 'number'"


@pytest.fixture
def _rules(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = SimpleNamespace(check=lambda schema, _: schema, mistake=mistake)
    monkeypatch.setattr(kinds, "schema", rules, raising=False)


@pytest.mark.usefixtures("_rules")
def test_rows_that_break_the_schema_are_named(tmp_path: Path) -> None:
    path = save(tmp_path, "a.jsonl", [*GOOD, {"n": "abc"}, {"n": "12.50"}, {"n": None}])
    found = made(path, SCHEMA)
    assert reasons(found) == {
        41: "output breaks the schema: n: 'abc' is not of type 'number'",
        42: 'output breaks the schema: n: "12.50" is a number in quotes; write it without',
        43: "output breaks the schema: n: None is not of type 'number'",
    }
    assert [(row["row"], row["reason"]) for row in found.report["unfit"]] == list(
        reasons(found).items()
    )
    assert [(one["reason"], one["rows"]) for one in found.report["dropped"]] == [
        ("output breaks the schema", 3)
    ]


@pytest.mark.usefixtures("_rules")
def test_too_many_rows_that_break_the_schema(tmp_path: Path) -> None:
    path = save(tmp_path, "a.jsonl", [*GOOD, *({"n": str(n)} for n in range(9))])
    with pytest.raises(BadInput) as caught:
        made(path, SCHEMA)
    said = caught.value.message
    assert said.startswith("9 of 49 rows do not fit: ") and "and 6 more" in said
    assert 'row 41: output breaks the schema: n: "0" is a number in quotes' in said


@pytest.mark.usefixtures("_rules")
def test_at_most_twenty_rows_are_named(tmp_path: Path) -> None:
    many = [{"n": n} for n in range(400)]
    found = made(save(tmp_path, "a.jsonl", [*many, *({"n": f"x{n}"} for n in range(30))]), SCHEMA)
    assert len(found.report["unfit"]) == 20 and found.dropped.height == 30


def test_numbers_in_quotes_are_found_deep_inside() -> None:
    schema = {"properties": {"items": {"items": {"properties": {"n": {"type": "integer"}}}}}}
    value = {"items": [{"n": 1}, {"n": "2"}, {"n": "two"}], "zip": "12345"}
    assert list(values._quoted_numbers(schema, value, "")) == [
        'items[1].n: "2" is an integer in quotes; write it without'
    ]


def test_the_rules_of_schemas_hold_rows_too(tmp_path: Path) -> None:
    pytest.importorskip("bantam.kinds.schema")
    schema = SCHEMA | {"required": ["n"]}
    cells = [*GOOD, {"n": "abc", "who": "x"}, {"n": "5", "who": "x"}, {"who": "x"}]
    found = reasons(made(save(tmp_path, "a.jsonl", cells), schema))
    assert set(found) == {41, 42, 43}
    assert all(reason.startswith("output breaks the schema: ") for reason in found.values())
    assert '"5" is a number in quotes' in found[42]


# Calls of functions.


def tool(name: str) -> dict[str, Any]:
    return {"name": name, "parameters": {"type": "object", "properties": {}}}


CALLS = [[{"name": "f", "arguments": {"n": n}}] for n in range(40)]


def with_calls(folder: Path, name: str, calls: list[Any], tools: list[Any], **more: Any) -> Path:
    return save(folder, name, calls, tools=tools, **more)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json"])
def test_calls_are_read_with_their_functions(tmp_path: Path, suffix: str) -> None:
    tools = [[tool("f")] if n % 2 else tool("f") for n in range(40)]
    accepted = [[{"f": {"n": [n, ""]}}] if n % 4 else "" for n in range(40)]
    path = with_calls(tmp_path, f"a.{suffix}", CALLS, tools, ok=accepted)
    found = made(path, tools="tools", accepted="ok")
    whole = pl.concat([found.train, found.val, found.test]).sort("row")
    assert whole.columns == [*COLUMNS, "tools", "accepted"]
    assert whole["output"].to_list() == [json.dumps(call) for call in CALLS]
    assert whole["tools"].unique().to_list() == [json.dumps([tool("f")])]
    assert whole["accepted"].null_count() == 10
    assert whole["accepted"][1] == '[{"f": {"n": [1, ""]}}]'
    without = made(path, tools="tools")
    assert without.train["accepted"].null_count() == without.train.height


def test_calls_as_chat_apis_write_them_become_plain(tmp_path: Path) -> None:
    calls = [
        [{"id": "x", "type": "function", "function": {"name": "f", "arguments": f'{{"n": {n}}}'}}]
        for n in range(40)
    ]
    found = made(with_calls(tmp_path, "a.jsonl", calls, [[tool("f")]] * 40), tools="tools")
    assert outputs(found) == [json.dumps(call) for call in CALLS]


@pytest.mark.parametrize(
    ("call", "tools", "reason"),
    [
        ({"n": 1}, [tool("f")], "output is no list of calls"),
        ([{"name": "f"}], [tool("f")], "output is no list of calls"),
        ([{"name": "f", "arguments": "{"}], [tool("f")], "output is not JSON"),
        ([{"name": 1, "arguments": {}}], [tool("f")], "output is no list of calls"),
        ("f(1)", [tool("f")], "output is not JSON"),
        ([], "", "no tools"),
        ([], None, "no tools"),
        ([], "f", "tools is not JSON"),
        ([], ["f"], "tools is no list of functions"),
        ([], "[" * 10_000, "tools is"),
    ],
)
def test_a_row_without_calls_or_functions_is_dropped(
    tmp_path: Path, call: Any, tools: Any, reason: str
) -> None:
    path = with_calls(tmp_path, "a.jsonl", [*CALLS, call], [*([[tool("f")]] * 40), tools])
    [(row, said)] = reasons(made(path, tools="tools")).items()
    assert row == 41 and said.startswith(reason)


def test_the_same_question_with_other_functions_is_another_row(tmp_path: Path) -> None:
    rows = [
        {"text": f"question {n // 2}", "label": CALLS[n], "tools": [tool("fg"[n % 2])]}
        for n in range(40)
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, [*rows, rows[0]])), "utf-8")
    found = made(path, tools="tools")
    assert reasons(found) == {41: "duplicate"}
    whole = pl.concat([found.train, found.val, found.test])
    assert whole["id"].n_unique() == 40
    texts = [set(part["input"]) for part in (found.train, found.val, found.test)]
    assert sum(map(len, texts)) == 20  # no question stands in two splits


def test_only_rows_that_judge_need_accepted_calls(tmp_path: Path) -> None:
    train = with_calls(tmp_path, "a.jsonl", CALLS, [[tool("f")]] * 40)
    accepted = [[{"f": {"n": [n]}}] for n in range(40)]
    test = with_calls(tmp_path, "b.jsonl", CALLS, [[tool("f")]] * 40, ok=accepted)
    moved = test.read_text("utf-8").replace("this is", "that was")
    test.write_text(moved, "utf-8")
    data = Data(examples=["-"], test=["-"], tools="tools", accepted="ok")
    found = prepare(data, [train], None, [test], kind="extract")
    assert found.test["accepted"].null_count() == 0
    assert found.train["accepted"].null_count() == found.train.height
    with pytest.raises(BadInput, match='no column "ok"'):
        prepare(data, [train], None, [train], kind="extract")
