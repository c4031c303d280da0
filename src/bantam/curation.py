"""`bantam text`: the documents of a recipe, from files to what is worth learning from."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from bantam import ledger, recipe_documents, runs, sources
from bantam.documents import cluster, mix, pool, rate, told
from bantam.documents.curate import BENCHMARKS, Liked, curate, learned_from
from bantam.documents.document import Unread
from bantam.documents.normalise import normalise
from bantam.documents.read import read
from bantam.documents.shards import Shard
from bantam.documents.walk import Source
from bantam.errors import BadInput
from bantam.progress import bar, say
from bantam.recipe_documents import UNNAMED, Documents, From, Recipe, Score
from bantam.recipe_types import SCHEMES

WORK = "shards"  # in the run's folder


def text(
    path: Path,
    folder: Path | None = None,
    *,
    workers: int | None = None,
    ray: str | None = None,
) -> dict[str, Any]:
    """Make the text stage of a recipe of documents; gives its report.

    The run is made in `folder`, or runs/NAME below the current one: text/ holds what is kept, what
    was dropped, the order of training and the report; shards/ what was found on the way, as it was
    read. `workers` processes (None: one a core) do the work, or with `ray` the machines of the
    cluster at that address ("local": processes that Ray starts here). BadInput for what the recipe
    has wrong, JobFailed when the disk is full.
    """
    made = recipe_documents.load(path)
    folder = folder or Path("runs") / made.task.name
    if in_the_way := [place for place in (folder, *folder.parents) if place.is_file()]:
        raise BadInput(f"{in_the_way[0]} is a file, no place for a run", "name a folder with --run")
    with runs.alone(folder):
        runs.write_text(folder / "recipe.toml", path.read_text(encoding="utf-8"))
        here = path.parent
        found = list(places(made, here))
        benchmarks = _benchmarks(made.documents.against, here)
        liked = _liked(made.documents.score, here) if made.documents.score else None
        work = (folder / WORK).absolute()  # for processes that stand elsewhere
        work.mkdir(exist_ok=True)
        here_or_there = (
            cluster.joined(ray, [work, *(place.folder for place in found)], workers=workers)
            if ray
            else nullcontext(partial(pool.mapped, workers=workers))
        )
        with (
            ledger.spent(folder / "ledger.jsonl", "text", "documents"),
            here_or_there as mapped,
            bar("text") as advance,
        ):
            shards = curate(
                made.documents,
                found,
                benchmarks,
                liked,
                work,
                lambda step, done, total: advance(done, total, step),
                mapped=mapped,
            )
            key = runs.key_of("documents", 1, [shard.key for shard in shards])
            runs.stage(folder, "text", key, partial(_gathered, shards, work, made.documents))
    return told.read(folder / "text")


def _gathered(shards: Sequence[Shard], work: Path, wanted: Documents, folder: Path) -> None:
    """documents-NNNNN.parquet, dropped.parquet, order.parquet, report.json and report.html."""
    kept = [part for shard in shards for part in sorted(shard.folder.glob("kept-*.parquet"))]
    for number, part in enumerate(kept):
        runs.same_file(part, folder / f"documents-{number:05d}.parquet")
    gone = [part for shard in shards for part in sorted(shard.folder.glob("gone-*.parquet"))]
    # Few rows a group, so that whoever reads the file need not hold much of it.
    pl.scan_parquet(gone).sink_parquet(folder / "dropped.parquet", row_group_size=1024)
    read, weights = learned_from(work, wanted)
    order = mix.mix(read, weights, wanted.order, wanted.seed)
    order.write_parquet(folder / "order.parquet")
    told.write(told.report(work, wanted), folder)


def places(made: Recipe, here: Path) -> Iterator[Source]:
    """The folders and patterns that the recipe's sources come to."""
    wanted = made.documents
    if wanted.files:
        yield from _of(UNNAMED, From(files=wanted.files), here)
    for name, more in wanted.sources.items():
        yield from _of(name, more, here)


def _of(name: str, more: From, here: Path) -> Iterator[Source]:
    """A source for each folder, with all that is wanted of it: what is named twice is read once."""
    patterns: dict[tuple[Path, str | None], list[str]] = {}
    for file in more.files:
        folder, pattern, licence = _found(file, here)
        patterns.setdefault((folder, more.licence or licence), []).append(pattern)
    for (folder, licence), wanted in patterns.items():
        called = folder.relative_to(here) if folder.is_relative_to(here) else folder
        yield Source(
            name,
            folder.absolute(),
            tuple(wanted),
            more.text,
            licence,
            more.licence_column,
            called.as_posix() if len(patterns) > 1 else "",
        )


def _found(file: str, here: Path) -> tuple[Path, str, str | None]:
    """A folder, the pattern within it, and the licence if something fetched says so."""
    if file.partition(":")[0] in SCHEMES:
        found = sources.resolve(file, relative_to=here)
        at, licence = found.path, found.licence
    else:
        at, licence = here / Path(file).expanduser(), None
    if at.is_dir():
        return at, "**", licence
    if at.exists():
        return at.parent, glob.escape(at.name), licence
    fixed = Path(*(part for part in _until_pattern(at)))
    pattern = at.relative_to(fixed).as_posix()
    if not glob.has_magic(pattern) or not fixed.is_dir():
        raise BadInput(f"{at} does not exist", "name a folder, a file or a pattern such as *.md")
    return fixed, pattern, licence


def _until_pattern(path: Path) -> Iterator[str]:
    for part in path.parts:
        if glob.has_magic(part):
            return
        yield part


def _benchmarks(names: Sequence[str], here: Path) -> pl.DataFrame:
    """The rows that no document may hold: each document of these files is one."""
    found = [BENCHMARKS.to_frame()]
    for name in names:
        texts = _texts(name, here, "documents.against")
        rows = {"benchmark": name, "row": range(1, len(texts) + 1), "text": texts}
        found.append(pl.DataFrame(rows, BENCHMARKS))
    return pl.concat(found)


def _liked(wanted: Score, here: Path) -> Liked:
    """What a score is to be learned from. Raises BadInput where nothing is called good."""
    found = [_texts(name, here, "documents.score.good") for name in wanted.good]
    good = [normalise(texts)[0] for texts in found]
    bad = pl.Series(dtype=pl.String)
    if wanted.ratings:
        folder, _, _ = _found(wanted.ratings, here)
        path = folder / Path(wanted.ratings).name
        good.append(rate.texts(path, "good"))
        bad = rate.texts(path, "bad")
    return Liked(pl.concat(good), bad)


def _texts(name: str, here: Path, key: str) -> pl.Series:
    """The texts of a source. Raises BadInput where there are none."""
    folder, pattern, _ = _found(name, here)
    unread: list[Unread] = []
    texts = [frame["text"] for frame in read([Source(name, folder, (pattern,))], unread)]
    for passed in unread:
        say(f"  warning: {passed.path}: {passed.reason}")
    if not texts:
        raise BadInput(f"{name} holds no text", f"name files with text in {key}")
    return pl.concat(texts)
