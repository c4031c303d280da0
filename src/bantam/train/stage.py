"""The train stage: labelled rows and a base in, tuned weights out."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file

from bantam import runs
from bantam.formats.tokenizer import Tokenizer
from bantam.kinds import Example, Task, classify
from bantam.nets import load as files
from bantam.nets.choose import choose, pad, shared_start
from bantam.nets.decoder import Decoder
from bantam.nets.lora import merge_lora
from bantam.progress import Advance
from bantam.train import device, loop, state
from bantam.train.plan import Plan

Pairs = Sequence[tuple[str, str]]  # text and label


def examples_of(task: Task, tokenizer: Tokenizer, rows: Pairs) -> list[Example]:
    """The rows as token ids with their answers."""
    start = tokenizer.start
    tree = classify.label_tree(task, tokenizer.encode, tokenizer.eos_id or 0)
    shift = len(start)
    return [
        Example(start + ids, [a._replace(position=a.position + shift) for a in answers])
        for ids, answers in (classify.example(task, tree, tokenizer.encode, *row) for row in rows)
    ]


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
) -> state.Place:
    """Tune the base; `folder` ends with tuned.safetensors (what was learned), metrics.jsonl and
    result.json (the place). A call that was interrupted is taken up, also after its last step."""
    tuned = folder / "tuned.safetensors"
    if not _written_for(tuned, key):
        decoder = files.load(base).to(device.pick())
        examples = examples_of(task, tokenizer, rows)
        judged = Validation(task, tokenizer, val)
        report = _teller(plan, judged, advance)
        place = loop.tune(decoder, examples, plan, judged, folder, key, report)
        runs.write_json(folder / "result.json", asdict(place))
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
    """Scores a decoder on validation rows: accuracy, and the mean negative log-likelihood."""

    def __init__(self, task: Task, tokenizer: Tokenizer, rows: Pairs) -> None:
        self.tree = classify.label_tree(task, tokenizer.encode, tokenizer.eos_id or 0)
        self.prompts = [tokenizer.start + task.prompt(tokenizer.encode, text) for text, _ in rows]
        self.expected = [task.labels.index(label) for _, label in rows]
        self.score: float | None = None

    def __call__(self, decoder: Decoder) -> tuple[float, float]:
        shares = classify.probabilities(
            lambda prompts, candidates: choose(decoder, prompts, candidates),
            self.tree,
            self.prompts,
        )
        right = [
            max(range(len(row)), key=row.__getitem__) == wanted
            for row, wanted in zip(shares, self.expected, strict=True)
        ]
        losses = [
            -math.log(max(row[wanted], 1e-12))
            for row, wanted in zip(shares, self.expected, strict=True)
        ]
        self.score = sum(right) / len(right)
        return self.score, sum(losses) / len(losses)


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
