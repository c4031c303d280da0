"""What became of the documents, counted over the shards of all steps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from bantam import runs
from bantam.documents import redact

SCHEMA = 1  # of report.json
SHOWN = 50  # files, lines and findings that are told one by one


def report(work: Path) -> dict[str, Any]:
    """Documents and bytes read and kept, why the others went, and what was found on the way."""
    read = [_json(path) for path in sorted(work.glob("read/*/read.json"))]
    unread = _json(work / "passed.json") + [one for shard in read for one in shard["unread"]]
    gone: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    bytes = 0
    for frame in _frames(work, "settle/*/gone-*.parquet"):
        whole = pl.col("line").is_null()
        gone.update(frame.filter(whole)["reason"].to_list())
        lines.update(frame.filter(~whole)["reason"].to_list())
    for frame in _frames(work, "settle/*/kept-*.parquet"):
        kept.update(frame["split"].to_list())
        bytes += int(frame["text"].str.len_bytes().sum())
    hits = pl.concat(_frames(work, "clean/*/contaminated-*.parquet"))
    personal = redact.totals(_frames(work, "clean/*/redacted.parquet"))
    return {
        "schema": SCHEMA,
        "read": {key: sum(shard[key] for shard in read) for key in ("documents", "bytes")},
        "kept": {"documents": kept.total(), "bytes": bytes, "splits": dict(kept)},
        "dropped": dict(gone.most_common()),
        "dropped_lines": dict(lines.most_common()),
        "repeated_lines": pl.read_parquet(work / "boilerplate.parquet").head(SHOWN).to_dicts(),
        "redacted": personal.to_dicts(),
        "contaminated": hits.head(SHOWN).to_dicts(),
        "unread": {"files": len(unread), "first": unread[:SHOWN]},
    }


def words(told: dict[str, Any]) -> str:
    """The report in some lines."""
    read, kept = told["read"], told["kept"]
    found = [
        f"{kept['documents']:,} of {read['documents']:,} documents are kept, "
        f"{kept['bytes'] / 1e6:.1f} of {read['bytes'] / 1e6:.1f} MB"
    ]
    found += [f"  {count:9,}  {reason}" for reason, count in told["dropped"].items()]
    if lines := sum(told["dropped_lines"].values()):
        found.append(f"{lines:,} lines were taken out of documents")
    if personal := {one["kind"]: one["count"] for one in told["redacted"]}:
        found.append("replaced: " + ", ".join(f"{n:,} {kind}" for kind, n in personal.items()))
    if told["unread"]["files"]:
        found.append(f"{told['unread']['files']:,} files or parts could not be read, such as")
        found += [f"  {path}: {why}" for _, path, why in told["unread"]["first"][:5]]
    return "\n".join(found)


def _frames(work: Path, pattern: str) -> Iterator[pl.DataFrame]:
    return map(pl.read_parquet, sorted(work.glob(pattern)))


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write(told: dict[str, Any], folder: Path) -> None:
    """report.json."""
    runs.write_json(folder / "report.json", told)


def read(folder: Path) -> dict[str, Any]:
    """What `write` wrote."""
    found: dict[str, Any] = _json(folder / "report.json")
    return found
