"""Outputs that are text: read with one or several references, cleaned, split, reported."""

import csv
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.errors import BadInput
from bantam.recipe import Data
from bantam.text import references
from bantam.text.prepare import COLUMNS, Prepared, prepare
from bantam.text.read import ITEM

Rows = list[tuple[str, Any]]


def save(folder: Path, name: str, rows: Rows) -> Path:
    path = folder / name
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    elif path.suffix == ".jsonl":
        told = [{"text": text, "label": cell} for text, cell in rows]
        path.write_text("\n".join(map(json.dumps, told)), "utf-8")
    else:
        pl.DataFrame(rows, schema=["text", "label"], orient="row").write_parquet(path)
    return path


def made(path: Path, **chosen: Any) -> Prepared:
    wanted: dict[str, Any] = {"examples": ["not read here"], "val": 0.25, "test": 0.25}
    return prepare(Data(**(wanted | chosen)), [path], kind="generate")


def some(count: int) -> Rows:
    return [(f"how much is {n} and 1?", f"it is {n + 1}, I think") for n in range(count)]


def answers(part: pl.DataFrame) -> dict[str, list[str]]:
    """{input: its references}, those of rows of the same input together."""
    found: dict[str, list[str]] = {}
    for text, output in part.select("input", "output").iter_rows():
        found.setdefault(text, []).extend(output.split(ITEM)[:-1] if ITEM in output else [output])
    return found


WORD = st.sampled_from(["yes", "no", "Yes", "well, it depends", "a\nb", "é", " ", ""])


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([f"question {n}" for n in range(9)] + ["Question 1", " question  2"]),
            WORD | st.lists(WORD, max_size=3),
        ),
        min_size=6,
        max_size=40,
    ),
    st.integers(0, 3),
)
def test_every_reference_is_kept_once_in_one_split(
    tmp_path_factory: pytest.TempPathFactory, rows: Rows, seed: int
) -> None:
    path = save(tmp_path_factory.mktemp("any"), "a.jsonl", rows)
    try:
        found = made(path, seed=seed)
    except BadInput as error:
        assert error.mend
        return
    wanted: dict[str, set[str]] = {}
    for text, cell in rows:
        given = {one.strip() for one in ([cell] if isinstance(cell, str) else cell)} - {""}
        if given:
            wanted.setdefault(text.strip(), set()).update(given)
    splits = [answers(part) for part in (found.train, found.val, found.test)]
    together = {text: held for split in splits for text, held in split.items()}
    assert sum(map(len, splits)) == len(together)
    assert {text: set(held) for text, held in together.items()} == wanted
    assert all(len(held) == len(set(held)) for held in together.values())
    assert not found.train["output"].str.contains(ITEM).any()
    for part in (found.val, found.test):
        assert part["input"].n_unique() == part.height
    assert found.report["rows_read"] == len(rows)


def test_the_frames_are_those_of_the_architecture(tmp_path: Path) -> None:
    found = made(save(tmp_path, "a.csv", some(40)))
    for part in (found.train, found.val, found.test):
        assert part.columns == list(COLUMNS)
    assert (found.train.height, found.val.height, found.test.height) == (20, 10, 10)
    report = found.report
    json.dumps(report)
    assert report["kind"] == "generate" and report["labels"] == {}
    assert report["contradictions"] == {"texts": 0, "rule": "keep", "shown": []}
    assert report["lengths"]["output_characters"]["max"] == len("it is 10, I think")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_lists_are_several_references(tmp_path: Path, suffix: str) -> None:
    rows: Rows = [(f"text {n}", [f"one {n}", f"two {n}"]) for n in range(20)]
    found = made(save(tmp_path, f"a.{suffix}", rows))
    n = found.test["input"][0].removeprefix("text ")
    assert found.test["output"][0] == f"one {n}{ITEM}two {n}{ITEM}"
    assert found.train.height == 2 * 10 and found.test.height == 5
    single = made(save(tmp_path, f"b.{suffix}", [(f"text {n}", [f"one {n}"]) for n in range(20)]))
    assert single.test["output"][0].startswith("one ") and ITEM not in single.test["output"][0]


def test_letters_in_another_case_are_another_input(tmp_path: Path) -> None:
    rows: Rows = [(f"{word} {n}", f"say {word}") for n in range(20) for word in ("us", "US")]
    found = made(save(tmp_path, "a.csv", rows))
    assert found.report["dropped"] == []
    for part in (found.train, found.val, found.test):
        assert all(
            text.split()[0] == output.split()[1]
            for text, output in part.select("input", "output").iter_rows()
        )


def test_files_of_their_own_are_gathered_too(tmp_path: Path) -> None:
    train = save(tmp_path, "train.csv", some(30))
    test = save(tmp_path, "test.csv", [("new", "a"), ("new", "b"), ("new", "a"), some(1)[0]])
    data = Data(examples=["-"], test=["-"])
    found = prepare(data, [train], None, [test], kind="generate")
    assert answers(found.test) == {"new": ["a", "b"], "how much is 0 and 1?": ["it is 1, I think"]}
    assert found.dropped["reason"].to_list() == ["its text stands in the test file"]


def test_long_outputs_and_odd_ones(tmp_path: Path) -> None:
    rows = [*some(40), ("long", "word " * 20_000), ("none", "  "), ("", "no text")]
    found = made(save(tmp_path, "a.csv", rows))
    assert dict(found.dropped.select("row", "reason").iter_rows()) == {
        42: "no output",
        43: "no text",
    }
    assert found.report["lengths"]["output_characters"]["max"] == 99_999


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a", "")] * 20, "leaves no output in 0 rows"),
        ([(f"text {n}", "same") for n in range(20)], 'only one output, "same" in 20 rows'),
        (some(2), "are too few"),
        ([(f"text {n}", {"a": n}) for n in range(20)], "holds an object, not text"),
    ],
)
def test_outputs_that_are_no_texts(tmp_path: Path, rows: Rows, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        made(save(tmp_path, "a.jsonl", rows))
    assert words in str(caught.value) and caught.value.mend


def warnings(folder: Path, rows: Rows) -> str:
    return "\n".join(made(save(folder, "a.jsonl", rows)).report["warnings"])


def test_warnings(tmp_path: Path) -> None:
    assert warnings(tmp_path, some(800)) == ""
    assert "the test split has only 10 rows: small differences" in warnings(tmp_path, some(40))
    copied: Rows = [(f"the answer is number {n}, see?", f"number {n}") for n in range(500)]
    assert "100% of the answers stand word for word in their texts" in warnings(tmp_path, copied)
    few: Rows = [(f"text {n}", ["good", "bad"][n % 2]) for n in range(500)]
    said = warnings(tmp_path, few)
    assert "100% of the test rows have an answer that train has too" in said
    assert "label" not in said.replace('"classify"', "")


def test_parting_and_joining_undo_each_other() -> None:
    rows = pl.DataFrame({"input": ["a", "a", "b"], "output": ["1", "2", "3"]})
    joined = references.joined(rows)
    assert joined["output"].to_list() == [f"1{ITEM}2{ITEM}", "3"]
    assert references.parted(joined).equals(rows)
