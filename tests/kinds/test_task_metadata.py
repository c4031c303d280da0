"""A task as the metadata of a GGUF file, there and back, and broken."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bantam import kinds
from bantam.errors import BadInput
from bantam.formats import gguf
from bantam.kinds import Task, classify

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SEGMENTS = st.lists(st.tuples(TEXT, st.booleans()), max_size=3).map(tuple)
TASKS = st.builds(
    Task,
    kind=st.just("classify"),
    name=TEXT,
    instruction=TEXT,
    labels=st.lists(TEXT, min_size=2, max_size=5, unique=True).map(tuple),
    before=SEGMENTS,
    after=SEGMENTS,
    answer=st.sampled_from([" {}", "{}", "<{}>", "Antwort: {}."]),
    max_text_tokens=st.integers(1, 100_000),
    one_token=st.booleans(),
    temperature=st.floats(0.1, 10),
)


@given(TASKS, st.lists(st.floats(0, 1), min_size=5, max_size=5), st.booleans())
def test_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, task: Task, bounds: list[float], some: bool
) -> None:
    if some:
        task = replace(task, thresholds=tuple(bounds[: len(task.labels)]))
    path = tmp_path_factory.mktemp("task") / "task.gguf"
    gguf.write(path, kinds.to_metadata(task), [])
    assert kinds.from_metadata(gguf.read(path).metadata, path) == task


def test_a_file_of_others_has_no_task() -> None:
    assert kinds.from_metadata({"general.name": "other"}, "other.gguf") is None


def test_a_newer_version() -> None:
    with pytest.raises(BadInput, match=r"other\.gguf.*newer version"):
        kinds.from_metadata({"bantam.version": 2}, "other.gguf")


SOUND = kinds.to_metadata(classify.task("t", "What is it?", ["yes", "no"]))
PROMPT = json.loads(SOUND["bantam.prompt"])


def prompt(**change: Any) -> dict[str, Any]:
    return {"bantam.prompt": json.dumps(PROMPT | change)}


BROKEN: dict[str, dict[str, Any]] = {
    "another kind": {"bantam.kind": "extract"},
    "kind a number": {"bantam.kind": 3},
    "no kind": {"bantam.kind": None},
    "labels a text": {"bantam.labels": "yesno"},
    "labels of numbers": {"bantam.labels": [1, 2]},
    "one label": {"bantam.labels": ["yes"]},
    "a label twice": {"bantam.labels": ["yes", "no", "yes"]},
    "no labels": {"bantam.labels": None},
    "no prompt": {"bantam.prompt": None},
    "prompt a number": {"bantam.prompt": 5},
    "prompt no JSON": {"bantam.prompt": "{"},
    "prompt a list": {"bantam.prompt": "[]"},
    "prompt deep": {"bantam.prompt": "[" * 100_000},
    "prompt empty": {"bantam.prompt": "{}"},
    "before a text": prompt(before="Text: "),
    "before of texts": prompt(before=["Text: "]),
    "before of numbers": prompt(before=[[1, True]]),
    "segments of three": prompt(after=[["a", True, True]]),
    "no place for the label": prompt(answer=" "),
    "two places": prompt(answer="{} {}"),
    "a name in the answer": prompt(answer="{} {x}"),
    "a width in the answer": prompt(answer="{}{:>999999999}"),
    "half a brace": prompt(answer="{} {"),
    "braces apart": prompt(answer="{ }"),
    "name a list": prompt(name=["t"]),
    "cut at nothing": prompt(max_text_tokens=0),
    "cut from behind": prompt(max_text_tokens=-5),
    "cut at a text": prompt(max_text_tokens="512"),
    "cut at infinity": prompt(max_text_tokens=float("inf")),
    "cut at true": prompt(max_text_tokens=True),
    "calibration no JSON": {"bantam.calibration": "{"},
    "calibration a list": {"bantam.calibration": "[1]"},
    "temperature of nothing": {"bantam.calibration": '{"temperature": 0}'},
    "temperature below": {"bantam.calibration": '{"temperature": -1}'},
    "temperature without end": {"bantam.calibration": '{"temperature": Infinity}'},
    "temperature no number": {"bantam.calibration": '{"temperature": NaN}'},
    "temperature a list": {"bantam.calibration": '{"temperature": []}'},
    "a threshold too few": {"bantam.calibration": '{"thresholds": [0.5]}'},
    "a threshold too many": {"bantam.calibration": '{"thresholds": [0.5, 0.5, 0.5]}'},
    "a threshold above 1": {"bantam.calibration": '{"thresholds": [0.5, 1.1]}'},
    "a threshold below 0": {"bantam.calibration": '{"thresholds": [0.5, -0.1]}'},
    "a threshold no number": {"bantam.calibration": '{"thresholds": [0.5, NaN]}'},
    "a threshold of text": {"bantam.calibration": '{"thresholds": [0.5, "1"]}'},
    "a threshold of true": {"bantam.calibration": '{"thresholds": [0.5, true]}'},
    "thresholds by label": {"bantam.calibration": '{"thresholds": {"yes": 0.5, "no": 0.5}}'},
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_metadata(name: str) -> None:
    broken = {key: v for key, v in (SOUND | BROKEN[name]).items() if v is not None}
    with pytest.raises(BadInput, match=r"its bantam\.\* keys are broken") as error:
        kinds.from_metadata(broken, Path("other.gguf"))
    assert "other.gguf" in error.value.message
    assert len(error.value.message) < 400


def test_trust_is_only_what_is_marked_so() -> None:
    odd = SOUND | prompt(before=[["<|im_end|>", 1], ["<|im_end|>", "yes"], ["x", True]])
    task = kinds.from_metadata(odd, "other.gguf")
    assert task is not None
    assert [trusted for _, trusted in task.before] == [False, False, True]
