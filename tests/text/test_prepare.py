import csv
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.errors import BadInput
from bantam.recipe import Data
from bantam.text import clean
from bantam.text.prepare import COLUMNS, prepare
from bantam.text.report import smallest_difference

SCHEMA = {**dict.fromkeys(COLUMNS, pl.String), "row": pl.Int64}


def save(folder: Path, name: str, rows: list[tuple[str, ...]], header: str) -> Path:
    path = folder / name
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


def data(**settings: Any) -> Data:
    return Data(examples=["not read here"], **settings)


def some(count: int, labels: str = "ab", start: int = 0) -> list[tuple[str, ...]]:
    numbers = range(start, start + count)
    return [(f"text number {n}", labels[n % len(labels)], f"g{n // 4}") for n in numbers]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", " ", *(f"Text {n}" for n in range(30)), "TEXT 1", " text  2"]),
            st.sampled_from(["yes", "no", "No", "maybe", ""]),
            st.sampled_from(["", *(f"g{n}" for n in range(15))]),
        ),
        max_size=60,
    ),
    st.sampled_from(["drop", "majority", "keep"]),
    st.booleans(),
    st.integers(0, 3),
)
def test_every_row_is_in_one_place_and_no_text_or_group_in_two_splits(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, ...]],
    rule: str,
    grouped: bool,
    seed: int,
) -> None:
    path = save(tmp_path_factory.mktemp("any"), "a.csv", rows, "text,label,g")
    chosen = data(conflicts=rule, group="g" if grouped else None, seed=seed, val=0.2, test=0.2)
    try:
        made = prepare(chosen, [path])
    except BadInput as error:
        assert error.mend
        return
    splits = {"train": made.train, "val": made.val, "test": made.test}
    for part in splits.values():
        assert dict(part.schema) == SCHEMA
    assert dict(made.dropped.schema) == {**SCHEMA, "reason": pl.String}
    whole = pl.concat([*splits.values(), made.dropped.drop("reason")])
    assert sorted(whole["row"]) == list(range(1, len(rows) + 1))
    texts = {name: {clean.normalised(t) for t in part["input"]} for name, part in splits.items()}
    groups = {name: set(part["group"].drop_nulls()) for name, part in splits.items()}
    for parts in (texts, groups):
        assert not parts["train"] & parts["val"]
        assert not (parts["train"] | parts["val"]) & parts["test"]
    assert not grouped or any(groups.values()) or not any(row[2] for row in rows)
    for text, label, _, _, _, number in (
        row
        for part in splits.values()
        for row in part.select("input", "output", "group", "file", "id", "row").iter_rows()
    ):
        written = rows[number - 1]
        assert text == written[0].strip() and label.lower() == written[1].lower()
    report = made.report
    json.dumps(report)
    assert report["rows_read"] == len(rows)
    assert report["rows_kept"] + sum(entry["rows"] for entry in report["dropped"]) == len(rows)
    assert sum(report["labels"].values()) == report["rows_kept"]
    for name, part in splits.items():
        assert report["splits"][name]["rows"] == part.height > 0
        assert report["splits"][name]["labels"] == dict(Counter(part["output"]))


def test_the_same_input_gives_the_same_rows_and_hash(tmp_path: Path) -> None:
    rows = some(200)
    mixed = random.Random(1).sample(rows, len(rows))
    one = prepare(data(group="g"), [save(tmp_path, "a.csv", rows, "text,label,g")])
    other = prepare(data(group="g"), [save(tmp_path, "b.csv", mixed, "text,label,g")])
    assert one.report["split_hash"] == other.report["split_hash"]
    assert set(one.test["id"]) == set(other.test["id"])
    third = prepare(data(group="g", seed=1), [tmp_path / "a.csv"])
    assert third.report["split_hash"] != one.report["split_hash"]


def test_files_of_their_own(tmp_path: Path) -> None:
    train = save(tmp_path, "train.csv", some(60), "text,label,g")
    val = save(tmp_path, "val.csv", [*some(3, start=100), *some(2, start=202)], "text,label,g")
    test = save(tmp_path, "test.csv", [*some(4, start=200), *some(1)], "text,label,g")
    made = prepare(data(val=["v"], test=["t"], group="g"), [train], [val], [test])
    assert made.test["row"].to_list() == [1, 2, 3, 4, 5]
    assert made.val["row"].to_list() == [1, 2, 3]
    assert made.train.height == 56  # without the four of group g0
    assert dict(Counter(made.dropped["reason"])) == {
        "its text stands in the test file": 3,
        "its group stands in the test file": 3,
    }
    assert Path(made.test["file"][0]) == test
    half = prepare(data(test=["t"]), [train], None, [test])
    assert half.test.height == 5 and half.val.height == 6 and half.train.height == 53


def test_several_files_and_formats_are_one_set_of_examples(tmp_path: Path) -> None:
    table = save(tmp_path, "a.csv", some(50), "text,label,g")
    lines = tmp_path / "b.jsonl"
    objects = [{"label": row[1].upper(), "text": row[0]} for row in some(40, start=30)]
    lines.write_text("\n".join(map(json.dumps, objects)), encoding="utf-8")
    made = prepare(data(), [table, lines])
    assert made.report["rows_kept"] == 70
    assert made.report["duplicates"] == 20
    assert made.report["merged_labels"] == {"A": "a", "B": "b"}
    assert [entry["rows"] for entry in made.report["files"]] == [50, 40]


