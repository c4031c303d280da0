"""The main job: the stages of a recipe in order, each made once and taken up again.

A stage is keyed by the hash of what it is made from, so a second `make` does only what a change of
recipe, data or code version touches. What was decided (hashes of the sources, the training plan)
stands in recipe.lock.json before the first step that follows from it.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bantam import __version__, kinds, ledger, recipe, runs, sources
from bantam.engine import cores
from bantam.errors import BadInput, JobFailed
from bantam.kinds import Row, classify, sure, texts
from bantam.licences import licence_in
from bantam.model import TASK_CONTEXT, WRITING_CONTEXT, gguf_in, rival_in, trained_context
from bantam.progress import bar, say
from bantam.sources import endpoint

if TYPE_CHECKING:
    import polars as pl

    from bantam.formats.tokenizer import Tokenizer
    from bantam.nets.decoder import Decoder

BITS = "Q8_0"
TUNED = "train/tuned.safetensors"
SHORTEST = 16  # tokens of a text; with less room there is nothing to read
JUDGED_CERTAINTY = 200  # validation rows that are answered to learn how sure an answer is


@dataclass(frozen=True)
class Job:
    """A recipe on its way: where it is made and what its sources turned out to be."""

    made: recipe.Recipe
    folder: Path
    found: dict[str, sources.Source]  # by the name in the recipe
    schema: dict[str, Any] | None = None  # of the answers, if one was given

    @property
    def base(self) -> Path:
        return sources.model_file(self.found[self.made.base.model])

    @cached_property
    def probed(self) -> "Decoder":
        """The untuned base in torch, on as many threads as training found quickest."""
        from bantam.train import stage

        return stage.frozen(self.base, read_lock(self.folder)["plan"]["threads"])

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        from bantam.formats import gguf
        from bantam.formats.tokenizer import Tokenizer

        if self.base.is_dir():
            return Tokenizer.from_folder(self.base)
        return Tokenizer.from_gguf(gguf.read(self.base))

    @cached_property
    def context(self) -> int:
        """How many tokens the base was made for."""
        from bantam.formats import gguf

        if self.base.is_file():
            return trained_context(gguf.read(self.base))
        from bantam.nets import load

        return load.config_of(self.base).context

    def rows(self, split: str) -> "pl.DataFrame":
        import polars as pl

        return pl.read_parquet(self.folder / "text" / f"{split}.parquet")

    @property
    def writes(self) -> bool:
        """Whether answers are written, rather than labels chosen."""
        return self.made.task.kind != "classify"

    def pairs(self, split: str) -> list[Row]:
        """The rows of a split as they are learned: of several references the first."""
        rows = self.rows(split)
        if not self.writes:
            return [Row(*row) for row in rows.select("input", "output").iter_rows()]
        from bantam.judge.measure import references
        from bantam.judge.written import rows_of

        return [row._replace(output=references(row.output)[0]) for row in rows_of(rows)]

    @cached_property
    def learned(self) -> list[Row]:
        """The training rows; of those whose answers are written the ones that fit whole."""
        return self._whole(self.pairs("train"))

    @cached_property
    def val(self) -> list[Row]:
        """The validation rows, as `learned`."""
        return self._whole(self.pairs("val"))

    def _whole(self, rows: list[Row]) -> list[Row]:
        if not self.writes:
            return rows
        encode = self.tokenizer.encode
        return [row for row in rows if texts.fits(self.task, encode, row, self.room)]

    @property
    def room(self) -> int:
        """Tokens that prompt and answer may take together."""
        most = WRITING_CONTEXT if self.writes else TASK_CONTEXT
        return min(most, self.context)

    def shares(self) -> list[dict[str, float] | None]:
        """Of each training row how much of its answer each label is; empty without data.shares."""
        rows = self.rows("train")
        return rows["shares"].to_list() if "shares" in rows.columns else []

    @cached_property
    def task(self) -> kinds.Task:
        return self._written_task() if self.writes else self._label_task()

    def _written_task(self) -> kinds.Task:
        wanted, rows = self.made.task, self.pairs("train")
        told = self.folder / "text" / "schema.json"
        answers = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
        task = texts.task(
            wanted.kind,
            wanted.name,
            wanted.instruction,
            answer_schema=answers.get("schema"),
            most_calls=answers.get("most_calls", 0),
        )
        task = texts.sized(task, self.tokenizer.encode, rows, self.room)
        if task.max_text_tokens < SHORTEST:
            raise BadInput(
                "task.instruction and the longest answer leave no room for a text",
                "shorten them, or use a base with a longer context",
            )
        return task

    def _label_task(self) -> kinds.Task:
        judged = {split: self.rows(split)["output"] for split in ("val", "test")}
        wanted = self.made.task
        labels = classify.labels_of(self.rows("train")["output"], judged, wanted.multi)
        task = classify.task(wanted.name, wanted.instruction, labels, wanted.multi)
        tree = classify.label_tree(task, self.tokenizer.encode, self.tokenizer.eos_id or 0)
        # A tuned model learns any token for a label: one pass decides instead of one a branch.
        task = replace(task, one_token=task.multi or len(tree.branches) > 1)
        room = classify.room(task, self.tokenizer.encode, self.room)
        if room < SHORTEST:
            raise BadInput(
                f"task.instruction and the longest label leave room for {max(room, 0)} tokens of "
                "a text",
                "shorten them",
            )
        return replace(task, max_text_tokens=min(task.max_text_tokens, room))


def make(
    path: Path, folder: Path | None = None, schema: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Run every stage of the recipe at `path` and return the verdict.

    `schema` is of the answers, in place of the one that the recipe names. The run is made in
    `folder`, or runs/NAME below the current one. BadInput before anything is spent, JobFailed when
    a stage fails; what was finished is kept and taken up by the next call.
    """
    made = recipe.load(path)
    if schema is not None and (made.task.kind != "extract" or made.data.tools):
        raise BadInput("a schema was given, but these answers follow none", "leave it out")
    folder = folder or run_folder(made)
    if in_the_way := [place for place in (folder, *folder.parents) if place.is_file()]:
        raise BadInput(f"{in_the_way[0]} is a file, no place for a run", "name a folder with --run")
    with runs.alone(folder):
        job = Job(made, folder, _sources(made, folder), schema or recipe.answer_schema(made))
        _base(job)
        runs.write_text(folder / "recipe.toml", path.read_text(encoding="utf-8"))
        text_key = _text(job)
        _check_rivals(job)
        train_key = _train(job, text_key)
        model_key = _model(job, train_key)
        pack_key = _pack(job, model_key)
        _adapter(job, pack_key)
        verdict = _judge(job, pack_key)
        _handover(job, pack_key)
        _report(job)
    return verdict


