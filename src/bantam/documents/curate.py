"""From files to documents worth learning from: all steps over all shards, and one look across them.

Only the look across holds something of every document (some hundred bytes, and its sketch in a
file); all else has a shard at a time. Whatever is killed goes on where it was, with equal ids.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from bantam import runs
from bantam.documents import boilerplate, draw, duplicates, language, score, steps
from bantam.documents.batches import batches
from bantam.documents.pool import Map
from bantam.documents.shards import Piece, Shard, made, numbered
from bantam.documents.walk import Source
from bantam.errors import BadInput
from bantam.recipe_documents import Documents
from bantam.runs import Stage

SCORER = "scorer.npz"
VERSION = 2  # of the steps; a new one makes all shards anew
ROW_GROUP = 10_000  # rows of found.parquet: a shard need not read much more than its own
# What the rules that judge a document do not depend on, or only by what the shards hold.
ELSEWHERE = {
    *("files", "sources", "markup", "boilerplate", "score", "against", "order", "val", "seed")
}
Told = Callable[[str, int, int], None]  # the step, shards done, shards in all

BENCHMARKS = pl.Schema({"benchmark": pl.String(), "row": pl.Int64(), "text": pl.String()})


class Liked(NamedTuple):
    """Texts that are called good, and those that are called bad (none: a sample of all is)."""

    good: pl.Series
    bad: pl.Series


def curate(
    wanted: Documents,
    sources: Sequence[Source],
    benchmarks: pl.DataFrame,
    liked: Liked | None,
    work: Path,
    told: Told,
    *,
    mapped: Map,
) -> list[Shard]:
    """The shards of the last step, below `work`, with all others beside them; passed.json tells
    what was passed over before anything was read.

    `benchmarks` are the rows (of BENCHMARKS) that no document may hold, `liked` what a score is
    learned from. `mapped` runs the steps of a shard, here or elsewhere. `work` holds texts as they
    were read, before anything is redacted. Raises BadInput for settings that cannot be, before
    anything is read, and when no document is kept.
    """
    steps.redaction(wanted.redact)
    language.check(wanted.languages)
    run = partial(made, mapped=mapped)
    held, passed = batches(sources)
    work.mkdir(parents=True, exist_ok=True)
    runs.write_json(work / "passed.json", passed)
    key = partial(runs.key_of, VERSION)
    counted = wanted.boilerplate and wanted.boilerplate.model_dump()
    pieces = [
        Piece(
            folder,
            key("read", batch.key, wanted.markup, counted),
            partial(steps.read, batch.files, wanted),
        )
        for batch, folder in zip(held, numbered(work / "read", len(held)), strict=True)
    ]
    read = run(pieces, partial(told, "read"))
    read = [shard for shard in read if _json(shard.folder / "read.json")["documents"]]
    if not read:
        raise BadInput("no document was found", f"look at {work / 'read'}, or name other files")
    plain = _boilerplate(wanted, read, work)
    rows = _written(benchmarks, work / "benchmarks.parquet")
    scorer = _learned(wanted, liked, read, work) if liked else None
    rules = [wanted.model_dump(exclude=ELSEWHERE), scorer and scorer.key]
    drawn_with = secret(work)
    if wanted.redact.fakes:
        rules.append(drawn_with.hex())
    made_of = [runs.file_sha256(plain), runs.file_sha256(rows), runs.key_of(rules)]
    table = scorer.folder / SCORER if scorer else None
    pieces = [
        Piece(
            folder,
            key("clean", shard.key, made_of),
            partial(steps.clean, shard.folder, plain, rows, table, wanted, drawn_with),
        )
        for shard, folder in zip(read, numbered(work / "clean", len(read)), strict=True)
    ]
    clean = run(pieces, partial(told, "clean"))
    compared = _compared(wanted, clean, work)
    found, least = compared.folder / "found.parquet", _json(compared.folder / "score.json")
    rows = _json(compared.folder / "rows.json")
    pieces = [
        Piece(
            folder,
            key("settle", shard.key, compared.key),
            partial(steps.settle, shard.folder, found, here, least),
        )
        for shard, here, folder in zip(
            clean, rows, numbered(work / "settle", len(clean)), strict=True
        )
    ]
    return run(pieces, partial(told, "settle"))


def learned_from(work: Path, wanted: Documents) -> tuple[pl.DataFrame, dict[str, float]]:
    """What training may read, in numbers alone: a row a document, and each source's weight."""
    columns = ["id", "source", "split", "words", *steps.HARDNESS]
    columns += ["score"] if wanted.score else []
    paths = sorted(work.glob("settle/*/kept-*.parquet"))
    kept = pl.concat(pl.read_parquet(path, columns=columns) for path in paths)
    kept = kept.filter(pl.col("split") == "train")
    there = set(kept["source"])
    return kept, {name: one.weight for name, one in wanted.sources.items() if name in there}


def secret(work: Path) -> bytes:
    """What fakes are drawn with: made once, so that they stay the same."""
    path = work / "secret"
    if not path.exists():
        path.touch(0o600)
    if not path.stat().st_size:  # it may have been killed here
        path.write_text(secrets.token_hex(32))
    return bytes.fromhex(path.read_text())


