"""The sheet: written, filled in by a person, perhaps in a spreadsheet, and taken by `prepare`."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.errors import BadInput
from bantam.recipe import Data
from bantam.text import mending, suspects
from bantam.text.prepare import Prepared, prepare

Rows = list[dict[str, str]]


def save(path: Path, rows: list[tuple[str, ...]], header: str = "text,label") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


def made(data: Path, mended: Path | None = None, **more: Any) -> Prepared:
    kind, multi = more.pop("kind", "classify"), more.pop("multi", False)
    recipe = Data(examples=["not read here"], **more)
    return prepare(recipe, [data], multi=multi, kind=kind, mended=mended)


def sheet(prepared: Prepared, path: Path, **kind: Any) -> Rows:
    """Write the sheet as `bantam make` does, and read it as a person's program does."""
    found = suspects.check(prepared.labelled, mended=prepared.mended, **kind)
    mending.write(path, found.suspects, prepared.mended)
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"))))


def fill(path: Path, rows: Rows, delimiter: str = ",", columns: tuple[str, ...] = ()) -> Path:
    names = columns or mending.COLUMNS
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def plain(count: int = 40, start: int = 0) -> list[tuple[str, str]]:
    return [(f"text number {n}", "ab"[n % 2]) for n in range(start, start + count)]


def outputs(prepared: Prepared) -> dict[str, str]:
    parts = [prepared.train, prepared.val, prepared.test]
    return {row[0]: row[1] for part in parts for row in part.select("input", "output").iter_rows()}


def test_a_label_is_mended_a_row_dropped_and_the_rest_is_as_it_was(tmp_path: Path) -> None:
    data = save(tmp_path / "a.csv", [*plain(), ("who knows", "a"), ("Who knows", "b")])
    before = made(data)
    assert before.report["contradictions"]["texts"] == 1
    rows = sheet(before, tmp_path / "to_mend.csv")
    assert [row["label"] for row in rows] == ["a", "b"] and rows[0]["mended"] == ""
    rows[0]["mended"], rows[1]["mended"] = "B", "-"
    after = made(data, fill(tmp_path / "mended.csv", rows))
    assert after.report["contradictions"]["texts"] == 0
    assert outputs(after) == outputs(before) | {"who knows": "b"}
    assert after.dropped.select("input", "reason").rows() == [("Who knows", mending.GONE)]
    assert after.report["mended"] == {"changed": 1, "dropped": 1, "lost": 0}
    assert after.report["warnings"][-1:] == before.report["warnings"][-1:]
    for split in ("train", "val", "test"):  # hardly anything else moves
        moved = set(getattr(before, split)["id"]) - set(getattr(after, split)["id"])
        assert len(moved) <= 2


def test_moved_rows_are_still_mended_and_rows_that_fit_no_more_are_told(tmp_path: Path) -> None:
    data = save(tmp_path / "a.csv", [("gone", "a"), ("changed", "a"), *plain(), ("same", "a")])
    ids = {row["input"]: row["id"] for row in made(data).train.iter_rows(named=True)}
    ids |= {row["input"]: row["id"] for row in made(data).test.iter_rows(named=True)}
    ids |= {row["input"]: row["id"] for row in made(data).val.iter_rows(named=True)}
    rows = [{"id": ids[text], "label": "a", "mended": "b"} for text in ("gone", "changed", "same")]
    filled = fill(tmp_path / "mended.csv", rows, columns=mending.NEEDED)
    moved = save(tmp_path / "b.csv", [("same", "A "), *reversed(plain()), ("changed", "c")] * 2)
    after = made(moved, filled)
    assert outputs(after)["same"] == "b" and outputs(after)["changed"] == "c"
    assert after.report["mended"] == {"changed": 2, "dropped": 0, "lost": 2}
    (note,) = [note for note in after.report["warnings"] if "data.mended" in note]
    assert f'{ids["gone"]} ("a"): no such text' in note
    assert f'{ids["changed"]} ("a"): its label is another now' in note
    assert after.mended is not None and after.mended["id"].to_list() == [ids["same"]]
    # A label that was mended in the data as well is no loss.
    mended_too = save(
        tmp_path / "c.csv", [("gone", "b"), ("changed", "B"), *plain(), ("same", "a")]
    )
    again = made(mended_too, filled)
    assert again.report["mended"] == {"changed": 1, "dropped": 0, "lost": 0}


def test_what_was_mended_stays_in_the_sheet_and_is_no_suspect(tmp_path: Path) -> None:
    pairs = [("one", "a"), ("one", "b"), ("two", "a"), ("two", "b")]
    data = save(tmp_path / "a.csv", [*plain(), *pairs])
    rows = sheet(made(data), tmp_path / "to_mend.csv")
    assert [row["input"] for row in rows] in (["one"] * 2 + ["two"] * 2, ["two"] * 2 + ["one"] * 2)
    rows[0]["mended"] = rows[0]["label"]  # it is right as it stands
    rows[1]["mended"] = rows[0]["label"]
    first = fill(tmp_path / "mended.csv", rows)
    after = made(data, first)
    again = sheet(after, tmp_path / "to_mend.csv")
    assert again[:2] == rows[:2]
    assert sorted(row["mended"] for row in again[2:]) == ["", ""]
    assert made(data, tmp_path / "to_mend.csv").report == after.report


