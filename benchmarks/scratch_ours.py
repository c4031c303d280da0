"""Bantam's own side of benchmarks/scratch.py and less.py: what `bantam make` does with documents,
by the rules of `bantam.train.laws`. Only the tokens it learns, and of AdamW the rate, are given.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np

from bantam.corpus.reading import Reading
from bantam.corpus.shards import Corpus
from bantam.nets import fresh
from bantam.nets.decoder import Decoder, DecoderConfig
from bantam.train import pretrain, pretrain_plan
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
) -> Decoder:
    """Train on the first `documents`; `noted` is called after each step with its seconds."""
    began = time.perf_counter()
    unique = int(corpus.lengths[:documents].sum())
    config, plan = pretrain_plan.plan(wish, VOCABULARY, unique)
    every = ceil(plan.steps / evaluations)
    judging = {"evaluate_every": every, "evaluate_tokens": held.tokens, "patience": plan.steps}
    plan = replace(plan, compiled=compiled, **judging)
    decoder = fresh.fresh(config, plan.seed)
    reading = Reading(corpus, plan.context, plan.seed, np.arange(documents))
    before = time.perf_counter() - began

    def report(line: dict[str, float]) -> None:
        if noted(before + line["seconds"], line.get("bits_per_byte")):
            raise Enough

    with suppress(Enough):
        pretrain.train(decoder, corpus, held, plan, work, report=report, reading=reading)
    return decoder
