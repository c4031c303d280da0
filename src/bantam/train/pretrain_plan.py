"""A budget becomes a shape and a plan, by the rules in `laws` and a short timing of real steps."""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bantam.engine import cores
from bantam.errors import BadInput
from bantam.nets import fresh
from bantam.nets import load as files
from bantam.nets.decoder import Decoder, DecoderConfig
from bantam.train import device, laws, pairs, sharded
from bantam.train.budget import CLEARLY, SAFETY, activations
from bantam.train.optimizers import optimizers
from bantam.train.pretrain import AT_ONCE, Plan, prepare, step_of

EVALUATIONS = 10  # in a run, which together take
JUDGING = 0.04  # of the time
# Seconds from which on blocks are compiled: it took 33 s and saved a tenth of each step, at 1.1M
# parameters on one busy core.
COMPILED = 900.0
FORWARD = 0.35  # of a training step's time: no backward pass
FEWEST_STEPS = 20
SMALLEST, LARGEST = 300_000, 3_000_000_000  # parameters that are considered unasked
SIZES = 24  # of them
BASE_CONTEXT = 512  # tokens at once, where a base is gone on with
WARMING = 1 / 4  # of a trial step: what is done once only
PAIR_SHARE = 0.25  # of the time, at most, in which a fresh model learns what follows each token
PAIR_STEPS = 300  # beyond which that gains little
COUNTED = 5e6  # tokens a second; 10M were on an old core
TRIED = (128, 320)  # widths that are timed to tell how quick the others would be


@dataclass(frozen=True)
class Wish:
    """What the recipe asks for; None is decided here. One of seconds, tokens and steps is set.

    With a `base` the shape is the base's, and LoRA learns.
    """

    seconds: float | None = None
    tokens: int | None = None
    steps: int | None = None
    parameters: int | None = None
    depth: int | None = None
    width: int | None = None
    context: int | None = None
    batch_tokens: int | None = None
    learning_rate: float | None = None  # AdamW's; Muon's changes as it does
    weight_decay: float | None = None
    optimizer: str = "muon"
    threads: int | None = None
    processes: int = 1  # that train together on this machine
    seed: int = 0
    base: Path | None = None
    pairs: bool = True  # what follows each token is learned first, unless there is a base

    @property
    def method(self) -> str:
        return "lora" if self.base else "all"


@dataclass(frozen=True)
class Pace:
    """Seconds of a step, by the parts of `tokens` that it has."""

    first: float  # with what the optimizers take
    more: float  # each further part
    tokens: int = AT_ONCE

    def step(self, tokens: float) -> float:
        return self.first + self.more * (tokens / self.tokens - 1)


