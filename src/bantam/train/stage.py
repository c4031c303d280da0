"""The train stage: labelled rows and a base in, tuned weights out."""

import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, softmax

from bantam import runs
from bantam.formats.tokenizer import Tokenizer
from bantam.kinds import Example, Task, classify, several, sure
from bantam.nets import load as files
from bantam.nets.choose import choose, pad, shared_start
from bantam.nets.decoder import Decoder
from bantam.nets.lora import merge_lora
from bantam.progress import Advance
from bantam.train import device, loop, state
from bantam.train.plan import Plan

FEWEST_TO_CALIBRATE = 40  # validation rows

Pairs = Sequence[tuple[str, str]]  # text and label
Shares = Sequence[Mapping[str, float] | None]  # of each row, how much of its answer each label is


def examples_of(
    task: Task,
    tokenizer: Tokenizer,
    rows: Pairs,
    balanced: bool = False,
    shares: Shares = (),
) -> list[Example]:
    """The rows as token ids with their answers; `balanced` weights make all labels count alike.

    `shares`, if any, are one a row.
    """
    start = tokenizer.start
    tree = classify.label_tree(task, tokenizer.encode, tokenizer.eos_id or 0)
    shift = len(start)
    counts = Counter(label for _, label in rows)
    examples = []
    for (text, label), known in zip(rows, shares or [None] * len(rows), strict=True):
        ids, answers, _ = classify.example(task, tree, tokenizer.encode, text, label, known)
        moved = [answer._replace(position=answer.position + shift) for answer in answers]
        weight = len(rows) / (len(counts) * counts[label]) if balanced else 1.0
        examples.append(Example(start + ids, moved, weight))
    return examples


def train(
    base: Path,
    task: Task,
    tokenizer: Tokenizer,
    rows: Pairs,
    val: Pairs,
    plan: Plan,
    folder: Path,
    key: str,
    advance: Advance,
    balanced: bool = False,
    shares: Shares = (),
) -> state.Place:
    """Tune the base; `folder` ends with tuned.safetensors (what was learned), metrics.jsonl,
    result.json (the place) and calibration.json. A call that was interrupted is taken up, also
    after its last step. `balanced`: every label counts alike in loss and score. `shares` of the
    `rows` are learned in place of their labels, where there are any."""
    tuned = folder / "tuned.safetensors"
    if not _written_for(tuned, key):
        decoder = files.load(base).to(device.pick())
        examples = examples_of(task, tokenizer, rows, balanced, shares)
        judged = Validation(task, tokenizer, val, balanced)
        report = _teller(plan, judged, advance)
        place = loop.tune(decoder, examples, plan, judged, folder, key, report)
        runs.write_json(folder / "result.json", asdict(place))
        with loop.autocast(decoder, plan):
            found = calibration(task, judged.shares(decoder), judged.expected)
        runs.write_json(folder / "calibration.json", found)
        files.write_tensors(dict(state.trained(decoder)), tuned, {"key": key})
    state.forget(folder)
    return state.Place(**json.loads((folder / "result.json").read_text(encoding="utf-8")))


def _written_for(tuned: Path, key: str) -> bool:
    if not tuned.is_file():
        return False
    with safe_open(tuned, "pt") as file:
        return (file.metadata() or {}).get("key") == key


def _teller(plan: Plan, judged: "Validation", advance: Advance) -> loop.Report:
    """What `advance` is told after each step: loss, speed, the last validation score."""
    began, first = time.monotonic(), 0

    def report(line: dict[str, float]) -> None:
        nonlocal first
        first = first or int(line["examples_seen"])
        quick = (line["examples_seen"] - first) / max(1e-9, time.monotonic() - began)
        note = f"loss {line['loss']:.3f}  {quick:.1f} examples/s"
        if judged.score is not None:
            note += f"  validation {judged.score:.3f}"
        advance(int(line["step"]), plan.steps, note)

    return report


class Validation:
    """Scores a decoder on validation rows: accuracy, and the mean negative log-likelihood.

    With several labels a text the score is micro-F1 of the labels that are likelier than not.
    `balanced`: the mean over the labels of both.
    """

    def __init__(
        self, task: Task, tokenizer: Tokenizer, rows: Pairs, balanced: bool = False
    ) -> None:
        self.tree = classify.label_tree(task, tokenizer.encode, tokenizer.eos_id or 0)
        self.prompts = [tokenizer.start + task.prompt(tokenizer.encode, text) for text, _ in rows]
        self.expected = expected(task, [label for _, label in rows])
        self.weights = np.ones(len(rows))
        if balanced:
            self.weights /= np.bincount(self.expected)[self.expected]
        self.score: float | None = None

    def shares(self, decoder: Decoder) -> NDArray[np.float64]:
        """The label probabilities of the rows, [rows, labels]."""

        def ask(prompts: Sequence[list[int]], candidates: Sequence[list[int]]) -> list[list[float]]:
            return choose(decoder, prompts, candidates)

        return np.array(classify.probabilities(ask, self.tree, self.prompts))

    def __call__(self, decoder: Decoder) -> tuple[float, float]:
        shares = self.shares(decoder)
        if self.tree.multi:
            self.score = several.micro_f1(shares >= several.EVEN, self.expected)
        else:
            right = shares.argmax(axis=1) == self.expected
            self.score = float(np.average(right, weights=self.weights))
        return self.score, float(np.average(losses(shares, self.expected), weights=self.weights))


