"""Several labels a cell: read from text and lists, made one set, spread over the splits."""

import csv
import json
import random
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.errors import BadInput
from bantam.kinds import several
from bantam.recipe import Data
from bantam.text import clean
from bantam.text.first_recipe import write_recipe
from bantam.text.look import look
from bantam.text.prepare import Prepared, prepare
from bantam.text.split import split

LABELS = ["Red", "green", "blue wine"]


def save(folder: Path, name: str, cells: list[Any]) -> Path:
    """Texts of their own beside these cells."""
    path = folder / name
    rows = [{"text": f"this is text number {n}", "label": cell} for n, cell in enumerate(cells)]
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *(row.values() for row in rows)])
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), "utf-8")
    else:
        pl.DataFrame(rows).write_parquet(path)
    return path


def outputs(made: Prepared) -> dict[int, str]:
    whole = pl.concat([made.train, made.val, made.test])
    return dict(whole.select("row", "output").iter_rows())


def made(path: Path, **settings: Any) -> Prepared:
    wanted = {"val": 0.25, "test": 0.25} | settings
    return prepare(Data(examples=["not read here"], **wanted), [path], multi=True)


CLEAN = ["Red|green", "green", "", "Red", "blue wine|Red", "blue wine"] * 8
HOSTILE = [
    ("|||", ""),
    (" Red | green ", "Red|green"),
    ("green|Red|green", "Red|green"),
    ("red||GREEN", "Red|green"),
    ("|blue  wine|", "blue wine"),
    ("   ", ""),
    ("\t|\n", ""),
]


@pytest.mark.parametrize("separator", ["|", ";", ", ", " / "])
def test_cells_of_any_shape_are_sets(separator: str, tmp_path: Path) -> None:
    cells = [cell.replace("|", separator) for cell in [*CLEAN, *(cell for cell, _ in HOSTILE)]]
    found = made(save(tmp_path, "a.csv", cells), separator=separator)
    wanted = [several.joined(several.parted(c)) for c in CLEAN] + [wanted for _, wanted in HOSTILE]
    assert outputs(found) == dict(enumerate(wanted, 1))
    assert found.report["merged_labels"] == {
        "GREEN": "green",
        "blue  wine": "blue wine",
        "red": "Red",
    }
    counts = Counter(label for one in wanted for label in several.parted(one))
    assert found.report["labels"] == dict(counts)
    sizes = Counter(str(len(several.parted(one))) for one in wanted)
    assert found.report["labels_a_row"] == dict(sizes)
    assert found.report["dropped"] == []


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_cells_may_be_lists(suffix: str, tmp_path: Path) -> None:
    sets = [["Red", "green"], ["green"], [], ["blue wine; dry"], ["green", "Red", "green"]] * 10
    found = made(save(tmp_path, f"a{suffix}", sets), separator=";")
    assert outputs(found) == {n: several.joined(one) for n, one in enumerate(sets, 1)}


def test_lists_and_texts_and_nothing_in_one_file(tmp_path: Path) -> None:
    cells = [["Red", " green "], "Red|green", None, "", "green", ["green"], ["Red"], "Red"] * 6
    found = made(save(tmp_path, "a.jsonl", cells))
    wanted = ["Red|green", "Red|green", "", "", "green", "green", "Red", "Red"] * 6
    assert outputs(found) == dict(enumerate(wanted, 1))


def test_a_list_of_more_than_texts_is_unreadable(tmp_path: Path) -> None:
    cells = [["Red"], ["green"], "Red"] * 10 + [["Red", ["green"]], {"Red": 1}]
    found = made(save(tmp_path, "a.jsonl", cells))
    reasons = [entry["reason"] for entry in found.report["dropped"]]
    assert reasons == [
        'unreadable: "label" holds a list, not text',
        'unreadable: "label" holds an object, not text',
    ]


def test_without_multi_a_list_stays_unreadable(tmp_path: Path) -> None:
    path = save(tmp_path, "a.jsonl", [["Red"], ["green"]] * 10)
    with pytest.raises(BadInput, match="holds a list, not text"):
        prepare(Data(examples=["x"]), [path])


@pytest.mark.parametrize("cell", ["Red; a|b", ["Red", "a|b"]])
def test_a_label_with_the_mark_of_sets_is_refused(cell: object, tmp_path: Path) -> None:
    path = save(tmp_path, "a.jsonl", [["Red"], "green"] * 10 + [cell])
    with pytest.raises(BadInput, match=r'a\.jsonl, row 21: the label "a\|b" holds "\|"') as error:
        made(path, separator=";")
    assert 'data.separator = "|"' in error.value.mend