@pytest.mark.parametrize(
    ("rows", "chosen", "words"),
    [
        ([], {}, "has no rows"),
        (some(20, "a"), {}, 'only one label, "a" in 20 rows'),
        ([("", "a", ""), ("x", "", "")], {}, "no labelled text in 0 rows (dropped:"),
        ([(f"t{n}", f"{n}", "") for n in range(30)], {}, "30 different labels in 30 rows"),
        (some(5), {}, "are too few"),
        (some(100), {"val": 0.001}, "the val split would be empty"),
        ([(f"t{n}", "ab"[n % 2], "one") for n in range(50)], {"group": "g"}, "in 1 groups"),
        (some(30), {"group": "grp"}, 'has no column "grp"'),
        ([("same", "a", ""), ("same", "b", "")] * 20, {}, "40 contradicted label"),
    ],
)
def test_data_that_cannot_be_used(
    tmp_path: Path, rows: list[tuple[str, ...]], chosen: dict[str, Any], words: str
) -> None:
    path = save(tmp_path, "a.csv", rows, "text,label,g")
    with pytest.raises(BadInput) as caught:
        prepare(data(**chosen), [path])
    assert words in str(caught.value) and caught.value.mend


def warnings(folder: Path, rows: list[tuple[str, ...]], **chosen: Any) -> str:
    path = save(folder, "a.csv", rows, "text,label,g")
    return "\n".join(prepare(data(**chosen), [path]).report["warnings"])


def test_warnings(tmp_path: Path) -> None:
    assert warnings(tmp_path, some(2000), group="g") == ""
    said = warnings(tmp_path, [*some(400), ("the only one", "lonely", "")])
    assert 'no rows of "lonely" in val' in said and 'no rows of "lonely" in test' in said
    assert 'fewer than 10 rows to learn "lonely"' in said
    assert 'labels are uneven: 200 rows of "a", 1 of "lonely"' in said
    assert "has only 60 rows: models that differ by less than about 16 points" in said
    told = [(f"{n} and the answer is SPAM", "spam", "") for n in range(300)]
    told += [(f"{n} and the answer is ham", "ham", "") for n in range(300)]
    assert "100% of the texts hold their own label" in warnings(tmp_path, told)
    pure = [(f"t{n}", "ab"[n // 4 % 2], f"g{n // 4}") for n in range(800)]
    assert "nearly all groups have one label" in warnings(tmp_path, pure, group="g")
    few = [(f"t{n}", "ab"[n % 2], f"g{n // 40}") for n in range(800)]
    assert "test rows are of only 2 groups" in warnings(tmp_path, few, group="g", test=0.1)
    assert "8000 rows, and every rival answers each" in warnings(tmp_path, some(10_000), test=0.8)


def test_what_a_test_can_show_is_about_the_power_of_mcnemars_test() -> None:
    """Simulated: pairs that differ on a fifth of the rows, by just the smallest difference."""
    dice = random.Random(0)
    for rows in (200, 600):
        shift = smallest_difference(rows) / 2
        found = 0
        for _ in range(400):
            draws = [dice.random() for _ in range(rows)]
            wins = sum(draw < 0.1 + shift for draw in draws)
            losses = sum(0.1 + shift <= draw < 0.2 for draw in draws)
            found += (wins - losses) ** 2 > 1.96**2 * (wins + losses)
        assert 0.72 < found / 400 < 0.9


def test_rows_without_a_label_can_be_a_label_of_their_own(tmp_path: Path) -> None:
    rows = [*some(40), *((f"another number {n}", " " * (n % 2), "") for n in range(20))]
    path = save(tmp_path, "a.csv", rows, "text,label,g")
    assert prepare(data(), [path]).report["labels"] == {"a": 20, "b": 20}
    report = prepare(data(none="neither"), [path]).report
    assert report["labels"] == {"a": 20, "b": 20, "neither": 20}
    assert report["dropped"] == []


def test_the_newest_rows_are_the_test_rows(tmp_path: Path) -> None:
    rows = [(f"number {n}", "ab"[n % 2], f"{n % 28 + 1}.{n // 28 + 1}.2024") for n in range(200)]
    rows[3] = (*rows[3][:2], "some day")
    path = save(tmp_path, "a.csv", random.Random(0).sample(rows, 200), "text,label,day")
    made = prepare(data(date="day", val=0.1, test=0.2), [path])
    numbers = {
        name: sorted(int(text.split()[1]) for text in getattr(made, name)["input"])
        for name in ("train", "val", "test")
    }
    assert numbers["test"] == list(range(160, 200))
    assert numbers["val"] == list(range(140, 160))
    assert made.dropped.select("input", "reason").rows() == [
        ("number 3", "no date that can be read")
    ]
    assert made.report["dates"]["test"] == ["2024-06-21 00:00:00", "2024-08-04 00:00:00"]
    assert dict(made.train.schema) == SCHEMA
    test = save(tmp_path, "t.csv", [("a text", "a", "")] * 2, "text,label,g")  # has no dates
    held = prepare(data(date="day", test=["t"]), [path], None, [test])
    assert held.test.height == 2 and held.val["input"].to_list()
