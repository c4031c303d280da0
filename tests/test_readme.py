"""What the README and the recipes promise: its commands exist, and its `sh` blocks run.

A fenced block marked `sh` is run in a fresh copy of the project by `make test-slow`; one marked
`console` shows a session and is only read.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import fenced
from bantam import recipe, recipe_documents, recipe_file
from bantam.cli import bantam as program

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = [block for block in fenced.blocks(ROOT / "README.md") if block.language == "sh"]
RECIPES = sorted(ROOT.glob("recipes/*/*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=[path.parent.name for path in RECIPES])
def test_every_recipe_is_sound(path: Path) -> None:
    if recipe_file.has_documents(path):
        assert recipe_documents.load(path).documents.files
    else:
        assert recipe.load(path).data.examples


def test_the_readme_names_only_commands_that_exist() -> None:
    named = set(re.findall(r"\bbantam ([a-z]+)\b", "\n".join(re.findall(r"`[^`]+`", README))))
    assert named >= {"new", "check", "make", "run"}
    assert named <= program.commands.keys()


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path: Path) -> None:
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(lambda name: (ROOT / name).is_file(), files.splitlines()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    assert BLOCKS
    for block in BLOCKS:
        fenced.run(block, tmp_path, installed=False)
