"""Several labels a text, from the recipe to the answers in use."""

import csv
import json
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

import job
import multi_job
from bantam import use
from bantam.answer import Answer
from bantam.judge.report import read_run, report
from bantam.judge.verdict import Verdict
from bantam.kinds import multi_hot, several
from bantam.model import Model
from bantam.model_files import load

LABELS = sorted(multi_job.MARKS)
RIVALS = ["majority", "tfidf", "linear-probe", "base", "base-few-shot"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("several")
    multi_job.write(folder, tiny_model)
    done = job.run("make", "recipe.toml", "--json", cwd=folder)
    assert done.code == 0, done.err
    return folder / "runs/aspects"


@pytest.fixture(scope="module")
def verdict(run: Path) -> Verdict:
    return Verdict.model_validate_json((run / "judge/verdict.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def model(run: Path) -> Iterator[Model]:
    with load(run, threads=1) as loaded:
        yield loaded


def test_it_learns_and_beats_the_commonest_set(verdict: Verdict) -> None:
    rivals = {rival.name: rival for rival in verdict.rivals}
    assert list(rivals) == RIVALS
    assert rivals["majority"].outcome == "win"
    assert verdict.model.scores.micro_f1 > 0.7
    assert verdict.model.score > rivals["base"].score
    assert rivals["tfidf"].score > 0.8  # a word gives each label away
    assert "rows right with all their labels and no other (95% interval" in verdict.sentence


def test_the_scores_are_those_of_scikit_learn(run: Path, verdict: Verdict) -> None:
    predictions = pl.read_parquet(run / "judge/predictions.parquet")
    for system in (verdict.model, *verdict.rivals):
        table = predictions.filter(pl.col("model") == system.name)
        wanted = multi_hot.of(table["expected"], LABELS)
        given = multi_hot.of(table["answer"], LABELS)
        assert system.score == pytest.approx((wanted == given).all(axis=1).mean())
        for average in ("micro", "macro"):
            f1 = f1_score(wanted, given, average=average, zero_division=0)
            assert getattr(system.scores, f"{average}_f1") == pytest.approx(f1)
        assert system.scores.confusion == []
        columns = precision_recall_fscore_support(wanted, given, zero_division=0)
        for row, *plain in zip(system.scores.per_class, *columns, strict=True):
            told = [row.precision or 0.0, row.recall, row.f1, row.support]
            assert told == pytest.approx(plain)


def test_the_thresholds_in_the_file_made_the_answers(run: Path, model: Model) -> None:
    found = json.loads((run / "train/calibration.json").read_text("utf-8"))
    assert model.task and list(model.task.thresholds) == found["thresholds"]
    table = pl.read_parquet(run / "judge/predictions.parquet").filter(pl.col("model") == "ours")
    given = np.array(table["probabilities"].to_list()) >= np.array(found["thresholds"])
    assert table["answer"].to_list() == [
        several.joined(label for label, yes in zip(LABELS, row, strict=True) if yes)
        for row in given
    ]
    commonest = pl.read_parquet(run / "judge/predictions.parquet").filter(
        pl.col("model") == "majority"
    )
    assert commonest["answer"].n_unique() == 1


def test_an_answer_has_its_labels(model: Model) -> None:
    assert model.task
    texts = [text for text, _ in multi_job.rows(12, seed=1)]
    for answer in model.batch(texts):
        assert answer.label == f"{answer}" == "|".join(answer.labels)
        assert sorted(answer.labels) == list(answer.labels)
        bounds = dict(zip(LABELS, model.task.thresholds, strict=True))
        assert set(answer.labels) == {x for x, p in answer.probabilities.items() if p >= bounds[x]}
        sure = prod(p if x in answer.labels else 1 - p for x, p in answer.probabilities.items())
        assert answer.probability == pytest.approx(sure)


def test_no_label_is_a_dash_on_a_line_and_an_empty_cell() -> None:
    none = Answer("", 0.5, {"a": 0.1, "b": 0.2}, ())
    assert use.line(none) == "-\t0.500"
    assert use.plain(none)["labels"] == []
    assert use.line(Answer("a|b", 0.5, {}, ("a", "b"))) == "a|b\t0.500"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_answers_of_a_file(suffix: str, model: Model, tmp_path: Path) -> None:
    texts = [text for text, _ in multi_job.rows(12, seed=2)]
    (tmp_path / "in.txt").write_text("\n".join(texts))
    use.rows(model, tmp_path / "in.txt", None, tmp_path / f"out{suffix}", False)
    told = (tmp_path / f"out{suffix}").read_text("utf-8")
    answers = model.batch(texts)
    if suffix == ".jsonl":
        found = [json.loads(line)["answer"] for line in told.splitlines()]
        assert found == [list(answer.labels) for answer in answers]
    else:
        rows = csv.DictReader(told.splitlines())
        assert [row["answer"] for row in rows] == [answer.label for answer in answers]


def test_the_report_and_the_card_tell_of_sets(run: Path) -> None:
    page = report(read_run(run))
    assert "micro F1 of the labels" in page
    assert "expected ↓ answered" not in page
    assert "probability of a label" in page
    assert "rows by how many labels they have" in page
    card = (run / "README.md").read_text("utf-8")
    assert "| model | accuracy | micro F1 | macro F1 | 95% interval |" in card
    assert "those of its labels that it finds to apply" in card


def test_what_does_not_go_together(bantam, tmp_path: Path, tiny_model: Path) -> None:
    recipe = multi_job.write(tmp_path, tiny_model)
    text = recipe.read_text("utf-8")
    recipe.write_text(text.replace("threads = 1", 'class_weights = "balanced"'), "utf-8")
    done = bantam("make", recipe)
    assert done.code == 2
    assert "line 22, train.class_weights: there are none with task.multi" in done.err
    recipe.write_text(text.replace("val = 0.25", 'shares = "votes_"'), "utf-8")
    done = bantam("make", recipe)
    assert done.code == 2
    assert "line 11, data.shares: there are none with task.multi" in done.err
    recipe.write_text(text.replace("val = 0.25", 'none = "a|b"'), "utf-8")
    done = bantam("make", recipe)
    assert done.code == 2
    assert 'line 11, data.none: with task.multi a "|" stands between two labels' in done.err
