"""Training from scratch: apart documents, equal weights after any end, bits per byte, plans."""

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import tiny_corpus
from bantam.corpus import shards
from bantam.corpus.reading import Reading, positions
from bantam.errors import BadInput, JobFailed
from bantam.nets import fresh
from bantam.nets.decoder import Decoder
from bantam.nets.head import vocabulary_loss
from bantam.nets.load import save
from bantam.train import document_stage, held_out, laws, pairs, pretrain, pretrain_plan
from bantam.train.pretrain_plan import Pace, Wish
from tiny_pretrain import PLAN, SHAPE, quietly, run, stage

TOKENIZER = tiny_corpus.tokenizer()
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["tiny_pretrain", "torch._dynamo"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("corpus")
    tiny_corpus.corpus(made / "train", TOKENIZER, tiny_corpus.texts(100, 1))
    tiny_corpus.corpus(made / "val", TOKENIZER, tiny_corpus.texts(10, 2))
    return made


def learned(seed: int = 0) -> Decoder:
    """A decoder all of whose weights say something."""
    decoder = fresh.fresh(SHAPE, seed)
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in decoder.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=chance)
    return decoder


def test_it_learns(folder: Path, tmp_path: Path) -> None:
    decoder, looked = fresh.fresh(SHAPE), []
    train, val = shards.read(folder / "train"), shards.read(folder / "val")
    before = held_out.bits_per_byte(decoder, val, 32)
    points = pretrain.train(
        decoder, train, val, PLAN, tmp_path, look=lambda _, step: looked.append(step)
    )
    assert [point.step for point in points] == looked == [4, 8, 12, 16, 20, 24]
    assert points[-1].tokens == 24 * 4 * 32
    assert points[-1].bits_per_byte < 0.8 * before
    after = held_out.bits_per_byte(decoder, val, 32, PLAN.evaluate_tokens)
    assert after == pytest.approx(min(point.bits_per_byte for point in points))


