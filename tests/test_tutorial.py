"""The tutorial can be followed: what it shows is sound, and its blocks run in their order."""

import csv
import re
from pathlib import Path

import pytest

import fenced
from bantam import recipe, recipe_documents
from bantam.cli import bantam as program
from bantam.text.look import look
from bantam.text.prepare import prepare

PAGES = Path(__file__).parents[1] / "docs/tutorials"
BLOCKS = {page.stem: fenced.blocks(page) for page in sorted(PAGES.glob("*.md"))}
EACH = [(page, block) for page, blocks in BLOCKS.items() for block in blocks]


def first(page: str, language: str) -> fenced.Block:
    return next(block for block in BLOCKS[page] if block.language == language)


@pytest.mark.parametrize(("page", "block"), EACH, ids=[f"{p} {b.text[:30]}" for p, b in EACH])
def test_each_block_is_sound(page: str, block: fenced.Block) -> None:
    if block.language == "python":
        compile(block.text, page, "exec")
    for command in re.findall(r"\bbantam ([a-z]+)\b", block.text if block.language == "sh" else ""):
        assert command in program.commands


def test_the_recipe_suits_the_messages_and_the_first_look_agrees(tmp_path: Path) -> None:
    fenced.run(first("route-messages", "python"), tmp_path, installed=True)
    (tmp_path / "recipe.toml").write_text(first("route-messages", "toml").text, "utf-8")
    made = recipe.load(tmp_path / "recipe.toml")
    seen = look(tmp_path / "messages.csv")
    guessed = (seen.input.column, seen.output.column, seen.group.column)
    assert guessed == (made.data.input, made.data.output, made.data.group)
    assert seen.rows == 240
    prepared = prepare(made.data, [tmp_path / "messages.csv"])
    assert prepared.dropped.height == 0
    assert prepared.test.height == pytest.approx(60, abs=10)


@pytest.mark.parametrize(
    ("page", "data", "column"),
    [("text-to-json", "invoices.jsonl", "fields"), ("function-calls", "requests.jsonl", "output")],
)
def test_the_recipes_of_written_answers_suit_their_data(
    tmp_path: Path, page: str, data: str, column: str
) -> None:
    fenced.run(first(page, "python"), tmp_path, installed=True)
    (tmp_path / "recipe.toml").write_text(first(page, "toml").text, "utf-8")
    made = recipe.load(tmp_path / "recipe.toml")
    seen = look(tmp_path / data)
    assert (seen.task, seen.output.column) == (made.task.kind, column)
    prepared = prepare(made.data, [tmp_path / data], kind="extract")
    assert prepared.test.height >= 20


def follow(page: str, folder: Path) -> str:
    """Do what a tutorial says; what its commands print."""
    printed = ""
    for block in BLOCKS[page]:
        if block.language == "toml":
            (folder / "recipe.toml").write_text(block.text, "utf-8")
        elif block.language in ("sh", "python"):
            printed += fenced.run(block, folder, installed=True)
    return printed


@pytest.mark.slow
@pytest.mark.parametrize("page", ["text-to-json", "function-calls"])
def test_the_tutorials_of_written_answers_run(tmp_path: Path, page: str) -> None:
    printed = follow(page, tmp_path)
    assert "nearest" in printed
    assert list((tmp_path / "runs").glob("*/report.html"))


@pytest.mark.slow
def test_the_tutorial_of_documents_runs_and_prints_what_it_shows(tmp_path: Path) -> None:
    printed = follow("clean-data", tmp_path)
    shown = [block.text for block in BLOCKS["clean-data"] if block.language == "console"]
    for line in "".join(shown).splitlines():
        assert line in (*printed.splitlines(), "", "…")
    assert "30 documents" in printed


@pytest.mark.slow
def test_the_tutorial_of_a_model_from_scratch_runs(tmp_path: Path) -> None:
    printed = follow("scratch", tmp_path)
    assert "bits for a byte" in printed
    assert "The for statement is used to" in printed
    assert list((tmp_path / "runs/python-help/pack").glob("*.gguf"))


def test_the_recipe_from_scratch_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(first("scratch", "toml").text, "utf-8")
    assert recipe_documents.load(path).train.budget == 60


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path) -> None:
    printed = follow("route-messages", tmp_path)
    assert "tfidf" in printed
    assert (tmp_path / "runs/messages/pack/messages-Q8_0.gguf").is_file()
    assert (tmp_path / "runs/messages/report.html").is_file()
    with (tmp_path / "answered.csv").open(encoding="utf-8", newline="") as file:
        answered = list(csv.DictReader(file))
    assert [row["id"] for row in answered] == ["1", "2"]
    teams = {"account", "billing", "delivery", "repairs"}
    assert {row["answer"] for row in answered} <= teams
    assert {row["sure"] for row in answered} <= {"true", "false"}
