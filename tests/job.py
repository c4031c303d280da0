"""A small job that a tiny random model can learn, and the program run as its users run it."""

import csv
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

# Two labels begin with the same token, and one is the beginning of the other.
LABELS = {
    "good": "sharp bright lovely",
    "good enough": "grey plain usual",
    "poor": "broken dull awful",
}
THINGS = ["camera", "phone", "battery", "picture", "letter", "screen", "lens", "strap"]
ROWS = 180
RECIPE = """
[task]
name = "tiny"
kind = "classify"
instruction = "How good is it?"

[data]
examples = ["rows.csv"]
val = 0.25
test = 0.2

[base]
model = "{base}"

[train]
steps = 32
batch_size = 16
learning_rate = 0.01
method = "lora"
threads = 1
seed = 0

[limits]
size = "1 MB"

[judge]
rivals = ["majority", "tfidf", "linear-probe", "base", "base-few-shot"]
shots = 3
"""


def texts_and_labels(count: int) -> list[tuple[str, str]]:
    chance = random.Random(0)
    found = []
    for number in range(count):
        label = list(LABELS)[number % 3]
        one, other = chance.sample(LABELS[label].split(), 2)
        found.append((f"the {chance.choice(THINGS)}, number {number}, is {one} and {other}", label))
    return found


def write(folder: Path, model: Path, base: str = "tiny.gguf") -> Path:
    """The rows, the base and the recipe of the job, in a folder of their own."""
    folder.mkdir(exist_ok=True)
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *texts_and_labels(ROWS)])
    shutil.copy(model, folder / "tiny.gguf")
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(base=base), encoding="utf-8")
    return recipe


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


def command(*args: object) -> list[str]:
    return [sys.executable, "-c", "from bantam.cli import main; main()", *map(str, args)]


def start(*args: object, cwd: Path, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """The program in a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        [*before, *command(*args)],
        cwd=cwd,
        env=os.environ | {"BANTAM_CACHE": str(cwd / "cache")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(*args: object, cwd: Path, before: tuple[str, ...] = ()) -> Done:
    with start(*args, cwd=cwd, before=before) as process:
        try:
            out, err = process.communicate(timeout=300)
        except BaseException:
            process.kill()
            raise
    return Done(process.returncode, out, err)
