"""The train stage of a model that completes text: shards and a plan in, weights out."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file

from bantam import runs
from bantam.corpus import shards, vocabulary
from bantam.corpus.reading import Reading
from bantam.corpus.shards import Corpus, Numbers
from bantam.errors import BadInput
from bantam.formats.tokenizer import Tokenizer
from bantam.nets import fresh
from bantam.nets import load as files
from bantam.nets.decoder import Decoder, DecoderConfig
from bantam.nets.generate import generate
from bantam.nets.lora import merge_lora
from bantam.nets.rope import Rope
from bantam.progress import Advance, bar
from bantam.train import device, held_out, pairs, pretrain, ranks, sharded, state
from bantam.train.pretrain import Plan
from bantam.train.speed import matrix_peak

WEIGHTS = "weights.safetensors"
PAIRS = "pairs.safetensors"  # weights that know what follows each token
SAMPLES, PROMPT, LENGTH, WARMTH = 3, 12, 80, 0.8  # texts, tokens before and in them, temperature
MOST_CONTEXT = 1024  # tokens at once, of models that are judged


@dataclass(frozen=True)
class Asked:
    """All that the stage is to do. `tokens` is the folder of the stage before it; `kept`: whether
    documents keep the order in it. `base` is the model to go on with, None: from scratch."""

    shape: DecoderConfig
    plan: Plan
    tokens: Path
    kept: bool
    key: str
    base: Path | None = None


def write(asked: Asked, path: Path) -> None:
    base = None if asked.base is None else str(asked.base.absolute())
    runs.write_json(path, asdict(asked) | {"tokens": str(asked.tokens.absolute()), "base": base})


def read(path: Path) -> Asked:
    told = json.loads(path.read_text(encoding="utf-8"))
    shape, plan = shape_of(told["shape"]), Plan(**told["plan"])
    base = None if told["base"] is None else Path(told["base"])
    return Asked(shape, plan, Path(told["tokens"]), told["kept"], told["key"], base)


def shape_of(told: dict[str, Any]) -> DecoderConfig:
    """The shape that JSON tells; it has lists for tuples."""

    def tuples(values: dict[str, Any]) -> dict[str, Any]:
        return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}

    ropes = {
        key: None if told[key] is None else Rope(**tuples(told[key]))
        for key in ("rope", "window_rope")
    }
    return DecoderConfig(**tuples(told) | ropes)


def train(asked: Asked, folder: Path, advance: Advance) -> int:
    """Train a decoder, fresh or a base; `folder` ends with weights.safetensors, metrics.jsonl and
    samples.jsonl. A call that was interrupted is taken up, also after its last step. Gives the
    tokens that were read. Raises BadInput when the documents do not fill a row."""
    shape, plan = asked.shape, asked.plan
    corpus, held = (shards.read(asked.tokens / name) for name in ("train", "choosing"))
    order = np.load(asked.tokens / "order.npy")
    reading = Reading(corpus, plan.context, plan.seed, order, kept=asked.kept)
    if reading.rows < 1:
        raise BadInput(
            f"the documents have {reading.tokens:,} tokens, a context has {plan.context:,}",
            "give more text, or a smaller train.context",
        )
    if not _written_for(folder / WEIGHTS, asked.key):
        decoder = fresh.fresh(shape, plan.seed) if asked.base is None else files.load(asked.base)
        if plan.pair_steps:
            _learn_pairs(asked, decoder, corpus, np.unique(order), folder / PAIRS)
        report = _teller(shape, plan, advance)
        look = _sampler(held, vocabulary.load(asked.tokens / "tokenizer"), plan, folder)
        pretrain.train(decoder, corpus, held, plan, folder, asked.key, report, look, reading)
        weights = sharded.whole(state.trained(decoder))
        if ranks.rank() == 0:
            files.write_tensors(weights, folder / WEIGHTS, {"key": asked.key})
    ranks.wait()
    if ranks.rank() == 0:
        state.forget(folder)
        (folder / PAIRS).unlink(missing_ok=True)
    return pretrain.points(folder)[-1].tokens


def _learn_pairs(
    asked: Asked, decoder: Decoder, corpus: Corpus, documents: Numbers, path: Path
) -> None:
    """Begin with what follows each token. The first process learns it, and what it learned stands
    in `path`: a call that was interrupted begins with the same weights."""
    if ranks.rank() == 0 and not _written_for(path, asked.key):
        torch.set_num_threads(asked.plan.threads)
        found = pairs.followers(corpus, documents, decoder.config.vocab_size)
        # What does not fit a device as a whole is small without its other layers' gradients.
        where = torch.device("cpu") if asked.plan.sharded else device.pick()
        with bar("pairs") as advance:
            pairs.learn(
                decoder.to(where),
                found,
                asked.plan.pair_steps,
                asked.plan.precision,
                asked.plan.seed,
                lambda done, loss: advance(done, asked.plan.pair_steps, f"loss {loss:.3f}"),
            )
        files.write_tensors(sharded.whole(state.trained(decoder)), path, {"key": asked.key})
    ranks.wait()
    decoder.requires_grad_(False).load_state_dict(load_file(path), strict=False)


def trained(asked: Asked, folder: Path) -> Decoder:
    """The decoder that `train` left, in float32 on the CPU."""
    decoder = Decoder(asked.shape) if asked.base is None else files.load(asked.base)
    pretrain.prepare(decoder, asked.plan)
    state.put(state.trained(decoder), load_file(folder / WEIGHTS))
    merge_lora(decoder)
    return decoder.float().requires_grad_(False)


def document_bits(model: Path, documents: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """The bits that the weights in a file or folder, packed ones too, take for documents of ids;
    the first id of each is given."""
    decoder = files.load(model).to(device.pick()).requires_grad_(False)
    return held_out.bits_of(decoder, documents, min(MOST_CONTEXT, decoder.config.context))


def _written_for(weights: Path, key: str) -> bool:
    if not weights.is_file():
        return False
    with safe_open(weights, "pt") as file:
        return (file.metadata() or {}).get("key") == key


def _teller(shape: DecoderConfig, plan: Plan, advance: Advance) -> pretrain.Report:
    """What `advance` is told after each step: loss, speed, the last bits per byte."""
    peak = matrix_peak(device.pick(), plan.precision)
    began, first, judging, bits = time.monotonic(), 0.0, 0.0, ""

    def report(line: dict[str, float]) -> None:
        nonlocal first, judging, bits
        first = first or line["tokens_seen"]
        judging += line.get("judging", 0.0)
        spent = time.monotonic() - began - judging
        quick = (line["tokens_seen"] - first) / max(1e-9, spent)
        share = quick * fresh.operations(shape) / peak
        if "bits_per_byte" in line:
            bits = f"  {line['bits_per_byte']:.3f} bits/byte"
        line["tokens_a_second"], line["share_of_peak"] = quick, share
        note = f"loss {line['loss']:.3f}  {quick:,.0f} tokens/s, {share:.0%} of the peak{bits}"
        advance(int(line["step"]), plan.steps, note)

    return report


def _sampler(held: Corpus, tokenizer: Tokenizer, plan: Plan, folder: Path) -> pretrain.Look:
    """After an evaluation: how the beginnings of some held-out documents are gone on with."""
    count = min(SAMPLES, len(held))
    prompts = [held.document(i)[: min(PROMPT, plan.context // 2)].tolist() for i in range(count)]
    length = min(LENGTH, plan.context - PROMPT)

    def look(decoder: Decoder, step: int) -> None:
        with pretrain.autocast(decoder, plan):
            # All of the length: processes that share a decoder must take as many steps.
            drawn = generate(decoder, prompts, length, (), WARMTH, plan.seed)
        if ranks.rank() > 0:
            return
        made = [list(takewhile(lambda id: id != held.edge, ids)) for ids in drawn]
        lines = [
            json.dumps(
                {"step": step, "prompt": tokenizer.decode(prompt), "text": tokenizer.decode(ids)},
                ensure_ascii=False,
            )
            for prompt, ids in zip(prompts, made, strict=True)
        ]
        with (folder / "samples.jsonl").open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))

    return look
