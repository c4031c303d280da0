"""Mistakes in tables within tables: told with line and key, and what the mend says is right."""

import re
from pathlib import Path
from typing import Any, get_origin

import pytest
from pydantic import BaseModel

from bantam import recipe_documents
from bantam.errors import BadInput
from bantam.recipe_documents import Documents, From, Judge, Redaction, Rules, Score, Train

NEEDED = {"documents": "files", "documents.sources.forum": "files", "documents.score": "good"}
SECTIONS: dict[str, type[BaseModel]] = {
    "documents": Documents,
    **{f"documents.{key}": type(getattr(Rules(), key)) for key in Rules.model_fields},
    "documents.redact": Redaction,
    "documents.score": Score,
    "documents.sources.forum": From,
    "train": Train,
    "judge": Judge,
}


def refused(folder: Path, text: str) -> BadInput:
    path = folder / "recipe.toml"
    path.write_text(text)
    with pytest.raises(BadInput) as told:
        recipe_documents.load(path)
    return told.value


def table(name: str, line: str) -> str:
    """A recipe whose table of this name has the line, beside what it needs."""
    key, told = line.partition(" = ")[0], []
    for one in dict.fromkeys(("documents", name)):
        told.append(f"[{one}]")
        if one in NEEDED and (one, NEEDED[one]) != (name, key):
            told.append(f'{NEEDED[one]} = ["notes/"]')
        told += [line] if one == name else []
    return "\n".join(told)


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name, one in SECTIONS.items() for key in one.model_fields]
)
def test_what_the_mend_says_can_be_loaded(name: str, key: str, tmp_path: Path) -> None:
    """Of every key a value that no key may have; then what the mend shows in its place."""
    told = refused(tmp_path, table(name, f"{key} = 1979-05-27"))
    assert f"{name}.{key}: " in told.message
    shown = re.fullmatch(r"write for instance (.*)", told.mend, re.DOTALL)
    if shown:
        (tmp_path / "recipe.toml").write_text(table(name, shown[1]))
        recipe_documents.load(tmp_path / "recipe.toml")
    else:
        assert told.mend.startswith(f"write [{name}.{key}")
        assert holds_sections(SECTIONS[name].model_fields[key].annotation)


def holds_sections(kind: Any) -> bool:
    return "recipe_documents" in str(kind) or get_origin(kind) is dict


@pytest.mark.parametrize(
    ("line", "problem", "mend"),
    [
        ("gopher.min_wrds = 3", "line 3, documents.gopher.min_wrds: there is no", '"min_words"?'),
        ("min_words = 3", "line 3, documents.min_words: there is no", "under [documents.gopher]"),
        ("gopher = true", "documents.gopher: must be a table", "write [documents.gopher] on"),
        ("sources = 3", "documents.sources: must be a table", "write [documents.sources.NAME] on"),
        ("redact.words = { a = 3 }", "documents.redact.words.a: must be a list", "words = { cl"),
        ("c4.policy = 1", "documents.c4.policy: must be true or false", "policy = true"),
        (
            "[documents.sources.forum]\nwieght = 2",
            "line 4, documents.sources.forum.wieght: there is no such key",
            'licence, licence_column, weight; did you mean "weight"?',
        ),
        (
            '[documents.sources.forum]\ntext = "body"',
            "line 3, documents.sources.forum.files: is missing",
            'add under [documents.sources.forum]: files = ["notes/"]',
        ),
        ('[task]\nkind = "classify"', 'task.kind: must be "complete"', 'kind = "complete"'),
    ],
)
def test_mistakes_are_told_where_they_are(
    line: str, problem: str, mend: str, tmp_path: Path
) -> None:
    told = refused(tmp_path, table("documents", line))
    assert problem in told.message
    assert mend in told.mend