def test_rows_without_a_label_may_have_one_of_their_own(tmp_path: Path) -> None:
    path = save(tmp_path, "a.csv", ["Red|green", "Red", "", " | ", "green"] * 8)
    assert set(outputs(made(path, none="neither")).values()) == {
        "Red|green",
        "Red",
        "neither",
        "green",
    }


def test_one_label_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match='only one label, "Red"'):
        made(save(tmp_path, "a.csv", ["Red", "", "Red|red"] * 10))


def test_one_text_with_two_sets_is_contradicted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    same = [("one text", "b|a"), ("One text", "a|b"), ("two", "a"), ("two", "a|b")]
    more = [(f"text {n}", "a" if n % 2 else "b") for n in range(30)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *same, *more])
    found = made(path)
    assert Counter(found.dropped["reason"]) == {"duplicate": 1, "contradicted label": 2}
    assert found.report["contradictions"]["shown"] == [
        {"text": "two", "labels": {"a": 1, "a|b": 1}}
    ]


def rows(seed: int, count: int) -> pl.DataFrame:
    """Three labels that come alone and together, the last one rarely."""
    chance = random.Random(seed)
    table = [
        (
            f"text {n}",
            several.joined(
                x for x, p in (("a", 0.5), ("b", 0.3), ("c", 0.06)) if chance.random() < p
            ),
            f"g{n // chance.choice([1, 2, 5])}" if seed % 2 else None,
        )
        for n in range(count)
    ]
    schema = dict.fromkeys(("input", "output", "group"), pl.String)
    return clean.identify(pl.DataFrame(table, schema=schema, orient="row"))


@settings(max_examples=12)
@given(st.integers(0, 1000))
def test_each_label_is_spread_over_the_splits(seed: int) -> None:
    frame = rows(seed, 600)
    sides = frame.with_columns(side=split(frame, 0.2, 0.2, 0, multi=True))
    for label in ("a", "b", "c", ""):
        held = sides.filter(pl.col("output").str.split("|").list.contains(label))[
            "side"
        ].value_counts()
        for side, share in (("val", 0.2), ("test", 0.2)):
            found = dict(held.iter_rows()).get(side, 0)
            assert abs(found - share * held["count"].sum()) <= 3
    assert abs(Counter(sides["side"])["test"] - 120) <= 6


@given(st.lists(st.sampled_from(["", "a", "b", "a|b"]), min_size=1, max_size=30))
@settings(max_examples=25)
def test_single_labels_of_sets(sets: list[str]) -> None:
    found = clean.single(pl.Series(sets), multi=True).to_list()
    assert Counter(found) == Counter(label for one in sets for label in several.parted(one))


def seen(folder: Path, name: str, cells: list[Any]) -> dict[str, Any]:
    path = save(folder, name, cells)
    recipe = folder / "recipe.toml"
    recipe.write_text(write_recipe(look(path), recipe), "utf-8")
    return tomllib.loads(recipe.read_text("utf-8"))


@pytest.mark.parametrize("mark", ["|", ";", ", "])
def test_new_sees_several_labels_a_cell(mark: str, tmp_path: Path) -> None:
    cells = ["Red", f"Red{mark}green", "green", "", f"blue{mark}Red", "blue"] * 10
    found = seen(tmp_path, "a.csv", cells)
    assert found["task"]["multi"] is True
    assert found["data"]["separator"] == mark.strip()
    assert found["data"]["output"] == "label"
    assert "# 10 rows have no label" in (tmp_path / "recipe.toml").read_text("utf-8")
    prepare(Data(**found["data"]), [tmp_path / "a.csv"], multi=True)


def test_new_sees_lists(tmp_path: Path) -> None:
    found = seen(tmp_path, "a.jsonl", [["Red"], ["Red", "green"], [], ["green"]] * 10)
    assert found["task"]["multi"] is True
    assert "separator" not in found["data"]


@pytest.mark.parametrize(
    "cells",
    [
        ["Red", "green", "Red"] * 20,
        ["Portland, Oregon", "Salem, Oregon", "Boise, Idaho", "Salem, Idaho"] * 15,
        ["yes", "no", "no; I do not think that it is so at all", "yes"] * 15,
        ["Red", "green", "Red", "Red", *["Red"] * 55, "Red, I think"],
    ],
)
def test_new_sees_one_label_a_cell(cells: list[str], tmp_path: Path) -> None:
    found = seen(tmp_path, "a.csv", cells)
    assert "multi" not in found["task"]
    assert "separator" not in found["data"]
