"""What `show` tells, also of files that say nothing true of themselves."""

import json
import shutil
from pathlib import Path

import pytest

from bantam import runs
from bantam.formats import gguf
from bantam.show import describe, facts
from tiny import rewritten


def test_the_facts_are_those_of_the_file(tiny_model: Path) -> None:
    told = facts(str(tiny_model))
    file = gguf.read(tiny_model)
    assert told["bytes"] == tiny_model.stat().st_size
    assert told["parameters"] == sum(gguf.tensor(file, name).size for name in file.tensors)
    assert told["tensor_types"] == ["F32"]
    assert (told["architecture"], told["name"], told["licence"]) == ("llama", "tiny", None)
    assert "licence   not stated" in describe(told)


def test_a_run_is_shown_with_its_lineage(made: Path) -> None:
    told = facts(str(made / "runs/tiny"))
    assert told["lineage"]["base"]["sha256"] == runs.file_sha256(made / "tiny.gguf")
    assert told["lineage"]["data"]["rows.csv"] == runs.file_sha256(made / "rows.csv")
    assert f"sha256 {runs.file_sha256(made / 'rows.csv')[:16]}" in describe(told)
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize(
    "lineage",
    ["", "no json", "[]", '{"base": 3, "data": ["x"]}', "[" * 10_000, '{"data": {"a": 1}}'],
)
def test_a_false_lineage_does_no_harm(lineage: str, tiny_model: Path, tmp_path: Path) -> None:
    path = rewritten(tmp_path / "odd.gguf", tiny_model, {"bantam.lineage": lineage})
    assert describe(facts(str(path))).startswith("odd.gguf: ")


def test_a_torn_verdict_does_no_harm(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "runs/tiny", tmp_path / "run")
    (tmp_path / "run/judge/verdict.json").write_bytes(b'{"sentence": "\xff')
    told = describe(facts(str(tmp_path / "run")))
    assert "task      tiny (classify)" in told
    assert "verdict" not in told


@pytest.mark.parametrize(
    ("thresholds", "said"),
    [
        ([0.5, 0.25, 1.0], "above 0.250 to 0.500, by their label; never with 1 of the 3 labels"),
        ([0.5, 0.5, 0.5], "above 0.500, by their label"),
        ([0.9999999, 0.9996, 1.0], "above 0.999, by their label; never with 1 of the 3 labels"),
        ([1.0, 1.0, 1.0], "sure      no answer is"),
    ],
)
def test_when_an_answer_is_sure(
    thresholds: list[float], said: str, made: Path, tmp_path: Path
) -> None:
    packed = made / "runs/tiny/pack/tiny-Q8_0.gguf"
    calibration = json.dumps({"thresholds": thresholds})
    path = rewritten(tmp_path / "m.gguf", packed, {"bantam.calibration": calibration})
    assert any(line.endswith(said) for line in describe(facts(str(path))).splitlines())
    assert "sure" not in describe(facts(str(packed)))


def test_many_labels_are_cut_short() -> None:
    task = {
        "kind": "classify",
        "name": "t",
        "instruction": "?",
        "multi": False,
        "labels": [f"l{n}" for n in range(50)],
    }
    told = {
        "file": "m.gguf",
        "bytes": 1,
        "parameters": 1,
        "architecture": "llama",
        "tensor_types": [],
    }
    shown = describe({**told, "licence": None, "task": task})
    assert "l19 and 30 more" in shown
    assert "l20" not in shown
