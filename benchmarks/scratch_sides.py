"""One run of benchmarks/scratch.py or less.py, in a process of its own: a wish as JSON in, what
came out as JSON.

`data` writes the tokenizer and the tokens that all sides learn from, once. Every other wish names a
side, the size of its model and the tokens that it is to learn, or with `measure` "pace" for how
many seconds it runs after its first steps. The clock begins before the model is made, with all
imported and the tokens on the disk.
"""

import json
import resource
import sys
import time
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import nn

import scratch_data
import scratch_ours
from apart import Run
from bantam.corpus.shards import Corpus
from bantam.nets import fresh
from bantam.nets.decoder import DecoderConfig
from bantam.train import held_out
from bantam.train.device import pick_precision
from bantam.train.pretrain_plan import Wish
from bantam.train.speed import matrix_peak
from scratch import ADAMW, LOOP, OURS, TRAINER, UNCOUNTED, WAYS
from scratch_data import CONTEXT
from scratch_rivals import AsDecoder, Settings, train_loop, train_trainer

AT_ONCE, FEW_AT_ONCE = 8, 2  # rows forward and backward; few in a large model
LARGE = 100_000_000  # parameters
EVALUATIONS = 5
WARM = 3  # steps that no pace is measured of
ENDLESS = 1_000_000  # steps
OPTIMIZERS = {OURS: "muon", ADAMW: "adamw"}


class Watch:
    """What is noted of a run: the seconds of training at the end of each step, and of each judging
    the step, the seconds and bits per byte. Judging takes no seconds."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds  # after the first steps, then it is enough
        self.ends: list[float] = []
        self.judged: list[tuple[int, float, float]] = []

    def noted(self, seconds: float, loss: float | None = None) -> bool:
        """After each step; whether to stop."""
        self.ends.append(seconds)
        if loss is not None:
            self.judged.append((len(self.ends), seconds, loss))
        if self.seconds is None or len(self.ends) < WARM + 2:
            return False
        return seconds - self.ends[WARM] > self.seconds

    def pace(self) -> float:
        """Seconds a step, the first ones left out where there are others."""
        if len(self.ends) == 1:
            return self.ends[0]
        first = min(WARM, len(self.ends) - 2)
        return (self.ends[-1] - self.ends[first]) / (len(self.ends) - 1 - first)


def data(asked: Run) -> Run:
    other = Path(asked["tokenizer"]) if "tokenizer" in asked else None
    return scratch_data.write(Path(asked["data"]), other)


def trained(asked: Run) -> Run:
    """A whole run, or with `measure` as much of it as its pace needs."""
    folder = Path(asked["data"])
    corpus, held = (scratch_data.read(folder, name) for name in ("train", "held_out"))
    documents = held_out.first(corpus, asked.get("unique"))
    config = scratch_ours.shape(asked["size"])
    tokens = CONTEXT * rows_of(asked)  # a step
    whole = "measure" not in asked
    steps = max(1, round(asked["tokens"] / tokens)) if whole else ENDLESS
    evaluations = EVALUATIONS if whole and asked.get("timed", True) else 1
    watch = Watch(asked.get("seconds"))
    change = asked.get("change", "")
    with TemporaryDirectory() as work:
        if asked["side"] in OPTIMIZERS:
            wish = Wish(
                steps=steps,
                parameters=fresh.count(config),
                depth=config.n_layers,
                context=CONTEXT,
                batch_tokens=tokens,
                learning_rate=asked.get("rate"),
                optimizer=OPTIMIZERS[asked["side"]],
                threads=asked["threads"],
                seed=asked["seed"],
                # AdamW is there as others have it, and a pace is that of the steps that follow.
                pairs=whole and asked["side"] == OURS and change != UNCOUNTED,
            )
            model: Any = scratch_ours.train(
                corpus,
                held,
                documents,
                wish,
                asked.get("way") == "compiled",
                evaluations,
                Path(work),
                watch.noted,
                change,
            )
        else:
            model = rival(asked, corpus, held, documents, steps, evaluations, Path(work), watch)
    kilobyte = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    peak = matrix_peak(torch.device("cpu"), pick_precision(torch.device("cpu")))
    found: Run = {
        "start": watch.ends[0],
        "tokens_per_second": tokens / watch.pace(),
        "share_of_peak": operations(model) * tokens / watch.pace() / peak,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte / 1e9,
        "parameters": sum(weight.numel() for weight in model.parameters()),
    }
    if whole:
        found["curve"] = [(step * tokens, seconds, loss) for step, seconds, loss in watch.judged]
        found["seconds"] = watch.ends[-1]
        found["bytes_per_token"] = corpus.bytes / corpus.tokens
        judge, tokenizer = as_decoder(model), scratch_data.tokenizer(folder)
        found["grammar"] = scratch_data.grammar(judge, tokenizer)
        if (folder / "kept").exists():
            found["kept"] = scratch_data.bits_per_byte(judge, scratch_data.read(folder, "kept"))
    return found


def rival(
    asked: Run,
    corpus: Corpus,
    held: Corpus,
    documents: int,
    steps: int,
    evaluations: int,
    work: Path,
    watch: Watch,
) -> nn.Module:
    config = scratch_ours.shape(asked["size"])
    ids = scratch_data.ids_of(corpus, documents)
    settings = Settings(
        steps=steps,
        rows=at_once(config),
        batches=rows_of(asked) // at_once(config),
        context=CONTEXT,
        rate=asked.get("rate", 1e-3),
        seed=asked["seed"],
        schedule=asked.get("schedule", "linear"),
        way=asked.get("way", WAYS[asked["side"]][0]),
        bfloat16=scratch_data.in_bfloat16(),
    )
    every, judging = ceil(steps / evaluations), 0.0
    began = time.perf_counter()

    def after_step(step: int, model: nn.Module) -> bool:
        nonlocal judging
        seconds, loss = time.perf_counter() - began - judging, None
        if step % every == 0 or step == steps:
            model.eval()
            loss = scratch_data.bits_per_byte(as_decoder(model), held)
            model.train()
            judging = time.perf_counter() - began - seconds
        return watch.noted(seconds, loss)

    if asked["side"] == TRAINER:
        return train_trainer(ids, config, settings, work, after_step)
    assert asked["side"] == LOOP
    return train_loop(ids, config, settings, after_step)


def at_once(config: DecoderConfig) -> int:
    return FEW_AT_ONCE if fresh.count(config) > LARGE else AT_ONCE


def rows_of(asked: Run) -> int:
    """Of a step."""
    return int(asked.get("rows", at_once(scratch_ours.shape(asked["size"]))))


def as_decoder(model: Any) -> Any:
    return model if hasattr(model, "states") else AsDecoder(model, CONTEXT)


def operations(model: Any) -> float:
    """Floating-point operations of a token: 6 a weight that it is multiplied with, the head's even
    where it is the embedding too, and attention's products with half of the context."""
    linear = {
        id(part.weight): part.weight for part in model.modules() if isinstance(part, nn.Linear)
    }
    width = model.lm_head.weight.shape[1]
    attention = len(model.model.layers) * width * CONTEXT
    return 6.0 * (sum(weight.numel() for weight in linear.values()) + attention)


def made(asked: Run) -> Run:
    return data(asked) if asked["side"] == "data" else trained(asked)


if __name__ == "__main__":
    wish = json.loads(sys.argv[1])
    torch.set_num_threads(wish.get("threads", 1))
    assert transformers.Trainer  # its import is no part of a run
    print(json.dumps(made(wish)))
