"""A small job with several labels a text, of which a tiny random model learns much."""

import csv
import random
import shutil
from pathlib import Path

from bantam.kinds import several

MARKS = {"light": "sharp", "power": "battery", "price": "money"}
WORDS = [
    "the",
    "picture",
    "lasts",
    "all",
    "day",
    "camera",
    "weeks",
    "nobody",
    "answered",
    "letters",
]
RECIPE = """
[task]
name = "aspects"
kind = "classify"
instruction = "What is it about?"
multi = true

[data]
examples = ["rows.csv"]
separator = "; "
val = 0.25
test = 0.2

[base]
model = "tiny.gguf"

[train]
steps = 60
batch_size = 16
learning_rate = 0.01
method = "lora"
threads = 1

[judge]
rivals = ["majority", "tfidf", "linear-probe", "base", "base-few-shot"]
shots = 4
"""


def rows(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts with a word for each of their labels, and their sets; one in six has no label."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        held = chance.sample(list(MARKS), (1, 2, 1, 0, 1, 2)[number % 6])
        words = [MARKS[label] for label in held] + chance.choices(WORDS, k=4)
        chance.shuffle(words)
        made.append((f"{' '.join(words)} {number}", several.joined(held)))
    return made


def write(folder: Path, model: Path) -> Path:
    """The rows, the base and the recipe, in a folder of their own."""
    folder.mkdir(exist_ok=True)
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("text", "label"))
        table.writerows((text, output.replace("|", "; ")) for text, output in rows(240))
    shutil.copy(model, folder / "tiny.gguf")
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    return recipe