def expected(task: Task, outputs: Sequence[str]) -> NDArray[Any]:
    """The numbers of the labels [rows], or with several labels a text whether each applies
    [rows, labels]."""
    if task.multi:
        return several.hot(outputs, task.labels)
    return np.array([task.labels.index(label) for label in outputs])


def losses(shares: NDArray[np.float64], expected: NDArray[Any]) -> NDArray[np.float64]:
    """The negative log-likelihood of each row in nats, [rows]."""
    if expected.ndim == 2:
        return several.log_loss(shares, expected)
    chosen = shares[np.arange(len(shares)), expected]
    worst: NDArray[np.float64] = -np.log(np.maximum(chosen, 1e-12))
    return worst


def calibration(task: Task, shares: NDArray[np.float64], expected: NDArray[Any]) -> dict[str, Any]:
    """What the packed model needs to know of its certainty, chosen on validation rows: the
    temperature, and with several labels a text from which probability on each is given."""
    warmth = temperature(shares, expected)
    if not task.multi:
        return {"temperature": warmth, "thresholds": []}
    told = np.array(classify.calibrated(shares.tolist(), warmth, multi=True))
    return {"temperature": warmth, "thresholds": several.thresholds(told, expected).tolist()}


def sure_above(
    decoder: Decoder, task: Task, tokenizer: Tokenizer, val: Pairs, wanted: float
) -> tuple[float, ...]:
    """Above which probability the answers of each label are sure, by the validation rows; `task`
    has its temperature. See `kinds.sure.thresholds`."""
    judged = Validation(task, tokenizer, val)
    told = np.array(classify.calibrated(judged.shares(decoder).tolist(), task.temperature))
    return tuple(sure.thresholds(told, judged.expected, wanted).tolist())


def temperature(shares: NDArray[np.float64], expected: NDArray[Any]) -> float:
    """What the certainty is best divided by, by the rows' likelihood (Guo et al. 2017,
    arXiv 1706.04599); 1 when there are too few rows to tell."""
    if len(shares) < FEWEST_TO_CALIBRATE:
        return 1.0
    multi = expected.ndim == 2
    logs = logit(np.clip(shares, 1e-12, 1 - 1e-12)) if multi else np.log(np.maximum(shares, 1e-12))

    def loss(log_temperature: float) -> float:
        scaled = logs / math.exp(log_temperature)
        told = expit(scaled) if multi else softmax(scaled, axis=1)
        return float(np.mean(losses(told, expected)))

    return math.exp(minimize_scalar(loss, bounds=(-1.5, 1.5), method="bounded").x)


def merged(base: Path, plan: Plan, tuned: Path) -> Decoder:
    """The base with what was learned folded in: plain float32 weights on the CPU."""
    decoder = files.load(base)
    loop.prepare(decoder, plan)
    state.put(state.trained(decoder), load_file(tuned))
    merge_lora(decoder)
    return decoder.float().requires_grad_(False)


def frozen(base: Path, threads: int) -> Decoder:
    """The base as it is, in the quickest precision, on the device."""
    torch.set_num_threads(threads)
    where = device.pick()
    precision: torch.dtype = getattr(torch, device.pick_precision(where))
    return files.load(base).to(where, precision).requires_grad_(False)


@torch.no_grad()
def states(decoder: Decoder, prompts: Sequence[list[int]]) -> NDArray[np.float32]:
    """The decoder's state at each prompt's last token, [prompts, width], for a linear probe."""
    where = decoder.lm_head.weight.device
    start = shared_start(prompts)
    shared = torch.tensor(start, device=where) if start else None
    found = np.empty((len(prompts), decoder.config.width), np.float32)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for begin in range(0, len(order), 32):
        batch = order[begin : begin + 32]
        rest = [prompts[i][len(start) :] for i in batch]
        last = torch.tensor([len(row) - 1 for row in rest], device=where)
        all_states = decoder.states(pad(rest, where), shared)
        found[batch] = all_states[torch.arange(len(rest)), last].float().cpu().numpy()
    return found
