"""A budget becomes a plan: steps, method, precision and threads, fixed before the first step."""

import gc
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

import torch

from bantam.engine import cores
from bantam.kinds import Example
from bantam.nets.decoder import SHORT, Decoder, DecoderConfig
from bantam.recipe import Train
from bantam.train import device, loop
from bantam.train.objective import shared_prompt
from bantam.train.order import batches, parts
from bantam.train.plan import Plan

# LoRA's is that of bases of 576 numbers a token (SmolLM2-135M: docs/LOG.md); wider ones want less,
# by the law that Schulman et al. 2025 ("LoRA Without Regret") fitted.
LORA_RATE, LORA_WIDTH, NARROWER = 2e-3, 576, 0.781
FULL_RATE = 7e-5
SMALL = 8  # rows: smaller batches are noisier and want less, by the root of their rows
# A short training learns far more from many small steps than from few large ones (docs/LOG.md).
FEWEST_ROWS, MOST_ROWS, ENOUGH_STEPS = 4, 32, 100
EVALUATIONS = 3  # in a run
LOOKING = 0.1  # of the budget's time at most, for the evaluations before the last one
MOST_PASSES = 8  # over the examples: more only overfits
# Of the budget: checkpoints, and steps that take longer than the trial's. On a laptop that warms up
# and on a machine that others use they took up to a fifth longer.
SAFETY = 0.8
CLEARLY = 1.2  # times slower than the best so far: not worth more trial steps
TRIAL_TOKENS, TRIAL_STEPS = 1024, 4
TRIAL_SECONDS = 4.0  # no further step after them: a slow machine has better use for its budget
READING = 0.25  # of the steps, where train.adapt asks for it
FORWARD = 0.35  # of a training step: no backward pass


@dataclass(frozen=True)
class Timing:
    """What a trial of a method measured."""

    plan: Plan
    seconds_a_token: float


def plan(
    base: Callable[[], Decoder],
    examples: Sequence[Example],
    val: Sequence[Example],
    settings: Train,
    spent: float = 0.0,
    read: Sequence[Example] = (),
) -> Plan:
    """Decide everything that the recipe leaves open, by short trials on this machine.

    `base` loads the decoder anew for each trial. LoRA is timed on real batches with one and with
    all threads, and again with fewer rows a step where so few examples can be learned that `rows`
    says so; full tuning with the better count. The quicker wins, LoRA when they are within a tenth,
    since it needs less memory. The budget pays for trials, steps and evaluations, and for the
    seconds `spent` before. Where there are examples that are only `read`, READING of the steps are
    theirs.
    """
    began = time.perf_counter()
    decoder = base()
    where = decoder.lm_head.weight.device
    width = decoder.config.width
    method = "full" if settings.method == "full" else "lora"
    most = MOST_ROWS if settings.batch_size == "auto" else settings.batch_size
    first = Plan(
        method=method,
        precision=device.pick_precision(where),
        threads=settings.threads or 1,
        steps=1,
        batch_size=min(most, len(examples)),
        learning_rate=1.0,  # of trials, whose steps have none
        warmup_steps=1,
        evaluate_every=1,
        seed=settings.seed,
    )
    longest = max(len(example.ids) for example in examples)
    kept = activations(decoder.config, longest, first.precision)
    first = replace(first, recompute=kept > device.free(where) / 2)
    compare = settings.method == "auto" and _room_for_full(decoder)
    if settings.budget is None and settings.threads and not compare:
        best = Timing(first, 0.0)
    else:
        counts = [settings.threads] if settings.threads else _thread_counts()
        best = _quickest(decoder, examples, first, counts)
    del decoder
    gc.collect()
    if settings.batch_size == "auto" and settings.steps is None:
        seen = _learned(best, examples, settings, spent + time.perf_counter() - began)
        fewer = replace(best.plan, batch_size=min(rows(seen), len(examples)))
        best = replace(best, plan=fewer)
        timed = settings.budget is not None or compare
        if timed and fewer.batch_size < first.batch_size:
            best = _quickest(base(), examples, fewer, [fewer.threads])
    if compare:
        full = replace(best.plan, method="full")
        bound = best.seconds_a_token
        with suppress(torch.OutOfMemoryError):  # of a graphics card
            other = _quickest(base(), examples, full, [best.plan.threads], bound)
            best = other if 1.1 * other.seconds_a_token < bound else best
    rate = settings.learning_rate
    if rate == "auto":
        rate = learning_rate(best.plan.method, width, best.plan.batch_size)
    best = replace(best, plan=replace(best.plan, learning_rate=rate))
    a_reading = 0.0
    if read and settings.budget is not None:
        pace = _quickest(base(), read, best.plan, [best.plan.threads]).seconds_a_token
        a_reading = pace * _tokens(read) / math.ceil(len(read) / best.plan.batch_size)
    spent += time.perf_counter() - began
    return _schedule(best, examples, val, settings, spent, READING if read else 0.0, a_reading)


def learning_rate(method: str, width: int, batch_size: int) -> float:
    """What is taken where the recipe says nothing."""
    noisier = math.sqrt(min(1.0, batch_size / SMALL))
    if method == "full":
        return FULL_RATE * noisier
    return LORA_RATE * noisier * math.pow(min(1.0, LORA_WIDTH / width), NARROWER)


def rows(seen: float) -> int:
    """Rows a step of a training that sees so many examples: as many as leave ENOUGH_STEPS."""
    wanted = min(max(seen / ENOUGH_STEPS, FEWEST_ROWS), MOST_ROWS)
    return 1 << int(math.log2(wanted))


