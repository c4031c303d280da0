"""Sets of labels: as text and back, chosen by thresholds, scored; against plain ways."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit
from sklearn.metrics import f1_score, log_loss

from bantam import kinds
from bantam.errors import BadInput
from bantam.kinds import classify, multi_hot, several

NAMES = st.text(st.characters(exclude_characters="|", exclude_categories=["Cs"]), min_size=1)
LABELS = ["red", "green", "blue", "red wine"]


@given(st.lists(NAMES))
def test_a_set_is_one_text_whatever_its_order(labels: list[str]) -> None:
    text = several.joined(labels)
    assert several.parted(text) == sorted(set(labels))
    assert several.joined(reversed(labels + labels)) == text
    assert several.joined(several.parted(text)) == text


@given(st.lists(st.sets(st.sampled_from(LABELS)), max_size=6))
def test_hot_rows(sets: list[set[str]]) -> None:
    found = multi_hot.of([several.joined(one) for one in sets], LABELS)
    assert found.shape == (len(sets), 4)
    assert [{LABELS[n] for n in np.flatnonzero(row)} for row in found] == sets


def encode(segments: list[kinds.Segment]) -> list[int]:
    """A tokenizer with one token a character."""
    return [ord(character) for text, _ in segments for character in text]


LOGITS = st.lists(st.floats(-30, 30), min_size=5, max_size=5)


@given(LOGITS)
def test_probabilities_are_the_sigmoid_of_the_distance_from_none(logits: list[float]) -> None:
    task = classify.task("t", "", LABELS, multi=True)
    tree = classify.label_tree(task, encode, 0)
    asked: list[Sequence[int]] = []

    def choose(prompts: Sequence[list[int]], candidates: Sequence[list[int]]) -> list[list[float]]:
        asked.extend(candidates)
        weights = [math.exp(logit) for logit in logits]
        return [[weight / sum(weights) for weight in weights] for _ in prompts]

    rows = classify.probabilities(choose, tree, [[1], [2]])
    wanted = expit(np.array(logits[:-1]) - logits[-1])
    assert rows[0] == rows[1] == pytest.approx(wanted.tolist())
    assert len(asked[0]) == len(set(asked[0])) == 5  # a token of its own for each, and for none
    for warmth in (0.5, 2.0):
        warm = classify.calibrated(rows, warmth, multi=True)[0]
        cool = expit((np.array(logits[:-1]) - logits[-1]) / warmth)
        assert warm == pytest.approx(cool.tolist(), abs=1e-6)


def test_what_rounds_to_nothing_is_not_chosen() -> None:
    task = classify.task("t", "", ["a", "b"], multi=True)
    tree = classify.label_tree(task, encode, 0)
    found = classify.probabilities(lambda p, c: [[1.0, 0.0, 0.0]], tree, [[1]])
    assert found == [[1.0, 0.0]]
    assert classify.calibrated(found, 0.7, multi=True) == [[1.0, 0.0]]


@given(st.sets(st.sampled_from(LABELS)))
def test_an_example_asks_for_each_label(labels: set[str]) -> None:
    task = classify.task("t", "What is it?", LABELS, multi=True)
    tree = classify.label_tree(task, encode, 0)
    made = classify.example(task, tree, encode, "a text", several.joined(labels))
    assert made.ids == task.prompt(encode, "a text")
    ((position, candidates, target, _),) = made.answers
    assert position == len(made.ids) - 1
    assert candidates == tuple(classify.label_tokens(task, encode))
    assert isinstance(target, tuple)
    assert {LABELS[n] for n in target} == labels


def test_a_label_called_none() -> None:
    task = classify.task("t", "", ["none", "some"], multi=True)
    tokens = classify.label_tokens(task, encode)
    assert len(set(tokens)) == 3


def test_labels_are_given_from_their_threshold_on() -> None:
    task = replace(classify.task("t", "", LABELS, multi=True), thresholds=(0.2, 0.5, 0.9, 1.0))
    assert classify.chosen(task, [0.2, 0.499, 0.95, 0.99]) == [0, 2]
    assert classify.chosen(task, [0.1, 0.1, 0.1, 0.1]) == []


ROWS = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        arrays(float, (n, 2), elements=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])),
        arrays(bool, (n, 2)),
    )
)


@given(ROWS)
def test_no_threshold_would_have_been_better(rows: tuple[np.ndarray, np.ndarray]) -> None:
    shares, wanted = rows
    found = multi_hot.thresholds(shares, wanted)
    assert ((found >= 0) & (found <= 1)).all()
    for n in range(2):
        if wanted[:, n].sum() < multi_hot.FEWEST_FOR_THRESHOLD:
            assert found[n] == 0.5
            continue
        best = max(
            f1_score(wanted[:, n], shares[:, n] >= cut, zero_division=0)
            for cut in np.linspace(0, 1, 21)
        )
        got = f1_score(wanted[:, n], shares[:, n] >= found[n], zero_division=0)
        assert got == pytest.approx(best)


@given(ROWS)
def test_scores_are_those_of_scikit_learn(rows: tuple[np.ndarray, np.ndarray]) -> None:
    shares, wanted = rows
    given = shares >= 0.5
    wanted_f1 = f1_score(wanted, given, average="micro", zero_division=1)
    assert multi_hot.micro_f1(given, wanted) == pytest.approx(wanted_f1)
    inner = np.clip(shares, 0.05, 0.95)
    plain = [log_loss(wanted[:, n], inner[:, n], labels=[False, True]) for n in range(2)]
    assert multi_hot.log_loss(inner, wanted).mean() == pytest.approx(sum(plain))


TASK = replace(classify.task("t", "", LABELS, multi=True), thresholds=(0.0, 0.25, 0.5, 1.0))


def test_metadata_there_and_back() -> None:
    assert kinds.from_metadata(kinds.to_metadata(TASK), "a.gguf") == TASK


def calibration(*thresholds: object) -> dict[str, object]:
    return {"bantam.calibration": json.dumps({"temperature": 1.0, "thresholds": thresholds})}


BROKEN: dict[str, dict[str, object]] = {
    "too few": calibration(0.5, 0.5, 0.5),
    "too many": calibration(*[0.5] * 5),
    "none at all": {"bantam.calibration": '{"temperature": 1.0}'},
    "above": calibration(0.5, 0.5, 0.5, 1.01),
    "below": calibration(0.5, 0.5, 0.5, -0.01),
    "no number": calibration(0.5, 0.5, 0.5, math.nan),
    "a text": calibration(0.5, 0.5, 0.5, "0.5"),
    "a truth": calibration(0.5, 0.5, 0.5, True),
    "no list": {"bantam.calibration": '{"thresholds": 0.5}'},
    "a mark in a label": {"bantam.labels": ["a", "b", "c|d", "e"]},
    "spelled": {
        "bantam.prompt": kinds.to_metadata(replace(TASK, one_token=False))["bantam.prompt"]
    },
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_metadata(name: str) -> None:
    with pytest.raises(BadInput, match=r"its bantam\.\* keys are broken"):
        kinds.from_metadata(kinds.to_metadata(TASK) | BROKEN[name], "other.gguf")
