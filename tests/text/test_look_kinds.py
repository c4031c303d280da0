"""What `bantam new` makes of data for written answers: recognised, written, loaded, prepared."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam import recipe
from bantam.errors import BadInput
from bantam.recipe import Recipe
from bantam.text.first_recipe import describe, write_recipe
from bantam.text.look import Look, look
from bantam.text.prepare import Prepared, prepare

WORDS = ["the", "a", "pipe", "is", "good", "bad", "well", "made", "in", "of", "phone", "never"]
COUNT = 60


def texts(count: int = COUNT, words: int = 12, seed: int = 0) -> list[str]:
    dice = random.Random(seed)
    return [" ".join(dice.choices(WORDS, k=words)) + f" {n}" for n in range(count)]


def save(folder: Path, name: str, table: dict[str, list[Any]]) -> Path:
    path = folder / name
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(table)
            for row in rows:
                writer.writerow(c if isinstance(c, str) else json.dumps(c) for c in row.values())
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    else:
        pl.DataFrame(rows).write_parquet(path)
    return path


def seen(folder: Path, name: str, table: dict[str, list[Any]]) -> tuple[Look, Recipe, Prepared]:
    """The way of `bantam new` and on: looked at, written, loaded, prepared."""
    found = look(save(folder, name, table))
    target = folder / "recipe.toml"
    target.write_text(write_recipe(found, target), encoding="utf-8")
    made = recipe.load(target)
    assert made.task.kind == found.task
    assert made.judge.rivals == recipe.default_rivals(found.task, bool(found.tools.column))
    files = [folder / source for source in made.data.examples]
    prepared = prepare(made.data, files, multi=made.task.multi, kind=made.task.kind)
    describe(found)
    return found, made, prepared


INVOICES = [
    {"total": n + 0.5, "vendor": {"name": f"Ada {n}"}, "lines": [{"n": n}]} for n in range(COUNT)
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
BARE = [{"name": "f", "description": "does it", "parameters": {"type": "object"}}]
CALLS = [[{"name": "f", "arguments": {"n": n}}] for n in range(COUNT)]


@pytest.mark.parametrize(("wrong", "told"), [(5, False), (6, True), (29, True), (30, False)])
def test_json_that_is_often_broken_is_told(tmp_path: Path, wrong: int, told: bool) -> None:
    broken = ["no JSON {", *(f"{{'total': {n}" for n in range(1, wrong))]
    outputs = [*broken, *map(json.dumps, INVOICES[wrong:])]
    found = look(save(tmp_path, "a.csv", {"text": texts(), "output": outputs}))
    said = '"output": most cells are JSON, but not "no JSON {"; mend such cells'
    assert any(warning.startswith(said) for warning in found.warnings) == told


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("name", ["output", "fields", "whatever"])
def test_json_is_extracted(tmp_path: Path, suffix: str, name: str) -> None:
    table: dict[str, list[Any]] = {"text": texts(), name: INVOICES, "language": ["en", "de"] * 30}
    found, made, prepared = seen(tmp_path, f"a.{suffix}", table)
    assert (found.task, found.input.column, found.output.column) == ("extract", "text", name)
    assert found.fields == ["total", "vendor", "lines"] and found.labels == {}
    assert made.data.tools is None and made.task.schema_file is None
    assert prepared.report["rows_kept"] == COUNT
    written = (tmp_path / "recipe.toml").read_text("utf-8")
    assert '# schema = "schema.json"  # without it the schema is inferred' in written
    assert '# 3 fields: "total", "vendor", "lines"' in written
    assert "an output has" in written and "# sure = 0.9" in written
    assert "fields: total, vendor, lines" in describe(found)


def test_a_file_of_lists_of_objects_is_extracted(tmp_path: Path) -> None:
    cells: list[Any] = [[{"start": n, "end": n + 2}] for n in range(COUNT - 1)] + [[]]
    found, _, prepared = seen(tmp_path, "a.jsonl", {"text": texts(), "entities": cells})
    assert found.task == "extract" and found.fields == []
    assert prepared.report["rows_kept"] == COUNT and found.dropped == {}


def test_a_few_broken_cells_are_told(tmp_path: Path) -> None:
    cells = [*map(json.dumps, INVOICES[:-2]), "{oops", ""]
    found, _, _ = seen(tmp_path, "a.csv", {"text": texts(), "output": cells})
    assert found.dropped == {"no output": 1, "output is not JSON": 1}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("tools", [TOOLS, BARE])
def test_calls_of_functions_are_extracted_with_their_tools(
    tmp_path: Path, suffix: str, tools: list[Any]
) -> None:
    functions = tools if suffix != "parquet" else json.dumps(tools)
    calls = CALLS if suffix != "parquet" else list(map(json.dumps, CALLS))
    accepted = [json.dumps([{"f": {"n": [n]}}]) for n in range(COUNT)]
    table: dict[str, list[Any]] = {"query": texts(), "tools": [functions] * COUNT}
    table |= {"answers": calls, "accepted": accepted}
    found, made, prepared = seen(tmp_path, f"a.{suffix}", table)
    assert (made.data.input, made.data.tools, made.data.output) == ("query", "tools", "answers")
    assert found.tools.column == "tools"
    assert json.loads(prepared.train["tools"][0]) == tools
    written = (tmp_path / "recipe.toml").read_text("utf-8")
    (tmp_path / "recipe.toml").write_text(written.replace("# accepted", "accepted"), "utf-8")
    assert recipe.load(tmp_path / "recipe.toml").data.accepted == "accepted"
    assert "schema" not in written


PAIRS = [
    ("prompt", "completion"),
    ("instruction", "output"),
    ("article", "summary"),
    ("question", "answer"),
    ("source", "target"),
    ("input", "response"),
    ("en", "translation"),
    ("body", "headline"),  # by length alone
]


@pytest.mark.parametrize(("text", "output"), PAIRS)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("answers", [6, 30])
def test_texts_beside_texts_are_generated(
    tmp_path: Path, text: str, output: str, suffix: str, answers: int
) -> None:
    if output == "headline":
        answers = 6
    table = {"id": [str(n) for n in range(COUNT)], output: texts(words=answers, seed=1)}
    found, made, prepared = seen(tmp_path, f"a.{suffix}", {**table, text: texts()})
    assert (found.task, made.data.input, made.data.output) == ("generate", text, output)
    assert prepared.report["rows_kept"] == COUNT
    written = (tmp_path / "recipe.toml").read_text("utf-8")
    assert "conflicts" not in written and "sure" not in written and "schema" not in written


def test_alpacas_third_column_is_told(tmp_path: Path) -> None:
    table = {
        "instruction": texts(),
        "input": [f"some more {n} of it" if n % 3 else "" for n in range(COUNT)],
        "output": texts(seed=1),
    }
    _, made, _ = seen(tmp_path, "a.jsonl", table)
    assert (made.data.input, made.data.output) == ("instruction", "output")
    assert '# "input": belongs to the question?' in (tmp_path / "recipe.toml").read_text("utf-8")


def test_several_references_are_generated(tmp_path: Path) -> None:
    cells = [[first, second] for first, second in zip(texts(seed=1), texts(seed=2), strict=True)]
    found, _, prepared = seen(tmp_path, "a.jsonl", {"text": texts(), "references": cells})
    assert found.task == "generate"
    assert prepared.test["output"].str.count_matches("\x1f").to_list() == [2] * prepared.test.height


def test_a_column_of_labels_still_means_labels(tmp_path: Path) -> None:
    labels = ["spam", "ham"] * 30
    table: dict[str, list[Any]] = {"text": texts(), "comment": texts(seed=1), "label": labels}
    assert seen(tmp_path, "a.csv", table)[0].task == "classify"
    table = {"title": texts(words=5), "text": texts(), "where": labels}
    assert seen(tmp_path, "a.csv", table)[0].task == "classify"
    table = {"text": texts(), "label": labels, "metadata": INVOICES}
    assert seen(tmp_path, "a.jsonl", table)[0].output.column == "label"
    table = {"text": texts(), "label": [f"[{label}]" for label in labels]}
    assert seen(tmp_path, "a.csv", table)[0].task == "classify"
    table = {"text": texts(), "label": [["a"], ["a", "b"]] * 30}
    assert seen(tmp_path, "a.jsonl", table)[1].task.multi
    table = {"prompt": texts(), "completion": texts(seed=1), "where": labels}
    assert seen(tmp_path, "a.jsonl", table)[0].task == "generate"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            {"text": texts(), "output": [{"a": 1}] * 30 + [[{"a": 1}]] * 30},
            "some outputs are objects",
        ),
        ({"text": ["a"] * COUNT, "output": INVOICES}, "no column holds texts"),
        ({"text": texts(), "output": [[]] * COUNT}, "no column looks like a label"),
        ({"a": [f"w{n}" for n in range(COUNT)], "b": texts()}, "no column looks like a label"),
    ],
)
def test_files_that_are_for_nothing(
    tmp_path: Path, table: dict[str, list[Any]], words: str
) -> None:
    with pytest.raises(BadInput) as caught:
        look(save(tmp_path, "a.jsonl", table))
    assert words in str(caught.value) and caught.value.mend


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from(["", "{", "a text of five words", "x", "[]", '{"a": 1}', "a, b"]),
    st.lists(st.sampled_from(["a", "b"]), max_size=2),
    st.lists(st.dictionaries(st.sampled_from(["name", "parameters"]), st.integers()), max_size=2),
    st.dictionaries(st.sampled_from(["a", "function", '"\n\x1b']), st.integers(), max_size=2),
)


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from(["output", "label", "x", "tools", "summary"]))
def test_any_cells_are_looked_at_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str
) -> None:
    one = data.draw(st.lists(CELLS, min_size=1, max_size=4))
    other = data.draw(st.lists(CELLS, min_size=1, max_size=40))
    table: dict[str, list[Any]] = {
        "text": texts(40),
        name: [one[n % len(one)] for n in range(40)],
        "more": [other[n % len(other)] for n in range(40)],
    }
    folder = tmp_path_factory.mktemp("any")
    path = save(folder, "a.jsonl", table)
    try:
        found = look(path)
    except BadInput as error:
        assert error.mend
        return
    target = folder / "recipe.toml"
    target.write_text(write_recipe(found, target), encoding="utf-8")
    assert recipe.load(target).task.kind == found.task
    assert "\x1b" not in describe(found)
