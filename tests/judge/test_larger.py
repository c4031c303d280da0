"""What a larger model adds where ours is not sure: the threshold, and what is told of it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import job
from away import Told, away, said, wrong
from bantam import recipe
from bantam.errors import BadInput, JobFailed
from bantam.judge import elsewhere, handover, larger
from bantam.judge.handover import HandOver
from bantam.kinds import Row, classify
from bantam.kinds import texts as writing
from bantam.model import Model
from bantam.sources import endpoint
from tiny import tiny_llama
from tiny_tasks import packed

LABELS = ["yes", "no", "not at all"]
AWAY = 'model = "https://api.example.com/v1#big"\nallow_network = true'


def test_the_curve_counts_what_is_handed_over() -> None:
    sure = np.array([0.9, 0.2, 0.4, 0.4, 1.0])
    ours = np.array([1.0, 0.0, 0.0, 1.0, 1.0])
    theirs = np.array([0.0, 1.0, 1.0, 1.0, 0.0])
    points = handover.curve(sure, ours, theirs)
    assert points == [
        (0.0, 0.0, pytest.approx(0.6)),
        (0.4, 0.2, pytest.approx(0.8)),
        (0.9, pytest.approx(0.6), pytest.approx(1.0)),  # those of equal confidence together
        (1.0, 0.8, pytest.approx(0.8)),
    ]
    for bound, share, score in points:
        handed = sure < bound
        assert share == pytest.approx(handed.mean())
        assert score == pytest.approx(np.where(handed, theirs, ours).mean())
    assert handover.best(points) == 0.9


def test_of_equally_good_thresholds_the_least_is_handed_over() -> None:
    sure = np.array([0.1, 0.2, 0.3])
    same = np.array([1.0, 0.0, 1.0])
    points = handover.curve(sure, same, same)
    assert handover.best(points) == 0.0
    assert points[-1] == (1.0, 1.0, pytest.approx(same.mean()))


def frame(task: str, count: int) -> pl.DataFrame:
    outputs = {
        "labels": [LABELS[n % 3] for n in range(count)],
        "record": [json.dumps({"thing": ["camera", "phone"][n % 2]}) for n in range(count)],
    }[task]
    return pl.DataFrame(
        {
            "id": [f"{n:016x}" for n in range(count)],
            "input": [f"The picture number {n} is sharp." for n in range(count)],
            "output": outputs,
            "group": [None] * count,
        },
        schema_overrides={"group": pl.String},
    )


SCHEMA = {
    "type": "object",
    "properties": {"thing": {"enum": ["camera", "phone"]}},
    "required": ["thing"],
    "additionalProperties": False,
}
TASKS = {
    "labels": classify.task("labels", "Is it good?", LABELS),
    "record": replace(
        writing.task("extract", "record", "", answer_schema=SCHEMA), max_answer_tokens=40
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_what_is_told_is_what_both_models_answer(
    name: str, tiny_model: Path, tmp_path: Path
) -> None:
    ours = packed(tmp_path / "ours.gguf", tiny_model, TASKS[name])
    other = tiny_llama(tmp_path / "other.gguf", seed=1)
    test = frame(name, 40)
    with Model(ours, threads=1) as model, Model(other, threads=1) as second:
        rows = [Row(text, "") for text in test["input"]]
        own = [model(row.text) for row in rows]
        theirs = larger.answers(second, TASKS[name], rows)
    confidences = sorted(one.probability for one in own)
    bound = (confidences[19] + confidences[20]) / 2
    found = handover.judge(
        tmp_path, "other", bound, ours, other, frame(name, 12), test, 0, lambda *_: None
    )
    told = HandOver.model_validate(found)
    assert json.loads((tmp_path / "handover.json").read_text("utf-8")) == found
    assert (told.threshold, told.picked, told.test.rows) == (bound, False, 40)
    # In batches the runtime adds the same numbers in another order: a row near the bound may move.
    assert told.test.kept == pytest.approx(0.5, abs=0.06)
    wanted = [
        str(second if first.probability < bound else first) == output
        for first, second, output in zip(own, theirs, test["output"], strict=True)
    ]
    assert told.test.score == pytest.approx(np.mean(wanted), abs=0.06)
    alone = [str(one) == output for one, output in zip(own, test["output"], strict=True)]
    assert told.test.ours == pytest.approx(np.mean(alone), abs=0.06)
    assert told.test.difference == pytest.approx(told.test.score - told.test.ours)
    handed = 1 - told.test.kept
    assert told.mean_ms == pytest.approx(told.ours_ms + handed * told.larger_ms)
    assert told.curve[0][:2] == (0.0, 0.0)
    assert f"{told.test.kept:.1%} of the test rows stay" in told.sentence


def test_a_recipe_that_names_a_larger_model(
    made: Path, tmp_path: Path, bantam: Callable[..., job.Done]
) -> None:
    """Only what is new is done; without the table it is gone again."""
    folder = tmp_path / "job"
    shutil.copytree(made, folder)
    path = folder / "recipe.toml"
    plain = path.read_text("utf-8")
    path.write_text(plain + '\n[handover]\nmodel = "tiny.gguf"\n', "utf-8")
    done = bantam("make", path, "--run", folder / "runs/tiny")
    assert done.code == 0, done.err
    assert "judge: done before" in done.err
    told = HandOver.model_validate_json(
        (folder / "runs/tiny/handover/handover.json").read_text("utf-8")
    )
    assert told.picked
    assert told.validation.score >= told.validation.ours  # that is what it was picked by
    assert told.sentence in done.err
    report = (folder / "runs/tiny/report.html").read_text("utf-8")
    assert "Handing over what it is not sure of" in report
    path.write_text(plain, "utf-8")
    assert bantam("make", path, "--run", folder / "runs/tiny").code == 0
    assert not (folder / "runs/tiny/handover").exists()
    assert "Handing over" not in (folder / "runs/tiny/report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("table", "task", "says"),
    [
        ('model = "other.gguf"\nthreshold = 1.5', "", "handover.threshold"),
        ('model = "ftp:other"', "", "is no known source"),
        ('model = "other.gguf"', "multi = true", "nothing is handed over"),
        ('modell = "other.gguf"', "", 'did you mean "model"'),
        ('model = "https://api.example.com/v1#big"', "", "another machine"),
        ('model = "http://api.example.com/v1#big"\nallow_network = true', "", "line 7"),
        ('model = "http://api.example.com/v1"', "", "is no known source"),
        ('model = "https://k@api.example.com/v1#big"\nallow_network = true', "", "password"),
        (f'{AWAY}\nkey_env = "sk-abcdefgh"', "", "the name of the variable"),
        (f'{AWAY}\nkey_env = "abcdefgh"', "", "the name of the variable"),
        (AWAY, "multi = true", "nothing is handed over"),
    ],
)
def test_what_a_recipe_may_say(table: str, task: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'[task]\nkind = "classify"\n{task}\n[data]\nexamples = ["a.csv"]\n[handover]\n{table}\n',
        "utf-8",
    )
    with pytest.raises(BadInput) as told:
        recipe.load(path)
    assert says in str(told.value)
    assert "abcdefgh" not in str(told.value)


def answered(wanted: dict[str, str]) -> Callable[[dict[str, Any]], Told]:
    """A model elsewhere that knows the labels of some texts, and says nonsense to others."""

    def answer(body: dict[str, Any]) -> Told:
        content = body["messages"][0]["content"]
        label = next((label for text, label in wanted.items() if text in content), None)
        return said(json.dumps({"label": label}) if label else "I cannot tell.")

    return answer


def test_an_endpoint_is_judged_as_a_file_is(tiny_model: Path, tmp_path: Path) -> None:
    """Where it says nothing sensible ours stands, as it does when it is served."""
    ours = packed(tmp_path / "ours.gguf", tiny_model, TASKS["labels"])
    val, test = frame("labels", 24), frame("labels", 40)
    with Model(ours, threads=1) as model:
        own = [model(text) for text in test["input"]]
    confidences = sorted(one.probability for one in own)
    bound = (confidences[19] + confidences[20]) / 2
    known = {f"number {n} is": LABELS[n % 3] for n in range(40) if n % 5}
    with away(answered(known)) as there, endpoint.connect(endpoint.parse(there.address), "") as to:
        found = handover.judge(
            tmp_path, to.endpoint.name, bound, ours, to, val, test, 0, lambda *_: None
        )
    told = HandOver.model_validate(found)
    assert told.model == there.address
    wanted = [
        (one.probability < bound and n % 5 > 0) or str(one) == LABELS[n % 3]
        for n, one in enumerate(own)
    ]
    assert told.test.score == pytest.approx(np.mean(wanted), abs=0.06)
    assert told.test.difference > 0
    assert told.larger_ms > 0
    assert len(there.asked) == 24 + round(40 * (1 - told.test.kept))


def test_an_endpoint_is_asked_again_before_it_is_given_up(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "WAITS", (0.01, 0.01))
    busy = [wrong(429), wrong(503)]

    def answer(body: dict[str, Any]) -> Told:
        return busy.pop() if busy else said('{"label": "yes"}')

    rows = [Row("a", ""), Row("b", "")]
    with away(answer) as there, endpoint.connect(endpoint.parse(there.address), "") as to:
        found = elsewhere.answers(to, TASKS["labels"], rows, lambda _: None)
        assert [str(one) for one, _ in found] == ["yes", "yes"]
    with (
        away(lambda _: wrong(503)) as there,
        endpoint.connect(endpoint.parse(there.address), "") as to,
        pytest.raises(JobFailed, match="503"),
    ):
        elsewhere.answers(to, TASKS["labels"], rows, lambda _: None)
    with (
        away(lambda _: wrong(401)) as there,
        endpoint.connect(endpoint.parse(there.address), "") as to,
        pytest.raises(BadInput, match="401"),
    ):
        elsewhere.answers(to, TASKS["labels"], rows, lambda _: None)
    assert len(there.asked) <= 2  # what is refused is not asked again