def test_documents_do_not_see_each_other(folder: Path) -> None:
    """The loss and gradients of a packed row are those of its documents by themselves."""
    corpus, decoder = shards.read(folder / "train"), learned()
    head = decoder.lm_head.weight
    documents = [corpus.document(i).astype(np.int64) for i in range(3)]
    row = np.concatenate([*documents, [0]])[None]
    places = torch.from_numpy(positions(row[:, :-1], 0))
    ids = torch.from_numpy(row)
    states = decoder.states(ids[:, :-1], positions=places)
    packed = vocabulary_loss(states[0], head, ids[0, 1:])
    alone = torch.zeros(())
    for document in documents:
        one = torch.from_numpy(np.append(document, 0))[None]
        alone = alone + vocabulary_loss(decoder.states(one[:, :-1])[0], head, one[0, 1:])
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-4)
    weights = list(decoder.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(packed, weights), torch.autograd.grad(alone, weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_bits_per_byte_are_those_of_transformers(folder: Path, tmp_path: Path) -> None:
    """By hand: each document in windows, -log2 P of each token, over bytes of UTF-8."""
    decoder, texts = learned(), tiny_corpus.texts(10, 2)
    save(decoder, tmp_path, 0, 0)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    bits = []
    for text in texts:
        ids, total = [0, *TOKENIZER.encode([(text, False)])], 0.0
        for begin in range(0, len(ids) - 1, 32):
            window = torch.tensor([ids[begin : begin + 33]])
            with torch.no_grad():
                logits = theirs(window[:, :-1]).logits[0].double()
            total += float(F.cross_entropy(logits, window[0, 1:], reduction="sum")) / math.log(2)
        bits.append(total)
    val = shards.read(folder / "val")
    assert max(val.lengths) > 33
    np.testing.assert_allclose(held_out.document_bits(decoder, val, 32), bits, rtol=1e-5)
    whole = sum(bits) / sum(len(text.encode()) for text in texts)
    assert held_out.bits_per_byte(decoder, val, 32) == pytest.approx(whole, rel=1e-5)


def test_parts_of_a_step_add_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = shards.read(folder / "train")
    batch = next(Reading(corpus, 32).batches(4))
    found = []
    for at_once in (32, 64, 2048):
        monkeypatch.setattr(pretrain, "AT_ONCE", at_once)
        decoder = fresh.fresh(SHAPE)
        movers = pretrain.optimizers(decoder, "adamw", "float32", 1e-3, 0.02, 0.1)
        loss = pretrain.step_of(decoder, PLAN, movers, 0)(batch, 1.0)
        found.append((loss, decoder.model.layers[0].mlp.down_proj.weight.detach().clone()))
    for loss, weight in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        torch.testing.assert_close(weight, found[0][1], rtol=1e-2, atol=1e-4)


@pytest.mark.skipif(os.name == "nt", reason="signals and the fork server are of Unix")
@pytest.mark.parametrize(
    ("number", "method"),
    [(signal.SIGKILL, "all"), (signal.SIGINT, "all"), (signal.SIGKILL, "lora")],
)
def test_killed_at_any_moment_it_ends_the_same(
    folder: Path, tmp_path: Path, number: signal.Signals, method: str
) -> None:
    optimizer = "adamw" if method == "lora" else "muon"
    plan = replace(PLAN, patience=100, method=method, optimizer=optimizer)
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    run(folder, whole, plan)
    metrics, stopped = torn / "metrics.jsonl", 0
    for lines in (1, 6, 13):
        child = CONTEXT.Process(target=quietly, args=(folder, torn, plan))
        child.start()
        end = time.monotonic() + 60
        while child.is_alive() and _count(metrics) < lines:
            assert time.monotonic() < end
            time.sleep(0.0005)
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)
        child.join(60)
        stopped += child.exitcode != 0
    assert stopped >= 1  # on a busy machine a signal may come late
    run(folder, torn, plan)
    one, other = (torch.load(place / "weights.pt") for place in (whole, torn))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert _told(whole) == _told(torn)


@pytest.mark.skipif(os.name == "nt", reason="signals and the fork server are of Unix")
def test_killed_while_it_learns_pairs_or_after_it_ends_the_same(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    for name, seed in (("train", 1), ("choosing", 2)):
        tiny_corpus.corpus(tokens / name, TOKENIZER, tiny_corpus.texts(100, seed))
    TOKENIZER.save(tokens / "tokenizer")
    np.save(tokens / "order.npy", np.arange(100))
    plan = replace(PLAN, pair_steps=60)
    whole, torn = tmp_path / "whole", tmp_path / "torn"

    def begun(place: Path) -> Any:
        child = CONTEXT.Process(target=stage, args=(tokens, place, plan))
        child.start()
        return child

    child = begun(whole)
    child.join(60)
    assert child.exitcode == 0
    known = torn / document_stage.PAIRS
    written = 0
    for moment in (torn.exists, known.exists, lambda: _count(torn / "metrics.jsonl") > 5):
        child = begun(torn)
        end = time.monotonic() + 60
        while child.is_alive() and not moment():
            assert time.monotonic() < end
            time.sleep(0.0005)
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        child.join(60)
        written += known.exists()
    assert written >= 1
    child = begun(torn)
    child.join(60)
    weights = [load_file(place / document_stage.WEIGHTS) for place in (whole, torn)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert _told(whole) == _told(torn)
    assert not known.exists()


def _count(metrics: Path) -> int:
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def _told(place: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (place / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in ("seconds", "judging")} for line in lines]


def test_metrics_are_read_once_the_first_process_has_cut_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for module, name in (
        (pretrain, "cut"),
        (pretrain.ranks, "wait"),
        (pretrain, "_seconds_of_judging"),
    ):
        plain = getattr(module, name)

        def noted(*given: object, name: str = name, plain: Any = plain) -> Any:
            done.append(name)
            return plain(*given)

        monkeypatch.setattr(module, name, noted)
    run(folder, tmp_path, replace(PLAN, steps=1))
    after = done.index("cut")
    assert done[after : after + 3] == ["cut", "wait", "_seconds_of_judging"]


def test_a_rate_that_is_too_high_is_told(folder: Path, tmp_path: Path) -> None:
    train, val = shards.read(folder / "train"), shards.read(folder / "val")
    plan = replace(PLAN, optimizer="adamw", learning_rate=1e30)
    with pytest.raises(JobFailed, match="diverged"):
        pretrain.train(fresh.fresh(SHAPE), train, val, plan, tmp_path)


def test_it_stops_when_nothing_gets_better(folder: Path, tmp_path: Path) -> None:
    train, val = shards.read(folder / "train"), shards.read(folder / "val")
    plan = replace(PLAN, learning_rate=1e-12, matrix_rate=1e-12, patience=2, weight_decay=0.0)
    points = pretrain.train(fresh.fresh(SHAPE), train, val, plan, tmp_path)
    assert len(points) < 6


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_compiled_blocks_learn_the_same(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "plain")
    run(folder, tmp_path / "compiled", replace(PLAN, compiled=True))
    plain, compiled = (_told(tmp_path / name) for name in ("plain", "compiled"))
    for one, other in zip(plain, compiled, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=5e-3)


def test_long_runs_are_compiled() -> None:
    for seconds, compiled in ((600.0, False), (1200.0, shutil.which("g++") is not None)):
        wish = Wish(seconds=seconds)
        plan = pretrain_plan.scheduled(wish, {1: Pace(0.5, 0.4)}, "float32", 256, 10**7, 0.0)
        assert plan.compiled == compiled


# --- rules and plans


def test_the_rate_goes_up_stays_and_comes_down() -> None:
    shares = [PLAN.rate_at(step) for step in range(24)]
    assert shares[:2] == [0.5, 1.0]
    assert shares[2:17] == [1.0] * 15
    assert shares[17:] == pytest.approx([7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_repeated_text_is_worth_what_the_paper_says() -> None:
    assert laws.worth(1e6, 1e6) == 1e6
    for passes, worth in ((4, 3.7), (10, 7.8), (40, 15.2)):
        assert laws.worth(passes * 1e6, 1e6) / 1e6 == pytest.approx(worth, abs=0.06)


def test_the_best_shape_for_what_can_be_computed_is_chinchillas() -> None:
    """At the optimum of A / N^a + B / D^b with 6 N D = C, a A / N^a = b B / D^b."""
    compute = 1e18
    sizes = np.exp(np.linspace(math.log(1e6), math.log(1e9), 4000))
    best = sizes[np.argmin([laws.loss(n, compute / 6 / n, 1e30) for n in sizes])]
    tokens = compute / 6 / best
    sides = laws.a * laws.A / best**laws.a, laws.b * laws.B / tokens**laws.b
    assert sides[0] == pytest.approx(sides[1], rel=0.01)


def test_more_decay_where_text_repeats_and_larger_batches_where_there_is_much() -> None:
    assert laws.weight_decay(1) == laws.weight_decay(4) < laws.weight_decay(8)
    assert laws.weight_decay(1000) == laws.DECAY * laws.MOST_DECAY
    assert laws.batch_tokens(1e6) == 2048
    assert laws.batch_tokens(64e6) == 16_384
    assert laws.batch_tokens(1) == 2048


def test_a_budget_becomes_steps() -> None:
    timed = {1: Pace(0.5, 0.4), 2: Pace(0.3, 0.25)}
    wish = Wish(seconds=100.0)
    plan = pretrain_plan.scheduled(wish, timed, "float32", 256, 10**7, 5.0)
    assert plan.threads == 2
    assert plan.tokens == plan.steps * 2048
    assert plan.steps == int((100 * pretrain_plan.SAFETY - 5) * 0.96 / 0.3)
    assert plan.warmup_steps + plan.cooldown_steps < plan.steps
    short = pretrain_plan.scheduled(wish, timed, "float32", 256, 4000, 5.0)
    assert short.tokens / 4000 <= laws.MOST_PASSES + 1
    assert short.weight_decay > plan.weight_decay


def test_tokens_and_settings_are_taken_as_they_are() -> None:
    wish = Wish(tokens=1_000_000, batch_tokens=4096, learning_rate=1e-3, weight_decay=0.3)
    timed = {2: Pace(0.0, 0.0)}
    plan = pretrain_plan.scheduled(wish, timed, "float32", 128, 10**7, 0.0)
    assert plan.tokens == pytest.approx(1_000_000, rel=0.01)
    assert plan.rows == 32
    assert plan.weight_decay == 0.3
    assert plan.matrix_rate == pytest.approx(laws.MATRIX_RATE / 3)


@pytest.mark.parametrize("context", [512, 700, 768, 1100, 2048, 3000, 4096, 8192])
def test_any_context_keeps_to_the_budget_and_to_the_tokens(
    context: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a token takes a millisecond, however many are worked through together."""
    clock, steps = [0.0], []

    def step_of(*_: Any, **__: Any) -> Callable[..., None]:
        def take(ids: Any, _: float) -> None:
            tokens = ids[:, 1:].size
            steps.append(tokens)
            clock[0] += 1e-3 * tokens

        return take

    monkeypatch.setattr(pretrain_plan, "step_of", step_of)
    monkeypatch.setattr("bantam.train.pretrain_plan.time.perf_counter", lambda: clock[0])
    tiny = partial(fresh.fresh, fresh.config(300, context, 32, 1))
    found = pretrain_plan.pace(tiny, "float32", 1, context)
    assert max(steps) == 2 * min(steps) == 2 * found.tokens
    assert found.step(10_000) == pytest.approx(10)
    wish = Wish(seconds=3600.0)
    plan = pretrain_plan.scheduled(wish, {1: found}, "float32", context, 10**8, 0.0)
    share = plan.tokens * 1e-3 / (3600 * pretrain_plan.SAFETY * (1 - pretrain_plan.JUDGING))
    assert 0.9 < share <= 1
    asked = pretrain_plan.scheduled(Wish(tokens=10**6), {1: found}, "float32", context, 10**8, 0.0)
    assert 10**6 <= asked.tokens < 10**6 + asked.rows * context


def test_a_base_that_would_fill_the_memory_recomputes_its_blocks(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish = Wish(tokens=10_000, base=tiny_model, context=64)
    _, plan = pretrain_plan.plan(wish, 300, 10**6)
    assert not plan.recompute
    monkeypatch.setattr("bantam.train.device.free", lambda where: 10_000)
    shape, plan = pretrain_plan.plan(wish, 300, 10**6)
    assert plan.recompute
    decoder = Decoder(shape)
    pretrain.prepare(decoder, plan)
    assert decoder.model.recompute
    _, plan = pretrain_plan.plan(replace(wish, base=None, width=32), 300, 10**6)
    assert not plan.recompute


def test_a_budget_that_is_too_small_is_refused() -> None:
    with pytest.raises(BadInput, match="budget is too small"):
        pretrain_plan.scheduled(Wish(seconds=6.0), {1: Pace(0.5, 0.4)}, "float32", 256, 10**7, 4.0)


def test_a_timed_plan_for_a_shape() -> None:
    wish = Wish(seconds=20.0, width=32, context=32, threads=1)
    shape, plan = pretrain_plan.plan(wish, tiny_corpus.SIZE, 100_000)
    assert (shape.width, shape.context, plan.context) == (32, 32, 32)
    assert plan.steps >= pretrain_plan.FEWEST_STEPS


def test_packed_rows_need_positions(folder: Path) -> None:
    """Without them documents would see each other, and the test above would not tell."""
    corpus, decoder = shards.read(folder / "train"), learned()
    row = np.concatenate([corpus.document(i).astype(np.int64) for i in range(3)])[None]
    apart = torch.from_numpy(positions(row, corpus.edge))
    ids = torch.from_numpy(row)
    with torch.no_grad():
        together = decoder.states(ids)
        assert (together - decoder.states(ids, positions=apart)).abs().max() > 0.01


def test_pairs_are_learned_first_within_a_quarter_of_the_budget() -> None:
    wish = Wish(seconds=20.0, width=32, context=32, threads=1)
    shape, plan = pretrain_plan.plan(wish, tiny_corpus.SIZE, 100_000)
    assert 0 < plan.pair_steps <= pretrain_plan.PAIR_STEPS
    each = pairs.seconds(fresh.fresh(shape), "float32")
    assert plan.pair_steps * each < 20 * pretrain_plan.PAIR_SHARE * 2  # the machine may be busy now
    for tokens, steps in ((2048, 1), (500_000, pretrain_plan.PAIR_STEPS)):
        wish = Wish(tokens=tokens, width=256, depth=6, context=256)
        shape, plan = pretrain_plan.plan(wish, 8192, 10**7)
        assert plan.pair_steps == pytest.approx(steps, abs=3)
        share = plan.pair_steps * pairs.operations(shape)
        assert share / (share + plan.tokens * fresh.operations(shape)) < 0.3
        assert plan.learning_rate == laws.RATE * laws.gentle(plan.tokens)
        assert plan.matrix_rate == laws.MATRIX_RATE * laws.gentle(plan.tokens)
    _, plan = pretrain_plan.plan(replace(wish, learning_rate=2e-3), 8192, 10**7)
    assert plan.learning_rate == 2e-3
    _, plan = pretrain_plan.plan(replace(wish, pairs=False), 8192, 10**7)
    assert (plan.pair_steps, plan.learning_rate) == (0, laws.RATE)
    assert laws.gentle(10**9) == 1


def test_a_base_knows_what_follows_each_token(tiny_model: Path) -> None:
    _, plan = pretrain_plan.plan(Wish(tokens=10_000, base=tiny_model, context=64), 300, 10**6)
    assert plan.pair_steps == 0
    assert plan.learning_rate == laws.ADAPTING
