"""The labelled rows of a recipe, from files to what is learned from: a stage of `bantam make`, and
by itself `bantam text`."""

import json
from pathlib import Path
from typing import Any

from bantam import __version__, recipe, runs
from bantam.errors import BadInput
from bantam.job import Job, read_lock, resolved, run_stage, told_of, write_lock
from bantam.progress import say


def text(path: Path, folder: Path) -> dict[str, Any]:
    """Make the text stage of a recipe in a run folder, where `bantam make` then finds it, and
    report.html of it; gives its report. Neither base nor rivals are looked for."""
    made = recipe.load(path)
    if in_the_way := [place for place in (folder, *folder.parents) if place.is_file()]:
        raise BadInput(f"{in_the_way[0]} is a file, no place for a run", "name a folder with --run")
    with runs.alone(folder):
        found = resolved(made, folder, made.data.files)
        told = read_lock(folder).get("sources", {}) | told_of(found)
        write_lock(folder, sources=told, version=__version__)
        runs.write_text(folder / "recipe.toml", path.read_text(encoding="utf-8"))
        stage(Job(made, folder, found, recipe.answer_schema(made)))
        _page(folder)
    return _report(folder)


def words(told: dict[str, Any]) -> str:
    """The report in some lines."""
    rows = {name: split["rows"] for name, split in told["splits"].items()}
    found = [
        f"{told['rows_kept']:,} of {told['rows_read']:,} rows are kept: "
        + ", ".join(f"{count:,} {name}" for name, count in rows.items())
    ]
    found += [f"  {one['rows']:9,}  {one['reason']}" for one in told["dropped"]]
    return "\n".join(found)


def stage(job: Job) -> str:
    """Labelled files to train, val, test and dropped rows; gives the key of the stage."""
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

    run_stage(job, "text", key, build)
    report = _report(job.folder)
    for warning in report["warnings"]:
        say(f"  warning: {warning}")
    if count := sum(part["rows"] for part in report["label_check"]["suspects"]):
        say(f"  {count} labels to look at: {job.folder / 'text' / 'to_mend.csv'}")
    write_lock(job.folder, split_sha256=report["split_hash"], split_seed=data.seed)
    return key


def _report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(
        (folder / "text" / "report.json").read_text(encoding="utf-8")
    )
    return report


def _page(folder: Path) -> None:
    from bantam.judge import report

    runs.write_text(folder / "report.html", report.report(report.read_run(folder)))
