"""What became of the documents: report.json, from the shards of all steps, one at a time.

What was dropped is counted in the order in which the steps take it: lines first, then whole
documents, each by the first rule that is against it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from bantam import runs
from bantam.documents import counts, examples, mix, redact, report_page
from bantam.documents.curate import learned_from
from bantam.documents.examples import PLACE
from bantam.documents.histograms import histograms
from bantam.recipe_documents import Documents, Rules

SCHEMA = 1  # of report.json
UNREAD = 50  # files that are told one by one
REASONS = 20  # why files could not be read
# In which order documents go, though other rules of Gopher than min_words come after repetition; a
# rule is of the step that it begins with, as in "gopher.min_words".
STEPS = (
    *("no text", "language", "gopher", "repetition", "c4", "fineweb"),
    *("contaminated", "score", "duplicate", "near duplicate"),
)

Plain = dict[str, Any]


def report(work: Path, wanted: Documents) -> Plain:
    """Documents and bytes read and kept, why the others went, and what was found on the way, from
    the folder that `curate` worked in.

    Bytes are those of normalised text in UTF-8; once lines are gone, those of redacted text.
    """
    read = [_json(path) for path in sorted(work.glob("read/*/read.json"))]
    unread = _json(work / "passed.json") + [one for shard in read for one in shard["unread"]]
    whole, lines = examples.dropped(_frames(work, "settle/*/gone-*.parquet"), wanted.seed)
    for rule in whole + lines:
        rule["limit"] = _limit(rule["rule"], wanted)
    sources, splits = counts.sources(
        _frames(work, "read/*/documents-*.parquet", ["source", "text"]),
        _frames(work, "settle/*/kept-*.parquet", list(counts.KEPT)),
    )
    total = {
        key: {unit: sum(one[key][unit] for one in sources) for unit in ("documents", "bytes")}
        for key in ("read", "kept")
    }
    found = pl.read_parquet(work / "compared" / "found.parquet")
    learned = None
    if wanted.score:
        least = _json(work / "compared" / "score.json")
        learned = _json(work / "score" / "score.json") | {"least": least}
    placed = ["id", "text", *PLACE]
    return {
        "schema": SCHEMA,
        "read": total["read"],
        "kept": total["kept"] | {"words": sum(split["words"] for split in splits.values())},
        "splits": splits,
        "funnel": _funnel(total["read"], total["kept"], whole),
        "dropped": whole,
        "dropped_lines": lines,
        "repeated_lines": examples.repeated(_frames(work, "settle/*/gone-*.parquet")),
        "histograms": histograms(_kept(work, "measures"), wanted),
        "languages": counts.languages(_kept(work, "documents", ["language"])),
        "sources": sources,
        "score": learned,
        "mix": _mix(work, wanted),
        "near_copies": examples.clusters(
            found, _frames(work, "clean/*/documents-*.parquet", placed), wanted.seed
        ),
        "redacted": redact.totals(_frames(work, "clean/*/redacted.parquet")).to_dicts(),
        "contaminated": counts.contaminated(
            zip(
                _frames(work, "clean/*/contaminated-*.parquet"),
                _frames(work, "clean/*/documents-*.parquet", ["id", *PLACE]),
                strict=True,
            )
        ),
        "mended": dict(sum((Counter(shard["mended"]) for shard in read), Counter())),
        "unread": {
            "files": len(unread),
            "reasons": dict(Counter(_kind(why) for _, _, why in unread).most_common(REASONS)),
            "first": unread[:UNREAD],
        },
    }


def _mix(work: Path, wanted: Documents) -> Plain:
    """What each source gives to training, and what to know of it."""
    read, weights = learned_from(work, wanted)
    return {
        "order": wanted.order,
        "sources": mix.table(read, weights, wanted.seed).to_dicts(),
        "warnings": mix.warnings(weights),
    }


def words(told: Plain) -> str:
    """The report in some lines."""
    read, kept = told["read"], told["kept"]
    unit, size = ("MB", 1e6) if read["bytes"] >= 1e6 else ("kB", 1e3)
    found = [
        f"{kept['documents']:,} of {read['documents']:,} documents are kept, "
        f"{kept['bytes'] / size:.1f} of {read['bytes'] / size:.1f} {unit}"
    ]
    found += [f"  {rule['count']:9,}  {rule['rule']}" for rule in told["dropped"]]
    if lines := sum(rule["count"] for rule in told["dropped_lines"]):
        found.append(f"{lines:,} lines were taken out of documents")
    if learned := told["score"]:
        found.append(
            f"the score told {learned['auc']:.2f} of pairs right that it had not seen; from "
            f"{learned['least']:.2g} on documents stay"
        )
        found += [f"  warning: {warning}" for warning in learned["warnings"]]
    found += [f"  warning: {warning}" for warning in told["mix"]["warnings"]]
    if personal := {one["kind"]: one["count"] for one in told["redacted"]}:
        found.append("replaced: " + ", ".join(f"{n:,} {kind}" for kind, n in personal.items()))
    if told["unread"]["files"]:
        found.append(f"{told['unread']['files']:,} files or parts could not be read, such as")
        found += [f"  {path}: {why}" for _, path, why in told["unread"]["first"][:5]]
    return "\n".join(found)


def write(told: Plain, folder: Path) -> None:
    """report.json and report.html."""
    runs.write_json(folder / "report.json", told)
    runs.write_text(folder / "report.html", report_page.page(told))


def read(folder: Path) -> Plain:
    """The report that `write` wrote."""
    found: Plain = _json(folder / "report.json")
    return found


def _funnel(read: Plain, kept: Plain, dropped: Sequence[Plain]) -> list[Plain]:
    """What is left after each step that took something: `step`, `documents`, `bytes`."""
    documents = read["documents"]
    bytes = kept["bytes"] + sum(rule["bytes"] for rule in dropped)
    told = [
        {"step": "read", **read},
        {"step": "lines", "documents": documents, "bytes": bytes},
    ]
    steps = dict.fromkeys(STEPS) | dict.fromkeys(_step(rule) for rule in dropped)
    for step in steps:
        rules = [rule for rule in dropped if _step(rule) == step]
        documents -= sum(rule["count"] for rule in rules)
        bytes -= sum(rule["bytes"] for rule in rules)
        if rules:
            told.append({"step": step, "documents": documents, "bytes": bytes})
    return told


def _step(rule: Plain) -> str:
    return str(rule["rule"]).partition(".")[0]


def _limit(reason: str, rules: Rules) -> float | None:
    """The number that a rule compares with, null for rules without one."""
    section, _, key = reason.partition(".")
    limit = getattr(getattr(rules, section, None), key, None) if key else None
    return None if isinstance(limit, bool) else limit


def _kind(why: str) -> str:
    """What reasons of one kind begin with."""
    return re.split(r"[:(]", why)[0].strip()


def _kept(
    work: Path, name: str, columns: list[str] | None = None
) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
    """The frames of this name that are of each shard's documents, and which of these are kept."""
    for path in sorted(work.glob("clean/*/documents-*.parquet")):
        number, shard = path.stem.partition("-")[2], path.parent.name
        kept = pl.read_parquet(work / "settle" / shard / f"kept-{number}.parquet", columns=["id"])
        ids = pl.read_parquet(path, columns=["id"])["id"]
        frame = pl.read_parquet(path.with_name(f"{name}-{number}.parquet"), columns=columns)
        yield frame, ids.is_in(kept["id"].implode())


def _frames(work: Path, pattern: str, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
    for path in sorted(work.glob(pattern)):
        yield pl.read_parquet(path, columns=columns)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