def run_folder(made: recipe.Recipe) -> Path:
    """Where a recipe is made when nothing else is said."""
    return Path("runs") / made.task.name


def _check_rivals(job: Job) -> None:
    """Refuse a rival that has nothing to do before training."""
    if "tagger" in job.made.judge.rivals:
        from bantam.judge import tagger

        tagger.check(job.rows("train")["output"].to_list())


def _sources(made: recipe.Recipe, folder: Path) -> dict[str, sources.Source]:
    """Find every source, fetching what is not here, and write them into the lock."""
    names = [made.base.model, *made.data.examples]
    for files in (made.data.val, made.data.test):
        names += files if isinstance(files, list) else []
    names += [made.data.mended] if made.data.mended else []
    names += _asked(made)
    locked = read_lock(folder).get("sources", {})
    here = made.path.parent
    anew = not locked.keys() >= set(names)
    key = runs.key_of("sources", names)
    with ledger.spent(folder / "ledger.jsonl", "sources", key) if anew else nullcontext():
        found = {}
        for name in dict.fromkeys(names):
            remote = locked.get(name, {}).get("scheme", "path") != "path"
            pinned = locked[name]["sha256"] if remote else None
            found[name] = sources.resolve(name, relative_to=here, expect_sha256=pinned)
    # What is no model is told now, before anything is spent.
    sources.model_file(found[made.base.model])
    for name in _asked(made):
        rival_in(found[name], made.task.kind)
    told = {
        name: {
            "scheme": source.scheme,
            "sha256": source.sha256,
            "size": source.size,
            "origin": source.origin,
            "licence": licence_in(source.root)["name"],
        }
        for name, source in found.items()
    }
    _lock(folder, sources=told, base=made.base.model, version=__version__)
    for name, source in found.items():
        licence = licence_in(source.root)
        if licence["terms"]:
            say(f"note: {name} may be used only under the {licence['name']}")
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