def _learned(best: Timing, examples: Sequence[Example], settings: Train, spent: float) -> float:
    """About how many examples a training sees."""
    if settings.budget is None:
        assert settings.epochs is not None
        return settings.epochs * len(examples)
    left = settings.budget * SAFETY - spent
    a_pass = best.seconds_a_token * _tokens(examples)
    return min(left / a_pass, MOST_PASSES) * len(examples)


def _schedule(
    best: Timing,
    examples: Sequence[Example],
    val: Sequence[Example],
    settings: Train,
    spent: float,
    reading: float = 0.0,
    a_reading: float = 0.0,
) -> Plan:
    """The number of steps that the budget, epochs or steps of the recipe mean.

    `spent` are the seconds that planning took, `reading` the share of the steps in which texts are
    read, each of which takes `a_reading` seconds.
    """
    a_pass = math.ceil(len(examples) / best.plan.batch_size)
    evaluations = EVALUATIONS
    if settings.steps is not None:
        steps = settings.steps
    elif settings.epochs is not None:
        steps = math.ceil(settings.epochs * a_pass / (1 - reading))
    else:
        assert settings.budget is not None
        # Labels that share tokens are told apart in a pass of their own for each branch.
        passes = len({answer.candidates for example in examples for answer in example.answers})
        judging = passes * FORWARD * best.seconds_a_token * _tokens(val)
        a_step = best.seconds_a_token * _tokens(examples) / a_pass
        left = settings.budget * SAFETY - spent
        evaluations = _evaluations(left, judging)
        left -= evaluations * judging
        a_step = reading * a_reading + (1 - reading) * a_step
        steps = min(int(left / a_step), int(MOST_PASSES * a_pass / (1 - reading)))
    steps = max(1, steps)
    reading_steps = int(reading * steps)
    return replace(
        best.plan,
        steps=steps,
        warmup_steps=max(1, round(0.06 * steps)),
        evaluate_every=max(1, math.ceil((steps - reading_steps) / evaluations)),
        reading_steps=reading_steps,
    )


def _evaluations(left: float, seconds: float) -> int:
    """How often to look at the validation rows, which takes `seconds`, in the time that is left."""
    if (EVALUATIONS - 1) * seconds <= LOOKING * left:
        return EVALUATIONS
    return 1 + max(0, int(LOOKING * left / seconds))


def _quickest(
    decoder: Decoder,
    examples: Sequence[Example],
    trial: Plan,
    thread_counts: Sequence[int],
    bound: float = math.inf,
) -> Timing:
    """The number of threads that takes the fewest seconds a token; changes the decoder.

    A trial ends early once it is clearly slower than the best so far, or than `bound`, and after
    TRIAL_SECONDS.
    """
    loop.prepare(decoder, trial)
    start = shared_prompt(examples)
    step = loop.step_of(decoder, trial, loop.optimizer_of(decoder, trial))
    lengths = [len(example.ids) - len(start) for example in examples]
    drawn = _typical(lengths, trial.batch_size)
    some = [_trial_part([examples[i] for i in batch], len(start)) for batch in drawn]
    before = torch.get_num_threads()
    timings = []
    for count in thread_counts:
        torch.set_num_threads(count)
        step(some[0], start, 0.0)
        used, pace = 0, 0.0
        began = time.perf_counter()
        for batch in some:
            step(batch, start, 0.0)
            used += sum(len(example.ids) - len(start) for example in batch)
            taken = time.perf_counter() - began
            pace = taken / used
            if pace > CLEARLY * bound or taken > TRIAL_SECONDS:
                break
        timings.append(Timing(replace(trial, threads=count), pace))
        bound = min(bound, pace)
    torch.set_num_threads(before)
    return min(timings, key=lambda timing: timing.seconds_a_token)


def _typical(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches for a trial, from short to long texts, so that they take about as long as the mean
    of all; middling ones first, since a trial may end early."""
    a_pass = list(islice(batches(lengths, batch_size, 0), math.ceil(len(lengths) / batch_size)))
    a_pass.sort(key=lambda batch: sum(lengths[i] for i in batch))
    middles = ((2 * n + 1) / (2 * TRIAL_STEPS) for n in range(TRIAL_STEPS))
    chosen = sorted(middles, key=lambda share: abs(share - 0.5))
    return [a_pass[int(share * len(a_pass))] for share in chosen]


def _trial_part(batch: list[Example], start: int) -> list[Example]:
    """As much of a batch as a trial step needs; long texts would take minutes."""
    return next(parts(batch, [len(example.ids) - start for example in batch], TRIAL_TOKENS))


def _thread_counts() -> list[int]:
    """As many as there are cores, and one, which can be quicker on a busy machine."""
    return sorted({1, cores()}, reverse=True)


def _room_for_full(decoder: Decoder) -> bool:
    """Full tuning holds weights, gradients and two moments in float32."""
    parameters = sum(p.numel() for p in decoder.parameters())
    return parameters * 4 * 5 < device.free(decoder.lm_head.weight.device)


def activations(config: DecoderConfig, longest: int = 64, precision: str = "bfloat16") -> int:
    """About the bytes that the blocks keep for the backward pass of one part of a batch, of texts
    of up to `longest` tokens.

    On SmolLM2-135M and a Llama of 1B about 12 rows of the width and 4 of the MLP's a token were
    kept; and the scores of short texts, before and after their softmax.
    """
    active = max(1, config.n_active)
    kept = 12 * config.width + 4 * config.hidden_width * active
    kept += 3 * config.n_heads * min(longest, SHORT)
    kind: torch.dtype = getattr(torch, precision)
    return kind.itemsize * kept * config.n_layers * loop.TOKENS_AT_ONCE


def _tokens(examples: Sequence[Example]) -> int:
    start = len(shared_prompt(examples))
    return sum(len(example.ids) - start for example in examples)
