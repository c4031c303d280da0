import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.errors import BadInput
from bantam.recipe import Data
from bantam.text.prepare import Prepared, prepare

VOTES = st.tuples(st.integers(0, 20), st.integers(0, 20))


def made(folder: Path, header: str, rows: list[tuple[Any, ...]], **settings: Any) -> Prepared:
    path = folder / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    chosen = {"val": 0.2, "test": 0.2, "shares": "votes_"} | settings
    return prepare(Data(examples=["not read here"], **chosen), [path])


@settings(max_examples=30)
@given(st.lists(VOTES, min_size=20, max_size=30))
def test_votes_become_shares(
    tmp_path_factory: pytest.TempPathFactory, votes: list[tuple[int, int]]
) -> None:
    rows = [(f"text {n}", "ab"[n % 2], a, b) for n, (a, b) in enumerate(votes)]
    found = made(tmp_path_factory.mktemp("any"), "text,label,votes_a,votes_b", rows)
    assert found.dropped.is_empty()
    for text, shares in found.train.select("input", "shares").iter_rows():
        a, b = votes[int(text.split()[1])]
        if a + b == 0:
            assert shares is None  # nothing is known but the label
        else:
            assert shares == {
                "a": pytest.approx(a / (a + b)),
                "b": pytest.approx(b / (a + b)),
            }
    against = sum((b > a) if n % 2 == 0 else (a > b) for n, (a, b) in enumerate(votes))
    told = [warning for warning in found.report["warnings"] if "largest share" in warning]
    assert (
        told
        == ([f"rows whose label is not the one with the largest share: {against}"])[: bool(against)]
    )


def test_a_cell_that_is_no_share_takes_its_row(tmp_path: Path) -> None:
    rows: list[tuple[Any, ...]] = [(f"text {n}", "ab"[n % 2], 0.25, "0.75") for n in range(20)]
    bad = ["many", "-1", "nan", "inf", "1e999", "1e308"]
    rows += [(f"bad {n}", "a", cell, 1) for n, cell in enumerate(bad)]
    rows += [("empty", "a", " ", "")]
    found = made(tmp_path, "text,label,votes_a,votes_b", rows)
    assert sorted(found.dropped["input"]) == [f"bad {n}" for n in range(len(bad))]
    assert set(found.dropped["reason"]) == {'"votes_a" is no share: it must be from 0 to 1e+09'}


def test_columns_and_labels_must_agree(tmp_path: Path) -> None:
    rows = [(f"text {n}", "ab"[n % 2], 1, 2) for n in range(20)]
    with pytest.raises(BadInput, match='no column begins with "votes_"'):
        made(tmp_path, "text,label,x,y", rows)
    with pytest.raises(BadInput, match='the label "b" has no column "votes_b"'):
        made(tmp_path, "text,label,votes_a,votes_c", rows)
    rows = [(*row, 3) for row in rows]
    found = made(tmp_path, "text,label,votes_a,votes_b,votes_c", rows)
    assert 'no row has the label "c": its column of shares is left out' in found.report["warnings"]
    assert found.train["shares"][0] == {"a": pytest.approx(1 / 3), "b": pytest.approx(2 / 3)}


def test_files_of_their_own_need_no_shares(tmp_path: Path) -> None:
    test = tmp_path / "test.csv"
    test.write_text("text,label\nx,a\ny,b\n", encoding="utf-8")
    rows = [(f"text {n}", "ab"[n % 2], 1, 2) for n in range(20)]
    made(tmp_path, "text,label,votes_a,votes_b", rows)
    chosen = Data(examples=["-"], test=["-"], shares="votes_")
    found = prepare(chosen, [tmp_path / "a.csv"], None, [test])
    assert found.test.height == 2
    assert found.train["shares"].null_count() == 0
