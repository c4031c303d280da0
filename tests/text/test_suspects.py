"""Suspects: contradictions, near copies, planted wrong labels, and labels that look alike."""

import json
import random
from typing import Any

import polars as pl
import pytest

from bantam.text import suspects
from bantam.text.mending import SHEET

FILLER = [f"thing{n}" for n in range(400)]
LONG = "please look at the long letter that I wrote to you last week about my broken kettle"


def frame(rows: list[tuple[str, str]], **more: Any) -> pl.DataFrame:
    """Rows as `prepare` leaves them; ids are what `clean.identify` makes of them."""
    data = {
        "id": [""] * len(rows),
        "input": [row[0] for row in rows],
        "output": [row[1] for row in rows],
        "group": [None] * len(rows),
        "file": ["a.csv"] * len(rows),
        "row": list(range(1, len(rows) + 1)),
    }
    return pl.DataFrame(data | more, schema_overrides={"group": pl.String})


def talk(rows: int, labels: list[str], seed: int = 0) -> list[tuple[str, str]]:
    """Texts whose words tell their label nearly always."""
    dice = random.Random(seed)
    made = []
    for number in range(rows):
        label = labels[number % len(labels)]
        words = [f"{label}{dice.randrange(9)}" for _ in range(3)] + dice.choices(FILLER, k=9)
        dice.shuffle(words)
        made.append((" ".join(words), label))
    return made


def suspected(rows: pl.DataFrame, *how: Any, **more: Any) -> pl.DataFrame:
    return suspects.check(rows, *how, **more).suspects


def by_reason(found: pl.DataFrame) -> dict[str, list[int]]:
    return {str(reason): sorted(rows["row"]) for (reason,), rows in found.group_by("reason")}


def test_contradictions_come_by_their_text_with_what_most_rows_say() -> None:
    rows = [("Same text", "a"), ("same  TEXT", "a"), ("same text", "b"), ("tie", "a"), ("tie", "b")]
    found = suspected(frame([*rows, ("other", "a"), ("else", "b")]))
    assert dict(found.schema) == SHEET
    assert found["reason"].unique().to_list() == [suspects.CONTRADICTED]
    told = found.select("row", "label", "suggested", pl.col("confidence").round(2), "mended")
    assert sorted(told.rows()) == [
        (3, "b", "a", 0.67, ""),
        (4, "a", None, 0.5, ""),
        (5, "b", None, 0.5, ""),
    ]
    assert abs(found["row"].index_of(4) - found["row"].index_of(5)) == 1


def test_near_copies_with_other_labels() -> None:
    texts = [LONG, f"{LONG}!", f"{LONG} today", "nothing like the other texts at all, not a word"]
    found = suspected(frame(list(zip(texts, "aaba", strict=True))))
    assert found.select("row", "label", "suggested", "reason").rows() == [
        (3, "b", "a", suspects.NEAR)
    ]


@pytest.mark.parametrize("labels", [["red", "blue"], [f"kind {n}" for n in range(8)]])
def test_planted_wrong_labels_come_first(labels: list[str]) -> None:
    rows = talk(800, [label.replace(" ", "") for label in labels])
    planted = random.Random(1).sample(range(800), 40)
    for at in planted:
        text, label = rows[at]
        others = sorted({row[1] for row in rows} - {label})
        rows[at] = (text, others[at % len(others)])
    checked = suspects.check(frame(rows))
    found = checked.suspects
    assert found["reason"].unique().to_list() == [suspects.UNLIKELY]
    assert found["confidence"].is_sorted(descending=True)
    assert found["confidence"].is_between(0.5, 1).all()
    first = [row - 1 for row in found["row"].head(30)]
    assert len(set(first) & set(planted)) >= 28
    right = talk(800, [label.replace(" ", "") for label in labels])
    suggested = zip(first, found["suggested"], strict=False)
    assert sum(right[at][1] == label for at, label in suggested) >= 28
    assert len({row - 1 for row in found["row"]} & set(planted)) >= 30
    assert checked.report["rows"] == 800 and checked.report["agrees"] > 0.9


def test_the_order_of_the_rows_does_not_matter_and_the_seed_hardly_does() -> None:
    rows = talk(300, ["red", "blue", "green"])
    for at in range(1, 60, 6):
        rows[at] = (rows[at][0], "red")
    mixed = random.Random(0).sample(rows, len(rows))
    one, other = suspected(frame(rows)), suspected(frame(mixed))
    assert one.drop("row").equals(other.drop("row"))
    assert suspected(frame(rows)).equals(one)
    again = suspected(frame(rows), seed=1)
    assert len(set(again["id"]) & set(one["id"])) >= 8


