import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from bantam.errors import BadInput
from bantam.judge.metrics import best_thresholds, classification, coverage, label_sets
from bantam.kinds import several

LABELS = ["negative", "neutral", "positive"]


def random_answers(seed: int, rows: int = 300):
    """Unsure answers that lean to the truth, with one label much rarer than the others."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, size=rows, p=[0.45, 0.05, 0.5])
    probabilities = rng.dirichlet([0.7, 0.7, 0.7], size=rows)
    probabilities[np.arange(rows), truth] += rng.uniform(0, 1, rows)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    answers = probabilities.argmax(axis=1)
    return [LABELS[i] for i in truth], [LABELS[i] for i in answers], probabilities


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_sklearn(seed: int) -> None:
    expected, answers, probabilities = random_answers(seed)
    scores = classification(expected, answers, probabilities, LABELS)

    assert scores["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(expected, answers))
    assert scores["macro_f1"] == pytest.approx(
        sklearn_metrics.f1_score(expected, answers, average="macro")
    )
    assert scores["log_loss"] == pytest.approx(
        sklearn_metrics.log_loss(expected, probabilities, labels=LABELS)
    )
    matrix = sklearn_metrics.confusion_matrix(expected, answers, labels=LABELS)
    assert scores["confusion"] == matrix.tolist()
    table = sklearn_metrics.precision_recall_fscore_support(expected, answers, labels=LABELS)
    for row, *columns in zip(scores["per_class"], *table, strict=True):
        found = [row["precision"], row["recall"], row["f1"], row["support"]]
        assert found == pytest.approx(columns)


def random_sets(seed: int, rows: int = 200):
    """Sets of labels and unsure probabilities that lean to the truth; answers from a third on."""
    rng = np.random.default_rng(seed)
    truth = rng.random((rows, 3)) < [0.5, 0.1, 0.4]
    probabilities = np.clip(0.4 * truth + 0.6 * rng.random((rows, 3)), 0.01, 0.99)
    given = probabilities >= 1 / 3
    names = np.array(LABELS)
    expected, answers = ([several.joined(names[row]) for row in sets] for sets in (truth, given))
    return expected, answers, probabilities, truth, given


@pytest.mark.parametrize("seed", range(3))
def test_sets_agree_with_sklearn(seed: int) -> None:
    expected, answers, probabilities, truth, given = random_sets(seed)
    scores = label_sets(expected, answers, probabilities, LABELS)
    assert scores["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(truth, given))
    for average in ("micro", "macro"):
        f1 = sklearn_metrics.f1_score(truth, given, average=average)
        assert scores[f"{average}_f1"] == pytest.approx(f1)
    matrices = sklearn_metrics.multilabel_confusion_matrix(truth, given)
    table = sklearn_metrics.precision_recall_fscore_support(truth, given)
    for row, matrix, *columns in zip(scores["per_class"], matrices, *table, strict=True):
        found = [row["precision"], row["recall"], row["f1"], row["support"]]
        assert found == pytest.approx(columns)
        assert row["support"] == matrix[1].sum()
    each = [sklearn_metrics.log_loss(truth[:, n], probabilities[:, n]) for n in range(3)]
    assert scores["log_loss"] == pytest.approx(sum(each))
    assert scores["confusion"] == []
    assert sum(b["rows"] for b in scores["reliability"]) == truth.size
    share = sum(b["rows"] * b["accuracy"] for b in scores["reliability"]) / truth.size
    assert share == pytest.approx(truth.mean())


def test_a_rival_has_the_thresholds_that_give_most_whole_sets() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((400, 3)) < 0.2
    blind = np.full((400, 3), 0.2) + 0.01 * rng.random((400, 3))
    thresholds, right = best_thresholds(blind, truth)
    assert thresholds.tolist() == [0.5, 0.5, 0.5]
    assert right == pytest.approx((~truth).all(axis=1).mean())
    thresholds, right = best_thresholds(0.1 * truth + blind, truth)
    assert right == 1.0
    assert ((thresholds > 0.21) & (thresholds < 0.3)).all()


def test_sets_of_nothing() -> None:
    scores = label_sets(["", ""], ["", ""], None, LABELS)
    assert (scores["accuracy"], scores["micro_f1"], scores["macro_f1"]) == (1.0, 1.0, 0.0)
    assert label_sets([""], ["neutral"], None, LABELS)["micro_f1"] == 0.0
    with pytest.raises(BadInput, match="mixed"):
        label_sets(["neutral|mixed"], ["neutral"], None, LABELS)
    with pytest.raises(BadInput, match="no test rows"):
        label_sets([], [], None, LABELS)


def test_ece_is_the_gap_between_confidence_and_accuracy_weighted_by_rows() -> None:
    expected, answers, probabilities = random_answers(7)
    gap = 0.0
    for edge in range(15):
        inside = [
            (max(row), wanted == answer)
            for row, wanted, answer in zip(probabilities, expected, answers, strict=True)
            if edge / 15 < max(row) <= (edge + 1) / 15
        ]
        if inside:
            confidence = math.fsum(sure for sure, _ in inside) / len(inside)
            accuracy = sum(right for _, right in inside) / len(inside)
            gap += len(inside) / len(expected) * abs(confidence - accuracy)

    scores = classification(expected, answers, probabilities, LABELS)
    assert scores["ece"] == pytest.approx(gap)
    assert sum(b["rows"] for b in scores["reliability"]) == len(expected)


def test_a_constant_answer_is_calibrated_when_its_share_is_right() -> None:
    expected = ["a"] * 60 + ["b"] * 40
    scores = classification(expected, ["a"] * 100, np.tile([0.6, 0.4], (100, 1)), ["a", "b"])
    assert scores["ece"] == pytest.approx(0)
    assert scores["macro_f1"] == pytest.approx(0.375)  # (2 * 60 / 160 + 0) / 2


def test_what_is_undefined_is_none_and_not_counted() -> None:
    scores = classification(["a", "b"], ["a", "a"], None, ["a", "b", "never"])
    a, b, never = scores["per_class"]
    assert (a["precision"], a["recall"]) == (0.5, 1.0)
    assert (b["precision"], b["recall"], b["f1"]) == (None, 0.0, 0.0)
    assert (never["precision"], never["recall"], never["f1"]) == (None, None, None)
    assert scores["macro_f1"] == pytest.approx(1 / 3)
    assert scores["ece"] is scores["log_loss"] is scores["reliability"] is None


def test_answers_outside_the_labels_are_wrong() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1]])
    scores = classification(["a", "a"], ["a", "I think a"], probabilities, ["a", "b"])
    assert scores["accuracy"] == 0.5
    assert scores["confusion"] == [[1, 0], [0, 0]]
    assert scores["per_class"][0]["support"] == 2


def test_a_sure_and_wrong_answer_costs_a_finite_loss() -> None:
    scores = classification(["b"], ["a"], np.array([[1.0, 0.0]]), ["a", "b"])
    assert 30 < scores["log_loss"] < 40


def test_probabilities_that_are_not_finite_are_no_probabilities() -> None:
    scores = classification(["a"], ["a"], np.array([[math.nan, 0.5]]), ["a", "b"])
    assert scores["ece"] is scores["log_loss"] is None


def test_refuses_no_rows_and_labels_the_model_does_not_know() -> None:
    with pytest.raises(BadInput, match="no test rows"):
        classification([], [], None, LABELS)
    with pytest.raises(BadInput, match="mixed"):
        classification(["mixed"], ["neutral"], None, LABELS)


@given(
    st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, ""])), min_size=1),
    st.booleans(),
)
def test_always_plain_json(rows: list[tuple[str, str]], sure: bool) -> None:
    expected, answers = [wanted for wanted, _ in rows], [answer for _, answer in rows]
    probabilities = np.tile([1.0, 0.0, 0.0], (len(rows), 1)) if sure else None
    scores = classification(expected, answers, probabilities, LABELS)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert 0 <= scores["macro_f1"] <= 1


@given(st.lists(st.tuples(st.sampled_from([0.3, 0.5, 0.7, 0.9]), st.booleans()), min_size=20))
def test_a_coverage_curve_counts_the_surest_answers(rows: list[tuple[float, bool]]) -> None:
    told, right = (np.array(column) for column in zip(*rows, strict=True))
    wanted = []
    for least in sorted(set(told.tolist()), reverse=True):
        kept = right[told >= least]
        if len(kept) >= 20:
            wanted.append((len(kept) / len(rows), kept.mean()))
    assert np.array(coverage(told, right)) == pytest.approx(np.array(wanted))
    assert coverage(told, right)[-1] == pytest.approx((1, right.mean()))


def test_a_long_coverage_curve_is_thinned_and_ends_at_all_rows() -> None:
    rng = np.random.default_rng(0)
    told, right = rng.random(12_345), rng.random(12_345) < 0.7
    points = coverage(told, right)
    assert 50 < len(points) <= 101
    assert points[-1] == pytest.approx((1, right.mean()))
    for share, accuracy in points:
        surest = right[np.argsort(-told)[: round(share * 12_345)]]
        assert accuracy == pytest.approx(surest.mean())


def test_a_coverage_curve_of_few_rows_is_its_end() -> None:
    assert coverage(np.array([0.9, 0.8]), np.array([True, False])) == [(1.0, 0.5)]
