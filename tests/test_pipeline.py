"""The main job as its user meets it: `bantam make` on a tiny base, again, changed, stopped."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import psutil
import pytest
from safetensors.torch import load_file, save_file

import job
from bantam import labelled, ledger, pipeline, recipe, runs
from bantam.errors import BadInput
from bantam.formats import gguf, lora
from bantam.job import Job
from bantam.judge.verdict import Verdict
from bantam.model import Model
from bantam.model_files import find_adapter
from bantam.text.prepare import SPLITS

Bantam = Callable[..., job.Done]
STAGES = ("text", "train", "model", "pack", "adapter", "judge")


def copied(made: Path, folder: Path, *without: str) -> Path:
    """The finished job in `folder`, but for some stages; returns the run."""
    shutil.copytree(made, folder, dirs_exist_ok=True)
    for stage in without:
        shutil.rmtree(folder / "runs/tiny" / stage)
    return folder / "runs/tiny"


def change(folder: Path, old: str, new: str) -> None:
    recipe = folder / "recipe.toml"
    text = recipe.read_text("utf-8")
    assert old in text
    recipe.write_text(text.replace(old, new), "utf-8")


def reused(done: job.Done) -> list[str]:
    return [stage for stage in STAGES if f"{stage}: done before" in done.err]


def wait_for(run: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    """Until the process has made such a file or folder in the run."""
    for _ in range(6000):
        if any(run.glob(pattern)):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"{pattern} never came")


def test_make_leaves_a_whole_run(made: Path) -> None:
    run = made / "runs/tiny"
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert files == {
        ".lock",
        "README.md",
        "ledger.jsonl",
        "recipe.lock.json",
        "recipe.toml",
        "report.html",
        *(f"{stage}/stage.json" for stage in STAGES),
        *(f"text/{name}.parquet" for name in ("train", "val", "test", "dropped")),
        "text/report.json",
        "text/to_mend.csv",
        *(
            f"train/{name}"
            for name in ("calibration.json", "metrics.jsonl", "plan.json", "result.json")
        ),
        "train/tuned.safetensors",
        *(f"model/{name}" for name in ("config.json", "model.safetensors", "chat_template.jinja")),
        *(f"model/{name}" for name in ("tokenizer.json", "tokenizer_config.json")),
        "pack/proof.json",
        "pack/tiny-Q8_0.gguf",
        "adapter/proof.json",
        "adapter/tiny-adapter.gguf",
        "judge/choices.json",
        "judge/predictions.parquet",
        "judge/verdict.json",
    }
    assert all(runs.sound(run / name, runs.manifest(run / name)["key"]) for name in STAGES)
    assert [line["stage"] for line in ledger.read(run / "ledger.jsonl")] == ["sources", *STAGES]
    assert (run / "recipe.toml").read_text("utf-8") == (made / "recipe.toml").read_text("utf-8")


def test_make_prints_one_json_object_and_its_progress_elsewhere(made: Path) -> None:
    told = json.loads((made / "out.json").read_text("utf-8"))
    assert told["run"] == "runs/tiny"
    on_disk = (made / "runs/tiny/judge/verdict.json").read_text("utf-8")
    assert told["verdict"] == json.loads(on_disk)
    progress = (made / "err.txt").read_text("utf-8")
    assert all(f"{stage} ..." in progress for stage in STAGES)
    assert "timing" not in progress  # the recipe leaves nothing to be timed


def test_the_verdict_holds_its_contract_and_names_every_rival(made: Path) -> None:
    verdict = Verdict.model_validate_json((made / "runs/tiny/judge/verdict.json").read_text())
    rivals = {rival.name: rival for rival in verdict.rivals}
    assert list(rivals) == ["majority", "tfidf", "linear-probe", "base", "base-few-shot"]
    assert verdict.test_rows == 36
    packed = made / "runs/tiny/pack/tiny-Q8_0.gguf"
    assert verdict.model.sha256 == runs.file_sha256(packed)
    assert verdict.model.bytes == packed.stat().st_size
    # Packed as ours is, but for the task in its metadata.
    assert rivals["base"].bytes == pytest.approx(packed.stat().st_size, abs=2000)
    # The words tell the labels apart, so a model that has learned them beats the most frequent one.
    assert verdict.model.score > 0.8
    assert rivals["majority"].score == pytest.approx(1 / 3)
    assert rivals["majority"].outcome == "win"


def test_report_and_card_tell_what_the_verdict_says(made: Path) -> None:
    verdict = json.loads((made / "out.json").read_text("utf-8"))["verdict"]
    page = (made / "runs/tiny/report.html").read_text("utf-8")
    card = (made / "runs/tiny/README.md").read_text("utf-8")
    assert verdict["sentence"] in card
    for rival in verdict["rivals"]:
        assert rival["name"] in page
        assert f"| {rival['name']} | {rival['score']:.3f} |" in card


def test_a_second_make_does_nothing_anew(made: Path, tmp_path: Path, bantam: Bantam) -> None:
    run = copied(made, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in run.glob("*/*")}
    began = time.process_time()
    done = bantam("make", "recipe.toml")
    assert done.code == 0
    assert time.process_time() - began < 5
    assert reused(done) == list(STAGES)
    assert {path: path.stat().st_mtime_ns for path in run.glob("*/*")} == before
    page, first = (folder / "runs/tiny/report.html" for folder in (tmp_path, made))
    assert page.read_text("utf-8") == first.read_text("utf-8")


def test_a_change_for_the_judge_redoes_the_judging(
    made: Path, tmp_path: Path, bantam: Bantam
) -> None:
    run = copied(made, tmp_path)
    change(tmp_path, "shots = 3", "shots = 6")
    change(tmp_path, '"1 MB"', '"1 kB"')
    change(tmp_path, '"majority", "tfidf", "linear-probe", "base", ', "")
    done = bantam("make", "recipe.toml", "--require", "--json")
    assert done.code == 3
    verdict = json.loads(done.out)["verdict"]
    assert [limit["kept"] for limit in verdict["limits"]] == [False]
    assert reused(done) == ["text", "train", "model", "pack", "adapter"]
    choices = json.loads((run / "judge/choices.json").read_text("utf-8"))
    assert choices["base-few-shot"]["prompt"].startswith("plain, 6 examples")


def test_a_budget_for_too_few_steps_says_so(made: Path, tmp_path: Path, bantam: Bantam) -> None:
    run = copied(made, tmp_path, "train", "model", "pack", "adapter", "judge")
    change(tmp_path, "steps = 32", 'budget = "0.01 s"')
    done = bantam("make", "recipe.toml")
    assert done.code == 0, done.err
    assert "warning: a budget of 0.01 s is enough for 1 step on" in done.err
    assert "a budget of 0.01 s is enough for 1 step" in (run / "report.html").read_text("utf-8")


def test_another_seed_redoes_training_and_what_follows(
    made: Path, tmp_path: Path, bantam: Bantam
) -> None:
    run = copied(made, tmp_path)
    change(tmp_path, "seed = 0", "seed = 1")
    change(tmp_path, '"tfidf", "linear-probe", "base", "base-few-shot"', '"tfidf"')
    done = bantam("make", "recipe.toml")
    assert done.code == 0, done.err
    assert reused(done) == ["text"]
    for file in ("train/tuned.safetensors", "model/model.safetensors", "pack/tiny-Q8_0.gguf"):
        assert runs.file_sha256(run / file) != runs.file_sha256(made / "runs/tiny" / file)
    assert "report: runs/tiny/report.html" in done.out
    assert 'bantam run runs/tiny "a text"' in done.out


def test_a_mended_sheet_redoes_the_rows_and_so_does_a_change_of_it(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = job.write(tmp_path, tiny_model), tmp_path / "run"
    with (tmp_path / "rows.csv").open("a", encoding="utf-8") as file:
        file.write("a text of two labels,good\na text of two labels,poor\n")
    run.mkdir()

    def text() -> tuple[str, pl.DataFrame]:
        made = recipe.load(path)
        key = labelled.stage(Job(made, run, pipeline._sources(made, run)))
        assert runs.sound(run / "text", key)
        kept = [pl.read_parquet(run / "text" / f"{name}.parquet") for name in SPLITS]
        return key, pl.concat(kept).filter(pl.col("input") == "a text of two labels")

    first, before = text()
    assert before.height == 0
    assert f"labels to look at: {run / 'text/to_mend.csv'}" in capsys.readouterr().err
    sheet = pl.read_csv(run / "text/to_mend.csv")
    assert sheet["label"].head(2).to_list() == ["good", "poor"]
    change(tmp_path, "[data]", '[data]\nmended = "mended.csv"')
    keys = {first}
    for label in ("poor", "good enough"):
        sheet.with_columns(mended=pl.lit(label)).head(2).write_csv(tmp_path / "mended.csv")
        key, after = text()
        keys.add(key)
        assert after["output"].to_list() == [label]
    assert len(keys) == 3
    assert text()[0] == key and "text: done before" in capsys.readouterr().err
    report = json.loads((run / "text/report.json").read_text("utf-8"))
    assert report["mended"] == {"changed": 2, "dropped": 0, "lost": 0}
    assert sheet.head(2)["id"][0] not in json.dumps(report["label_check"])


def test_make_goes_on_after_sudden_death(made: Path, tmp_path: Path, bantam: Bantam) -> None:
    run = copied(made, tmp_path, "train", "model", "pack", "adapter", "judge")
    process = job.start("make", "recipe.toml", cwd=tmp_path)
    with process:
        wait_for(run, "train.partial/checkpoint-0*", process)
        process.kill()
    assert not (run / "train").exists()
    before = json.loads((run / "train.spent.json").read_text("utf-8"))
    began = time.monotonic()
    done = bantam("make", "recipe.toml")
    assert done.code == 0, done.err
    assert reused(done) == ["text"]
    assert "plan" not in done.err  # the first one holds
    tuned, at_once = (folder / "train/tuned.safetensors" for folder in (run, made / "runs/tiny"))
    assert runs.file_sha256(tuned) == runs.file_sha256(at_once)
    steps = (run / "train/metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["step"] for line in steps] == list(range(1, 33))
    # The ledger counts both calls.
    spent = {line["stage"]: line for line in ledger.read(run / "ledger.jsonl")}["train"]
    assert before["wall_seconds"] > 0 < before["cpu_seconds"]
    for key in ("wall_seconds", "cpu_seconds", "peak_memory_bytes"):
        assert spent[key] >= before[key]
    assert spent["wall_seconds"] <= before["wall_seconds"] + time.monotonic() - began
    assert not list(run.glob("*.spent.json"))


def test_ctrl_c_stops_at_once_and_leaves_no_process(
    made: Path, tmp_path: Path, bantam: Bantam
) -> None:
    run = copied(made, tmp_path, "judge")
    with job.start("make", "recipe.toml", cwd=tmp_path) as process:
        wait_for(run, "judge.partial", process)
        me = psutil.Process(process.pid)
        children: list[psutil.Process] = []
        while not children:  # until the runtime works
            assert process.poll() is None
            children = me.children()

        second = bantam("make", "recipe.toml")
        assert second.code == 2
        assert "another bantam is working on this run" in second.err
        assert "--run" in second.err

        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    assert not (run / "judge").exists()


def test_the_adapter_over_its_base_is_the_trained_model(made: Path) -> None:
    run = made / "runs/tiny"
    base, packed = Model(made / "tiny.gguf"), Model(run / "pack/tiny-Q8_0.gguf")
    assert find_adapter(run) == run / "adapter/tiny-adapter.gguf"
    file = gguf.read(run / "adapter/tiny-adapter.gguf")
    assert file.metadata[lora.BASE] == runs.file_sha256(made / "tiny.gguf")
    assert file.metadata["bantam.lineage"] == packed.file.metadata["bantam.lineage"]
    proof = json.loads((run / "adapter/proof.json").read_text("utf-8"))
    assert all(check["passed"] for check in proof)
    texts = [text for text, _ in job.texts_and_labels(30)]
    with packed, base.adapted(find_adapter(run)) as adapted:
        assert adapted.task == packed.task  # with its calibration
        assert base.task is None
        for one, other in zip(adapted.batch(texts), packed.batch(texts), strict=True):
            assert one.label == other.label
            # The packed file is rounded to 8 bits, the base of the adapter is float32.
            assert one.probability == pytest.approx(other.probability, abs=0.06)


def test_an_adapter_that_is_not_all_of_the_model_is_not_left(
    made: Path, tmp_path: Path, bantam: Bantam
) -> None:
    run = copied(made, tmp_path, "adapter")
    tuned = load_file(run / "train/tuned.safetensors")
    turned = {name: -w if name.endswith("lora_b") else w for name, w in tuned.items()}
    save_file(turned, run / "train/tuned.safetensors")
    done = bantam("make", "recipe.toml")
    assert done.code == 0
    assert "warning: there is no adapter file" in done.err
    assert [path.name for path in sorted((run / "adapter").iterdir())] == [
        "proof.json",
        "stage.json",
    ]
    with pytest.raises(BadInput, match="no run with one"):
        find_adapter(run)


def test_a_run_without_lora_has_no_adapter(made: Path, tmp_path: Path, bantam: Bantam) -> None:
    run = copied(made, tmp_path)
    change(tmp_path, '"lora"', '"full"')
    change(tmp_path, '"tfidf", "linear-probe", "base", "base-few-shot"', '"tfidf"')
    assert bantam("make", "recipe.toml").code == 0
    assert not (run / "adapter").exists()


def no_network() -> tuple[str, ...]:
    """A command that runs another one in a network namespace with nothing in it."""
    for way in (("unshare", "--net"), ("unshare", "--map-root-user", "--net")):
        done = subprocess.run([*way, "true"], capture_output=True) if shutil.which(way[0]) else None
        if done and done.returncode == 0:
            return way
    pytest.skip("this system has no network namespaces for us")


def test_make_and_run_without_a_network_and_with_a_folder_as_base(
    tiny_model: Path, tmp_path: Path
) -> None:
    from bantam.formats import gguf
    from bantam.formats.tokenizer import Tokenizer
    from bantam.nets import load

    alone = no_network()
    job.write(tmp_path, tiny_model, base="base")
    load.save(load.load(tiny_model), tmp_path / "base")
    Tokenizer.from_gguf(gguf.read(tiny_model)).save(tmp_path / "base")
    done = job.run("--offline", "make", "recipe.toml", cwd=tmp_path, before=alone)
    assert done.code == 0, done.err
    verdict = json.loads((tmp_path / "runs/tiny/judge/verdict.json").read_text("utf-8"))
    assert verdict["model"]["score"] > 0.8
    assert not (tmp_path / "runs/tiny/adapter").exists()  # there is no .gguf that it belongs to
    done = job.run("run", "runs/tiny", "the phone is awful", cwd=tmp_path, before=alone)
    assert done.code == 0, done.err
    assert done.out.split("\t")[0] in job.LABELS