def test_labels_of_few_rows_are_left_alone() -> None:
    rows = [*talk(60, ["red", "blue"]), ("red1 red2 red3 alone", "rare")]
    found = suspected(frame(rows))
    assert "rare" not in found["label"].to_list()
    assert suspects.check(frame(rows[:4])).report["agrees"] is None


def test_labels_that_look_alike_are_told_in_both_directions() -> None:
    rows = [
        *talk(200, ["red", "blue"]),
        *((text, ["grey", "gray"][n % 2]) for n, (text, _) in enumerate(talk(200, ["grey"], 5))),
    ]
    (pair,) = suspects.check(frame(rows)).report["alike"]
    assert pair["labels"] == ["gray", "grey"]
    assert pair["rows"] == [100, 100]
    assert all(20 < count < 80 for count in pair["taken_for_the_other"])


def test_a_set_that_lacks_a_label_or_has_one_too_many() -> None:
    dice = random.Random(0)
    rows = []
    for _ in range(600):
        held = [label for label in ("food", "price", "staff") if dice.random() < 0.4]
        words = [f"{label}{dice.randrange(6)}" for label in held for _ in range(3)]
        rows.append((" ".join(words + dice.choices(FILLER, k=6)), "|".join(held)))
    wanted = {}
    for at in range(0, 600, 30):
        text, held = rows[at]
        labels = set(held.split("|")) - {""}
        wanted[at + 1] = held or "|"
        rows[at] = (text, "|".join(sorted(labels ^ {("food", "price", "staff")[at % 90 // 30]})))
    found = suspected(frame(rows), multi=True)
    told = dict(found["row", "suggested"].rows())
    right = [row for row, labels in told.items() if wanted.get(row) == labels]
    assert len(right) >= 12 and len(right) >= 0.8 * len(told)
    assert "" not in found["label"].to_list() + found["suggested"].to_list()


def record(number: int, total: int) -> tuple[str, str]:
    text = (
        f"Dear customer, this is invoice {number} for the kettle that you bought in our shop at "
        f"the market square. Please pay {total} euros within two weeks to the account below. "
        "With kind regards, and many thanks for your visit, the people of the kettle shop."
    )
    return text, json.dumps({"number": number, "total": total})


def test_written_answers_may_differ_where_their_near_copies_differ() -> None:
    good = [record(41, 30), record(41, 35), record(42, 30)]
    assert suspected(frame(good), "extract").height == 0
    wrong = (record(43, 30)[0], json.dumps({"number": 43, "sum": 30}))
    found = suspected(frame([*good, wrong]), "extract")
    assert found.select("row", "suggested", "reason").rows() == [(4, None, suspects.NEAR)]


def test_written_answers_of_the_same_text() -> None:
    rows = [("the same", '{"a": 1}'), ("the same", '{"a": 2}')]
    assert by_reason(suspected(frame(rows), "extract")) == {suspects.CONTRADICTED: [1, 2]}
    assert suspected(frame(rows), "generate").height == 0  # two references
    tools = frame(rows, tools=['[{"name": "f"}]', '[{"name": "g"}]'])
    assert suspected(tools, "extract").height == 0  # asked with other functions


def test_references_of_a_test_row_are_looked_at_one_by_one() -> None:
    rows = [(LONG, "a kettle\x1fa letter\x1f"), (f"{LONG}!", "a kettle")]
    found = suspected(frame(rows), "generate")
    assert found["label"].to_list() == ["a letter"]


def test_what_was_mended_is_no_suspect_any_more() -> None:
    rows = frame([("same", "a"), ("same", "b"), ("other", "a"), ("more", "b")])
    found = suspected(rows)
    assert found.height == 2
    assert suspects.check(rows, mended=found.head(1)).suspects.height == 0
    assert suspects.check(rows, mended=found.clear()).suspects.height == 2


@pytest.mark.parametrize("kind", ["classify", "extract", "generate"])
def test_the_report_can_be_written_and_is_short(kind: str) -> None:
    rows = frame([("x" * 5000, '["%s"]' % ("a" * 5000)), ("x" * 5000, '["b"]')] * 1)
    told = suspects.check(rows, kind).report
    assert len(json.dumps(told)) < 3000
    assert suspects.check(rows.clear(), kind).report["suspects"] == []
