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
from bantam.kinds import Answer, Example, Row, Task, classify, multi_hot, sure, texts
from bantam.nets import load as files
from bantam.nets.choose import pad, shared_start
from bantam.nets.decoder import Decoder
from bantam.nets.lora import merge_lora
from bantam.progress import Advance
from bantam.train import device, loop, state, validation
from bantam.train.plan import Plan
from bantam.train.validation import Rows

FEWEST_TO_CALIBRATE = 40  # validation rows
READ_AT_ONCE = 256  # tokens of a text that is read without its answer

Shares = Sequence[Mapping[str, float] | None]  # of each row, how much of its answer each label is


def examples_of(
    task: Task,
    tokenizer: Tokenizer,
    rows: Rows,
    balanced: bool = False,
    shares: Shares = (),
) -> list[Example]:
    """The rows as token ids with their answers; `balanced` weights make all labels count alike.

    `shares`, if any, are one a row.
    """
    if task.kind != "classify":
        return _written(task, tokenizer, rows)
    start = tokenizer.start
    tree = classify.label_tree(task, tokenizer.encode, tokenizer.eos_id or 0)
    shift = len(start)
    counts = Counter(row[1] for row in rows)
    examples = []
    for (text, label, *_), known in zip(rows, shares or [None] * len(rows), strict=True):
        ids, answers, _ = classify.example(task, tree, tokenizer.encode, text, label, known)
        weight = len(rows) / (len(counts) * counts[label]) if balanced else 1.0
        examples.append(Example(start + ids, _moved(answers, shift), weight))
    return examples


def _written(task: Task, tokenizer: Tokenizer, rows: Rows) -> list[Example]:
    """Examples whose answers are written: every token of all answers counts alike."""
    start, end = tokenizer.start, tokenizer.eos_id or 0
    found = [texts.example(task, tokenizer.encode, end, Row(*row)) for row in rows]
    weight = len(found) / sum(len(ask.answers) for ask in found)
    return [Example(start + ids, _moved(answers, len(start)), weight) for ids, answers, _ in found]


def _moved(answers: Sequence[Answer], by: int) -> list[Answer]:
    return [answer._replace(position=answer.position + by) for answer in answers]


def readings(tokenizer: Tokenizer, rows: Rows) -> list[Example]:
    """The texts of the rows without their answers: every token of them is learned. Long texts are
    cut into pieces of READ_AT_ONCE tokens."""
    pieces = []
    for text, *_ in rows:
        ids = tokenizer.encode([(text, False)])
        pieces += [ids[at : at + READ_AT_ONCE] for at in range(0, len(ids), READ_AT_ONCE)]
    weight = len(pieces) / max(1, sum(map(len, pieces)))
    return [
        Example(
            [tokenizer.edge, *piece[:-1]],
            [Answer(at, (), token) for at, token in enumerate(piece)],
            weight,
        )
        for piece in pieces
    ]


def train(
    base: Path,
    task: Task,
    tokenizer: Tokenizer,
    rows: Rows,
    val: Rows,
    plan: Plan,
    folder: Path,
    key: str,
    advance: Advance,
    balanced: bool = False,
    shares: Shares = (),
) -> state.Place:
    """Tune the base; `folder` ends with tuned.safetensors (what was learned), metrics.jsonl,
    result.json (the place) and, for labels, calibration.json. A call that was interrupted is taken
    up, also after its last step. `balanced`: every label counts alike in loss and score. `shares`
    of the `rows` are learned in place of their labels, where there are any."""
    tuned = folder / "tuned.safetensors"
    if not _written_for(tuned, key):
        decoder = files.load(base).to(device.pick())
        examples = examples_of(task, tokenizer, rows, balanced, shares)
        judged = judge_of(task, tokenizer, val, balanced)
        report = _teller(plan, judged, advance)
        read = readings(tokenizer, rows) if plan.reading_steps else []
        place = loop.tune(decoder, examples, plan, judged, folder, key, report, read)
        runs.write_json(folder / "result.json", asdict(place))
        if isinstance(judged, validation.Labels):
            told = judged.judged
            if told is None or place.best_step < place.step:  # of other weights than the best
                with loop.autocast(decoder, plan):
                    told = judged.shares(decoder)
            found = calibration(task, told, judged.expected)
            runs.write_json(folder / "calibration.json", found)
        files.write_tensors(dict(state.trained(decoder)), tuned, {"key": key})
    state.forget(folder)
    return state.Place(**json.loads((folder / "result.json").read_text(encoding="utf-8")))


def judge_of(
    task: Task, tokenizer: Tokenizer, val: Rows, balanced: bool = False
) -> validation.Labels | validation.Written:
    """What scores a decoder on the validation rows, as the kind of the task asks."""
    if task.kind == "classify":
        return validation.Labels(task, tokenizer, val, balanced)
    examples = examples_of(task, tokenizer, val)
    return validation.Written(examples, by_loss=task.kind == "generate")


def _written_for(tuned: Path, key: str) -> bool:
    if not tuned.is_file():
        return False
    with safe_open(tuned, "pt") as file:
        return (file.metadata() or {}).get("key") == key


def _teller(
    plan: Plan, judged: validation.Labels | validation.Written, advance: Advance
) -> loop.Report:
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


def calibration(task: Task, shares: NDArray[np.float64], expected: NDArray[Any]) -> dict[str, Any]:
    """What the packed model needs to know of its certainty, chosen on validation rows: the
    temperature, and with several labels a text from which probability on each is given."""
    warmth = temperature(shares, expected)
    if not task.multi:
        return {"temperature": warmth, "thresholds": []}
    told = np.array(classify.calibrated(shares.tolist(), warmth, multi=True))
    return {"temperature": warmth, "thresholds": multi_hot.thresholds(told, expected).tolist()}


def sure_above(
    decoder: Decoder, task: Task, tokenizer: Tokenizer, val: Rows, wanted: float
) -> tuple[float, ...]:
    """Above which probability the answers of each label are sure, by the validation rows; `task`
    has its temperature. See `kinds.sure.thresholds`."""
    judged = validation.Labels(task, tokenizer, val)
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
        return float(np.mean(validation.losses(told, expected)))

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
