"""A tiny training from scratch, also for processes of its own: they import nothing slow."""

import os
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

import tiny_corpus
from bantam.corpus import shards
from bantam.nets import fresh
from bantam.nets.decoder import DecoderConfig
from bantam.train import document_stage, pretrain, ranks

SHAPE = fresh.config(tiny_corpus.SIZE, 32, 32)  # of one head
PLAN = pretrain.Plan(
    precision="float32",
    threads=1,
    steps=24,
    rows=4,
    context=32,
    seed=0,
    evaluate_every=4,
    evaluate_tokens=1000,
    warmup_steps=2,
    cooldown_steps=8,
)


def run(
    corpus: Path, place: Path, plan: pretrain.Plan = PLAN, shape: DecoderConfig = SHAPE
) -> None:
    """Train in `place`, and leave the weights there."""
    torch.set_num_threads(1)
    decoder = fresh.fresh(shape)
    train, val = shards.read(corpus / "train"), shards.read(corpus / "val")
    pretrain.train(decoder, train, val, plan, place, "key")
    torch.save(decoder.state_dict(), place / "weights.pt")


def quietly(corpus: Path, place: Path, plan: pretrain.Plan) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the traceback of a Ctrl-C
    run(corpus, place, plan)


def several(
    corpus: Path, place: Path, plan: pretrain.Plan, dies: int = 0, shape: DecoderConfig = SHAPE
) -> None:
    """Train by the processes that torchrun has started; the first may die after a step."""

    def report(line: dict[str, float]) -> None:
        if line["step"] == dies:
            raise RuntimeError("a machine that fails")

    torch.set_num_threads(1)
    with ranks.together():
        place.mkdir(exist_ok=True)
        (place / f"process-{ranks.rank()}").touch()
        decoder = fresh.fresh(shape)
        train, val = shards.read(corpus / "train"), shards.read(corpus / "val")
        pretrain.train(decoder, train, val, plan, place, "key", report)
        weights = {
            name: p.full_tensor() if isinstance(p, DTensor) else p
            for name, p in decoder.named_parameters()
        }
        torch.save(weights, place / f"weights-{ranks.rank()}.pt")


def stopped(corpus: Path, place: Path, plan: pretrain.Plan, after: int) -> None:
    """Train up to a step, and be interrupted there."""

    def report(line: dict[str, float]) -> None:
        if line["step"] == after:
            raise KeyboardInterrupt

    torch.set_num_threads(1)
    train, val = shards.read(corpus / "train"), shards.read(corpus / "val")
    pretrain.train(fresh.fresh(SHAPE), train, val, plan, place, "key", report)


def stage(tokens: Path, place: Path, plan: pretrain.Plan) -> None:
    """The whole train stage; `tokens` holds what the stage before it leaves."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    asked = document_stage.Asked(SHAPE, plan, tokens, False, "key")
    place.mkdir(exist_ok=True)
    document_stage.train(asked, place, lambda done, total, note="": None)
