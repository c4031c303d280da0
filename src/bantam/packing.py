"""From trained weights to files: the stages model, pack and adapter."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bantam import __version__, kinds, runs
from bantam.job import Job, read_lock, run_stage
from bantam.kinds import sure
from bantam.progress import bar, say

if TYPE_CHECKING:
    from bantam.nets.decoder import Decoder

BITS = "Q8_0"
TUNED = "train/tuned.safetensors"
JUDGED_CERTAINTY = 200  # validation rows that are answered to learn how sure an answer is


def model(job: Job, train_key: str) -> str:
    """The tuned weights as a Hugging Face folder."""
    key = runs.key_of("model", 1, train_key)

    def build(folder: Path) -> None:
        from bantam.nets import load
        from bantam.train import stage

        tuned = stage.merged(job.base, _followed(job), job.folder / TUNED)
        load.save(tuned, folder, job.tokenizer.bos_id, job.tokenizer.eos_id)
        job.tokenizer.save(folder)

    run_stage(job, "model", key, build)
    return key


def _followed(job: Job) -> Any:
    """The plan that the train stage has followed."""
    from bantam.train.plan import Plan

    return Plan(**json.loads((job.folder / "train/plan.json").read_text(encoding="utf-8")))


def pack(job: Job, model_key: str) -> str:
    """The model as one GGUF file, proved against the weights it was made from."""
    wanted = job.made.task.sure
    key = runs.key_of("pack", 2, model_key, BITS, wanted)

    def build(folder: Path) -> None:
        from bantam.nets import load
        from bantam.pack import gguf_file, proof

        decoder = load.load(job.folder / "model")
        path = folder / f"{job.made.task.name}-{BITS}.gguf"

        def write(task: kinds.Task) -> Path:
            gguf_file.write(path, decoder, job.tokenizer, task, _lineage(job), BITS)
            return path

        checks = (_packed_writer if job.writes else _packed_labeller)(job, decoder, write)
        runs.write_json(folder / "proof.json", checks)
        proof.hold(checks)

    run_stage(job, "pack", key, build)
    return key


Write = Callable[[kinds.Task], Path]


def _packed_labeller(job: Job, decoder: "Decoder", write: Write) -> list[dict[str, Any]]:
    """Pack a model that chooses labels; the checks of its proof."""
    from bantam.model import Model
    from bantam.pack import proof
    from bantam.train import stage

    found = json.loads((job.folder / "train/calibration.json").read_text(encoding="utf-8"))
    task = replace(
        job.task, temperature=found["temperature"], thresholds=tuple(found["thresholds"])
    )
    wanted = job.made.task.sure
    if wanted is not None:
        say(f"  finding on {len(job.val)} validation texts when an answer is sure")
        bounds = stage.sure_above(decoder, task, job.tokenizer, job.val, wanted)
        _warn_if_never(bounds, wanted, "label is")
        task = replace(task, thresholds=bounds)
    path = write(task)
    read = [row.text for row in job.val[: proof.ROWS]]
    say(f"  proving the packed file on {len(read)} texts")
    with Model(path) as packed:
        return proof.prove(decoder, packed, read)


def _packed_writer(job: Job, decoder: "Decoder", write: Write) -> list[dict[str, Any]]:
    """Pack a model that writes its answers; the checks of its proof.

    How sure it is can be told only of the file that answers, held to its schema.
    """
    from bantam.judge import certainty, written
    from bantam.model import Model
    from bantam.pack import proof

    path = write(job.task)
    rows = job.val[: proof.WRITTEN_ROWS]
    say(f"  proving the packed file on {len(rows)} texts")
    with Model(path) as packed:
        checks = proof.prove_written(decoder, packed, rows)
    val = written.split_of(job.task.kind, written.drawn(job.rows("val"), JUDGED_CERTAINTY))
    with bar(f"pack: answering {len(val.rows)} validation texts") as advance:
        found = certainty.learned(path, job.task, val, job.made.task.sure, advance)
    if job.made.task.sure is not None:
        _warn_if_never(found.thresholds, job.made.task.sure, "answers are")
    write(replace(job.task, certainty=found.certainty, thresholds=found.thresholds))
    return checks


def _warn_if_never(bounds: Sequence[float], wanted: float, what: str) -> None:
    if min(bounds) == sure.NEVER:
        say(
            "  warning: no answer will be sure: on the validation rows no "
            f"{what} right {100 * wanted:g}% of the time, or they are too few to tell"
        )


def _lineage(job: Job) -> dict[str, Any]:
    """What the packed file says of its origin."""
    lock = read_lock(job.folder)
    base = lock["sources"][job.made.base.model]
    lineage = {
        "base": base,
        "data": {name: lock["sources"][name]["sha256"] for name in job.made.data.examples},
        "split_sha256": lock["split_sha256"],
        "made_with": f"bantam-lm {__version__}",
    }
    return {
        "general.license": (base["licence"] or "unknown").lower(),
        "bantam.licence": base["licence"] or "unknown",
        "bantam.lineage": json.dumps(lineage, ensure_ascii=False),
    }


def adapter(job: Job, pack_key: str) -> None:
    """What LoRA learned as a file of its own, where the base is a file that it can be run over."""
    if _followed(job).method != "lora" or not job.base.is_file():
        shutil.rmtree(job.folder / "adapter", ignore_errors=True)  # of an earlier recipe
        return
    key = runs.key_of("adapter", 1, pack_key)

    def build(folder: Path) -> None:
        from safetensors.torch import load_file

        from bantam.model import Model
        from bantam.nets import load
        from bantam.pack import adapter_file, proof

        decoder, learned = load.load(job.folder / "model"), load_file(job.folder / TUNED)
        task, base = Model(packed(job.folder)).asked(), runs.file_sha256(job.base)
        path = folder / f"{task.name}-adapter.gguf"
        adapter_file.write(path, decoder, learned, task, base, _lineage(job))
        with Model(job.base).adapted(path) as adapted:
            if job.writes:
                checks = proof.prove_written(decoder, adapted, job.val[: proof.WRITTEN_ROWS])
            else:
                read = [row.text for row in job.val[: proof.ROWS]]
                checks = proof.prove(decoder, adapted, read)
        runs.write_json(folder / "proof.json", checks)
        if not all(check["passed"] for check in checks):
            path.unlink()
            say(
                "  warning: there is no adapter file, since over the base's own file it does not "
                "behave like the trained weights; the packed model does"
            )

    run_stage(job, "adapter", key, build)


def packed(folder: Path) -> Path:
    return next((folder / "pack").glob("*.gguf"))