def _text(job: Job) -> str:
    """Labelled files to train, val, test and dropped rows."""
    data, found = job.made.data, job.found
    files = {
        "examples": data.examples,
        "val": data.val if isinstance(data.val, list) else [],
        "test": data.test if isinstance(data.test, list) else [],
        "mended": [data.mended] if data.mended else [],
    }
    kind, schema = job.made.task.kind, job.schema
    key = runs.key_of(
        "text",
        2,
        data.model_dump(),
        job.made.task.multi,
        {n: found[n].sha256 for names in files.values() for n in names},
        # As text, since the order of its properties is that of the answers.
        *([kind, schema and json.dumps(schema)] if job.writes else []),
    )

    def build(folder: Path) -> None:
        from bantam.text import answers, mending, suspects
        from bantam.text.prepare import SPLITS, prepare

        multi = job.made.task.multi
        examples, val, test, mended = ([found[n].path for n in names] for names in files.values())
        prepared = prepare(data, examples, val, test, multi, kind, schema, *mended)
        checked = suspects.check(prepared.labelled, kind, multi, data.seed, prepared.mended)
        mending.write(folder / "to_mend.csv", checked.suspects, prepared.mended)
        splits = {name: getattr(prepared, name) for name in SPLITS}
        if kind == "extract" and data.tools:
            splits, most = answers.settled_calls(splits)
            runs.write_json(folder / "schema.json", {"most_calls": most})
        elif kind == "extract":
            splits, settled = answers.settled(splits, schema)
            runs.write_json(folder / "schema.json", {"schema": settled})
        for name, frame in (splits | {"dropped": prepared.dropped}).items():
            frame.write_parquet(folder / f"{name}.parquet")
        report = prepared.report | {"label_check": checked.report}
        runs.write_json(folder / "report.json", report)

    _stage(job, "text", key, build)
    report = json.loads((job.folder / "text" / "report.json").read_text(encoding="utf-8"))
    for warning in report["warnings"]:
        say(f"  warning: {warning}")
    if count := sum(part["rows"] for part in report["label_check"]["suspects"]):
        say(f"  {count} labels to look at: {job.folder / 'text' / 'to_mend.csv'}")
    _lock(job.folder, split_sha256=report["split_hash"], split_seed=data.seed)
    return key


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

    _stage(job, "train", key, build, resumes=True, predicted_seconds=made.train.budget)
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
    )
    _lock(job.folder, plan=asdict(plan), plan_key=key, warnings=warnings)
    passes = plan.steps * plan.batch_size / len(examples)
    say(
        f"  plan: {plan.method}, {plan.steps} steps of {plan.batch_size} ({passes:.1f} passes), "
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


def _model(job: Job, train_key: str) -> str:
    """The tuned weights as a Hugging Face folder."""
    key = runs.key_of("model", 1, train_key)

    def build(folder: Path) -> None:
        from bantam.nets import load
        from bantam.train import stage

        tuned = stage.merged(job.base, _followed(job), job.folder / TUNED)
        load.save(tuned, folder, job.tokenizer.bos_id, job.tokenizer.eos_id)
        job.tokenizer.save(folder)

    _stage(job, "model", key, build)
    return key


def _followed(job: Job) -> Any:
    """The plan that the train stage has followed."""
    from bantam.train.plan import Plan

    return Plan(**json.loads((job.folder / "train/plan.json").read_text(encoding="utf-8")))


def _pack(job: Job, model_key: str) -> str:
    """The model as one GGUF file, proved against the weights it was made from."""
    wanted = job.made.task.sure
    key = runs.key_of("pack", 2, model_key, BITS, wanted)

    def build(folder: Path) -> None:
        from bantam.nets import load
        from bantam.pack import gguf_file

        decoder = load.load(job.folder / "model")
        path = folder / f"{job.made.task.name}-{BITS}.gguf"

        def write(task: kinds.Task) -> Path:
            gguf_file.write(path, decoder, job.tokenizer, task, _lineage(job), BITS)
            return path

        checks = (_packed_writer if job.writes else _packed_labeller)(job, decoder, write)
        runs.write_json(folder / "proof.json", checks)
        failed = [check for check in checks if not check["passed"]]
        if failed:
            raise JobFailed(
                f"the packed file does not behave like the trained weights: {failed[0]}",
                "this is a bug in Bantam; please report it with this line",
            )

    _stage(job, "pack", key, build)
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


def _adapter(job: Job, pack_key: str) -> None:
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
        task, base = Model(_packed(job.folder)).asked(), runs.file_sha256(job.base)
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

    _stage(job, "adapter", key, build)


def _judge(job: Job, pack_key: str) -> dict[str, Any]:
    """The packed file against its rivals on the test rows."""
    made = job.made
    others = _others(made)
    digests = {name: job.found[name].sha256 for name in others}
    rules = made.judge.model_dump(), made.limits.model_dump()
    key = runs.key_of("judge", 2, pack_key, rules, digests)

    def build(folder: Path) -> None:
        from bantam.judge import judge, written
        from bantam.nets import load
        from bantam.pack import gguf_file

        lock = read_lock(job.folder)
        data = {key: lock[key] for key in ("split_sha256", "split_seed")}
        data["train_seed"] = made.train.seed
        base = folder / f"base-{BITS}.gguf"
        # Packed as ours is: only the weights differ, and no format is quicker than the other.
        gguf_file.write(base, load.load(job.base), job.tokenizer, None, {}, BITS)
        rivals = {name: gguf_in(job.found[name]) for name in others}
        splits = {name: job.rows(name) for name in ("train", "val", "test")}
        with bar("judge") as advance:

            def told(what: str, done: int, total: int) -> None:
                advance(done, total, what)

            if job.writes:
                written.judge(folder, made, _packed(job.folder), base, rivals, splits, data, told)
            else:
                judge.judge(
                    folder,
                    made,
                    _packed(job.folder),
                    base,
                    rivals,
                    judge.Rows(**splits),
                    lambda texts: _states(job, texts),
                    data,
                    told,
                )
        base.unlink()

    _stage(job, "judge", key, build)
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
                _packed(job.folder),
                larger,
                job.rows("val"),
                job.rows("test"),
                job.made.data.seed,
                lambda what, done, total: advance(done, total, what),
            )
        say(f"  {found['sentence']}")

    _stage(job, "handover", key, build)


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


