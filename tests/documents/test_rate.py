"""Thumbs: what is shown, what is written down, and what is there after a kill."""

import io
import json
import sys
import tomllib
from collections.abc import Iterator
from hashlib import blake2b, sha256
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bantam import cli
from bantam.documents import rate
from bantam.errors import BadInput

TEXTS = [f"text number {number}" for number in range(8)]


def documents(texts: list[str] = TEXTS) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [
                blake2b(f"{at}".encode(), digest_size=8).hexdigest() for at in range(len(texts))
            ],
            "text": texts,
            "source": "mails",
            "path": "inbox.mbox",
            "part": [None, *(f"message {at}" for at in range(1, len(texts)))],
        },
        schema_overrides={"part": pl.String},
    )


def rated(path: Path, keys: str, texts: list[str] = TEXTS, wanted: int = 50) -> tuple[int, int]:
    return rate.rate(documents(texts), path, iter(keys), lambda told: None, wanted)


def thumbs(path: Path) -> dict[str, str | None]:
    return {one["text"]: one["thumb"] for one in rate.read(path).values()}


def test_each_thumb_is_a_line_at_once_and_the_next_call_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ratings.jsonl"
    seen = []

    def keys() -> Iterator[str]:
        yield "g"
        seen.append(path.read_text())  # before anything else is asked
        yield "b"

    rate.rate(documents(), path, keys(), lambda told: None)
    line = json.loads(seen[0])
    assert line == {
        "id": documents()["id"][0],
        "sha256": sha256(TEXTS[0].encode()).hexdigest(),
        "thumb": "good",
        "text": TEXTS[0],
    }
    assert rated(path, "sg") == (2, 1)
    assert thumbs(path) == dict(zip(TEXTS, ["good", "bad", "skip", "good"], strict=False))
    assert rate.texts(path, "good").to_list() == [TEXTS[0], TEXTS[3]]
    assert rate.texts(path, "bad").to_list() == [TEXTS[1]]


def test_undo_goes_back_and_only_what_was_said_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "ratings.jsonl"
    assert rated(path, "uggubuubq") == (0, 1)
    assert thumbs(path) == {TEXTS[0]: "bad"}
    assert rated(path, "g") == (1, 1)
    assert thumbs(path) == {TEXTS[0]: "bad", TEXTS[1]: "good"}


@given(st.text("gbsuqx", max_size=30), st.integers(0, 30))
def test_stopping_anywhere_and_going_on_is_as_if_it_had_not_stopped(keys: str, stop: int) -> None:
    """Undo reaches back to the beginning of a call, so none stands behind the stop."""
    from tempfile import TemporaryDirectory

    keys = keys.replace("q", "")
    first, second = keys[:stop], keys[stop:].replace("u", "")
    with TemporaryDirectory() as folder:
        once, twice = Path(folder) / "once", Path(folder) / "twice"
        whole = rated(once, first + second)
        rated(twice, first)
        assert rated(twice, second) == whole
        assert thumbs(once) == thumbs(twice)


def test_it_ends_when_there_are_enough(tmp_path: Path) -> None:
    path = tmp_path / "ratings.jsonl"
    told: list[str] = []
    assert rate.rate(documents(), path, iter("gsbggg"), told.append, 3) == (2, 1)
    assert "2 of 3 rated" in "".join(told)
    assert rated(path, "gggg", wanted=3) == (2, 1)


def test_a_text_is_asked_about_once(tmp_path: Path) -> None:
    path = tmp_path / "ratings.jsonl"
    assert rated(path, "ggg", ["a", "a", "b"]) == (2, 0)
    assert thumbs(path) == {"a": "good", "b": "good"}


def test_half_a_line_of_a_killed_process_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "ratings.jsonl"
    rated(path, "gb")
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        before = len(rate.read(path))
        assert before == whole[:end].count(b"\n")
        rated(path, "s")
        assert len(rate.read(path)) == before + 1


@pytest.mark.parametrize(
    "line", ["{}", "[1]", "nothing", '{"id": "a", "sha256": "b", "thumb": "up", "text": "c"}']
)
def test_a_file_that_is_none_of_thumbs_is_refused_and_left_alone(tmp_path: Path, line: str) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(BadInput, match="line 1"):
        rated(path, "g")
    assert path.read_text() == f"{line}\n"


