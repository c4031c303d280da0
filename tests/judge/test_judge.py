"""The judge's way of asking: fair prompts that fit, the best one kept, answers in order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import job
from bantam import kinds
from bantam.judge import language
from bantam.judge.crowd import crowd
from bantam.judge.judge import LATENCY_ROWS
from bantam.judge.language import Asked
from bantam.kinds import classify, several
from bantam.model import Model
from bantam.model_files import find
from tiny import rewritten

TEXTS, WANTED = (list(column) for column in zip(*job.texts_and_labels(30), strict=True))
OWN = ["Opinion: {text}\nScore: "]
TASK = classify.task("t", "How good is it?", sorted(job.LABELS))


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Iterator[Model]:
    with Model(tiny_model, threads=1) as model:
        yield model


def ours(model: Model, texts: Sequence[str]) -> NDArray[np.float64]:
    return np.array([list(answer.probabilities.values()) for answer in model.batch(texts)])


def test_every_model_answers_every_test_row(made: Path) -> None:
    run = made / "runs/tiny"
    predictions = pl.read_parquet(run / "judge/predictions.parquet")
    test = pl.read_parquet(run / "text/test.parquet")
    names = ["ours", "majority", "tfidf", "linear-probe", "base", "base-few-shot"]
    assert predictions["model"].unique(maintain_order=True).to_list() == names
    for _, answers in predictions.group_by("model"):
        assert answers["id"].to_list() == test["id"].to_list()
        assert answers["expected"].to_list() == test["output"].to_list()
        shares = np.array(answers["probabilities"].to_list())
        assert np.allclose(shares.sum(axis=1), 1)
        best = [sorted(job.LABELS)[place] for place in shares.argmax(axis=1)]
        assert answers["answer"].to_list() == best
        assert answers["latency_ms"].count() == min(LATENCY_ROWS, test.height)


@pytest.mark.parametrize("count", [1, 20])
def test_a_crowd_answers_in_order(count: int, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bantam.crowd.cores", lambda: 2)
    path = find(made / "runs/tiny")
    with Model(path, threads=1) as alone, crowd(path) as many:
        assert np.allclose(many(ours, TEXTS[:count]), ours(alone, TEXTS[:count]), atol=0.02)


def test_a_rival_is_asked_as_ours_is(made: Path) -> None:
    with Model(find(made / "runs/tiny"), threads=1) as model:
        task = model.asked()
        told = language.asking(Asked("plain", task, None, 0.0))(model, TEXTS[:6])
        calibrated = classify.calibrated(told.tolist(), task.temperature)
        assert np.allclose(calibrated, ours(model, TEXTS[:6]), atol=1e-6)


def longest(model: Model, task: kinds.Task) -> int:
    """Tokens of the longest prompt that this task can make, with the longest label."""
    prompt = len(model.prompt(task, "word " * 3000))
    return prompt + max(len(model.encode([(task.answer.format(x), False)])) for x in task.labels)


@pytest.mark.parametrize("text", ["short", "long text " * 40, "längere Größe " * 40])
@pytest.mark.parametrize("shots", [1, 12, 500])
def test_examples_fit_into_the_context(base: Model, text: str, shots: int) -> None:
    prompts = language.few_shot(base, TASK, OWN, [f"{t} {text}" for t in TEXTS], WANTED, shots)
    assert prompts
    for name, task in prompts.items():
        assert longest(base, task) <= base.context
        written = "".join(part for part, _ in task.before)
        cue = "Score:" if name.startswith("prompt 1") else "Answer:"
        shown = [written.count(f"{cue} {label}\n") for label in sorted(job.LABELS)]
        assert f", {sum(shown)} examples, " in name or name == "no examples"
        assert sum(shown) <= shots
        assert max(shown) - min(shown) <= 1
        base.runtime.choose([base.prompt(task, "word " * 3000)], [[5, 6]])


def test_prompts_without_examples_name_the_labels(base: Model) -> None:
    prompts = language.zero_shot(base, TASK, OWN)
    assert list(prompts) == ["plain", "labels named", "chat", "prompt 1"]
    for name, task in prompts.items():
        assert longest(base, task) <= base.context
        said = base.runtime.detokenize(base.prompt(task, "the phone is bright"))
        assert said.count("the phone is bright") == 1
        assert ("good, good enough, poor" in said) == (name in ("labels named", "chat"))
        assert said.startswith("<|im_start|>user\n") == (name == "chat")


@pytest.mark.parametrize("template", [None, "{{ raise_exception('no') }}", "{{ broken", "silent"])
def test_a_model_without_a_sound_chat_template_is_asked_without(
    template: str | None, tiny_model: Path, tmp_path: Path
) -> None:
    keys = {"tokenizer.chat_template": template}
    model = Model(rewritten(tmp_path / "model.gguf", tiny_model, keys))
    assert list(language.zero_shot(model, TASK, [])) == ["plain", "labels named"]


@pytest.mark.parametrize(
    ("prompt", "asked", "answer"),
    [
        ("Opinion: {text}\nScore: ", "Opinion: it is {}\nScore:", " {}"),
        ("{text}", "it is {}", " {}"),
        ("Say it of {text}.\n", "Say it of it is {}.\n", "{}"),
    ],
)
def test_a_prompt_of_the_recipe_is_asked_as_written(
    prompt: str, asked: str, answer: str, base: Model
) -> None:
    task = language.zero_shot(base, TASK, [prompt])["prompt 1"]
    assert base.runtime.detokenize(base.prompt(task, "it is {}")) == asked
    assert task.answer == answer


class Known:
    """Stands for a model that answers a text by its length, to each prompt in another way."""

    end = 0

    def __init__(self, answers: dict[str, Callable[[int], list[float]]]) -> None:
        self.answers, self.runtime = answers, self

    def encode(self, segments: list[kinds.Segment]) -> list[int]:
        return [ord(character) for text, _ in segments for character in text]

    def prompt(self, task: kinds.Task, text: str) -> list[int]:
        return [list(self.answers).index(task.name), len(text)]

    def choose(self, prompts: list[list[int]], candidates: list[list[int]]) -> list[list[float]]:
        ways = list(self.answers.values())
        return [ways[ids[0]](ids[1]) for ids in prompts]


def choose(**prompts: Callable[[int], list[float]]) -> tuple[Asked, int]:
    """Of prompts that are answered so, the one that is chosen, and how many rows were asked."""
    asked: list[int] = []
    tasks = {name: replace(TASK, name=name, labels=("even", "odd")) for name in prompts}
    found = language.choose_prompt(
        lambda ask, texts: ask(Known(prompts), texts),  # type: ignore[arg-type]
        tasks,
        ["." * length for length in range(300)],
        ["odd" if length % 2 else "even" for length in range(300)],
        asked.append,
    )
    return found, sum(asked)


def test_the_best_prompt_on_validation_is_kept() -> None:
    found, asked = choose(
        wrong=lambda n: [0.1, 0.9] if n % 2 == 0 else [0.9, 0.1],
        unsure=lambda n: [0.4, 0.6] if n % 2 else [0.6, 0.4],
        sure=lambda n: [0.1, 0.9] if n % 2 else [0.9, 0.1],
        half=lambda n: [0.1, 0.9],
    )
    assert (found.name, found.validation_score) == ("sure", 1.0)
    assert asked == language.rows_asked(4, 300) == (4 + 2 + 1) * language.ROUND
    few = 2 * language.ROUND - 4
    assert language.rows_asked(4, few) == 4 * language.ROUND + 2 * (language.ROUND - 4)
    assert language.rows_asked(1, 300) == language.ROUND


def test_rows_that_are_sorted_by_label_choose_as_others_do() -> None:
    """The first 150 of 300 are all odd."""
    lengths = [*range(1, 300, 2), *range(0, 300, 2)]
    answers = {
        "always odd": lambda _: [0.1, 0.9],
        "mostly right": lambda n: [0.1, 0.9] if n % 2 and n % 10 != 1 else [0.9, 0.1],
    }
    found = language.choose_prompt(
        lambda ask, texts: ask(Known(answers), texts),  # type: ignore[arg-type]
        {name: replace(TASK, name=name, labels=("even", "odd")) for name in answers},
        ["." * length for length in lengths],
        ["odd" if length % 2 else "even" for length in lengths],
        lambda _: None,
    )
    assert found.name == "mostly right"


def test_an_untuned_model_has_a_word_for_no_label() -> None:
    task = classify.task("t", "What is it?", ["a", "none"], multi=True)
    asked = language.untuned(task)
    assert asked.labels == ("a", "none", "none of these")
    assert not asked.one_token
    tree = classify.label_tree(asked, lambda s: [ord(x) for text, _ in s for x in text], 0)
    assert len(tree.paths) == 3
    assert not tree.multi
    plain = classify.task("t", "", ["a", "b"])
    assert language.untuned(replace(plain, one_token=True, temperature=2.0)) == plain


def test_examples_of_several_labels(base: Model) -> None:
    task = language.untuned(classify.task("t", "What is it?", ["dull", "sharp"], multi=True))
    sets = ["dull|sharp", "", "dull", "sharp"] * 5
    texts = [f"text number {n}" for n in range(20)]
    prompts = language.few_shot(base, task, [], texts, sets, 6)
    answers = {"dull|sharp": "dull, sharp", "": "none"}
    wanted = {
        f"Text: {text}\nAnswer: {answers.get(one, one)}"
        for text, one in zip(texts, sets, strict=True)
    }
    for prompt in prompts.values():
        assert "all that apply of: dull, sharp; or with none." in prompt.before[0][0]
        shown = [part.strip() for part, _ in prompt.before[1:-1]]
        assert len(shown) == len(set(shown)) == 6
        assert set(shown) <= wanted
        assert any(one.endswith("Answer: none") for one in shown)


def test_thresholds_of_a_prompt_are_those_of_its_rows() -> None:
    """A model that says a label with 0.3 where it applies, else with 0.1, the rest is for none."""
    task = replace(language.untuned(classify.task("t", "", ["odd", "far"], multi=True)), name="one")
    lengths = range(96)
    sets = [several.joined(["odd"] * (n % 2) + ["far"] * (n >= 48)) for n in lengths]

    def answer(n: int) -> list[float]:
        odd, far = (0.3 if applies else 0.1 for applies in (n % 2, n >= 48))
        return [odd, far, 1 - odd - far]

    found = language.choose_prompt(
        lambda ask, texts: ask(Known({"one": answer}), texts),  # type: ignore[arg-type]
        {"one": task},
        ["." * n for n in lengths],
        sets,
        lambda count: None,
    )
    assert found.validation_score == 1.0
    assert found.thresholds is not None and len(found.thresholds) == 2
    told = language.asking(found)(Known({"one": answer}), ["." * n for n in lengths])  # type: ignore[arg-type]
    given = told[:48, :-1] >= found.thresholds
    assert (given[:, 0] == [n % 2 for n in lengths[:48]]).all()


def test_a_prompt_that_begins_badly_is_not_asked_on() -> None:
    """What is worse on the first rows is out, though it would be better on all."""
    before = count()
    found, _ = choose(
        late=lambda n: [0.4, 0.6] if n % 2 == (next(before) >= language.ROUND) else [0.6, 0.4],
        half=lambda n: [0.1, 0.9],
    )
    assert found.name == "half"


def test_a_leaning_is_calibrated_away_when_that_helps() -> None:
    found, _ = choose(leaning=lambda n: [0.8, 0.2] if n % 2 else [0.9, 0.1])
    assert found.validation_score == 1.0
    assert found.prior == pytest.approx([0.85, 0.15], abs=0.01)
    found, _ = choose(straight=lambda n: [0.1, 0.9] if n % 2 else [0.9, 0.1])
    assert found.prior is None
