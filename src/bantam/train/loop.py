"""The training loop: examples in, the weights that judged best on validation out.

Every step is a function of the plan and the step's number, so that a run which was killed goes on
from its last checkpoint and ends in the same weights, bit for bit (same machine, same threads).
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from bantam import runs
from bantam.errors import JobFailed
from bantam.kinds import Example
from bantam.nets.decoder import Decoder
from bantam.nets.lora import add_lora
from bantam.train import ranks, state
from bantam.train.interrupt import asked_to_stop
from bantam.train.objective import answer_loss, shared_prompt
from bantam.train.order import batches, parts
from bantam.train.plan import Plan

SAVED_EVERY = 60.0  # seconds between checkpoints at least,
SAVING = 0.02  # or as many as make saving no more than this share of the time
TOKENS_AT_ONCE = 2048  # with padding, forward and backward: bounds memory, costs no time

Evaluate = Callable[[Decoder], tuple[float, float]]  # validation score (higher is better) and loss
Report = Callable[[dict[str, float]], None]


def tune(
    decoder: Decoder,
    examples: Sequence[Example],
    plan: Plan,
    evaluate: Evaluate,
    folder: Path,
    key: str,
    report: Report,
    read: Sequence[Example] = (),
) -> state.Place:
    """Tune `decoder` in place; it ends with the best weights.

    `folder` takes the checkpoints and metrics.jsonl; what an interrupted call with the same `key`
    left there is taken up. `report` is called after each step with its numbers. `read` are
    examples of the plan's reading steps, which come first and are not evaluated.
    """
    torch.set_num_threads(plan.threads)
    prepare(decoder, plan)
    optimizer = optimizer_of(decoder, plan)
    take = step_of(decoder, plan, optimizer)
    metrics = folder / "metrics.jsonl"
    place = state.restore(folder, key, decoder, [optimizer]) or state.Place(
        0, 0, 0.0, 0.0, 0.0, False
    )
    cut(metrics, place.step)
    began = time.monotonic() - place.spent_seconds
    course = _course(read, examples, plan)
    step, seen, tokens = place.step, 0, 0
    for batch, start in islice(course, step):
        seen, tokens = seen + len(batch), tokens + _tokens(batch, start)
    save = saving(folder, key, decoder, [optimizer])
    with metrics.open("a", encoding="utf-8") as log, asked_to_stop() as stop:
        for batch, start in course if not place.done else ():
            value = take(batch, start, plan.learning_rate_at(step))
            step, seen, tokens = step + 1, seen + len(batch), tokens + _tokens(batch, start)
            line = {
                "step": step,
                "loss": value,
                "examples_seen": seen,
                "tokens_seen": tokens,  # without the beginning that all examples share
                "learning_rate": plan.learning_rate_at(step - 1),
                "seconds": time.monotonic() - began,
            }
            answered = step - plan.reading_steps
            judged = step == plan.steps or (answered > 0 and answered % plan.evaluate_every == 0)
            if judged:
                with autocast(decoder, plan):
                    line["val_score"], line["val_loss"] = evaluate(decoder)
                check_finite(line["val_loss"], plan.learning_rate)
                place = _judged(place, plan, line)
            log.write(json.dumps(line) + "\n")
            log.flush()
            # After its line is out: a checkpoint's lines are always there.
            place = replace(place, step=step, spent_seconds=time.monotonic() - began)
            report(line)
            stopping = stop()
            save(place, judged or stopping)
            if stopping:
                raise KeyboardInterrupt
            if place.done:
                break
    state.take_best(folder, decoder)
    return place


def _course(
    read: Sequence[Example], examples: Sequence[Example], plan: Plan
) -> Iterator[tuple[list[Example], list[int]]]:
    """The batch of each step, and the tokens that all examples of its kind begin with."""
    for some, steps in ((read, plan.reading_steps), (examples, plan.steps - plan.reading_steps)):
        if steps:
            start, lengths = shared_prompt(some), [len(example.ids) for example in some]
            for batch in islice(batches(lengths, plan.batch_size, plan.seed), steps):
                yield [some[i] for i in batch], start


def _tokens(batch: Sequence[Example], start: list[int]) -> int:
    return sum(len(example.ids) - len(start) for example in batch)


def saving(
    folder: Path, key: str, decoder: Decoder, optimizers: Sequence[torch.optim.Optimizer]
) -> Callable[[state.Place, bool], None]:
    """A function that saves a place if it must, or if the last time was long enough ago by the
    first process's clock; all processes call it."""
    where = decoder.lm_head.weight.device
    due = time.monotonic() + SAVED_EVERY

    def save(place: state.Place, must: bool) -> None:
        nonlocal due
        if not ranks.first_says(must or time.monotonic() >= due, where):
            return
        began = time.monotonic()
        state.save(folder, key, decoder, optimizers, place)
        took = time.monotonic() - began
        due = began + max(SAVED_EVERY, took / SAVING)

    return save


