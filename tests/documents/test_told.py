"""report.json: what it counts is what the shards hold, however the documents lie in them."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import pytest
import worked
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.documents import examples, told
from bantam.documents.histograms import MEASURES, histograms
from bantam.recipe_documents import Documents

WANTED = Documents(files=["x"], seed=3)


def of(folder: Path, shards: list[int] | None = None) -> dict[str, Any]:
    made = worked.work(folder, worked.documents(), shards, worked.HITS, worked.FOUND)
    return told.report(made, WANTED)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return of(tmp_path_factory.mktemp("work"))


def test_the_funnel_ends_with_what_is_kept(report: dict[str, Any]) -> None:
    rows = worked.documents()
    stay = [row for row in rows if row["reason"] is None]
    sizes = [len(row["text"].encode()) for row in stay]
    assert report["kept"]["documents"] == len(stay) == 40
    assert report["kept"]["bytes"] == sum(sizes)
    assert report["kept"]["words"] == sum(len(row["text"].split()) for row in stay)
    steps = [(step["step"], step["documents"]) for step in report["funnel"]]
    assert steps == [
        ("read", 60),
        ("lines", 60),
        ("no text", 59),
        ("language", 57),
        ("gopher", 48),
        ("repetition", 47),
        ("contaminated", 46),
        ("duplicate", 45),
        ("near duplicate", 40),
    ]
    assert report["funnel"][-1]["bytes"] == sum(sizes)
    taken = sum(len(line[1].encode()) + 1 for row in rows for line in row["lines"])
    assert report["funnel"][0]["bytes"] - report["funnel"][1]["bytes"] == taken
    assert report["splits"]["val"]["documents"] == 4
    assert sum(split["bytes"] for split in report["splits"].values()) == sum(sizes)


def test_rules_are_counted_with_their_limits_and_examples(report: dict[str, Any]) -> None:
    rules = {rule["rule"]: rule for rule in report["dropped"]}
    assert {name: rule["count"] for name, rule in rules.items()} == {
        "gopher.min_words": 9,
        "near duplicate": 5,
        "language": 2,
        "contaminated": 1,
        "duplicate": 1,
        "no text": 1,
        "repetition.max_top_2_gram": 1,
    }
    assert report["dropped"] == sorted(report["dropped"], key=lambda rule: -rule["count"])
    assert rules["gopher.min_words"]["limit"] == 50
    assert rules["language"]["limit"] is None
    shown = rules["gopher.min_words"]["examples"]
    assert len({one["path"] for one in shown}) == 3
    assert all(one["text"] == f"Nr. {one['path'][6:-4]}" for one in shown)
    lines = {rule["rule"]: rule["count"] for rule in report["dropped_lines"]}
    assert lines == {"boilerplate": 12, "c4.javascript": 1}
    # Equal lines are one example, of whichever document.
    assert len(report["dropped_lines"][0]["examples"]) == 1
    assert report["repeated_lines"] == [
        {"source": "house", "text": worked.FOOTER, "documents": 40, "lines": 6},
        {"source": "shed", "text": worked.FOOTER, "documents": 40, "lines": 6},
    ]


def test_sources_languages_and_the_rest(report: dict[str, Any]) -> None:
    house, shed = report["sources"]
    assert (house["source"], house["read"]["documents"], house["kept"]["documents"]) == (
        "house",
        40,
        20,
    )
    assert shed["licences"] == {"CC0-1.0": 10, "unknown": 10}
    assert sum(one["read"]["bytes"] for one in (house, shed)) == report["read"]["bytes"]
    assert report["languages"] == [
        {"language": "en", "read": 57, "kept": 40},
        {"language": "de", "read": 2, "kept": 0},
        {"language": None, "read": 1, "kept": 0},
    ]
    assert report["redacted"] == worked.FOUND
    exam, quiz = report["contaminated"]["rows"]
    assert (exam["benchmark"], quiz["benchmark"], exam["path"]) == ("exam", "quiz", "exam.txt")
    assert report["contaminated"]["benchmarks"][0] == {
        "benchmark": "exam",
        "rows": 1,
        "documents": 1,
    }
    assert report["unread"]["files"] == 2
    assert report["unread"]["reasons"] == {
        "a link out of the folder is not followed": 1,
        "it is damaged": 1,
    }
    assert report["mended"] == {"mojibake": 1, "white space": 60}


def test_a_cluster_shows_the_survivor_and_the_most_unlike(report: dict[str, Any]) -> None:
    near = report["near_copies"]
    assert (near["clusters"], near["documents"], near["others"]) == (1, 6, [])
    (one,) = near["largest"]
    assert (one["size"], one["dropped"]) == (6, 5)
    assert [(row["path"], row["similarity"]) for row in one["members"]] == [
        ("stay/7.txt", None),
        ("near/0.txt", 0.8),
        ("near/1.txt", 0.81),
    ]


def test_others_than_the_largest_clusters_are_drawn_by_seed() -> None:
    count = 30
    ids = [f"{at:016x}" for at in range(2 * count)]
    found = pl.DataFrame(
        {
            "id": ids,
            "survivor": [None if at % 2 == 0 else ids[at - 1] for at in range(2 * count)],
            "similarity": [1.0 if at % 2 == 0 else 0.9 for at in range(2 * count)],
            "cluster": [at // 2 for at in range(2 * count)],
        }
    )
    placed = {name: ["x"] * 2 * count for name in ("text", "source", "path", "part")}
    frame = pl.DataFrame({"id": ids, **placed})

    def drawn(seed: int) -> list[str]:
        told = examples.clusters(found, [frame], seed)
        assert len(told["largest"]) == examples.LARGEST
        return [one["members"][0]["id"] for one in told["others"]]

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(set(drawn(1))) == examples.OTHERS


@settings(max_examples=8, deadline=None)
@given(shards=st.lists(st.integers(0, 4), min_size=60, max_size=60))
def test_the_report_does_not_depend_on_the_shards(
    report: dict[str, Any], shards: list[int]
) -> None:
    with TemporaryDirectory() as folder:
        parted = of(Path(folder), shards)
    of_shards = {"unread": None, "mended": None}  # each has a file that was not read, and mends
    assert parted | of_shards == report | of_shards


values = st.lists(st.none() | st.floats(0, 2e5) | st.integers(0, 200_000), min_size=1)


@given(values, st.data())
def test_histograms_are_those_of_numpy(found: list[float | None], data: st.DataObject) -> None:
    column = pl.Series(found, dtype=pl.Float64)
    stays = pl.Series(data.draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found))))
    frame = pl.DataFrame({measure.name: column for measure in MEASURES})
    for one, measure in zip(histograms([(frame, stays)], WANTED), MEASURES, strict=True):
        edges = [*measure.edges[:-1], np.inf]
        for which, some in (("read", column), ("kept", column.filter(stays))):
            expected, _ = np.histogram(some.drop_nulls().to_numpy(), edges)
            assert one[which] == expected.tolist()
        assert one["unmeasured"] == column.null_count()


def test_limits_are_those_of_the_recipe() -> None:
    rules = Documents(files=["x"], gopher={"min_words": 7, "max_words": False})
    frame = pl.DataFrame({measure.name: [1.0] for measure in MEASURES})
    limits = {
        one["measure"]: one["limits"] for one in histograms([(frame, pl.Series([True]))], rules)
    }
    assert limits["words"] == {"gopher.min_words": 7}
    assert limits["repeated_5_grams"] == {"repetition.max_5_grams": 0.15}


def test_what_is_written_is_read_again(report: dict[str, Any], tmp_path: Path) -> None:
    told.write(report, tmp_path)
    assert told.read(tmp_path) == json.loads(json.dumps(report)) == report
    assert (tmp_path / "report.html").read_text("utf-8").startswith("<!doctype html>")
    lines = told.words(report).splitlines()
    assert lines[0].startswith("40 of 60 documents are kept")
    assert "  gopher.min_words" in lines[1]
    assert "13 lines were taken out of documents" in lines
