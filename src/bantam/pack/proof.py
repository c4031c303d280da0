"""The proof that a packed file behaves like the weights it was made from.

Compared are the ids of the prompts and the label probabilities, ours in torch and the runtime's on
the packed file, on validation rows. With several labels a text an answer is the same when every
label's probability is on the same side of its threshold. A bound that is passed over is a failed
pack.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bantam.kinds import Task, classify
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


def prove(decoder: Decoder, packed: Model, texts: Sequence[str]) -> list[dict[str, Any]]:
    """The checks as {check, measured, bound, passed}."""
    task = packed.asked()
    tree = classify.label_tree(task, packed.encode, packed.end)
    prompts = [packed.prompt(task, text) for text in texts]
    trained = np.array(classify.probabilities(lambda p, c: choose(decoder, p, c), tree, prompts))
    shipped = np.array(classify.probabilities(packed.runtime.choose, tree, prompts))
    # Control tokens off: what the runtime reads in these texts must be what we read in them.
    told = sum(packed.runtime.tokenize(t, False) == packed.encode([(t, False)]) for t in texts)
    moved = float(np.abs(trained - shipped).mean())
    same = float(_same(task, trained, shipped).mean())
    return [
        {
            "check": "texts that give the runtime the same token ids",
            "measured": told / len(texts),
            "bound": 1.0,
            "passed": told == len(texts),
        },
        {
            "check": "mean change of a label's probability, trained weights to packed file",
            "measured": moved,
            "bound": MEAN_BOUND,
            "passed": moved <= MEAN_BOUND,
        },
        {
            "check": "texts with the same answer from trained weights and packed file, ties apart",
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
        chosen = np.take_along_axis(trained, shipped.argmax(1)[:, None], axis=1)[:, 0]
        alike: NDArray[np.bool_] = chosen >= trained.max(1) - TIE
        return alike
    ours, theirs = (
        np.array(classify.calibrated(rows.tolist(), task.temperature, multi=True))
        for rows in (trained, shipped)
    )
    bounds = np.array(task.thresholds)
    tie = np.abs(ours - bounds) <= TIE
    same: NDArray[np.bool_] = (((ours >= bounds) == (theirs >= bounds)) | tie).all(axis=1)
    return same
