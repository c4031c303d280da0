"""The whole main job for kinds that write their answers: records, calls, texts."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pytest

import bantam
import job
from bantam.judge.verdict import Verdict
from bantam.kinds import declarations

STATES = {"good": ["sharp", "bright", "lovely"], "poor": ["broken", "dull", "awful"]}
RECIPE = """
[task]
name = "tiny"
kind = "{kind}"
{task}

[data]
examples = ["rows.jsonl"]
output = "output"
val = 0.25
test = 0.2
{data}

[base]
model = "tiny.gguf"

[train]
steps = {steps}
batch_size = 16
learning_rate = {rate}
method = "full"
threads = 1

[judge]
rivals = {rivals}
shots = 2
"""
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": about,
            "parameters": {
                "type": "object",
                "properties": {"thing": {"enum": job.THINGS}},
                "required": ["thing"],
            },
        },
    }
    for name, about in (("praise", "say that it is good"), ("mend", "have it repaired"))
]


def said(chance: random.Random, number: int) -> tuple[str, str, str]:
    thing, state = chance.choice(job.THINGS), ["good", "poor"][number % 2]
    return f"the {thing}, number {number}, is {chance.choice(STATES[state])}", thing, state


def record(thing: str, state: str) -> Any:
    return {"output": {"thing": thing, "state": state}}


def call(thing: str, state: str) -> Any:
    name = {"good": "praise", "poor": "mend"}[state]
    return {"output": [{"name": name, "arguments": {"thing": thing}}], "tools": TOOLS}


def text(thing: str, state: str) -> Any:
    return {"output": f"{state} {thing}"}


KINDS: dict[str, tuple[Callable[[str, str], Any], dict[str, str]]] = {
    "record": (
        record,
        {"kind": "extract", "rivals": '["patterns", "nearest", "base", "base-few-shot"]'},
    ),
    "call": (
        call,
        {
            "kind": "extract",
            "data": 'tools = "tools"',
            "rivals": '["nearest", "base", "base-few-shot"]',
            "steps": "240",  # functions take longer
            "rate": "0.003",
        },
    ),
    "text": (
        text,
        {"kind": "generate", "rivals": '["lead", "nearest", "base", "base-few-shot"]'},
    ),
}


def write(folder: Path, model: Path, name: str, **change: str) -> None:
    output, words = KINDS[name]
    chance = random.Random(0)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(160):
            asked, thing, state = said(chance, number)
            file.write(json.dumps({"text": asked} | output(thing, state)) + "\n")
    shutil.copy(model, folder / "tiny.gguf")
    filled = {"task": "", "data": "", "steps": "120", "rate": "0.005"} | words | change
    (folder / "recipe.toml").write_text(RECIPE.format(**filled), "utf-8")


@pytest.fixture(scope="module", params=KINDS)
def finished(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> tuple[str, Path]:
    """A finished job of each sort: its name and its folder. Do not alter it."""
    folder = tmp_path_factory.mktemp(request.param)
    write(folder, tiny_model, request.param, task="sure = 0.6" if request.param != "text" else "")
    done = job.run("make", "recipe.toml", cwd=folder)
    assert done.code == 0, done.err
    (folder / "out.txt").write_text(done.out, "utf-8")
    return request.param, folder


def test_the_verdict(finished: tuple[str, Path]) -> None:
    name, folder = finished
    told = json.loads((folder / "runs/tiny/judge/verdict.json").read_text("utf-8"))
    verdict = Verdict.model_validate(told)
    assert verdict.metric == {"record": "exact_match", "call": "call_match", "text": "chrf"}[name]
    base = next(rival for rival in verdict.rivals if rival.name == "base")
    assert verdict.model.score > base.score + 0.2  # it learned
    assert verdict.sentence in (folder / "out.txt").read_text("utf-8")
    assert (verdict.sure is None) == (name == "text")
    assert {rival.name for rival in verdict.rivals} == set(json.loads(KINDS[name][1]["rivals"]))
    for proof in json.loads((folder / "runs/tiny/pack/proof.json").read_text("utf-8")):
        assert proof["passed"]


def test_all_json_follows_its_schema(finished: tuple[str, Path]) -> None:
    """Of ours and of the rivals that are models, untuned ones too."""
    name, folder = finished
    if name == "text":
        return
    rows = pl.read_parquet(folder / "runs/tiny/judge/predictions.parquet")
    rows = rows.filter(pl.col("model").is_in(["ours", "base", "base-few-shot"]))
    if name == "record":
        written = json.loads((folder / "runs/tiny/text/schema.json").read_text("utf-8"))["schema"]
    else:
        written = declarations.of_tools(declarations.tools(TOOLS, "tools"), 1)
    assert len(rows) >= 90
    for answer in rows["answer"]:
        jsonschema.validate(json.loads(answer), written)


def test_the_model_in_use(finished: tuple[str, Path]) -> None:
    name, folder = finished
    asked = "the camera, number 3, is broken"
    tools = TOOLS if name == "call" else None
    (folder / "tools.json").write_text(json.dumps(TOOLS), "utf-8")
    more = ["--tools", "tools.json"] if tools else []
    with bantam.load(folder / "runs/tiny") as model:
        told = model(asked, tools)
    done = job.run("run", "runs/tiny", asked, *more, cwd=folder)
    assert done.code == 0, done.err
    assert done.out.rstrip("\n") == str(told)
    done = job.run("run", "runs/tiny", asked, "--json", *more, cwd=folder)
    answer = json.loads(done.out)
    assert answer["answer"] == (told.text if name == "text" else told.value)  # type: ignore[union-attr]
    assert 0 <= answer["probability"] <= 1
    assert answer["whole"] is True
    assert ("sure" in answer) == (name != "text")


def test_many_rows(finished: tuple[str, Path]) -> None:
    _, folder = finished
    lines = (folder / "rows.jsonl").read_text("utf-8").splitlines()
    (folder / "some.jsonl").write_text("\n".join(lines[:40]), "utf-8")
    done = job.run("run", "runs/tiny", "-f", "some.jsonl", "-o", "answers.jsonl", cwd=folder)
    assert done.code == 0, done.err
    found = [
        json.loads(line) for line in (folder / "answers.jsonl").read_text("utf-8").splitlines()
    ]
    assert [one["text"] for one in found] == [json.loads(line)["text"] for line in lines[:40]]
    right = sum(one["answer"] == one["output"] for one in found)
    assert right >= 10


def test_the_pages(finished: tuple[str, Path]) -> None:
    name, folder = finished
    page = (folder / "runs/tiny/report.html").read_text("utf-8")
    assert ("Field by field" in page) == (name == "record")
    assert "What else is known of the answers" in page
    verdict = json.loads((folder / "runs/tiny/judge/verdict.json").read_text("utf-8"))
    assert ("Mistakes to read" in page) == (verdict["model"]["score"] < 1)
    assert "None" not in page.replace("None of", "")
    told = job.run("show", "runs/tiny", cwd=folder)
    assert told.code == 0
    assert {"record": "fields", "call": "calls", "text": "generate"}[name] in told.out
    again = job.run("make", "recipe.toml", cwd=folder)
    assert again.err.count("done before") == 5


def test_a_request_without_functions(tmp_path: Path, finished: tuple[str, Path]) -> None:
    name, folder = finished
    done = job.run("run", "runs/tiny", "the camera is fine", "--tools", "no.json", cwd=folder)
    assert done.code == 2
    assert "no.json cannot be read" in done.err
    (folder / "bad.json").write_text('[{"name": "two words"}]', "utf-8")
    done = job.run("run", "runs/tiny", "the camera is fine", "--tools", "bad.json", cwd=folder)
    assert done.code == 2
    assert ("no name for a function" if name == "call" else "calls no functions") in done.err
    if name == "call":
        done = job.run("run", "runs/tiny", "the camera is fine", cwd=folder)
        assert done.code == 2
        assert "--tools" in done.err


@pytest.mark.slow
def test_a_schema_of_ones_own(tmp_path: Path, tiny_model: Path) -> None:
    """Its order of keys is that of the answers; `check` and `make` refuse a bad one alike."""
    shown = {"task": 'schema = "own.json"', "rivals": '["patterns"]', "steps": "8"}
    write(tmp_path, tiny_model, "record", **shown)
    own = {
        "type": "object",
        "properties": {"state": {"enum": ["good", "poor"]}, "thing": {"type": "string"}},
        "required": ["state", "thing"],
        "additionalProperties": False,
    }
    (tmp_path / "own.json").write_text(json.dumps(own), "utf-8")
    done = job.run("make", "recipe.toml", cwd=tmp_path)
    assert done.code == 0, done.err
    done = job.run("run", "runs/tiny", "the camera, number 3, is broken", cwd=tmp_path)
    assert list(json.loads(done.out)) == ["state", "thing"]
    own["properties"]["state"] = {"enum": []}  # type: ignore[index]
    (tmp_path / "own.json").write_text(json.dumps(own), "utf-8")
    for command in ("check", "make"):
        done = job.run(command, "recipe.toml", cwd=tmp_path)
        assert done.code == 2
        assert "task.schema" in done.out + done.err


@pytest.mark.slow
def test_answers_that_are_too_long_are_left_out_and_told(tmp_path: Path, tiny_model: Path) -> None:
    write(tmp_path, tiny_model, "text", rivals='["lead"]', steps="8")
    with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as file:
        for number in range(8):
            row = {"text": f"long {number}", "output": f"{number} " + "good camera " * 300}
            file.write(json.dumps(row) + "\n")
    done = job.run("make", "recipe.toml", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "rows are left out: with their answers they are longer than 512 tokens" in done.err