def plan(
    wish: Wish, vocab_size: int, unique: int, spent: float = 0.0
) -> tuple[DecoderConfig, Plan]:
    """The shape and the plan for `unique` training tokens; `spent` seconds are gone already.

    A budget pays for the timing, the steps and the evaluations, with a reserve. Raises BadInput
    when it is too small, or when nothing has the wished shape.
    """
    began = time.perf_counter()
    if wish.base is None:
        shape = _shape(wish, vocab_size, unique, spent)
        context, begun = shape.context, partial(fresh.fresh, shape)
    else:
        shape = files.config_of(wish.base)
        context = min(wish.context or BASE_CONTEXT, shape.context)
        begun = partial(files.load, wish.base)
    where = device.pick()
    parted = False
    if wish.base is None:  # of a base only what LoRA adds has gradients and moments
        parameters = fresh.count(shape)
        parted = sharded.wanted(parameters, wish.processes)
        if wish.seconds is not None and sharded.wanted(parameters, 1):
            raise BadInput(
                f"a model of {parameters:,} parameters does not fit the memory here, so its steps "
                "cannot be timed for a budget",
                "give train.tokens in place of train.budget (several processes share such a model)"
                f", or train.parameters = {sharded.fits(where) // sharded.A_PARAMETER:_} at most",
            )
    precision = device.pick_precision(where)
    kept = activations(shape, context, precision) * max(1.0, context / AT_ONCE)
    # A shape of our own is small.
    recompute = wish.base is not None and kept > device.free(where) / 2
    counts = [wish.threads] if wish.threads else sorted({1, max(1, cores() // wish.processes)})
    timed = {threads: Pace(0.0, 0.0) for threads in counts[-1:]}
    if wish.seconds is not None:
        timed, best = {}, math.inf
        for count in counts:
            timed[count] = pace(begun, precision, count, context, wish.method, best, recompute)
            best = min(best, timed[count].first)
    spent += time.perf_counter() - began
    counted, pair_steps = wish.pairs and wish.base is None, None
    if counted and wish.seconds is not None:
        torch.set_num_threads(min(timed, key=lambda count: timed[count].more))
        each = pairs.seconds(begun().to(where), precision)
        counting = min(unique, pairs.MOST) / COUNTED
        paid = PAIR_SHARE * (wish.seconds * SAFETY - spent) - counting
        pair_steps = max(0, min(PAIR_STEPS, int(paid / each)))
        spent += pair_steps * each + counting
    made = scheduled(wish, timed, precision, context, unique, spent)
    if counted:
        made = _after_pairs(wish, made, shape, pair_steps)
    # Blocks in shards are not compiled: that was not tried.
    compiled = made.compiled and not parted
    return shape, replace(made, sharded=parted, compiled=compiled, recompute=recompute)


def _after_pairs(wish: Wish, made: Plan, shape: DecoderConfig, steps: int | None) -> Plan:
    """The plan with steps that learn pairs first: as many as were paid for, or as have their share
    of all operations."""
    if steps is None:
        rest = made.tokens * fresh.operations(shape) / pairs.operations(shape)
        steps = min(PAIR_STEPS, math.ceil(PAIR_SHARE / (1 - PAIR_SHARE) * rest))
    share = 1.0 if wish.learning_rate or not steps else laws.gentle(made.tokens)
    return replace(
        made,
        pair_steps=steps,
        learning_rate=made.learning_rate * share,
        matrix_rate=made.matrix_rate * share,
    )


def scheduled(
    wish: Wish,
    timed: dict[int, Pace],
    precision: str,
    context: int,
    unique: int,
    spent: float,
) -> Plan:
    """The plan for a decoder that was timed with some counts of threads."""
    threads = min(timed, key=lambda count: timed[count].more)
    found = timed[threads]
    left = 0.0 if wish.seconds is None else wish.seconds * SAFETY - spent
    # How many tokens a step has depends on how many there are in all, which depends on it a little.
    tokens = float(wish.tokens or 0)
    at_once = wish.batch_tokens or AT_ONCE
    for _ in range(3):
        if wish.seconds is not None:
            steps = int(left * (1 - JUDGING) / found.step(at_once / wish.processes))
        else:
            steps = wish.steps or math.ceil(tokens / at_once)
        if wish.seconds is not None and left <= 0:
            steps = 0
        tokens = float(steps * at_once)
        at_once = wish.batch_tokens or laws.batch_tokens(tokens)
    rows = max(1, at_once // context)
    if wish.seconds is None:
        steps = wish.steps or math.ceil((wish.tokens or 0) / (rows * context))
    else:
        steps = min(
            int(left * (1 - JUDGING) / found.step(rows * context / wish.processes))
            if left > 0
            else 0,
            math.ceil(laws.MOST_PASSES * unique / (rows * context)),
        )
    if wish.seconds is not None and steps < FEWEST_STEPS:
        raise BadInput(
            f"the budget is too small: {max(0.0, left):.0f} s are left for training, in which "
            f"{steps} steps of {rows * context:,} tokens are done",
            "give train.budget more time, or train.parameters fewer parameters",
        )
    passes = steps * rows * context / unique
    usual = laws.ADAPTING if wish.base else laws.RATE
    rate = wish.learning_rate or usual
    decay = wish.weight_decay
    if decay is None:
        decay = 0.0 if wish.base else laws.weight_decay(passes)
    every = max(1, math.ceil(steps / EVALUATIONS))
    a_token = found.more / found.tokens
    shown = JUDGING * left / EVALUATIONS / (FORWARD * a_token) if a_token else 1 << 16
    return Plan(
        precision=precision,
        threads=threads,
        steps=steps,
        rows=rows,
        context=context,
        seed=wish.seed,
        evaluate_every=every,
        evaluate_tokens=min(1 << 20, max(1 << 13, int(shown))),
        optimizer="adamw" if wish.base else wish.optimizer,
        learning_rate=rate,
        matrix_rate=laws.MATRIX_RATE * rate / usual,
        weight_decay=decay,
        compiled=not wish.base
        and (wish.seconds or 0) >= COMPILED
        and shutil.which("g++") is not None,
        method=wish.method,
        warmup_steps=max(1, round(laws.WARMUP * steps)),
        cooldown_steps=round(laws.COOLDOWN * steps),
    )


def _shape(wish: Wish, vocab_size: int, unique: int, spent: float) -> DecoderConfig:
    """The shape that is asked for, or the one that would learn most within the budget."""
    if wish.width:
        made = fresh.config(vocab_size, wish.context or 256, wish.width, wish.depth)
        return replace(made, context=wish.context or laws.context(fresh.count(made)))
    if wish.parameters:
        context = wish.context or laws.context(wish.parameters)
        return fresh.shape(wish.parameters, vocab_size, context, wish.depth)
    considered = {}
    for number in range(SIZES):
        parameters = int(SMALLEST * (LARGEST / SMALLEST) ** (number / (SIZES - 1)))
        try:
            shape = fresh.shape(
                parameters, vocab_size, wish.context or laws.context(parameters), wish.depth
            )
        except BadInput:
            continue
        considered[shape] = parameters
    if wish.seconds is None:
        tokens = wish.tokens or (wish.steps or 0) * (wish.batch_tokens or AT_ONCE)
        return min(considered, key=lambda s: abs(math.log(fresh.count(s) / (tokens / 20 + 1))))
    began = time.perf_counter()
    quick = _quickness(vocab_size, wish.threads or 1)
    left = wish.seconds * SAFETY - spent - (time.perf_counter() - began)

    def loss(shape: DecoderConfig) -> float:
        each = fresh.operations(shape)
        tokens = max(1.0, left * quick(each) / each)
        return laws.loss(fresh.count(shape), tokens, unique)

    return min(considered, key=loss)


def _quickness(vocab_size: int, threads: int) -> Callable[[float], float]:
    """Operations a second by the operations that a token takes: larger products are quicker."""
    precision, found = device.pick_precision(device.pick()), []
    for width in TRIED:
        shape = fresh.config(vocab_size, 256, width)
        each = fresh.operations(shape)
        timed = _timer(partial(fresh.fresh, shape), precision, threads, shape.context, "all")
        timed(1)  # what is done once only
        found.append((math.log(each), math.log(each * AT_ONCE / min(timed(1), timed(1)))))
    (x0, y0), (x1, y1) = found
    # On a busy machine the timing is rough; that small products are slower is known.
    slope = min(0.5, max(0.2, (y1 - y0) / (x1 - x0)))
    top = y1 + slope * math.log(4)  # further up it is not known
    return lambda each: math.exp(min(top, y0 + slope * (math.log(each) - x0)))


def pace(
    made: Callable[[], Decoder],
    precision: str,
    threads: int,
    context: int,
    method: str = "all",
    bound: float = math.inf,
    recompute: bool = False,
) -> Pace:
    """The quickest of a few real steps of one part of about AT_ONCE tokens and of two, drawn ids.

    Steps that are clearly slower than `bound` seconds are not tried for long. Those of LoRA take
    long, and what its optimizer takes does not count: it is one step.
    """
    timed = _timer(made, precision, threads, context, method, recompute)
    part = _rows(context) * context
    if method == "lora":
        timed(WARMING)
        one = timed(1)
        return Pace(one, one, part)
    timed(1)  # what is done once only
    one = timed(1)
    if one > CLEARLY * bound:
        return Pace(one, one, part)
    one, two = min(one, timed(1)), timed(2)
    return Pace(one, min(one, max(two - one, one / 2)), part)


def _rows(context: int) -> int:
    """Of a part."""
    return max(1, AT_ONCE // context)


def _timer(
    made: Callable[[], Decoder],
    precision: str,
    threads: int,
    context: int,
    method: str,
    recompute: bool = False,
) -> Callable[[float], float]:
    """A function that takes a real step of so many parts: its seconds."""
    torch.set_num_threads(threads)
    decoder = made().to(device.pick())
    trial = Plan(precision, threads, 1, 1, context, 0, 1, 1, method=method, recompute=recompute)
    prepare(decoder, trial)
    name = "adamw" if method == "lora" else "muon"
    movers = optimizers(decoder, name, precision, 1e-9, 1e-9, 0.0)
    chance = np.random.default_rng(0)

    def timed(parts: float) -> float:
        rows = max(1, int(_rows(context) * parts))
        ids = chance.integers(1, decoder.config.vocab_size, (rows, context + 1))
        began = time.perf_counter()
        step_of(decoder, replace(trial, rows=rows), movers, edge=0)(ids, 1.0)
        return time.perf_counter() - began

    return timed