def prepare(decoder: Decoder, plan: Plan) -> None:
    """Choose which weights learn, and hold the frozen ones in the plan's precision."""
    decoder.model.recompute = plan.recompute
    if plan.method == "lora":
        decoder.to(getattr(torch, plan.precision))
        add_lora(decoder, plan.rank, plan.seed)
    else:
        decoder.requires_grad_(True)
        decoder.model.embed_tokens.requires_grad_(False)
        decoder.lm_head.requires_grad_(False)


def optimizer_of(decoder: Decoder, plan: Plan) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) on what learns."""
    return torch.optim.AdamW(
        state.trained(decoder).values(),
        lr=plan.learning_rate,
        weight_decay=plan.weight_decay,
        fused=True,
    )


def step_of(
    decoder: Decoder, plan: Plan, optimizer: torch.optim.Optimizer
) -> Callable[[Sequence[Example], list[int], float], float]:
    """A function that takes one step with a batch, the tokens that its examples begin with and a
    learning rate, and returns the loss."""
    parameters = list(state.trained(decoder).values())

    def take(batch: Sequence[Example], start: list[int], learning_rate: float) -> float:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        value = 0.0
        for part in parts(batch, [len(e.ids) - len(start) for e in batch], TOKENS_AT_ONCE):
            with autocast(decoder, plan):
                loss = answer_loss(decoder, part, start) * (len(part) / len(batch))
            value += loss.item()
            check_finite(value, plan.learning_rate)
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, plan.clip)
        optimizer.step()
        optimizer.zero_grad()
        return value

    return take


def autocast(decoder: Decoder, plan: Plan) -> AbstractContextManager[object]:
    """Full tuning keeps float32 weights and computes in the plan's precision."""
    mixed = plan.method == "full" and plan.precision == "bfloat16"
    device = decoder.lm_head.weight.device.type
    return torch.autocast(device, torch.bfloat16, enabled=mixed)


def check_finite(loss: float, learning_rate: float) -> None:
    """Raises JobFailed where a loss is no number any more."""
    if not math.isfinite(loss):
        raise JobFailed(
            f"training diverged: the loss became {loss}",
            f"lower train.learning_rate (it was {learning_rate:g})",
        )


def _judged(place: state.Place, plan: Plan, line: dict[str, float]) -> state.Place:
    """The place after an evaluation; done at the last step or when nothing improves any more."""
    step = int(line["step"])
    better = not place.best_step or (
        (line["val_score"], -line["val_loss"]) > (place.best_score, -place.best_loss)
    )
    best = step if better else place.best_step
    return replace(
        place,
        best_step=best,
        best_score=line["val_score"] if better else place.best_score,
        best_loss=line["val_loss"] if better else place.best_loss,
        done=step == plan.steps or (step - best) // plan.evaluate_every >= plan.patience,
    )


def cut(metrics: Path, step: int) -> None:
    """Drop the lines that were logged after the checkpoint which the run goes on from."""
    if metrics.is_file():
        lines = metrics.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        runs.write_text(metrics, "".join(line for line in lines if _step_of(line) <= step))


def _step_of(line: str) -> float:
    """The step that a line tells of; infinite when it was torn by a sudden end."""
    try:
        step = json.loads(line)["step"] if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf
    return float(step)
