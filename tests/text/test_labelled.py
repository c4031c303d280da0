"""`bantam text` on labelled rows: cleaned by themselves, and to be looked at."""

import csv
import json
import random
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from bantam import labelled, recipe
from bantam.cli import bantam
from bantam.documents import show
from bantam.errors import BadInput
from bantam.job import Job, read_lock

WORDS = {
    "billing": ["invoice", "money", "paid", "charge", "twice", "card", "refund"],
    "delivery": ["parcel", "late", "courier", "door", "box", "truck", "address"],
}
RECIPE = """
[task]
name = "desk"
kind = "classify"
instruction = "Who answers?"
[data]
examples = ["rows.csv"]
[base]
model = "nowhere.gguf"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    chance = random.Random(2)
    rows = [(" ".join(chance.choices(WORDS[label], k=9)), label) for label in [*WORDS] * 60]
    rows += [*rows[:7], (rows[7][0], "billing"), (rows[8][0], "delivery"), ("", "billing")]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    (tmp_path / "recipe.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def called(*words: str) -> str:
    done = CliRunner().invoke(bantam, ["text", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_rows_are_cleaned_without_a_base(here: Path) -> None:
    told = called("recipe.toml")
    assert "of 130 rows are kept" in told and "7  duplicate" in told
    text = here / "runs" / "desk" / "text"
    rows = {path.stem: pl.read_parquet(path).height for path in text.glob("*.parquet")}
    assert rows.keys() == {"train", "val", "test", "dropped"}
    assert sum(rows.values()) == 130
    assert (text / "to_mend.csv").is_file()
    assert "not been judged" in (here / "runs" / "desk" / "report.html").read_text()
    assert json.loads(called("recipe.toml", "--json"))["rows_read"] == 130


def test_what_make_finds_is_what_was_cleaned(here: Path) -> None:
    run = here / "runs" / "desk"
    called("recipe.toml")
    before = (run / "text" / "stage.json").stat()
    sources = read_lock(run)["sources"]
    assert list(sources) == ["rows.csv"]
    made = recipe.load(here / "recipe.toml")
    found = labelled.resolved(made, run, made.data.files)
    assert (
        labelled.stage(Job(made, run, found))
        == json.loads((run / "text" / "stage.json").read_text())["key"]
    )
    assert (run / "text" / "stage.json").stat() == before


def test_rows_can_be_looked_at(here: Path) -> None:
    called("recipe.toml")
    run = here / "runs" / "desk"
    kept = show.rows(run, kept=True, count=1000)
    assert {row["split"] for row in kept} == {"train", "val", "test"}
    assert {row["reason"] for row in kept} == {None}
    gone = show.rows(run, dropped="", count=1000)
    assert len(kept) + len(gone) == 130
    assert {row["part"] for row in show.rows(run, dropped="no text")} == {"row 130"}
    assert len(show.rows(run, dropped="contradicted")) == 4
    assert all("parcel" in row["text"] for row in show.rows(run, word="parcel"))
    assert show.rows(run, source="rows.csv", count=1000) == show.rows(run, count=1000)
    said = called("show", "runs/desk", "--dropped", "duplicate", "-n", "1")
    assert said.startswith("dropped by duplicate\nrows.csv · row 12")
    assert "→ billing" in said or "→ delivery" in said
    with pytest.raises(BadInput, match='no rule "gopher"'):
        show.rows(run, dropped="gopher")


def test_processes_and_clusters_are_for_documents(here: Path) -> None:
    for more in (["--workers", "2"], ["--ray", "local"]):
        done = CliRunner().invoke(bantam, ["text", "recipe.toml", *more])
        assert isinstance(done.exception, BadInput)
    done = CliRunner().invoke(bantam, ["make", "recipe.toml", "--ray", "local"])
    assert isinstance(done.exception, BadInput)
