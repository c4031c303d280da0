"""A model from scratch the whole way: documents in, a file that transformers and the runtime read
alike out, and its verdict."""

import json
import math
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer

import bantam
import tiny_corpus
from bantam import cli, curated, pipeline, recipe, recipe_documents
from bantam.check import check
from bantam.corpus import vocabulary
from bantam.errors import BadInput
from bantam.formats import gguf
from bantam.formats.tokenizer import Tokenizer
from bantam.model import Model
from bantam.nets import load
from bantam.nets.generate import generate
from bantam.pack import gguf_file
from bantam.train import device

RECIPE = """
[task]
name = "tiny"
kind = "complete"

[documents]
files = ["data/"]
val = 0.05
gopher = false
repetition = false
c4 = false
fineweb = false
boilerplate = false
redact = { kinds = [] }

[train]
tokens = 60_000
vocabulary = 320
width = 64
context = 64
threads = 1
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("completing")
    (here / "data").mkdir()
    for number, text in enumerate(tiny_corpus.texts(1400, 7)):
        (here / "data" / f"{number:04d}.txt").write_text(text)
    (here / "recipe.toml").write_text(RECIPE)
    return here


@pytest.fixture(scope="module")
def verdict(here: Path) -> dict[str, Any]:
    return bantam.make(here / "recipe.toml", here / "run")


def test_it_is_made_and_judged(here: Path, verdict: dict[str, Any]) -> None:
    run = here / "run"
    assert verdict["metric"] == "bits_per_byte"
    assert verdict["model"]["score"] < 3  # drawn by chance it takes about 3.3
    assert {rival["name"] for rival in verdict["rivals"]} == {"zstd", "ngram"}
    assert json.loads((run / "judge/verdict.json").read_text()) == verdict
    lock = json.loads((run / "recipe.lock.json").read_text())
    assert lock["plan"]["steps"] == 30
    assert all(check["passed"] for check in json.loads((run / "pack/proof.json").read_text()))
    stages = {json.loads(line)["stage"] for line in (run / "ledger.jsonl").read_text().splitlines()}
    assert stages == {"text", "tokens", "train", "model", "pack", "judge"}
    assert "bits per byte" in (run / "report.html").read_text()
    assert "| zstd |" in (run / "README.md").read_text()
    assert (run / "train/samples.jsonl").read_text().count("\n") >= 3


def test_once_more_does_nothing(here: Path, verdict: dict[str, Any]) -> None:
    before = (here / "run/train/stage.json").stat().st_mtime_ns
    assert bantam.make(here / "recipe.toml", here / "run") == verdict
    assert (here / "run/train/stage.json").stat().st_mtime_ns == before


@pytest.mark.usefixtures("verdict")
def test_transformers_and_the_runtime_go_on_alike(here: Path, tmp_path: Path) -> None:
    """The likeliest continuations of the same texts, from weights as they are. Those of the pack
    have 8 bits and may decide a near tie otherwise: what may come next is about as likely."""
    texts, most = ("The cat sees the", "Under the", "A small red"), 24
    tokenizer = AutoTokenizer.from_pretrained(here / "run/model")
    theirs = AutoModelForCausalLM.from_pretrained(here / "run/model").eval()
    ours, made = load.load(here / "run/model"), vocabulary.load(here / "run/model")
    asked, continued = [], []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            told = theirs.generate(**inputs, max_new_tokens=most, do_sample=False, pad_token_id=0)
        asked.append(inputs["input_ids"][0].tolist())
        continued.append(tokenizer.decode(told[0, len(asked[-1]) :], skip_special_tokens=True))
    assert sum(map(len, continued)) > 30
    for ids, text in zip(asked, continued, strict=True):
        assert made.decode(generate(ours, [ids], most, {0})[0]) == text
    gguf_file.write(tmp_path / "whole.gguf", ours, made, None, {}, "F32")
    with Model(tmp_path / "whole.gguf", threads=1) as whole:
        for text, ids, more in zip(texts, asked, continued, strict=True):
            assert whole.start + whole.encode([(text, False)]) == ids
            assert whole.runtime.complete(ids, most).text == more
    pack = next((here / "run/pack").glob("*.gguf"))
    with Model(pack, threads=1) as packed, torch.no_grad():
        for ids in asked:
            shares = theirs(torch.tensor([ids])).logits[0, -1].softmax(-1)
            told = packed.runtime.likeliest(ids, 5)
            assert [share for _, share in told] == pytest.approx(
                shares[[id for id, _ in told]].tolist(), abs=0.02
            )


@pytest.mark.slow
def test_two_processes_make_about_the_same_model(here: Path, verdict: dict[str, Any]) -> None:
    told = pipeline.make(here / "recipe.toml", here / "two", processes=2)
    # Trained by sums in another order; untrained it would take 3.3.
    assert told["model"]["score"] == pytest.approx(verdict["model"]["score"], abs=0.05)


@pytest.mark.slow
def test_two_processes_share_what_does_not_fit_one(
    here: Path, verdict: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "memory", lambda where: 1_000_000)
    told = pipeline.make(here / "recipe.toml", here / "shared", processes=2)
    assert json.loads((here / "shared/recipe.lock.json").read_text())["plan"]["sharded"]
    assert told["model"]["score"] == pytest.approx(verdict["model"]["score"], abs=0.05)
    samples = [(here / run / "train/samples.jsonl").read_text() for run in ("run", "shared")]
    assert samples[0].count("\n") == samples[1].count("\n")


@pytest.mark.slow
def test_torchrun_from_outside_is_taken_up(here: Path, tmp_path: Path) -> None:
    """As on a cluster: `bantam make` is stopped once it trains, and torchrun does the training."""
    program = "from bantam.cli import main; main()"
    command = [sys.executable, "-c", program, "make", "recipe.toml", "--run", str(tmp_path)]
    first = subprocess.Popen(command, cwd=here, stderr=subprocess.DEVNULL)
    job, end = tmp_path / "train.partial/job.json", time.monotonic() + 120
    while not job.exists():
        assert first.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    first.kill()
    first.wait(60)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", "2", "-m", "bantam.train.several", str(tmp_path)]
    subprocess.run(torchrun, check=True, timeout=240, stderr=subprocess.DEVNULL)
    weights = (tmp_path / "train.partial/weights.safetensors").read_bytes()
    pipeline.make(here / "recipe.toml", tmp_path)
    assert (tmp_path / "train/weights.safetensors").read_bytes() == weights


@pytest.mark.usefixtures("verdict")
def test_it_is_run_and_shown(here: Path) -> None:
    runner = CliRunner()
    told = runner.invoke(cli.bantam, ["run", str(here / "run"), "The cat", "--json"])
    line = json.loads(told.stdout)  # drawn anew each time, so a word or many
    assert line["text"] == "The cat" and line["continuation"]
    plain = runner.invoke(cli.bantam, ["run", str(here / "run"), "The cat"])
    assert plain.stdout.startswith("The cat")
    piped = runner.invoke(cli.bantam, ["run", str(here / "run")], input="A dog\n")
    assert piped.stdout.startswith("A dog") and not piped.stdout.startswith("A dog\n")
    refused = runner.invoke(cli.bantam, ["run", str(here / "run"), "--file", "rows.csv"])
    assert "goes on with a text" in str(refused.exception)
    assert "bits for a byte" in runner.invoke(cli.bantam, ["show", str(here / "run")]).stdout


@pytest.fixture(scope="module")
def continued(here: Path, tiny_model: Path) -> dict[str, Any]:
    """A base that went on reading the same documents."""
    text = RECIPE.replace("vocabulary = 320\nwidth = 64\n", "learning_rate = 0.01\n")
    (here / "on.toml").write_text(f"{text}[base]\nmodel = {str(tiny_model)!r}\n")
    return bantam.make(here / "on.toml", here / "on")


def test_a_base_goes_on_reading(
    here: Path, continued: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    rivals = {rival["name"]: rival for rival in continued["rivals"]}
    assert rivals.keys() == {"zstd", "ngram", "base"}
    assert rivals["base"]["outcome"] == "win"
    assert continued["model"]["score"] < 0.8 * rivals["base"]["score"]
    # The base's score is that of transformers, on the very documents that judge.
    load.save(load.load(tiny_model), tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    texts, tokenizer = curated.judged(here / "on", 0)[1], Tokenizer.of(tiny_model)
    bits = 0.0
    for text in texts:
        ids = torch.tensor([[tokenizer.edge, *tokenizer.encode([(text, False)])]])
        with torch.no_grad():
            logits = theirs(ids).logits[0, :-1]
        bits += float(F.cross_entropy(logits, ids[0, 1:], reduction="sum")) / math.log(2)
    of_texts = bits / sum(len(text.encode()) for text in texts)
    # It is judged as it is packed, with 8 bits a weight.
    assert rivals["base"]["score"] == pytest.approx(of_texts, rel=0.01)
    assert "went on reading" in (here / "on/README.md").read_text()


@pytest.mark.usefixtures("continued")
def test_it_keeps_the_tokens_of_its_base(here: Path, tiny_model: Path) -> None:
    pack, base = next((here / "on/pack").glob("*.gguf")), Tokenizer.of(tiny_model)
    ids = base.encode([("The cat sees the dog.", False)])
    assert Tokenizer.of(pack).encode([("The cat sees the dog.", False)]) == ids
    with Model(pack, threads=1) as packed:
        assert packed.encode([("The cat sees the dog.", False)]) == ids
    assert "base" in json.loads(gguf.read(pack).metadata["bantam.lineage"])


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ('model = "scratch"\n[judge]\nrivals = ["base"]', "starts from scratch"),
        ('model = "a.gguf"\n[train]\nwidth = 64', "is that of the base"),
        ('model = "a.gguf"\n[train]\nvocabulary = 512', "is that of the base"),
    ],
)
def test_what_a_base_has_decided_is_not_asked_for(tmp_path: Path, base: str, said: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(f'[documents]\nfiles = ["data/"]\n[base]\n{base}\n')
    with pytest.raises(BadInput, match=said):
        recipe_documents.load(path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('tokens = 60_000\nbudget = "5 min"', "exclude each other"),
        ("width = 40", "multiple of 32"),
        ("width = 64\nparameters = 100_000", "exclude each other"),
        ("vocabulary = 100", "at least 257"),
        ("epochs = 3", "no such key"),
    ],
)
def test_mistakes_are_told_before_anything_is_spent(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(f'[documents]\nfiles = ["data/"]\n[train]\n{line}\n')
    with pytest.raises(BadInput, match=said):
        recipe_documents.load(path)


def test_too_little_text_and_too_large_a_vocabulary(here: Path, tmp_path: Path) -> None:
    shutil.copytree(here / "data", tmp_path / "data")
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.replace("vocabulary = 320", "vocabulary = 9000"))
    with pytest.raises(BadInput, match="too few to learn a vocabulary"):
        bantam.make(path, tmp_path / "run")
    for file in sorted((tmp_path / "data").iterdir())[100:]:
        file.unlink()
    path.write_text(RECIPE)
    with pytest.raises(BadInput, match="too few to learn a language"):
        bantam.make(path, tmp_path / "run2")
    told = [warning for line in check(path, tmp_path) for warning in line["warnings"]]
    assert any("the least that a language is learned from" in warning for warning in told)
    assert not any("held out" in warning for warning in told)
    path.write_text(RECIPE.replace("val = 0.05", "val = 0.02"))
    told = [warning for line in check(path, tmp_path) for warning in line["warnings"]]
    assert any("takes about 2 if" in warning for warning in told)


def test_a_recipe_of_labels_that_completes_is_told_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[task]\nkind = "complete"\n[data]\nexamples = ["a.csv"]\n')
    with pytest.raises(BadInput, match="learns from documents") as caught:
        recipe.load(path)
    assert "[documents]" in caught.value.mend


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_a_cluster_cleans_the_same_documents(here: Path, verdict: dict[str, Any]) -> None:
    run = here / "spread"
    asked = ["make", str(here / "recipe.toml"), "--run", str(run), "--ray", "local", "--json"]
    done = CliRunner().invoke(cli.bantam, asked, catch_exceptions=False)
    assert done.exit_code == 0
    for name in ("documents-00000.parquet", "order.parquet"):
        one, other = (pl.read_parquet(folder / "text" / name) for folder in (here / "run", run))
        assert one.equals(other)
    assert json.loads(done.stdout)["verdict"]["model"]["score"] == verdict["model"]["score"]


def test_a_recipe_that_completes_and_names_no_documents_is_told_to(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[task]\nname = "w"\nkind = "complete"\n', "utf-8")
    with pytest.raises(BadInput) as refused:
        pipeline.make(recipe, tmp_path / "run")
    assert "documents: is missing" in refused.value.message
    assert "[documents]" in refused.value.mend