def test_what_is_shown_fits_the_terminal_and_moves_nothing_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "20")
    texts = ["\x1b[2J\x1b]0;title\x07 \u202etxet\r\x9b1m", "long line " * 5000, "line\n" * 5000]
    for text in texts:
        told: list[str] = []
        rate.rate(documents([text]), tmp_path / "r.jsonl", iter("q"), told.append)
        screen = told[0]
        assert screen.count("\n") < 20
        assert all(len(line) <= 60 for line in screen.split("\n"))
        assert not set(screen) & set("\x1b\x07\r\x9b\u202e")
    assert "the beginning of 25,000 characters" in screen


def test_half_of_what_is_shown_is_near_the_threshold() -> None:
    count = 20_000
    ids = pl.Series([blake2b(f"{at}".encode(), digest_size=8).hexdigest() for at in range(count)])
    scores = pl.Series(np.arange(count) / count)
    place = dict(zip(ids, scores, strict=True))
    chosen = rate.pick(ids, 0, scores, 0.7)
    assert chosen.n_unique() == len(chosen)
    near = [abs(place[id] - 0.7) <= 0.0501 for id in chosen[:50]]
    assert 22 <= sum(near) <= 32
    by_chance = rate.pick(ids, 0)
    assert [place[id] < 0.5 for id in by_chance[:50]].count(True) in range(12, 39)
    # Going on: what was rated is left out, and the rest comes in the same order.
    rest = ids.filter(~ids.is_in(by_chance[:20].to_list()))
    assert rate.pick(rest, 0)[:30].to_list() == by_chance[20:50].to_list()
    assert len(rate.pick(ids[:0], 0, scores[:0], 0.5)) == 0


def run_folder(folder: Path, texts: list[str], scored: bool = False) -> Path:
    (folder / "text").mkdir(parents=True)
    frame = documents(texts)
    gone = frame.with_columns(line=pl.lit(None, pl.Int64), reason=pl.lit("score"))
    if scored:
        frame = frame.with_columns(score=pl.int_range(len(texts)) / len(texts))
    frame[:3].write_parquet(folder / "text" / "documents-00000.parquet")
    frame[3:6].write_parquet(folder / "text" / "documents-00001.parquet")
    gone = gone[6:].with_columns(value=pl.Series(["0.02", "0.75 alike"]))
    gone = gone.with_columns(reason=pl.Series(["score", "near duplicate"]))
    gone.write_parquet(folder / "text" / "dropped.parquet")
    return folder


def test_a_run_is_rated_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, path = run_folder(tmp_path / "run", TEXTS), tmp_path / "ratings.jsonl"
    monkeypatch.setattr(sys, "stdin", io.StringIO("good\n\nb\nquit\n"))
    assert rate.rate_run(run, path, 0) == (1, 1)
    assert "mails: inbox.mbox" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("g\n" * 20))
    assert rate.rate_run(run, path, 0) == (5, 1)
    assert thumbs(path).keys() == set(TEXTS[:6])
    assert "these are all documents" in capsys.readouterr().out


def test_how_to_learn_from_ratings_can_be_pasted(tmp_path: Path) -> None:
    run, path = run_folder(tmp_path / "run", TEXTS), tmp_path / 'a "rating".jsonl'
    asked = ["text", "rate", str(run), "-o", str(path)]
    nothing = CliRunner().invoke(cli.bantam, asked, input="")
    assert nothing.exit_code == 0 and "learn from them" not in nothing.stderr
    told = CliRunner().invoke(cli.bantam, asked, input="good\nquit\n").stderr
    pasted = tomllib.loads(told.partition("\n\n")[2])
    assert pasted == {"documents": {"score": {"ratings": str(path)}}}


def test_what_the_score_has_dropped_is_rated_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, path = run_folder(tmp_path / "run", TEXTS, scored=True), tmp_path / "ratings.jsonl"
    monkeypatch.setattr(sys, "stdin", io.StringIO("g\n" * 20))
    assert rate.rate_run(run, path, 0) == (7, 0)
    assert thumbs(path).keys() == set(TEXTS[:7])


def test_a_folder_without_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no documents"):
        rate.rate_run(tmp_path, tmp_path / "ratings.jsonl", 0)
