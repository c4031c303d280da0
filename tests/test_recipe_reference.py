"""docs/recipe.md names every key of a recipe, with the default that it has."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bantam import recipe, recipe_documents
from bantam.recipe_types import Section

DOC = Path(__file__).parents[1] / "docs" / "recipe.md"
GIVEN = "must be given"
NAMED = "the folder's name"
# Sections with the keys that they cannot be without.
ROWS: dict[str, tuple[type[Section], dict[str, Any]]] = {
    "task": (recipe.Task, {"kind": "classify"}),
    "data": (recipe.Data, {"examples": ["rows.csv"]}),
    "base": (recipe.Base, {}),
    "train": (recipe.Train, {}),
    "limits": (recipe.Limits, {}),
    "judge": (recipe.Judge, {}),
    "handover": (recipe.Handover, {}),
}
DOCUMENTS: dict[str, tuple[type[Section], dict[str, Any]]] = {
    "task": (recipe_documents.Purpose, {}),
    "documents": (recipe_documents.Documents, {}),
    "documents.sources.NAME": (recipe_documents.From, {"files": ["notes/"]}),
    "documents.boilerplate": (recipe_documents.Boilerplate, {}),
    "documents.redact": (recipe_documents.Redaction, {}),
    "documents.score": (recipe_documents.Score, {}),
    "documents.gopher": (recipe_documents.Gopher, {}),
    "documents.repetition": (recipe_documents.Repetition, {}),
    "documents.c4": (recipe_documents.C4, {}),
    "documents.fineweb": (recipe_documents.FineWeb, {}),
    "base": (recipe_documents.Base, {}),
    "train": (recipe_documents.Train, {}),
    "judge": (recipe_documents.Judge, {}),
}


def told(part: str) -> dict[str, dict[str, str]]:
    """The keys of each table of a part of the page, with their defaults."""
    found: dict[str, dict[str, str]] = {}
    for name, text in re.findall(r"^### `\[(.+?)\]`\n(.*?)(?=^##|\Z)", part, re.M | re.S):
        rows = [re.split(r"(?<!\\)\|", line) for line in text.splitlines() if line[:3] == "| `"]
        found[name] = {
            key.strip(" `"): default.strip(" `").replace(r"\|", "|") for _, key, default, *_ in rows
        }
    return found


def true(section: type[Section], given: dict[str, Any]) -> dict[str, str]:
    """The same as the code has it. Tables within a table have their own."""
    values = section(**given).model_dump(mode="json", by_alias=True)
    found = {}
    for name, field in section.model_fields.items():
        key = field.alias or name
        value = values[key]
        inner = f"documents.{key}" in DOCUMENTS or f"documents.{key}.NAME" in DOCUMENTS
        if inner and section is recipe_documents.Documents:
            continue
        if field.is_required():
            found[key] = GIVEN
        elif key == "name":
            found[key] = NAMED
        else:
            found[key] = "" if value is None else json.dumps(value)
    return found


@pytest.mark.parametrize(("title", "wanted"), [("Labelled rows", ROWS), ("Documents", DOCUMENTS)])
def test_the_page_has_every_key_with_its_default(
    title: str, wanted: dict[str, tuple[type[Section], dict[str, Any]]]
) -> None:
    parts = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", DOC.read_text("utf-8"), re.M | re.S))
    assert told(parts[title]) == {name: true(*one) for name, one in wanted.items()}
    sections = recipe.Written if title == "Labelled rows" else recipe_documents.Written
    assert {name.partition(".")[0] for name in wanted} == set(sections.model_fields)
