"""`bantam new FOLDER`: what is seen of documents, and the recipe that is written for them."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bantam import curation, recipe_documents
from bantam.documents import look as looking
from bantam.documents.first_recipe import MOST_AGAINST, describe, write_recipe
from bantam.documents.look import look
from bantam.errors import BadInput

ENGLISH = (
    "The ferry leaves the harbour at seven and comes back before the shops close. "
    "Most of the people who take it work in the town, and they know each other by name. "
)
GERMAN = (
    "Die Fähre verlässt den Hafen um sieben und kommt zurück, bevor die Läden schließen. "
    "Die meisten Leute arbeiten in der Stadt und kennen einander beim Namen. "
)
LIST = "\n".join(f"- item {n}" for n in range(60))
Bantam = Callable[..., Any]


def prose(sentences: str, seed: int) -> str:
    """Some paragraphs, in which no run of words recurs."""
    dice = random.Random(seed)
    words = sentences.split()
    paragraphs = [" ".join(dice.sample(words, len(words))) + "." for _ in range(6)]
    return "\n\n".join(paragraphs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "Harbour Notes"
    (target / "old").mkdir(parents=True)
    for number in range(12):
        (target / f"{number}.md").write_text(prose(ENGLISH, number), encoding="utf-8")
    for number in range(4):
        (target / "old" / f"{number}.txt").write_text(prose(GERMAN, number), encoding="utf-8")
    (target / "old" / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
    return target


def test_what_is_seen(folder: Path) -> None:
    seen = look(folder)
    assert (seen.files, seen.looked_into, seen.documents) == (17, 17, 16)
    assert seen.suffixes == {".md": 12, ".txt": 4, ".pdf": 1}
    assert seen.bytes == sum(path.stat().st_size for path in folder.rglob("*.*"))
    assert list(seen.languages) == ["en", "de"]
    assert sum(seen.languages.values()) == pytest.approx(1, abs=0.01)
    assert [one.path for one in seen.unread] == ["old/broken.pdf"]
    told = describe(seen)
    assert "12 .md, 4 .txt, 1 .pdf" in told
    assert "old/broken.pdf" in told
    assert "little to learn from" in told


def test_rules_are_off_that_would_take_much_and_are_those_of_the_text_stages(folder: Path) -> None:
    """What the look says of each paper is what `bantam text` does by that paper alone."""
    for number in range(8):
        (folder / f"list{number}.txt").write_text(f"{LIST}\n- {number}\n", encoding="utf-8")
    seen = look(folder)
    path = folder.parent / "recipe.toml"
    others = ["boilerplate = false", "redact = { kinds = [] }", "val = 0.1"]
    for paper, share in seen.against.items():
        off = [f"{other} = false" for other in looking.PAPERS if other != paper]
        lines = ["[documents]", f"files = [{json.dumps(str(folder) + '/')}]", *off, *others]
        path.write_text("\n".join(lines), encoding="utf-8")
        run = folder.parent / f"run-{paper}"
        curation.text(path, run)
        gone = pl.read_parquet(run / "text" / "dropped.parquet").filter(pl.col("line").is_null())
        by_rule = gone.filter(pl.col("reason").str.starts_with(f"{paper}."))
        assert len(by_rule) / seen.documents == pytest.approx(share, abs=0.001), paper
    path.write_text(write_recipe(seen, path), encoding="utf-8")
    written = recipe_documents.load(path).documents
    assert seen.against["gopher"] > MOST_AGAINST
    assert written.gopher.min_words is None
    assert seen.against["c4"] <= MOST_AGAINST
    assert written.c4 == recipe_documents.C4()


def test_the_recipe_finds_the_folder_from_where_it_stands(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "recipes" / "mine.toml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(write_recipe(look(folder), elsewhere), encoding="utf-8")
    made = recipe_documents.load(elsewhere)
    (files,) = made.documents.files
    assert (elsewhere.parent / files).resolve() == folder.resolve()
    assert made.task.name == "harbour-notes"
    assert made.documents.val == 0.2  # few documents


def test_the_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bantam: Bantam
) -> None:
    monkeypatch.chdir(tmp_path)
    done = bantam("new", folder.name)
    assert done.code == 0, done.err
    assert done.out.endswith("wrote recipe.toml; next: bantam check recipe.toml\n")
    assert bantam("check", "recipe.toml").code == 0
    assert bantam("new", folder.name).code == 2  # it is there already
    told = json.loads(bantam("new", folder.name, "--force", "--json").out)
    assert (told["recipe"], told["look"]["files"]) == ("recipe.toml", 17)
    inside = bantam("new", folder.name, "-o", f"{folder.name}/old/recipe.toml")
    assert (inside.code, "among the documents" in inside.err) == (2, True)


def test_folders_that_are_none_of_documents(tmp_path: Path, bantam: Bantam) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "reviews.csv").write_text("text,label\na,b\n", encoding="utf-8")
    done = bantam("new", tmp_path / "rows")
    assert (done.code, "reviews.csv" in done.err) == (2, True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no text that can be read"):
        look(tmp_path / "empty")


@given(st.dictionaries(st.text("abc", min_size=1, max_size=6), st.integers(0, 1 << 25), min_size=1))
def test_the_sample_is_bounded(sizes: dict[str, int]) -> None:
    taken = looking._sample(sizes)
    assert taken == sorted(set(taken))
    assert 1 <= len(taken) <= looking.MOST_FILES
    rest = sorted(sizes[path] for path in taken)[:-1]
    assert sum(rest) <= looking.MOST_BYTES
    if sum(sizes.values()) <= looking.MOST_BYTES:
        assert len(taken) == len(sizes)
