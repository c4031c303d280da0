"""From files to documents worth learning from: all steps over all shards, and one look across them.

Only the look across holds something of every document (some hundred bytes, and its sketch in a
file); all else has a shard at a time. Whatever is killed goes on where it was, with equal ids.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bantam import runs
from bantam.documents import boilerplate, duplicates, steps
from bantam.documents.batches import batches
from bantam.documents.shards import Piece, Shard, made, numbered
from bantam.documents.walk import Source
from bantam.errors import BadInput
from bantam.recipe_documents import Documents

VERSION = 1  # of the steps; a new one makes all shards anew
# What the rules that judge a document do not depend on, or only by what the shards hold.
ELSEWHERE = {"files", "sources", "markup", "boilerplate", "against", "val", "seed"}
Told = Callable[[str, int, int], None]  # the step, shards done, shards in all

BENCHMARKS = pl.Schema({"benchmark": pl.String(), "row": pl.Int64(), "text": pl.String()})


def curate(
    wanted: Documents,
    sources: Sequence[Source],
    benchmarks: pl.DataFrame,
    work: Path,
    told: Told,
    *,
    workers: int | None = None,
) -> list[Shard]:
    """The shards of the last step, below `work`, with all others beside them; passed.json tells
    what was passed over before anything was read.

    `benchmarks` are the rows (of BENCHMARKS) that no document may hold. `work` holds texts as they
    were read, before anything is redacted. Raises BadInput when no document is kept.
    """
    run = partial(made, workers=workers)
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
    rules = wanted.model_dump(exclude=ELSEWHERE)
    pieces = [
        Piece(
            folder,
            key("clean", shard.key, runs.file_sha256(plain), runs.file_sha256(rows), rules),
            partial(steps.clean, shard.folder, plain, rows, wanted, secret(work)),
        )
        for shard, folder in zip(read, numbered(work / "clean", len(read)), strict=True)
    ]
    clean = run(pieces, partial(told, "clean"))
    found = _compared(wanted, clean, work)
    pieces = [
        Piece(
            folder,
            key("settle", shard.key, runs.file_sha256(found)),
            partial(steps.settle, shard.folder, found),
        )
        for shard, folder in zip(clean, numbered(work / "settle", len(clean)), strict=True)
    ]
    return run(pieces, partial(told, "settle"))


def secret(work: Path) -> bytes:
    """What fakes are drawn with: made once, so that they stay the same."""
    path = work / "secret"
    if not path.exists():
        runs.write_text(path, np.random.default_rng().bytes(32).hex())
        path.chmod(0o600)
    return bytes.fromhex(path.read_text())


def _boilerplate(wanted: Documents, read: Sequence[Shard], work: Path) -> Path:
    """The file of the lines that recur in each source."""
    found, sizes = (
        pl.concat(pl.read_parquet(shard.folder / f"{name}.parquet") for shard in read)
        for name in ("recurring", "sizes")
    )
    if wanted.boilerplate:
        found = boilerplate.recurring(found, sizes, wanted.boilerplate)
    return _written(found, work / "boilerplate.parquet")


def _compared(wanted: Documents, clean: Sequence[Shard], work: Path) -> Path:
    """The file that says which documents are copies, and which are held out."""
    key = runs.key_of(VERSION, [shard.key for shard in clean], wanted.val, wanted.seed)
    done = runs.stage(work, "compared", key, partial(_compare, wanted, clean))
    return done.folder / "found.parquet"


def _compare(wanted: Documents, clean: Sequence[Shard], folder: Path) -> None:
    documents, exact, count = [], [], 0
    path = folder / "signatures"
    with path.open("wb") as file:
        for shard in clean:
            frame = pl.concat(
                pl.read_parquet(part, columns=["id", "licence", "words", "symbols", "reason"])
                for part in sorted(shard.folder.glob("documents-*.parquet"))
            )
            stays = frame["reason"].is_null()
            with np.load(shard.folder / "sketch.npz") as sketch:
                exact.append(sketch["exact"][stays])
                sketch["signatures"][stays].tofile(file)
            documents.append(frame.filter(stays).drop("reason"))
            count += int(stays.sum())
    if count == 0:
        raise BadInput(
            "the rules leave no document",
            "look at dropped documents with `bantam text show`, and switch rules off",
        )
    signatures = np.memmap(path, np.uint32, "r", shape=(count, duplicates.NUMBERS))
    found = duplicates.find(pl.concat(documents), np.concatenate(exact), signatures)
    del signatures
    path.unlink()
    _held_out(found, wanted).write_parquet(folder / "found.parquet")


def _held_out(found: pl.DataFrame, wanted: Documents) -> pl.DataFrame:
    """With the column `split`: documents that copies link are all in one."""
    first = found.select(pl.col("id").min().over("cluster")).to_series()

    def drawn(id: str) -> float:
        digest = blake2b(f"{wanted.seed} {id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64

    val = pl.Series([drawn(id) < wanted.val for id in first], dtype=pl.Boolean)
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
