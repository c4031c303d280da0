"""Training from scratch, or on with a base: documents in, the weights that predict others best.

Every step is a function of the plan and the step's number, so that a run which was killed goes on
from its last checkpoint and ends in the same weights, bit for bit (same machine, same threads).
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bantam.corpus.reading import Reading, positions
from bantam.corpus.shards import Corpus
from bantam.nets.decoder import Decoder
from bantam.nets.head import vocabulary_loss
from bantam.nets.lora import add_lora
from bantam.train import held_out, laws, ranks, sharded, state
from bantam.train.interrupt import asked_to_stop
from bantam.train.loop import check_finite, cut, saving
from bantam.train.optimizers import optimizers

AT_ONCE = 2048  # tokens forward and backward: bounds memory, costs no time
Report = Callable[[dict[str, float]], None]
Look = Callable[[Decoder, int], None]  # at a decoder after a step


@dataclass(frozen=True)
class Plan:
    """Everything that decides the weights besides data and the first weights."""

    precision: str  # of the products: "bfloat16" or "float32"
    threads: int
    steps: int
    rows: int  # in a step, of `context` tokens each
    context: int
    seed: int
    evaluate_every: int
    evaluate_tokens: int  # of the held-out documents, while it trains
    optimizer: str = "muon"  # or "adamw"
    learning_rate: float = laws.RATE
    matrix_rate: float = laws.MATRIX_RATE
    weight_decay: float = laws.DECAY
    warmup_steps: int = 1
    cooldown_steps: int = 0
    clip: float = 1.0
    compiled: bool = False  # blocks as machine code of their own: quicker, after a minute
    sharded: bool = False  # over the processes, if there are several: it does not fit one of them
    patience: int = 5  # evaluations without a better one
    method: str = "all"  # of the weights learn; or "lora": of a base, which is held as it is
    rank: int = 16  # of LoRA
    recompute: bool = False  # blocks backwards, as in `train.plan`
    pair_steps: int = 0  # that learn what follows each token, before all others (`train.pairs`)

    @property
    def tokens(self) -> int:
        """That are read in all."""
        return self.steps * self.rows * self.context

    def rate_at(self, step: int) -> float:
        """The share of the learning rates at a step (from 0)."""
        return laws.schedule(step, self.steps, self.warmup_steps, self.cooldown_steps)


class Point(NamedTuple):
    """What a run had reached, by its seconds of training without evaluations."""

    step: int
    seconds: float
    tokens: int
    bits_per_byte: float


def train(
    decoder: Decoder,
    corpus: Corpus,
    held: Corpus,
    plan: Plan,
    folder: Path,
    key: str = "",
    report: Report = lambda line: None,
    look: Look = lambda decoder, step: None,
    reading: Reading | None = None,
) -> list[Point]:
    """Train `decoder` in place; it ends with the weights that were best on `held`, of LoRA with
    the adapters on them.

    `folder` takes the checkpoints and metrics.jsonl; what an interrupted call with the same `key`
    left there is taken up. `report` is called after each step with its numbers, `look` after each
    evaluation. `reading` tells how the corpus is read, if not each document once a pass. Gives the
    points of evaluation.
    """
    torch.set_num_threads(plan.threads)
    folder.mkdir(parents=True, exist_ok=True)
    reading = reading or Reading(corpus, plan.context, plan.seed)
    prepare(decoder, plan)
    sharded.place(decoder, plan.sharded)
    movers = optimizers(
        decoder,
        plan.optimizer,
        plan.precision,
        plan.learning_rate,
        plan.matrix_rate,
        plan.weight_decay,
    )
    take = step_of(decoder, plan, movers, corpus.edge)
    metrics = folder / "metrics.jsonl"
    place = _restored(folder, key, decoder, movers)
    first, where = ranks.rank() == 0, decoder.lm_head.weight.device
    if first:
        cut(metrics, place.step)
    ranks.wait()
    judging = _seconds_of_judging(metrics)
    began = time.monotonic() - place.spent_seconds
    batches = reading.batches(plan.rows, place.step)
    save = saving(folder, key, decoder, movers)
    with (
        metrics.open("a", encoding="utf-8") if first else nullcontext() as log,
        asked_to_stop() as stop,
    ):
        while not place.done:
            step = place.step + 1
            value = take(next(batches), plan.rate_at(place.step))
            line = {
                "step": step,
                "loss": value,
                "tokens_seen": step * plan.rows * plan.context,
                "learning_rate": plan.learning_rate * plan.rate_at(place.step),
                "seconds": time.monotonic() - began - judging,
            }
            judged = step % plan.evaluate_every == 0 or step == plan.steps
            if judged:
                started, bits = time.monotonic(), 0.0
                if first or sharded.parted(decoder):
                    # What is compiled is so for one shape; to compile it for others takes minutes.
                    with torch.compiler.set_stance("force_eager"):
                        with autocast(decoder, plan):
                            bits = held_out.bits_per_byte(
                                decoder, held, plan.context, plan.evaluate_tokens
                            )
                        look(decoder, step)
                    sharded.let_go(decoder)
                line["bits_per_byte"] = ranks.first_says(bits, where)
                check_finite(line["bits_per_byte"], plan.learning_rate)
                line["judging"] = time.monotonic() - started
                judging += line["judging"]
            place = _placed(place, plan, line)
            stopping = ranks.anyone(stop(), where)  # or some would wait for those that left
            if log is not None:
                log.write(json.dumps(line) + "\n")
                log.flush()
            # After its line is out: a checkpoint's lines are always there.
            place = replace(place, spent_seconds=time.monotonic() - began)
            if first:
                report(line)
            save(place, judged or stopping)
            if stopping:
                raise KeyboardInterrupt
    ranks.wait()
    state.take_best(folder, decoder)
    return points(folder)


def prepare(decoder: Decoder, plan: Plan) -> None:
    """Choose which weights learn."""
    if plan.method == "lora":
        decoder.to(getattr(torch, plan.precision))
        add_lora(decoder, plan.rank, plan.seed)
        decoder.model.recompute = plan.recompute
    else:
        decoder.requires_grad_(True)


def _restored(
    folder: Path, key: str, decoder: Decoder, movers: list[torch.optim.Optimizer]
) -> state.Place:
    """Where the run stands, from its last sound checkpoint. The first process removes those that
    are not sound before the others look."""
    place = None
    for turn in (True, False):
        if (ranks.rank() == 0) == turn:
            place = state.restore(folder, key, decoder, movers)
        ranks.wait()
    return place or state.Place(0, 0, 0.0, 0.0, 0.0, False)


def points(folder: Path) -> list[Point]:
    """The evaluations in the metrics.jsonl of a run."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    read = (json.loads(line) for line in lines)
    return [
        Point(one["step"], one["seconds"], one["tokens_seen"], one["bits_per_byte"])
        for one in read
        if "bits_per_byte" in one
    ]


