"""Each side of benchmarks/scratch.py on a tiny corpus: one judge, equal tokens, an honest clock."""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from bantam.train import held_out
from tiny_nets import decoder, hugging_face

pytest.importorskip("accelerate", reason="the rival is installed by [bench]")

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
MODULES = ("apart", "corpora", "debian_index", "grammar", "grammar_pairs", "scratch")
OURS = ("scratch_data", "scratch_ours", "scratch_rivals", "scratch_sides")
VOCABULARY = 280
TOKENS = 2 * 256  # a step
WORDS = "the program reads one file and writes what it found to another"


@pytest.fixture(scope="module")
def sides() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import scratch_data
        import scratch_ours
        import scratch_sides

        patch.setattr(scratch_sides, "ROWS", 2)
        for module in (scratch_data, scratch_ours):
            patch.setattr(module, "VOCABULARY", VOCABULARY)
        yield scratch_sides
    for name in (*MODULES, *OURS):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def folder(sides: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of sentences about few things."""
    made = tmp_path_factory.mktemp("bench") / "corpus"
    made.mkdir()
    draw = random.Random(0)
    words = WORDS.split()
    for name, count in (("train", 120), ("held_out", 8), ("kept", 4)):
        texts = [" ".join(draw.choices(words, k=60)) + "." for _ in range(count)]
        frame = pl.DataFrame({"id": [f"{name}-{n}" for n in range(count)], "text": texts})
        frame.write_parquet(made / f"{name}.parquet")
    told = sides.made({"side": "data", "data": str(made)})
    assert told["documents"] == 120 and told["bytes"] > 30_000
    return made


def asked(folder: Path, side: str, **more: Any) -> dict[str, Any]:
    wish = {"side": side, "data": str(folder), "size": "0.3M", "threads": 1, "seed": 0}
    return wish | {"tokens": 6 * TOKENS} | more


def test_the_same_weights_are_judged_alike(sides: ModuleType, folder: Path) -> None:
    import scratch_data
    import scratch_rivals

    ours = decoder(vocab_size=VOCABULARY, context=scratch_data.CONTEXT)
    held = scratch_data.read(folder, "held_out")
    wanted = held_out.bits_per_byte(ours, held, scratch_data.CONTEXT)
    rough = scratch_data.bits_per_byte(ours, held)
    known = scratch_data.tokenizer(folder)
    for attention in ("sdpa", "eager"):
        theirs = scratch_rivals.llama(ours.config, 0, attention).eval()
        theirs.load_state_dict(hugging_face(ours.state_dict()))
        found = sides.as_decoder(theirs)
        exact = held_out.bits_per_byte(found, held, scratch_data.CONTEXT)
        assert exact == pytest.approx(wanted, rel=1e-5)
        # In bfloat16 both are as far from the exact figure.
        assert scratch_data.bits_per_byte(found, held) == pytest.approx(rough, rel=2e-3)
        assert scratch_data.grammar(found, known) == pytest.approx(
            scratch_data.grammar(ours, known), abs=0.05
        )
    assert sides.as_decoder(ours) is ours


def test_a_byte_costs_what_the_whole_text_costs_by_its_bytes(
    sides: ModuleType, folder: Path
) -> None:
    """By transformers' own loss, document by document; none is longer than the context."""
    import scratch_data
    import scratch_rivals

    theirs = scratch_rivals.llama(decoder(vocab_size=VOCABULARY).config, 0, "sdpa").eval()
    held = scratch_data.read(folder, "held_out")
    nats = 0.0
    for number in range(len(held)):
        ids = torch.from_numpy(held.document(number).astype("int64"))[None]
        assert ids.shape[1] <= scratch_data.CONTEXT
        with torch.no_grad():
            nats += float(theirs(ids, labels=ids).loss) * (ids.shape[1] - 1)
    texts = pl.read_parquet(folder / "held_out.parquet")["text"]
    wanted = nats / torch.tensor(2.0).log().item() / texts.str.len_bytes().sum()
    found = held_out.bits_per_byte(sides.as_decoder(theirs), held, scratch_data.CONTEXT)
    assert found == pytest.approx(wanted, rel=1e-4)


@pytest.mark.slow
def test_each_side_learns_and_tells_its_time(sides: ModuleType, folder: Path) -> None:
    from scratch import ADAMW, LOOP, OURS, TRAINER

    for side in (OURS, ADAMW, TRAINER, LOOP):
        more = {} if side == OURS else {"rate": 3e-3}
        run = sides.made(asked(folder, side, **more))
        tokens, seconds, losses = zip(*run["curve"], strict=True)
        assert tokens == (2 * TOKENS, 4 * TOKENS, 6 * TOKENS), side
        assert list(seconds) == sorted(seconds) and run["seconds"] >= seconds[-1] > 0
        assert losses[-1] < losses[0] < 8
        assert 0 < run["start"] < run["seconds"]
        assert 0 < run["share_of_peak"] < 1
        assert run["kept"] == pytest.approx(losses[-1], rel=0.2)
        assert 0 <= run["grammar"] <= 1
        assert run["tokens_per_second"] > 0


def test_paces_stop_when_they_are_known(sides: ModuleType, folder: Path) -> None:
    from scratch import LOOP, OURS, TRAINER

    for side in (OURS, TRAINER, LOOP):
        run = sides.made(asked(folder, side, measure="pace", seconds=0.1))
        assert run["tokens_per_second"] > 0 and "curve" not in run


def test_all_sides_read_the_same_few_tokens(
    sides: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import scratch_data
    import scratch_ours
    import scratch_rivals
    from scratch import LOOP, OURS, TRAINER

    corpus = scratch_data.read(folder, "train")
    few = held_out.first(corpus, 1500)
    assert 1 < few < len(corpus)
    read = []

    def ours(decoder: Any, *_: Any, reading: Any, report: Any, **more: Any) -> None:
        read.append(np.concatenate([reading.corpus.document(int(n)) for n in reading.order]))
        report({"seconds": 1.0})
        report({"seconds": 2.0, "bits_per_byte": 3.0})

    def rival(ids: Any, config: Any, settings: Any, *more: Any) -> Any:
        read.append(ids)
        for step in (1, 2):
            more[-1](step, model := scratch_rivals.GPT2(config))
        return model

    monkeypatch.setattr(scratch_ours.pretrain, "train", ours)
    for name in ("train_trainer", "train_loop"):
        monkeypatch.setattr(sides, name, rival)
    for side in (OURS, TRAINER, LOOP):
        sides.made(asked(folder, side, unique=1500, tokens=2 * TOKENS))
    assert [ids.tolist() for ids in read] == [read[0].tolist()] * 3
    assert len(read[0]) == corpus.lengths[:few].sum() <= 1500


def test_the_grammar_of_a_packed_file(
    sides: ModuleType,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the words of the command line, against the decoder in the same file."""
    import grammar
    from bantam.formats import gguf
    from bantam.formats.tokenizer import Tokenizer
    from bantam.nets import load

    told = ["I like the red one.", "It is a blue thing.", "What is this?", "No, not that one."]
    rows = [{"good": a, "bad": b} for a in told for b in told if a != b]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    words = ["grammar.py", str(tiny_model), "--pairs", str(tmp_path / "pairs.jsonl")]
    monkeypatch.setattr(sys, "argv", [*words, "--threads", "1"])
    grammar.main()
    made = load.load(tiny_model)
    known = Tokenizer.from_gguf(gguf.read(tiny_model))
    likely = {}
    for text in told:
        ids = torch.tensor([[known.eos_id, *known.encode([(text, False)])]])
        with torch.no_grad():
            shares = made(ids)[0, :-1].double().log_softmax(-1)
        likely[text] = float(shares.gather(1, ids[0, 1:, None]).sum())
    right = sum(likely[row["good"]] > likely[row["bad"]] for row in rows) / len(rows)
    assert right == 0.5  # each pair stands there in both orders
    assert f"| all | 12 | {right:.3f} |" in capsys.readouterr().out
    found = grammar.scored(made, known, 64, told)
    nats = [bits * torch.tensor(2.0).log().item() for bits in found]
    assert nats == pytest.approx([likely[text] for text in told], rel=1e-4)


def test_judging_takes_no_time(sides: ModuleType) -> None:
    watch = sides.Watch(None)
    for step in range(1, 11):
        assert not watch.noted(10.0 + step * 2, 3.0 if step % 5 == 0 else None)
    assert watch.judged == [(5, 20.0, 3.0), (10, 30.0, 3.0)]
    assert watch.pace() == 2.0
    short = sides.Watch(None)
    short.noted(9.0)
    assert short.pace() == 9.0
    short.noted(10.0)
    assert short.pace() == 1.0
    timed = sides.Watch(5.0)
    stops = [timed.noted(float(step)) for step in range(12)]
    assert stops.index(True) == sides.WARM + 6


def test_the_operations_of_a_token_are_those_of_our_own_rule(sides: ModuleType) -> None:
    import scratch_ours
    from bantam.nets import fresh

    config = scratch_ours.shape("0.3M")
    assert sides.operations(fresh.fresh(config)) == pytest.approx(fresh.operations(config))


@pytest.mark.slow
def test_each_change_changes_what_is_learned(
    sides: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bantam.train import laws, pretrain
    from scratch import CHANGES, OURS

    losses = []
    for change in ("", *CHANGES):
        # A run is a process of its own, and may change what stands in modules: it is put back.
        with monkeypatch.context() as restored:
            restored.setattr(laws, "schedule", laws.schedule)
            restored.setattr(pretrain, "positions", pretrain.positions)
            losses.append(sides.made(asked(folder, OURS, change=change))["curve"][-1][2])
    # Six steps are too few for some of them to matter much, but no two runs are the same.
    assert len(set(losses)) == len(losses)
    assert max(losses) < 8
