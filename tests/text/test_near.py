"""Near copies stay on one side of the split, and leave the training rows of a test file's."""

import csv
import random
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.errors import BadInput
from bantam.recipe import Data
from bantam.text import clean, near
from bantam.text.prepare import Prepared, prepare

WORDS = [f"word{n}" for n in range(500)]


def letter(seed: int, words: int = 40) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def copy(text: str, seed: int) -> str:
    """The text with another last word and a mark: 35 of 36 runs of five words are the same."""
    return f"{text.rsplit(' ', 1)[0]} other{seed}!"


def save(path: Path, texts: list[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = [(text, "ab"[n % 2]) for n, text in enumerate(texts)]
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


def sides(prepared: Prepared) -> dict[str, str]:
    return {
        text: name for name in ("train", "val", "test") for text in getattr(prepared, name)["input"]
    }


def families(count: int, seed: int = 0) -> list[list[str]]:
    """Texts, each with up to three near copies."""
    dice = random.Random(seed)
    found = []
    for number in range(count):
        text = letter(1000 * seed + number)
        found.append([text, *(copy(text, n) for n in range(dice.randrange(4)))])
    return found


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_no_near_copy_is_on_another_side(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    made = families(60, seed)
    texts = [text for family in made for text in family]
    random.Random(seed).shuffle(texts)
    data = save(tmp_path_factory.mktemp("any") / "a.csv", texts)
    together = sides(prepare(Data(examples=["a"], test=0.3, val=0.2), [data]))
    assert all(len({together[text] for text in family}) == 1 for family in made)
    apart = prepare(Data(examples=["a"], test=0.3, val=0.2, near_duplicates=False), [data])
    assert any(len({sides(apart)[text] for text in family}) > 1 for family in made)
    assert "near_copies" not in apart.report


def test_the_report_tells_of_them(tmp_path: Path) -> None:
    made = families(60)
    data = save(tmp_path / "a.csv", [text for family in made for text in family])
    report = prepare(Data(examples=["a"]), [data]).report
    sizes = [len(family) for family in made if len(family) > 1]
    assert report["near_copies"] == {
        "clusters": len(sizes),
        "rows": sum(sizes),
        "largest": max(sizes),
    }


def test_near_copies_of_a_test_or_val_file_leave_training_and_it_stays(tmp_path: Path) -> None:
    test, val = letter(1), letter(2)
    train = [copy(test, 1), copy(val, 1), *(letter(n) for n in range(10, 60))]
    files = save(tmp_path / "a.csv", train), save(tmp_path / "t.csv", [test, copy(test, 2)])
    held = Data(examples=["a"], val=["v"], test=["t"])
    made = prepare(held, [files[0]], [save(tmp_path / "v.csv", [val, copy(test, 3)])], [files[1]])
    assert made.test["input"].to_list() == [test, copy(test, 2)]
    assert made.val["input"].to_list() == [val, copy(test, 3)]
    assert made.train["input"].to_list() == train[2:]
    assert made.dropped.select("input", "reason").rows() == [
        (train[0], "a near copy of it stands in the test file"),
        (train[1], "a near copy of it stands in the val file"),
    ]


def test_texts_of_one_template_are_told(tmp_path: Path) -> None:
    text = letter(1, 80)
    data = save(tmp_path / "a.csv", [copy(text, n) for n in range(50)])
    with pytest.raises(BadInput) as caught:
        prepare(Data(examples=["a"]), [data])
    assert "data.near_duplicates = false" in caught.value.mend
    made = prepare(Data(examples=["a"], near_duplicates=False), [data])
    assert made.test.height
    more = save(tmp_path / "b.csv", [letter(n) for n in range(100, 200)])
    (told,) = [
        note
        for note in prepare(Data(examples=["a", "b"]), [data, more]).report["warnings"]
        if "near copies" in note
    ]
    assert "50 of 150 rows" in told and "data.near_duplicates = false" in told


def test_numbers_do_not_depend_on_the_order_and_dropped_rows_have_none() -> None:
    texts = [text for family in families(30) for text in family]
    rows = {"input": texts, "group": None, "reason": [None] * (len(texts) - 1) + ["no label"]}
    frame = clean.identify(pl.DataFrame(rows, schema_overrides={"reason": pl.String}))
    found = near.clustered(frame)
    assert found["cluster"].null_count() == 1 and found["cluster"][-1] is None
    mixed = near.clustered(frame.sample(fraction=1, shuffle=True, seed=1))
    assert mixed.sort("key").equals(found.sort("key"))
