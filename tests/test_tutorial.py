"""The tutorial can be followed: what it shows is sound, and its blocks run in their order."""

import csv
import re
from pathlib import Path

import pytest

import fenced
from bantam import recipe
from bantam.cli import bantam as program
from bantam.text.look import look
from bantam.text.prepare import prepare

PAGE = Path(__file__).parents[1] / "docs/tutorials/route-messages.md"
BLOCKS = fenced.blocks(PAGE)
DATA, RECIPE = (
    next(block for block in BLOCKS if block.language == language) for language in ("python", "toml")
)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.text[:30])
def test_each_block_is_sound(block: fenced.Block) -> None:
    if block.language == "python":
        compile(block.text, str(PAGE), "exec")
    for command in re.findall(r"\bbantam ([a-z]+)\b", block.text if block.language == "sh" else ""):
        assert command in program.commands


def test_the_recipe_suits_the_messages_and_the_first_look_agrees(tmp_path: Path) -> None:
    fenced.run(DATA, tmp_path, installed=True)
    (tmp_path / "recipe.toml").write_text(RECIPE.text, "utf-8")
    made = recipe.load(tmp_path / "recipe.toml")
    seen = look(tmp_path / "messages.csv")
    guessed = (seen.input.column, seen.output.column, seen.group.column)
    assert guessed == (made.data.input, made.data.output, made.data.group)
    assert seen.rows == 240
    prepared = prepare(made.data, [tmp_path / "messages.csv"])
    assert prepared.dropped.height == 0
    assert prepared.test.height == pytest.approx(60, abs=10)


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path) -> None:
    printed = ""
    for block in BLOCKS:
        if block.language == "toml":
            (tmp_path / "recipe.toml").write_text(block.text, "utf-8")
        elif block.language in ("sh", "python"):
            printed += fenced.run(block, tmp_path, installed=True)
    assert "tfidf" in printed
    assert (tmp_path / "runs/messages/pack/messages-Q8_0.gguf").is_file()
    assert (tmp_path / "runs/messages/report.html").is_file()
    with (tmp_path / "answered.csv").open(encoding="utf-8", newline="") as file:
        answered = list(csv.DictReader(file))
    assert [row["id"] for row in answered] == ["1", "2"]
    teams = {"account", "billing", "delivery", "repairs"}
    assert {row["answer"] for row in answered} <= teams
    assert {row["sure"] for row in answered} <= {"true", "false"}
