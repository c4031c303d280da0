"""Bantam's own side of benchmarks/scratch.py and less.py: what `bantam make` does with documents,
by the rules of `bantam.train.laws`. Only the tokens it learns, and of AdamW the rate, are given.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from math import ceil, cos, pi
from pathlib import Path

import numpy as np
import torch

from bantam.corpus.reading import Reading
from bantam.corpus.shards import Corpus
from bantam.nets import fresh
from bantam.nets.decoder import Decoder, DecoderConfig
from bantam.train import held_out, laws, pairs, pretrain, pretrain_plan
from bantam.train.pretrain import Plan
from scratch_data import CONTEXT, VOCABULARY

Noted = Callable[[float, float | None], bool]  # seconds, bits per byte if judged: whether to stop


class Enough(Exception):
    """The pace is known."""


def shape(size: str) -> DecoderConfig:
    """The shape of about so many parameters: "3M"."""
    return fresh.shape(int(float(size.removesuffix("M")) * 1e6), VOCABULARY, CONTEXT)


def train(
    corpus: Corpus,
    held: Corpus,
    documents: int,
    wish: pretrain_plan.Wish,
    compiled: bool,
    evaluations: int,
    work: Path,
    noted: Noted,
    change: str = "",
) -> Decoder:
    """Train on the first `documents`; `noted` is called after each step with its seconds. `change`
    is one of scratch.CHANGES."""
    began = time.perf_counter()
    unique = int(corpus.lengths[:documents].sum())
    config, plan = pretrain_plan.plan(wish, VOCABULARY, unique)
    every = ceil(plan.steps / evaluations)
    judging = {"evaluate_every": every, "evaluate_tokens": held.tokens, "patience": plan.steps}
    plan = replace(plan, compiled=compiled, **judging)
    config, plan = changed(config, plan, change)
    decoder = fresh.fresh(config, plan.seed)
    if plan.pair_steps:
        torch.set_num_threads(plan.threads)
        found = pairs.followers(corpus, np.arange(documents), VOCABULARY)
        pairs.learn(decoder, found, plan.pair_steps, plan.precision, plan.seed)
    if change == "outputs that do not begin at zero":
        begin_anyhow(decoder, plan.seed)
    averaged = Averaged(decoder) if change == "averaged weights" else None
    reading = Reading(corpus, plan.context, plan.seed, np.arange(documents))
    before = time.perf_counter() - began

    def report(line: dict[str, float]) -> None:
        if averaged is not None and line["step"] > plan.steps - plan.cooldown_steps:
            averaged.add(decoder)
        if noted(before + line["seconds"], line.get("bits_per_byte")):
            raise Enough

    with suppress(Enough):
        pretrain.train(decoder, corpus, held, plan, work, report=report, reading=reading)
    if averaged is not None:
        averaged.put(decoder)
        with pretrain.autocast(decoder, plan):
            bits = held_out.bits_per_byte(decoder, held, plan.context)
        noted(time.perf_counter() - began, bits)
    return decoder


def changed(config: DecoderConfig, plan: Plan, change: str) -> tuple[DecoderConfig, Plan]:
    """Shape and plan without one of our measures; this process is one run's, so what stands in
    modules is changed there."""
    match change:
        case "no normed queries and keys":
            config = replace(config, qk_norm=None)
        case "a cosine in place of an even rate that falls":
            laws.schedule = cosine
        case "documents that see each other":
            pretrain.positions = lambda ids, edge: np.tile(np.arange(ids.shape[1]), (len(ids), 1))
        case "no weight decay":
            plan = replace(plan, weight_decay=0.0)
        case "no clipping":
            plan = replace(plan, clip=float("inf"))
    return config, plan


def cosine(step: int, steps: int, warmup: int, cooldown: int) -> float:
    """The share of the learning rate: up in a line, then down to nothing."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + cos(pi * (step - warmup) / max(1, steps - warmup)))


def begin_anyhow(decoder: Decoder, seed: int) -> None:
    """GPT-2's way: what goes into the residual stream is drawn smaller by the number of layers."""
    chance = torch.Generator().manual_seed(seed)
    shrink = (2 * decoder.config.n_layers) ** -0.5
    with torch.no_grad():
        for name, weight in decoder.named_parameters():
            learned = name == "model.layers.0.mlp.down_proj.weight" and weight.any()
            if name.endswith(("o_proj.weight", "down_proj.weight")) and not learned:
                weight.normal_(0, shrink * weight.shape[1] ** -0.5, generator=chance)


class Averaged:
    """The mean of the weights after the steps in which the rate falls."""

    def __init__(self, decoder: Decoder) -> None:
        self.sums = [torch.zeros_like(weight) for weight in decoder.parameters()]
        self.count = 0

    @torch.no_grad()
    def add(self, decoder: Decoder) -> None:
        for total, weight in zip(self.sums, decoder.parameters(), strict=True):
            total += weight
        self.count += 1

    @torch.no_grad()
    def put(self, decoder: Decoder) -> None:
        for total, weight in zip(self.sums, decoder.parameters(), strict=True):
            weight.copy_(total / self.count)
