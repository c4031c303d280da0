"""A tiny classification job that a tiny random model learns in a second."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bantam import runs
from bantam.formats import gguf
from bantam.formats.tokenizer import Tokenizer
from bantam.kinds import classify
from bantam.train import stage
from bantam.train.plan import Plan

TASK = classify.task("tiny", "Is it good?", ["yes", "no", "not at all"])
MARKS = {"yes": "sharp", "no": "broke", "not at all": "waste"}
WORDS = [
    *("the", "picture", "battery", "lasts", "all", "day", "camera", "weeks"),
    *("nobody", "answered", "my", "letters", "money"),
]
KEY = "a key"


def rows(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts of 3 to 12 words; one of them gives the label away."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        label = TASK.labels[number % 3]
        words = chance.choices(WORDS, k=chance.randint(2, 11))
        words.insert(chance.randrange(len(words)), MARKS[label])
        made.append((" ".join(words), label))
    return made


TRAIN, VAL = rows(60, 1), rows(18, 2)


def plan(**change: Any) -> Plan:
    settings: dict[str, Any] = {
        "method": "lora",
        "precision": "float32",
        "threads": 1,
        "steps": 24,
        "batch_size": 8,
        "learning_rate": 0.01,
        "warmup_steps": 2,
        "evaluate_every": 3,
        "seed": 0,
        "patience": 100,
    }
    return Plan(**(settings | change))


def make(model: Path, run: Path, made: Plan, tell: Callable[..., None] = lambda *_: None) -> None:
    """The train stage as a recipe's: in `run`/train, taken up where it was left."""
    tokenizer = Tokenizer.from_gguf(gguf.read(model))

    def build(folder: Path) -> None:
        stage.train(model, TASK, tokenizer, TRAIN, VAL, made, folder, KEY, tell)

    runs.stage(run, "train", KEY, build, resumes=True)