def step_of(
    decoder: Decoder, plan: Plan, movers: list[torch.optim.Optimizer], edge: int
) -> Callable[[NDArray[np.int64], float], float]:
    """A function that takes one step with rows of ids [rows, context + 1] and a share of the
    learning rate, and returns the loss in nats a token."""
    where = decoder.lm_head.weight.device
    parameters = list(state.trained(decoder).values())
    at_once = max(1, AT_ONCE // plan.context)
    if plan.compiled:
        for block in decoder.model.layers:
            block.compile()
    plain = Loss(decoder)
    copied = ranks.size() > 1 and not sharded.parted(decoder)
    shared = DistributedDataParallel(plain) if copied else None

    def take(batch: NDArray[np.int64], share: float) -> float:
        for mover in movers:
            for group in mover.param_groups:
                group["lr"] = group["full"] * share
        total, count = torch.zeros((), device=where), plan.rows * plan.context
        ours = batch[ranks.rank() :: ranks.size()]
        # As many passes as the process with most rows has: blocks in shards are gathered in each.
        passes = math.ceil(len(batch[:: ranks.size()]) / at_once)
        for number in range(passes):
            rows = ours[number * at_once : (number + 1) * at_once]
            real = len(rows) > 0
            rows = rows if real else batch[:1]  # to be there, and learn nothing
            ids = torch.from_numpy(rows).to(where)
            places = torch.from_numpy(positions(rows[:, :-1], edge)).to(where)
            last = number == passes - 1
            # Gradients are averaged over the processes once a step.
            with shared.no_sync() if shared is not None and not last else nullcontext():
                with autocast(decoder, plan):
                    loss: Tensor = (shared or plain)(ids, places)
                loss = loss * float(real)
                (loss * (ranks.size() / count)).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        value = float(ranks.summed(total)) / count
        check_finite(value, plan.learning_rate)
        torch.nn.utils.clip_grad_norm_(parameters, plan.clip)
        for mover in movers:
            mover.step()
            mover.zero_grad()
        return value

    return take


class Loss(nn.Module):
    """The summed loss of rows of ids [rows, tokens + 1] at their positions [rows, tokens]."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, ids: Tensor, places: Tensor) -> Tensor:
        states = self.decoder.states(ids[:, :-1], positions=places).flatten(0, 1)
        head, cap = self.decoder.lm_head.weight, self.decoder.config.logit_cap
        return vocabulary_loss(states, head, ids[:, 1:].flatten(), cap=cap)


def autocast(decoder: Decoder, plan: Plan) -> AbstractContextManager[object]:
    """Weights that all learn are kept in float32, products are in the plan's precision."""
    device = decoder.lm_head.weight.device.type
    mixed = plan.method == "all" and plan.precision == "bfloat16"
    return torch.autocast(device, torch.bfloat16, enabled=mixed)


def _seconds_of_judging(metrics: Path) -> float:
    if not metrics.is_file():
        return 0.0
    lines = metrics.read_text(encoding="utf-8").splitlines()
    return float(sum(json.loads(line).get("judging", 0.0) for line in lines))


def _placed(place: state.Place, plan: Plan, line: dict[str, float]) -> state.Place:
    """The place after a step; done at the last one or when nothing improves any more."""
    step, bits = int(line["step"]), line.get("bits_per_byte")
    if bits is None:
        return replace(place, step=step)
    better = not place.best_step or bits < place.best_loss
    best = step if better else place.best_step
    return replace(
        place,
        step=step,
        best_step=best,
        best_score=-bits if better else place.best_score,
        best_loss=bits if better else place.best_loss,
        done=step == plan.steps or (step - best) // plan.evaluate_every >= plan.patience,
    )
