"""The main job: the stages of a recipe in order, each made once and taken up again.

A stage is keyed by the hash of what it is made from, so a second `make` does only what a change of
recipe, data or code version touches. What was decided (hashes of the sources, the training plan)
stands in recipe.lock.json before the first step that follows from it.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bantam import (
    __version__,
    labelled,
    licences,
    packing,
    recipe,
    recipe_documents,
    recipe_file,
    runs,
    sources,
    units,
)
from bantam.engine import cores
from bantam.errors import BadInput
from bantam.job import Job, read_lock, resolved, run_stage, told_of, write_lock
from bantam.kinds import texts
from bantam.model_files import gguf_in, rival_in
from bantam.progress import bar, say
from bantam.sources import endpoint

FEW_PASSES = 0.5  # over the training rows: a budget that is enough for fewer is told of


def make(
    path: Path,
    folder: Path | None = None,
    schema: dict[str, Any] | None = None,
    processes: int = 1,
    ray: str | None = None,
) -> dict[str, Any]:
    """Run every stage of the recipe at `path` and return the verdict.

    `schema` is of the answers, in place of the one that the recipe names; `processes` train a model
    from scratch together; `ray` is the address of the cluster that cleans its documents. The run is
    made in `folder`, or runs/NAME below the current one. BadInput before anything is spent,
    JobFailed when a stage fails; what was finished is kept and taken up by the next call.
    """
    if recipe_file.has_documents(path):
        from bantam import completing

        return completing.make(path, folder or run_folder(path), processes, ray)
    if processes > 1:
        raise BadInput(
            "only models that complete text are trained by several processes", "leave out --nproc"
        )
    if ray:
        raise BadInput("a cluster cleans documents, and this recipe has rows", "leave out --ray")
    made = recipe.load(path)
    if schema is not None and (made.task.kind != "extract" or made.data.tools):
        raise BadInput("a schema was given, but these answers follow none", "leave it out")
    folder = folder or Path("runs") / made.task.name
    if in_the_way := [place for place in (folder, *folder.parents) if place.is_file()]:
        raise BadInput(f"{in_the_way[0]} is a file, no place for a run", "name a folder with --run")
    with runs.alone(folder):
        job = Job(made, folder, _sources(made, folder), schema or recipe.answer_schema(made))
        _base(job)
        runs.write_text(folder / "recipe.toml", path.read_text(encoding="utf-8"))
        text_key = labelled.stage(job)
        _check_rivals(job)
        train_key = _train(job, text_key)
        model_key = packing.model(job, train_key)
        pack_key = packing.pack(job, model_key)
        packing.adapter(job, pack_key)
        verdict = _judge(job, pack_key)
        _handover(job, pack_key)
        _report(job)
    return verdict


def run_folder(path: Path) -> Path:
    """Where the recipe at `path` is made when nothing else is said."""
    documents = recipe_file.has_documents(path)
    task = recipe_documents.load(path).task if documents else recipe.load(path).task
    return Path("runs") / task.name


def _check_rivals(job: Job) -> None:
    """Refuse a rival that has nothing to do before training."""
    if "tagger" in job.made.judge.rivals:
        from bantam.judge import tagger

        tagger.check(job.rows("train")["output"].to_list())


def _sources(made: recipe.Recipe, folder: Path) -> dict[str, sources.Source]:
    """Find every source, fetching what is not here, and write them into the lock."""
    names = [made.base.model, *made.data.files, *_asked(made)]
    found = resolved(made, folder, list(dict.fromkeys(names)))
    # What is no model is told now, before anything is spent.
    sources.model_file(found[made.base.model])
    for name in _asked(made):
        rival_in(found[name], made.task.kind)
    write_lock(folder, sources=told_of(found), base=made.base.model, version=__version__)
    for name, source in found.items():
        if licences.bound(source.licence):
            say(f"note: {name} may be used only under the {source.licence}")
    return found


def _base(job: Job) -> None:
    """Refuse a base that cannot be tuned or packed before anything is spent on it."""
    from bantam.pack import gguf_file

    gguf_file.check_base(job.base)
    _ = job.tokenizer


def _others(made: recipe.Recipe) -> list[str]:
    """The rivals that are models of their own."""
    return [name for name in made.judge.rivals if name not in recipe.SIMPLE_RIVALS]


def _asked(made: recipe.Recipe) -> list[str]:
    """These, and the larger model that answers may be handed over to."""
    larger = made.handover.model
    return [*_others(made), *([larger] if larger and not made.handover.away else [])]


def _train(job: Job, text_key: str) -> str:
    """Tune the base for the plan that the budget allows."""
    made = job.made
    base = job.found[made.base.model].sha256
    key = runs.key_of("train", 3, text_key, base, made.train.model_dump(), asdict(job.task))

    def build(folder: Path) -> int:
        from bantam.train import stage

        plan = _planned(job, key)
        runs.write_json(folder / "plan.json", asdict(plan))
        with bar("train") as advance:
            stage.train(
                job.base,
                job.task,
                job.tokenizer,
                job.learned,
                job.val,
                plan,
                folder,
                key,
                advance,
                made.train.class_weights == "balanced",
                job.shares(),
            )
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return int(json.loads(lines[-1])["tokens_seen"])

    run_stage(job, "train", key, build, resumes=True, predicted_seconds=made.train.budget)
    return key


def _planned(job: Job, key: str) -> Any:
    """The plan in the lock if it was made for this very run, else a new one, written there."""
    from bantam.nets import load
    from bantam.train import budget, device, stage
    from bantam.train.plan import Plan

    lock = read_lock(job.folder)
    if lock.get("plan_key") == key:
        return Plan(**lock["plan"])
    began = time.perf_counter()
    warnings = _unknown_language(job) + _too_long(job)
    train = job.made.train
    if train.budget is not None or not train.threads or train.method == "auto":
        say("  timing a few steps to plan the training")
    examples = stage.examples_of(job.task, job.tokenizer, job.learned)
    val = stage.examples_of(job.task, job.tokenizer, job.val)
    plan = budget.plan(
        lambda: load.load(job.base).to(device.pick()),
        examples,
        val,
        train,
        time.perf_counter() - began,
        stage.readings(job.tokenizer, job.learned) if train.adapt else (),
    )
    passes = (plan.steps - plan.reading_steps) * plan.batch_size / len(examples)
    if train.budget is not None and passes < FEW_PASSES:
        warnings.append(
            f"a budget of {units.write_seconds(train.budget)} is enough for {plan.steps} "
            f"step{'s' * (plan.steps > 1)} on this machine, so the model sees {passes:.0%} of the "
            "training rows; a longer one should make it better"
        )
        say(f"  warning: {warnings[-1]}")
    write_lock(job.folder, plan=asdict(plan), plan_key=key, warnings=warnings)
    reading = f"{plan.reading_steps} of them reading, " if plan.reading_steps else ""
    say(
        f"  plan: {plan.method}, {plan.steps} steps of {plan.batch_size} ({reading}{passes:.1f} "
        f"passes), "
        f"{plan.threads} thread{'s' * (plan.threads > 1)}, {plan.precision}"
    )
    return plan


def _unknown_language(job: Job) -> list[str]:
    """A warning when the base does not know the language of the texts."""
    from bantam.train import familiar, stage

    read = [row.text for row in job.pairs("train")]
    said = familiar.warning(familiar.surprise(stage.frozen(job.base, cores()), job.tokenizer, read))
    if said:
        say(f"  warning: {said}")
    return [said] if said else []


def _too_long(job: Job) -> list[str]:
    """Warnings of written answers that cannot be learned whole, and of texts that are cut.

    Raises BadInput when nothing is left to learn from or to choose by.
    """
    if not job.writes:
        return []
    found, encode = [], job.tokenizer.encode
    for split, kept in (("training", job.learned), ("validation", job.val)):
        rows = job.pairs("train" if split == "training" else "val")
        if not kept:
            raise BadInput(
                f"no {split} row fits into {job.room} tokens with its answer",
                "shorten texts, answers or declarations, or use a base with a longer context",
            )
        if lost := len(rows) - len(kept):
            found.append(
                f"{lost} of {len(rows)} {split} rows are left out: with their answers they are "
                f"longer than {job.room} tokens, or their answers than "
                f"{job.task.max_answer_tokens}"
            )
        if cut := sum(texts.cut(job.task, encode, row) for row in kept):
            found.append(
                f"{cut} of {len(kept)} {split} texts are cut at their end, to "
                f"{job.task.max_text_tokens} tokens"
            )
    found += _never_met(job)
    for warning in found:
        say(f"  warning: {warning}")
    return found


def _never_met(job: Job) -> list[str]:
    """Warnings of outputs that the model cannot write, as it is held to its schema."""
    if job.task.kind != "extract":
        return []
    from bantam.kinds import schema

    found = []
    for split in ("train", "val", "test"):
        values = [json.loads(output) for output in job.rows(split)["output"]]
        if count := sum(map(schema.unwritable, values)):
            found.append(
                f"{count} of {len(values)} {split} outputs hold numbers over 1e15 or with an "
                "exponent, such as 1e-07, which the model cannot write: make them texts"
            )
        most = job.task.most_calls
        if most and (count := sum(len(value) > most for value in values)):
            found.append(
                f"{count} of {len(values)} {split} outputs have more calls than any training "
                f"output, which has {most} at most: they cannot be met"
            )
    return found


def _judge(job: Job, pack_key: str) -> dict[str, Any]:
    """The packed file against its rivals on the test rows."""
    made = job.made
    others = _others(made)
    digests = {name: job.found[name].sha256 for name in others}
    rules = made.judge.model_dump(), made.limits.model_dump()
    key = runs.key_of("judge", 3, pack_key, rules, digests)

    def build(folder: Path) -> None:
        from bantam.judge import judge, written
        from bantam.nets import load
        from bantam.pack import gguf_file

        lock = read_lock(job.folder)
        data = {key: lock[key] for key in ("split_sha256", "split_seed")}
        data["train_seed"] = made.train.seed
        base = folder / f"base-{packing.BITS}.gguf"
        # Packed as ours is: only the weights differ, and no format is quicker than the other.
        gguf_file.write(base, load.load(job.base), job.tokenizer, None, {}, packing.BITS)
        rivals = {name: gguf_in(job.found[name]) for name in others}
        splits = {name: job.rows(name) for name in ("train", "val", "test")}
        with bar("judge") as advance:

            def told(what: str, done: int, total: int) -> None:
                advance(done, total, what)

            if job.writes:
                written.judge(
                    folder, made, packing.packed(job.folder), base, rivals, splits, data, told
                )
            else:
                judge.judge(
                    folder,
                    made,
                    packing.packed(job.folder),
                    base,
                    rivals,
                    judge.Rows(**splits),
                    lambda texts: _states(job, texts),
                    data,
                    told,
                )
        base.unlink()

    run_stage(job, "judge", key, build)
    verdict = json.loads((job.folder / "judge" / "verdict.json").read_text(encoding="utf-8"))
    assert isinstance(verdict, dict)
    return verdict


def _handover(job: Job, pack_key: str) -> None:
    """What is gained if the recipe's larger model answers what ours is not sure of."""
    asked, name = job.made.handover, job.made.handover.model
    if name is None:
        shutil.rmtree(job.folder / "handover", ignore_errors=True)  # of an earlier recipe
        return
    digest = None if asked.away else job.found[name].sha256
    key = runs.key_of("handover", 2, pack_key, asked.model_dump(), digest)

    def build(folder: Path) -> None:
        from bantam.judge import handover

        with bar("handover") as advance, _larger(job, name) as larger:
            found = handover.judge(
                folder,
                name,
                asked.threshold,
                packing.packed(job.folder),
                larger,
                job.rows("val"),
                job.rows("test"),
                job.made.data.seed,
                lambda what, done, total: advance(done, total, what),
            )
        say(f"  {found['sentence']}")

    run_stage(job, "handover", key, build)


@contextmanager
def _larger(job: Job, name: str) -> Iterator[Path | endpoint.Line]:
    """The larger model's file, or the line to its endpoint."""
    if not job.made.handover.away:
        yield gguf_in(job.found[name])
        return
    key = os.environ.get(job.made.handover.key_env, "")
    with endpoint.connect(endpoint.parse(name), key) as line:
        yield line


def _states(job: Job, texts: Sequence[str]) -> Any:
    """The untuned base's states for a linear probe [texts, width]."""
    from bantam.train import stage

    start = job.tokenizer.start
    prompts = [start + job.task.prompt(job.tokenizer.encode, text) for text in texts]
    return stage.states(job.probed, prompts)


def _report(job: Job) -> None:
    """The page and the model card, from what stands in the run folder."""
    from bantam.judge import card, report

    run = report.read_run(job.folder)
    runs.write_text(job.folder / "report.html", report.report(run))
    runs.write_text(job.folder / "README.md", card.card(run))
