"""Answers that are marked as sure, from the recipe to the file of answers."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import job
from bantam import use
from bantam.answer import Answer
from bantam.kinds import classify, sure
from bantam.model import Model
from bantam.model_files import load
from bantam.nets import load as nets
from bantam.nets.choose import choose
from test_pipeline import change, copied, reused

TEXTS = [text for text, _ in job.texts_and_labels(12)] + ["nothing of the sort", "bright, dull"]


@pytest.fixture(scope="module")
def run(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished job with `sure` added and made again."""
    folder = tmp_path_factory.mktemp("sure")
    run = copied(made, folder)
    change(folder, 'name = "tiny"', 'name = "tiny"\nsure = 0.8')
    change(folder, '"tfidf", "linear-probe", "base", "base-few-shot"', '"tfidf"')
    done = job.run("make", "recipe.toml", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert reused(done) == ["text", "train", "model"]
    return run


@pytest.fixture(scope="module")
def model(run: Path) -> Iterator[Model]:
    with load(run, threads=1) as loaded:
        yield loaded


def verdict(run: Path) -> dict[str, Any]:
    return json.loads((run / "judge/verdict.json").read_text("utf-8"))


def test_the_thresholds_in_the_file_are_those_of_the_validation_rows(
    run: Path, model: Model
) -> None:
    assert model.task
    decoder = nets.load(run / "model")
    val = pl.read_parquet(run / "text/val.parquet")
    tree = classify.label_tree(model.task, model.encode, model.end)
    prompts = [model.prompt(model.task, text) for text in val["input"]]
    rows = classify.probabilities(lambda p, c: choose(decoder, p, c), tree, prompts)
    shares = np.array(classify.calibrated(rows, model.task.temperature))
    expected = np.array([model.task.labels.index(label) for label in val["output"]])
    wanted = sure.thresholds(shares, expected, 0.8)
    assert list(model.task.thresholds) == pytest.approx(wanted.tolist(), abs=1e-4)


def test_the_verdict_counts_what_the_file_is_sure_of(run: Path, model: Model) -> None:
    table = pl.read_parquet(run / "judge/predictions.parquet")
    assert table.filter(pl.col("model") != "ours")["sure"].null_count() == 72
    ours = table.filter(pl.col("model") == "ours")
    assert model.task
    bounds = dict(zip(model.task.labels, model.task.thresholds, strict=True))
    above = [p > bounds[label] for label, p in ours.select("answer", "probability").iter_rows()]
    assert ours["sure"].to_list() == above
    right = ours.filter("sure").select(pl.col("answer") == pl.col("expected")).to_series()
    told = verdict(run)["sure"]
    assert told["wanted"] == 0.8
    assert told["share"] == pytest.approx(sum(above) / 36)
    assert told["right"] == pytest.approx(right.mean())
    assert told["share"] > 0.5 and told["right_low"] <= told["right"] <= told["right_high"]


def test_report_card_and_show_mention_it(run: Path, bantam: Callable[..., job.Done]) -> None:
    said = f"It is sure of {verdict(run)['sure']['share']:.1%} of its answers, and "
    page = (run / "report.html").read_text("utf-8")
    assert said in page and "sure: " in page
    card = (run / "README.md").read_text("utf-8")
    assert said in card and "Of the answers that it marks as sure 80% should be right" in card
    shown = bantam("show", run).out
    assert "\nsure      answers with a probability above 0" in shown


def test_an_answer_says_whether_it_is_sure(model: Model) -> None:
    assert model.task
    bounds = dict(zip(model.task.labels, model.task.thresholds, strict=True))
    answers = model.batch(TEXTS)
    for answer in answers:
        assert answer.sure is (answer.probability > bounds[answer.label])
    assert any(answer.sure for answer in answers)


def test_the_command_line_says_it(run: Path, bantam: Callable[..., job.Done]) -> None:
    told = json.loads(bantam("run", run, TEXTS[0], "--json").out)
    word = "sure" if told["sure"] else "unsure"
    assert (
        bantam("run", run, TEXTS[0]).out == f"{told['label']}\t{told['probability']:.3f}\t{word}\n"
    )


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_file_of_answers_has_a_column_for_it(suffix: str, model: Model, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("\n".join(TEXTS))
    use.rows(model, tmp_path / "in.txt", None, tmp_path / f"out{suffix}", False)
    lines = (tmp_path / f"out{suffix}").read_text("utf-8").splitlines()
    if suffix == ".jsonl":
        found = [json.loads(line)["sure"] for line in lines]
    else:
        rows = csv.DictReader(lines, delimiter="\t" if suffix == ".tsv" else ",")
        found = [{"true": True, "false": False}[row["sure"]] for row in rows]
    # In batches and one by one probabilities differ a little, so the same batch is compared.
    assert found == [answer.sure for answer in model.batch(TEXTS)]


def test_what_validation_cannot_show_is_never_sure(
    run: Path, bantam: Callable[..., job.Done], tmp_path: Path
) -> None:
    """98 right answers would be needed; there are 45 validation rows."""
    again = copied(run.parents[1], tmp_path, "judge")
    change(tmp_path, "sure = 0.8", "sure = 0.99")
    change(tmp_path, '"majority", "tfidf"', '"majority"')
    done = bantam("make", "recipe.toml")
    assert done.code == 0, done.err
    assert (
        "warning: no answer will be sure: on the validation rows no label is right 99% of"
        in done.err
    )
    assert reused(done) == ["text", "train", "model"]
    assert "It is sure of no answer (asked for: 99% of the sure ones right)." in done.out
    assert "\nsure      no answer is\n" in bantam("show", again).out
    assert bantam("run", again, TEXTS[0]).out.endswith("\tunsure\n")


def test_a_task_without_it_looks_as_before() -> None:
    answer = Answer("good", 0.5, {"good": 0.5, "bad": 0.5}, ("good",))
    assert answer.sure is None
    assert use.line(answer) == "good\t0.500"
    assert "sure" not in use.plain(answer)
