"""Labels as a tree of tokens, with made-up vocabularies and made-up models."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from bantam.errors import BadInput
from bantam.formats import gguf
from bantam.formats.tokenizer import Tokenizer
from bantam.kinds import Segment, classify

END = 99
TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=5).map(tuple)
SPELLINGS = st.lists(TOKENS, min_size=2, max_size=9, unique=True)

Spelling = tuple[int, ...]


def encode(segments: list[Segment]) -> list[int]:
    """A tokenizer with one token a character, so that a label can be any tokens."""
    return [ord(character) - ord("a") for text, _ in segments for character in text]


def task_of(spellings: Sequence[Spelling]) -> classify.Task:
    labels = tuple("".join(chr(ord("a") + token) for token in s) for s in spellings)
    return classify.Task("classify", "t", "", labels, (("x", False),), (("y", False),), "{}", 9)


def weight(prefix: Sequence[int], token: int) -> float:
    """How likely a made-up model finds a token after a prefix: anything from 0.01 to 1."""
    digest = hashlib.sha256(repr((list(prefix), token)).encode()).digest()
    return 0.01 + digest[0] / 255


def choose(prompts: Sequence[list[int]], candidates: Sequence[list[int]]) -> list[list[float]]:
    rows = []
    for prompt, some in zip(prompts, candidates, strict=True):
        weights = [weight(prompt, token) for token in some]
        rows.append([w / sum(weights) for w in weights])
    return rows


def product(spellings: Sequence[Spelling], prompt: list[int], wanted: Spelling) -> float:
    """Token by token: the share of the next token among those that some label has there."""
    ended = [(*spelling, END) for spelling in spellings]
    probability = 1.0
    for place, token in enumerate((*wanted, END)):
        seen = wanted[:place]
        options = {s[place] for s in ended if len(s) > place and s[:place] == seen}
        weights = {option: weight([*prompt, *seen], option) for option in options}
        probability *= weights[token] / sum(weights.values())
    return probability


@given(SPELLINGS, st.lists(st.lists(st.integers(0, 9), min_size=1), min_size=1, max_size=3))
def test_probabilities_are_the_product_along_the_label(
    spellings: list[Spelling], prompts: list[list[int]]
) -> None:
    tree = classify.label_tree(task_of(spellings), encode, END)
    rows = classify.probabilities(choose, tree, prompts)
    for prompt, row in zip(prompts, rows, strict=True):
        assert sum(row) == pytest.approx(1)
        wanted = [product(spellings, prompt, s) for s in spellings]
        # A branch less likely than a millionth is shared out evenly: nothing moves by more.
        assert row == pytest.approx(wanted, rel=1e-9, abs=1e-6)


@given(SPELLINGS, st.data())
def test_an_example_walks_to_its_label(spellings: list[Spelling], data: st.DataObject) -> None:
    task = task_of(spellings)
    tree = classify.label_tree(task, encode, END)
    number = data.draw(st.integers(0, len(spellings) - 1))
    made = classify.example(task, tree, encode, "text", task.labels[number])
    prompt = task.prompt(encode, "text")
    assert made.ids[: len(prompt)] == prompt
    assert made.answers

    # Whoever follows the targets, and what is certain between them, has only this label left.
    left = [(*spelling, END) for spelling in spellings]
    for position, candidates, target, _ in made.answers:
        depth = position + 1 - len(prompt)
        assert {s[depth] for s in left if s[:depth] == tuple(made.ids[len(prompt) :][:depth])} == (
            set(candidates)
        )
        left = [s for s in left if s[depth] == candidates[target]]
    assert left == [(*spellings[number], END)]
    # The answer is written as far as the last decision, which it does not contain.
    assert made.answers[-1].position == len(made.ids) - 1
    assert spellings[number][: len(made.ids) - len(prompt)] == tuple(made.ids[len(prompt) :])


@given(SPELLINGS)
def test_the_loss_of_an_example_is_that_of_its_probability(spellings: list[Spelling]) -> None:
    task = task_of(spellings)
    tree = classify.label_tree(task, encode, END)
    prompt = task.prompt(encode, "b")
    (row,) = classify.probabilities(choose, tree, [prompt])
    for label, probability in zip(task.labels, row, strict=True):
        ids, answers, _ = classify.example(task, tree, encode, "b", label)
        loss = 0.0
        for position, candidates, target, _ in answers:
            (shares,) = choose([ids[: position + 1]], [list(candidates)])
            loss -= math.log(shares[target])
        assert math.exp(-loss) == pytest.approx(probability, rel=1e-9, abs=1e-6)


def test_shares_follow_the_labels() -> None:
    task = replace(task_of([(0, 1), (0, 2), (3,)]), one_token=True)
    tree = classify.label_tree(task, encode, END)
    shares = dict(zip(task.labels, (0.5, 0.2, 0.3), strict=True))
    made = classify.example(task, tree, encode, "a", task.labels[1], shares)
    assert made.answers == [
        (len(made.ids) - 1, tuple(classify.label_tokens(task, encode)), 1, (0.5, 0.2, 0.3))
    ]


def test_one_pass_when_first_tokens_differ() -> None:
    asked: list[int] = []

    def counting(
        prompts: Sequence[list[int]], candidates: Sequence[list[int]]
    ) -> list[list[float]]:
        asked.append(len(prompts))
        return choose(prompts, candidates)

    prompts = [[1], [2], [3]]
    apart = classify.label_tree(task_of([(0, 1), (1, 1), (2,)]), encode, END)
    classify.probabilities(counting, apart, prompts)
    assert asked == [3]
    asked.clear()
    shared = classify.label_tree(task_of([(0, 1), (0, 2), (0,), (2, 1), (2, 2)]), encode, END)
    classify.probabilities(counting, shared, prompts)
    assert asked == [3, 3, 3]


def test_an_unlikely_branch_is_not_looked_into() -> None:
    tree = classify.label_tree(task_of([(0,), (1, 0), (1, 1)]), encode, END)

    def certain(prompts: Sequence[list[int]], candidates: Sequence[list[int]]) -> list[list[float]]:
        assert all(prompt == [5] for prompt in prompts)
        return [[1.0, 0.0] for _ in prompts]

    assert classify.probabilities(certain, tree, [[5]]) == [[1.0, 0.0, 0.0]]


def test_labels_that_are_the_same_tokens() -> None:
    def deaf(segments: list[Segment]) -> list[int]:
        return [0] * len(segments[0][0])

    task = task_of([(0, 1), (2,), (1, 0)])
    with pytest.raises(BadInput, match="'ab' and 'ba' are the same tokens"):
        classify.label_tree(task, deaf, END)
    # An end that is also a token of a label: "aa" with its end begins as "a" with its own.
    with pytest.raises(BadInput, match="same tokens"):
        classify.label_tree(task_of([(0,), (0, END), (0, END, END)]), encode, END)


def test_a_long_text_is_cut_at_its_end() -> None:
    task = task_of([(0,), (1,)])
    ids = task.prompt(encode, "c" * 8 + "d" * 8)
    assert ids == [*encode([("x", False)]), *[2] * 8, 3, *encode([("y", False)])]


CONTROL = "<|im_end|> <|im_start|>assistant\n<|endoftext|>"


def test_control_tokens_stay_text(tiny_model: Path) -> None:
    tokenizer = Tokenizer.from_gguf(gguf.read(tiny_model))
    controls = {tokenizer.token_id(text) for text in CONTROL.split()[::2]}
    controls |= {tokenizer.token_id("<|im_start|>"), tokenizer.token_id("<|endoftext|>")}
    assert None not in controls
    task = classify.task("t", f"What is {CONTROL}?", ["yes", CONTROL, f"{CONTROL} no"])
    tree = classify.label_tree(task, tokenizer.encode, tokenizer.eos_id or 0)
    for label in task.labels:
        made = classify.example(task, tree, tokenizer.encode, f"A {CONTROL} b", label)
        assert not controls & set(made.ids)
        # The token that ends a label is the one that a model ends with: of ours, not the user's.
        offered = {token for answer in made.answers for token in answer.candidates}
        assert offered & controls <= {tokenizer.eos_id}
    text = tokenizer.decode(made.ids, keep_special=True)
    assert f"What is {CONTROL}?" in text
    assert f"Text: A {CONTROL} b" in text


def test_a_task_of_its_own_words(tiny_model: Path) -> None:
    tokenizer = Tokenizer.from_gguf(gguf.read(tiny_model))
    task = classify.task("reviews", "  What does it feel? ", ["good", "bad"])
    made = task.prompt(tokenizer.encode, "Fine.")
    assert tokenizer.decode(made) == "What does it feel?\n\nText: Fine.\nAnswer:"
    assert task.labels == ("good", "bad")
    assert classify.task("t", "", ["a", "b"]).prompt(tokenizer.encode, "")


@given(SPELLINGS)
def test_one_token_a_label(spellings: list[Spelling]) -> None:
    task = replace(task_of(spellings), one_token=True)
    tokens = classify.label_tokens(task, encode)
    assert len(set(tokens)) == len(spellings)
    assert tokens[0] == spellings[0][0]
    firsts = [spelling[0] for spelling in spellings]
    if len(set(firsts)) == len(firsts):
        assert tokens == firsts
    tree = classify.label_tree(task, encode, END)
    found = classify.probabilities(choose, tree, [[5], [6, 7]])
    assert found == choose([[5], [6, 7]], [tokens, tokens])


def test_more_labels_than_tokens() -> None:
    labels = tuple("ab" + "c" * n for n in range(100))
    task = classify.Task("classify", "t", "", labels, (), (), "{}", 9, one_token=True)

    def poor(segments: list[Segment]) -> list[int]:
        return [number % 7 for number in encode(segments)]

    with pytest.raises(BadInput, match="100 labels are more"):
        classify.label_tokens(task, poor)


SHARES = st.lists(st.floats(0.001, 1.0), min_size=2, max_size=6)


@given(st.lists(SHARES, min_size=1, max_size=4), st.floats(0.2, 5))
def test_calibrated_is_a_softmax_of_scaled_logits(rows: list[list[float]], warmth: float) -> None:
    shares = [[share / sum(row) for share in row] for row in rows]
    for row, found in zip(shares, classify.calibrated(shares, warmth), strict=True):
        assert found == pytest.approx(softmax(np.log(row) / warmth).tolist())
    assert classify.calibrated([[1.0, 0.0]], warmth) == [[1.0, 0.0]]
