"""Kept and dropped documents in the terminal: which are drawn, and how they are written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import worked
from click.testing import CliRunner

from bantam import cli, curation
from bantam.documents import show, told
from bantam.errors import BadInput

ESCAPE = "\x1b"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    shards = [at % 3 for at in range(60)]
    made = worked.work(folder / "shards", worked.documents(), shards)
    return worked.run(folder / "run", made)


def paths(rows: list[dict[str, Any]]) -> list[str]:
    return [row["path"] for row in rows]


def test_all_that_fits_is_drawn_once(run: Path) -> None:
    documents = worked.documents()
    stay = {row["path"] for row in documents if row["reason"] is None}
    kept = show.rows(run, kept=True, count=100)
    assert set(paths(kept)) == stay and len(kept) == 40
    assert {row["reason"] for row in kept} == {None}
    dropped = show.rows(run, dropped="", count=100)
    assert set(paths(dropped)) == {row["path"] for row in documents} - stay
    assert len(dropped) == 20 and {row["line"] for row in dropped} == {None}
    assert len(show.rows(run, count=100)) == 60
    assert show.rows(run / "text", count=100) == show.rows(run, count=100)


def test_chance_goes_by_the_seed(run: Path, tmp_path: Path) -> None:
    first = show.rows(run, count=10)
    assert first == show.rows(run, count=10) == show.rows(run, count=30)[:10]
    assert paths(first) != paths(show.rows(run, count=10, seed=1))
    one = worked.work(tmp_path / "shards", worked.documents())
    assert paths(show.rows(worked.run(tmp_path / "run", one), count=10)) == paths(first)


def test_a_rule_a_source_and_a_word_are_asked_for(run: Path) -> None:
    gopher = show.rows(run, dropped="gopher", count=100)
    assert {row["reason"] for row in gopher} == {"gopher.min_words"} and len(gopher) == 9
    lines = show.rows(run, dropped="boilerplate", count=100)
    assert len(lines) == 12 and {row["line"] for row in lines} == {2}
    assert {row["text"] for row in lines} == {worked.FOOTER}
    assert {row["source"] for row in show.rows(run, source="shed", count=100)} == {"shed"}
    found = show.rows(run, word="HOUSE 12", count=100)
    assert paths(found) == ["stay/12.txt"]
    assert show.rows(run, word="no.such.word") == show.rows(run, word="[") == []
    both = show.rows(run, kept=True, dropped="near duplicate", count=100)
    assert len(both) == 45


@pytest.mark.parametrize(
    ("ask", "mend"),
    [
        (lambda run: show.rows(run, dropped="gopher.min_word"), "did you mean: gopher.min_words"),
        (lambda run: show.rows(run, dropped="?"), "there is: boilerplate, c4.javascript"),
        (lambda run: show.rows(run, source="sheds"), "did you mean: shed"),
        (lambda run: show.rows(run / "nowhere"), "`bantam text` made"),
    ],
)
def test_what_is_not_there_is_said(run: Path, ask: Callable[[Path], Any], mend: str) -> None:
    with pytest.raises(BadInput) as told:
        ask(run)
    assert mend in str(told.value)


def row(text: str, **more: Any) -> dict[str, Any]:
    place = {"source": "house", "path": "a.txt", "part": None, "line": None}
    return {**place, "text": text, "reason": None, "value": None, **more}


def test_plain_text_has_no_colours_and_folds_no_lines() -> None:
    long = "word " * 60
    (told,) = show.written([row(long, part="page 3", language="en", split="val", licence=None)])
    assert told == f"kept\nhouse · a.txt · page 3 · en · val\n{long}\n\n"
    gone = row("[bold]as it is[/bold]", reason="gopher.min_words", value="3", line=1200)
    (told,) = show.written([gone])
    assert told.splitlines() == [
        "line dropped by gopher.min_words  3",
        "house · a.txt · line 1,200",
        "[bold]as it is[/bold]",
        "",
    ]


def test_a_terminal_gets_colours_and_nothing_of_the_documents_own() -> None:
    hostile = f"{ESCAPE}]0;title\x07{ESCAPE}[2Jgone\u202e\x9b1m"
    for colour in (False, True):
        (told,) = show.written([row(hostile, path=hostile)], colour=colour, width=60)
        assert f"{ESCAPE}]" not in told and f"{ESCAPE}[2J" not in told
        assert not {"\x07", "\u202e", "\x9b"} & set(told)
        assert "⟨U+001B⟩" in told.replace("\n", "")
        assert (ESCAPE in told) == colour


def test_a_long_text_is_cut_around_the_word() -> None:
    text = "begin " + "x" * 5000 + " the Needle here " + "y" * 5000
    (told,) = show.written([row(text)])
    assert "begin" in told and "Needle" not in told and "8,523 more characters" in told
    (told,) = show.written([row(text)], word="needle")
    assert "… x" in told and "Needle here" in told and "more characters" in told
    (told,) = show.written([row(text)], word="needle", colour=True)
    assert f"{ESCAPE}[7mNeedle{ESCAPE}[0m" in told


def test_a_run_from_its_recipe(tmp_path: Path) -> None:
    """The real shards have what the report and this page ask of them."""
    notes = tmp_path / "notes"
    notes.mkdir()
    for at in range(12):
        words = " ".join(f"thing{at} of the {word} and that" for word in "abcdefghijklmnop")
        (notes / f"{at}.md").write_text(f"{words}.\nWritten in the house by jo@sample-post.com.\n")
    (notes / "short.md").write_text("Too short.")
    (tmp_path / "recipe.toml").write_text(
        '[documents]\nfiles = ["notes/"]\nfineweb = false\nrepetition = false\n'
        "[documents.c4]\nmin_sentences = false\n"
    )
    run = tmp_path / "run"
    report = curation.text(tmp_path / "recipe.toml", run, workers=1)
    assert report == told.read(run / "text")
    assert report["read"]["documents"] == 13 and report["kept"]["documents"] == 12
    assert report["funnel"][-1]["documents"] == 12
    assert (run / "text" / "report.html").stat().st_size > 10_000
    assert "sample-post" not in (run / "text" / "report.json").read_text()
    assert paths(show.rows(run, dropped="")) == ["short.md"]
    assert len(show.rows(run, dropped="boilerplate", count=100)) == 12
    asked = CliRunner().invoke(cli.bantam, ["text", "show", str(run), "--word", "nowhere"])
    assert (asked.stdout, asked.stderr) == ("", "nothing in this run fits\n")
