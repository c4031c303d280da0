"""The proof that a packed file behaves like the weights it was made from.

Compared are the ids of the prompts and the label probabilities, ours in torch and the runtime's on
the packed file, on validation rows. With several labels a text an answer is the same when every
label's probability is on the same side of its threshold. Where answers are written, compared are
the probabilities of the likeliest tokens at places within the wanted answers. A bound that is
passed over is a failed pack.
"""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bantam.errors import JobFailed
from bantam.kinds import Row, Task, classify, texts
from bantam.model import Model
from bantam.nets.choose import choose
from bantam.nets.decoder import Decoder

# Q8_0 rounds weights to 8 bits, llama.cpp rounds activations likewise and its cache is in half
# precision. On the tuned SmolLM2-135M that moved a label's probability by 0.008 on the mean and
# turned 3 of 100 answers. A wrong order of rows, theta or prompt moves it by more than 0.1.
MEAN_BOUND = 0.03
SAME_BOUND = 0.9  # of the answers
# Between answers as close as this in the trained weights rounding may decide: of 60 texts with 20
# labels it turned 3 on the untuned SmolLM2-135M, which had been 0.002, 0.014 and 0.037 apart.
TIE = 0.05
ROWS = 100  # of validation that are compared
WRITTEN_ROWS, PLACES = 40, 3  # rows with written answers, and places in each
LIKELY = 8  # tokens that are compared at a place


def prove(decoder: Decoder, packed: Model, texts: Sequence[str]) -> list[dict[str, Any]]:
    """The checks as {check, measured, bound, passed}."""
    task = packed.asked()
    tree = classify.label_tree(task, packed.encode, packed.end)
    prompts = [packed.prompt(task, text) for text in texts]
    trained = np.array(classify.probabilities(lambda p, c: choose(decoder, p, c), tree, prompts))
    shipped = np.array(classify.probabilities(packed.runtime.choose, tree, prompts))
    return _checks(packed, texts, "label", trained, shipped, _same(task, trained, shipped))


def prove_written(decoder: Decoder, packed: Model, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The checks for a task whose answers are written, as {check, measured, bound, passed}."""
    task, chance = packed.asked(), random.Random(0)  # noqa: S311
    prompts = []
    for row in rows:
        ids, answers, _ = texts.example(task, packed.encode, packed.end, row)
        ids = packed.start + ids
        ends = [len(packed.start) + answer.position + 1 for answer in answers]
        within = [ids[:end] for end in ends if end < packed.context]
        prompts += chance.sample(within, min(PLACES, len(within)))
    likely = [_likely(decoder, prompt) for prompt in prompts]
    trained = np.array(choose(decoder, prompts, likely))
    shipped = np.array(packed.runtime.choose(prompts, likely))
    said = [row.text for row in rows]
    return _checks(packed, said, "token", trained, shipped, _near(trained, shipped))


def hold(checks: Sequence[dict[str, Any]]) -> None:
    """Raises JobFailed where one did not pass."""
    failed = [check for check in checks if not check["passed"]]
    if failed:
        raise JobFailed(
            f"the packed file does not behave like the trained weights: {failed[0]}",
            "this is a bug in Bantam; please report it with this line",
        )


def prove_texts(decoder: Decoder, packed: Model, said: Sequence[str]) -> list[dict[str, Any]]:
    """The checks for a model that completes text, as {check, measured, bound, passed}."""
    chance = random.Random(0)  # noqa: S311
    prompts = []
    for text in said:
        ids = packed.start + packed.encode([(text, False)])[: packed.context - 2]
        ends = range(min(2, len(ids)), len(ids))
        prompts += [ids[:end] for end in chance.sample(ends, min(PLACES, len(ends)))]
    likely = [_likely(decoder, prompt) for prompt in prompts]
    trained = np.array(choose(decoder, prompts, likely))
    shipped = np.array(packed.runtime.choose(prompts, likely))
    return _checks(packed, said, "token", trained, shipped, _near(trained, shipped))


@torch.no_grad()
def _likely(decoder: Decoder, prompt: list[int]) -> list[int]:
    """The likeliest next tokens."""
    ids = torch.tensor([prompt], device=decoder.lm_head.weight.device)
    found: list[int] = decoder.logits(decoder.states(ids)[0, -1]).topk(LIKELY).indices.tolist()
    return found


def _checks(
    packed: Model,
    said: Sequence[str],
    what: str,
    trained: NDArray[np.float64],
    shipped: NDArray[np.float64],
    alike: NDArray[np.bool_],
) -> list[dict[str, Any]]:
    # Control tokens off: what the runtime reads in these texts must be what we read in them.
    told = sum(packed.runtime.tokenize(t, False) == packed.encode([(t, False)]) for t in said)
    moved, same = float(np.abs(trained - shipped).mean()), float(alike.mean())
    return [
        {
            "check": "texts that give the runtime the same token ids",
            "measured": told / len(said),
            "bound": 1.0,
            "passed": told == len(said),
        },
        {
            "check": f"mean change of a {what}'s probability, trained weights to packed file",
            "measured": moved,
            "bound": MEAN_BOUND,
            "passed": moved <= MEAN_BOUND,
        },
        {
            "check": f"places with the same likeliest {what} from trained weights and packed file, "
            "ties apart"
            if what == "token"
            else "texts with the same answer from trained weights and packed file, ties apart",
            "measured": same,
            "bound": SAME_BOUND,
            "passed": same >= SAME_BOUND,
        },
    ]


def _same(
    task: Task, trained: NDArray[np.float64], shipped: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether both mean the same answer, ties apart, [rows]; both are [rows, labels]."""
    if not task.multi:
        return _near(trained, shipped)
    ours, theirs = (
        np.array(classify.calibrated(rows.tolist(), task.temperature, multi=True))
        for rows in (trained, shipped)
    )
    bounds = np.array(task.thresholds)
    tie = np.abs(ours - bounds) <= TIE
    same: NDArray[np.bool_] = (((ours >= bounds) == (theirs >= bounds)) | tie).all(axis=1)
    return same


def _near(trained: NDArray[np.float64], shipped: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether what is likeliest in the packed file is so in the trained weights too, ties apart."""
    chosen = np.take_along_axis(trained, shipped.argmax(1)[:, None], axis=1)[:, 0]
    alike: NDArray[np.bool_] = chosen >= trained.max(1) - TIE
    return alike