def _packed(folder: Path) -> Path:
    return next((folder / "pack").glob("*.gguf"))


def _stage(
    job: Job,
    name: str,
    key: str,
    build: Callable[[Path], int | None],
    *,
    resumes: bool = False,
    predicted_seconds: float | None = None,
) -> None:
    """Run a stage into the run folder, with a line for people and one in the ledger.

    `build` fills the folder and may return how many tokens it worked through.
    """
    if runs.manifest(job.folder / name).get("key") == key:
        say(f"{name}: done before")
        return
    say(f"{name} ...")
    with ledger.spent(job.folder / "ledger.jsonl", name, key) as entry:
        entry.predicted_seconds = predicted_seconds

        def counted(folder: Path) -> None:
            entry.tokens = build(folder)

        runs.stage(job.folder, name, key, counted, resumes=resumes)
    say(f"{name}: {entry.wall_seconds:.0f} s")


def read_lock(folder: Path) -> dict[str, Any]:
    """recipe.lock.json; empty before the first run."""
    try:
        lock = json.loads((folder / "recipe.lock.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        lock = None
    if not isinstance(lock, dict):
        raise BadInput(f"{folder / 'recipe.lock.json'} is broken", "delete it to make a new one")
    return lock


def _lock(folder: Path, **decided: Any) -> None:
    runs.write_json(folder / "recipe.lock.json", read_lock(folder) | decided)