def test_a_new_label_is_told(tmp_path: Path) -> None:
    data = save(tmp_path / "a.csv", [*plain(), ("same", "a"), ("same", "b")])
    rows = sheet(made(data), tmp_path / "to_mend.csv")
    for row in rows:
        row["mended"] = "typo"
    told = made(data, fill(tmp_path / "mended.csv", rows)).report["warnings"]
    assert 'data.mended: no row had the label "typo" before' in told


def test_rows_of_a_test_file_are_mended_too(tmp_path: Path) -> None:
    train, test = save(tmp_path / "a.csv", plain()), save(tmp_path / "t.csv", [("other", "a")] * 2)
    recipe = Data(examples=["a"], test=["t"])
    id = prepare(recipe, [train], None, [test]).test["id"][0]
    rows = [{"id": id, "label": "a", "mended": "b"}]
    mended = fill(tmp_path / "m.csv", rows, ";", mending.NEEDED)  # as a German spreadsheet saves
    assert prepare(recipe, [train], None, [test], mended=mended).test["output"].to_list() == [
        "b",
        "b",
    ]


def test_sets_of_labels(tmp_path: Path) -> None:
    cells = ["red", "blue", "red; blue", ""]
    rows = [(f"text number {n}", cells[n % 4]) for n in range(60)]
    data = save(tmp_path / "a.csv", [*rows, ("same", "red; blue"), ("same", "")])
    options = {"multi": True, "separator": ";"}
    told = sheet(made(data, **options), tmp_path / "s.csv", multi=True)
    told = [row for row in told if row["input"] == "same"]
    assert {row["label"] for row in told} == {"blue|red", "|"}
    for row in told:
        row["mended"] = "|" if row["label"] == "blue|red" else "RED|green"
    after = made(data, fill(tmp_path / "m.csv", told), conflicts="keep", **options)
    parts = pl.concat([after.train, after.val, after.test])
    assert set(parts.filter(input="same")["output"]) == {"", "green|red"}


def test_written_answers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": f"text number {n}", "label": {"n": n % 7}} for n in range(40)]
    rows += [{"text": "same", "label": {"n": 1, "m": 2}}, {"text": "same", "label": {"n": 2}}]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    told = sheet(made(path, kind="extract"), tmp_path / "s.csv", kind="extract")
    assert len(told) == 2
    told[0]["mended"] = '{"n":3}'
    told[1]["mended"] = "{not json"
    after = made(path, fill(tmp_path / "m.csv", told), kind="extract")
    assert outputs(after)["same"] == '{"n": 3}'
    assert "output is not JSON" in after.dropped["reason"].to_list()


def test_references_are_mended_one_by_one(tmp_path: Path) -> None:
    rows = [*((f"text number {n}", f"answer {n}") for n in range(40)), ("x", "good"), ("x", "bad")]
    data = save(tmp_path / "a.csv", rows)
    before = made(data, kind="generate")
    id = before.labelled.filter(input="x")["id"][0]
    told = [{"id": id, "label": "bad", "mended": "-"}]
    after = made(data, fill(tmp_path / "m.csv", told, columns=mending.NEEDED), kind="generate")
    assert outputs(after)["x"] == "good" and after.report["mended"]["dropped"] == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,label\n1,a\n", 'has no column "mended"'),
        ("id,label,mended\n", "has no rows"),
        ("id,label,mended\nab,a,b\nab,A,c\n", 'row 1 says "b" and row 2 "c" of the same text'),
    ],
)
def test_a_file_that_is_no_sheet(tmp_path: Path, text: str, words: str) -> None:
    data = save(tmp_path / "a.csv", plain())
    (tmp_path / "m.csv").write_text(text, "utf-8")
    with pytest.raises(BadInput) as caught:
        made(data, tmp_path / "m.csv")
    assert words in str(caught.value) and caught.value.mend


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@settings(max_examples=150)
@given(cells, cells, cells, st.from_regex(r"[0-9a-f]{16}", fullmatch=True) | st.just("12" * 8))
def test_cells_come_back_and_none_is_a_formula(
    tmp_path_factory: pytest.TempPathFactory, text: str, label: str, mended: str, id: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "sheet.csv"
    label, mended = label.strip(), mended.strip()
    row = dict.fromkeys(mending.COLUMNS, "") | {"row": 7, "confidence": 0.5}
    row |= {"input": text, "label": label, "mended": mended, "id": id, "suggested": None}
    mending.write(path, pl.DataFrame([row], schema=mending.SHEET, orient="row"))
    text = path.read_bytes().decode("utf-8-sig")
    _, written = csv.reader(io.StringIO(text, newline=""))
    for cell in written:
        assert cell == "-" or not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    read = mending.load(path)
    if not mended:
        assert read.height == 0
        return
    assert read.select("id", "label", "mended", "row", "confidence").rows() == [
        (id, label, mended, 7, 0.5)
    ]