def _learned(wanted: Documents, liked: Liked, read: Sequence[Shard], work: Path) -> Stage:
    """The stage with the scorer, learned from what is liked."""
    sides = [side.to_list() for side in liked]
    key = runs.key_of(VERSION, "score", sides, [shard.key for shard in read], wanted.seed)

    def learn(folder: Path) -> None:
        others = liked.bad if len(liked.bad) else _sampled(read, wanted.seed)
        learned = score.learn(liked.good, others, wanted.seed)
        score.save(learned, folder / SCORER)
        told = {"warnings": score.warnings(learned)} | {
            name: value for name, value in vars(learned).items() if name != "weights"
        }
        runs.write_json(folder / "score.json", told)

    return runs.stage(work, "score", key, learn)


def _sampled(read: Sequence[Shard], seed: int) -> pl.Series:
    """Some documents of all, by chance."""
    paths = [path for shard in read for path in sorted(shard.folder.glob("documents-*.parquet"))]
    ids = pl.concat(pl.read_parquet(path, columns=["id"]) for path in paths)["id"]
    taken = ids.gather(draw.sample(ids, score.MOST, seed, "background")).implode()
    texts = [pl.scan_parquet(path).filter(pl.col("id").is_in(taken)) for path in paths]
    return pl.concat(text.select("text").collect() for text in texts)["text"]


def _boilerplate(wanted: Documents, read: Sequence[Shard], work: Path) -> Path:
    """The file of the lines that recur in each source."""
    found, sizes = (
        pl.concat(pl.read_parquet(shard.folder / f"{name}.parquet") for shard in read)
        for name in ("recurring", "sizes")
    )
    if wanted.boilerplate:
        found = boilerplate.recurring(found, sizes, wanted.boilerplate)
    return _written(found, work / "boilerplate.parquet")


def _compared(wanted: Documents, clean: Sequence[Shard], work: Path) -> Stage:
    """The stage that says from which score on documents stay, which are copies, and which are held
    out."""
    keep = wanted.score and wanted.score.keep
    key = runs.key_of(VERSION, [shard.key for shard in clean], keep, wanted.val, wanted.seed)
    return runs.stage(work, "compared", key, partial(_compare, wanted, clean))


def _compare(wanted: Documents, clean: Sequence[Shard], folder: Path) -> None:
    """found.parquet; rows.json: where the rows of each shard begin in it, and how many they are;
    and score.json: the least score that stays, or null."""
    least = _least(wanted.score.keep, clean) if wanted.score else None
    runs.write_json(folder / "score.json", least)
    columns = ["id", "licence", "words", "symbols", "reason", *(["score"] if wanted.score else [])]
    documents, exact, count = [], [], 0
    rows: list[tuple[int, int]] = []
    gone: Counter[str] = Counter()
    path = folder / "signatures"
    with path.open("wb") as file:
        for shard in clean:
            frame = pl.concat(
                pl.read_parquet(part, columns=columns)
                for part in sorted(shard.folder.glob("documents-*.parquet"))
            )
            gone.update(frame["reason"].drop_nulls().to_list())
            stays = frame["reason"].is_null()
            if least is not None:
                stays &= frame["score"] >= least
            with np.load(shard.folder / "sketch.npz") as sketch:
                exact.append(sketch["exact"][stays])
                sketch["signatures"][stays].tofile(file)
            documents.append(frame.filter(stays).select("id", "licence", "words", "symbols"))
            rows.append((count, int(stays.sum())))
            count += rows[-1][1]
    if count == 0:
        first = "; ".join(f"{rule} took {number:,}" for rule, number in gone.most_common(3))
        raise BadInput(
            f"the rules leave no document: {first}", "change their limits, or switch them off"
        )
    signatures = np.memmap(path, np.uint32, "r", shape=(count, duplicates.NUMBERS))
    frame = pl.concat(documents)
    documents.clear()  # memory grows with these, so nothing is held twice
    assert frame["id"].is_unique().all(), "two documents have one id"
    hashes = np.concatenate(exact)
    exact.clear()
    found = duplicates.find(frame, hashes, signatures)
    del signatures
    path.unlink()
    _held_out(found, wanted).write_parquet(folder / "found.parquet", row_group_size=ROW_GROUP)
    runs.write_json(folder / "rows.json", rows)


def _least(keep: float, clean: Sequence[Shard]) -> float:
    """The score from which on documents stay, of those that no rule is against."""
    paths = [path for shard in clean for path in sorted(shard.folder.glob("documents-*.parquet"))]
    frames = (pl.read_parquet(path, columns=["reason", "score"]) for path in paths)
    scores = pl.concat(frame.filter(pl.col("reason").is_null())["score"] for frame in frames)
    return score.threshold(scores, keep)


def _held_out(found: pl.DataFrame, wanted: Documents) -> pl.DataFrame:
    """With the column `split`: documents that copies link are all in one."""
    first = found.select(pl.col("id").min().over("cluster")).to_series()
    val = pl.Series(draw.drawn(first, wanted.seed, "val") < wanted.val * 2.0**64)
    split = pl.when(val).then(pl.lit("val")).otherwise(pl.lit("train"))
    return found.with_columns(split=split)


def _written(frame: pl.DataFrame, path: Path) -> Path:
    """A file that all shards read, whole or not at all."""
    partial = path.with_suffix(".partial")
    frame.write_parquet(partial)
    partial.replace(path)
    return path


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
