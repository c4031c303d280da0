"""A recipe on its way: what its stages ask of it, and how each of them is made."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bantam import kinds, ledger, recipe, runs, sources
from bantam.errors import BadInput
from bantam.kinds import Row, classify, texts
from bantam.licences import licence_in
from bantam.model import TASK_CONTEXT, WRITING_CONTEXT, trained_context
from bantam.progress import say

if TYPE_CHECKING:
    import polars as pl

    from bantam.formats.tokenizer import Tokenizer
    from bantam.nets.decoder import Decoder

SHORTEST = 16  # tokens of a text; with less room there is nothing to read


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

        plan = json.loads((self.folder / "train/plan.json").read_text(encoding="utf-8"))
        return stage.frozen(self.base, plan["threads"])

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        from bantam.formats.tokenizer import Tokenizer

        return Tokenizer.of(self.base)

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


def write_lock(folder: Path, **decided: Any) -> None:
    """Write into recipe.lock.json what was decided, beside what stands there."""
    runs.write_json(folder / "recipe.lock.json", read_lock(folder) | decided)


def resolved(made: recipe.Recipe, folder: Path, names: Sequence[str]) -> dict[str, sources.Source]:
    """Find the sources of a recipe that are named, fetching what is not here; what was fetched
    before must be the same."""
    locked = read_lock(folder).get("sources", {})
    here = made.path.parent
    anew = not locked.keys() >= set(names)
    key = runs.key_of("sources", names)
    with ledger.spent(folder / "ledger.jsonl", "sources", key) if anew else nullcontext():
        found = {}
        for name in names:
            remote = locked.get(name, {}).get("scheme", "path") != "path"
            pinned = locked[name]["sha256"] if remote else None
            found[name] = sources.resolve(name, relative_to=here, expect_sha256=pinned)
    return found


def told_of(found: Mapping[str, sources.Source]) -> dict[str, dict[str, Any]]:
    """Sources as they stand in the lock."""
    return {
        name: {
            "scheme": source.scheme,
            "sha256": source.sha256,
            "size": source.size,
            "origin": source.origin,
            "licence": licence_in(source.root)["name"],
        }
        for name, source in found.items()
    }


class Placed(Protocol):
    """What is made in a run folder."""

    @property
    def folder(self) -> Path: ...


def run_stage(
    job: Placed,
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
