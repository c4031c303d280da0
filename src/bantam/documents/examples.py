"""Documents and lines to look at, drawn by chance: what each rule took, what was called a copy."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import polars as pl

from bantam.documents.draw import drawn, sample

SHOWN = 300  # characters of each text
OF_RULE = 3  # examples of what a rule took
LARGEST, OTHERS = 4, 6  # clusters: the largest, and some of the others
REPEATED = 50  # lines that recur

PLACE = ("source", "path", "part")
Plain = dict[str, Any]


def dropped(frames: Iterable[pl.DataFrame], seed: int) -> tuple[list[Plain], list[Plain]]:
    """What each rule took out, most first: whole documents, and lines.

    `frames` have the columns of `steps.GONE`. Of each rule: `rule`, `count`, `bytes`, and
    `examples`, from as many documents and with as many texts: `source`, `path`, `part`, `line`,
    `value`, `text` (its beginning). Which ones does not depend on how documents lie in shards.
    """
    counts: Counter[tuple[str, bool]] = Counter()
    sizes: Counter[tuple[str, bool]] = Counter()
    found = pl.DataFrame()
    for frame in frames:
        frame = frame.with_columns(pl.col("line").is_null().alias("whole"))
        rule = ["reason", "whole"]
        size = pl.col("text").str.len_bytes().sum()
        for reason, whole, count, bytes in frame.group_by(rule).agg(pl.len(), size).iter_rows():
            counts[reason, whole] += count
            sizes[reason, whole] += bytes
        chance = pl.Series("chance", drawn(frame["id"], seed, "examples"))
        here = frame.select(*rule, *PLACE, "line", "id", _beginning("value"), _beginning("text"))
        found = pl.concat([found, here.with_columns(chance)], how="diagonal")
        found = found.sort("chance", "line")
        for once in ("id", "text"):
            found = found.unique([*rule, once], keep="first", maintain_order=True)
        found = found.group_by(rule, maintain_order=True).head(OF_RULE)

    def told(whole: bool) -> list[Plain]:
        rules = [key for key in counts if key[1] == whole]
        return [
            {
                "rule": reason,
                "count": counts[reason, whole],
                "bytes": sizes[reason, whole],
                "examples": found.filter(reason=reason, whole=whole)
                .select(*PLACE, "line", "value", "text")
                .to_dicts(),
            }
            for reason, _ in sorted(rules, key=lambda key: (-counts[key], key))
        ]

    return told(True), told(False)


def repeated(frames: Iterable[pl.DataFrame]) -> list[Plain]:
    """The lines that recurred most, from frames as in `dropped`: `source`, `text`, `documents`
    (that held it), `lines` (that were taken out)."""
    held: dict[tuple[str, str], int] = {}
    lines: Counter[tuple[str, str]] = Counter()
    for frame in frames:
        here = frame.filter(pl.col("line").is_not_null(), pl.col("reason") == "boilerplate")
        told = here.group_by("source", "text").agg(pl.len(), pl.col("value").first())
        for source, text, count, value in told.iter_rows():
            lines[source, text] += count
            held[source, text] = int(value)
    most = sorted(lines, key=lambda line: (-held[line], line))[:REPEATED]
    return [
        {
            "source": source,
            "text": text[:SHOWN],
            "documents": held[source, text],
            "lines": lines[source, text],
        }
        for source, text in most
    ]


def clusters(found: pl.DataFrame, frames: Iterable[pl.DataFrame], seed: int) -> Plain:
    """Near copies, some to look at: the largest clusters, and others drawn by chance.

    `found` is what `duplicates.find` gave; `frames` are the documents, with `id`, `text` and PLACE.
    `clusters` and `documents` count those in which not all copies are exact. Of a cluster: `size`,
    `dropped`, and `members`: the document that stays, and the two most unlike it of those that went
    in its favour (`similarity`).
    """
    near = found.filter(pl.col("survivor").is_not_null(), pl.col("similarity") < 1)
    sizes = (
        found.filter(pl.col("cluster").is_in(near["cluster"].unique().implode()))
        .group_by("cluster")
        .agg(
            size=pl.len(), dropped=pl.col("survivor").is_not_null().sum(), first=pl.col("id").min()
        )
        .sort(pl.col("size"), "first", descending=[True, False])
    )
    others = sizes[LARGEST:]
    others = others[sample(others["first"], OTHERS, seed, "clusters")]
    members = {
        cluster: _members(near.filter(cluster=cluster))
        for cluster in [*sizes["cluster"][:LARGEST], *others["cluster"]]
    }
    ids = pl.Series([id for one in members.values() for id in one], dtype=pl.String).implode()
    texts: dict[str, Plain] = {}
    for frame in frames:
        here = frame.filter(pl.col("id").is_in(ids)).select("id", *PLACE, _beginning("text"))
        texts.update({row["id"]: row for row in here.to_dicts()})

    def told(some: pl.DataFrame) -> list[Plain]:
        return [
            {
                "size": size,
                "dropped": gone,
                "members": [
                    texts[id] | {"similarity": alike} for id, alike in members[cluster].items()
                ],
            }
            for cluster, size, gone in some.select("cluster", "size", "dropped").iter_rows()
        ]

    return {
        "clusters": len(sizes),
        "documents": int(sizes["size"].sum()),
        "largest": told(sizes[:LARGEST]),
        "others": told(others),
    }


def _members(near: pl.DataFrame) -> dict[str, float | None]:
    """The ids to show of a cluster's near copies, with what they share with the one that stays."""
    near = near.sort("similarity", "id")
    survivor = near["survivor"][0]
    gone = near.filter(survivor=survivor).select("id", "similarity").head(2)
    return {survivor: None, **dict(gone.iter_rows())}


def _beginning(column: str) -> pl.Expr:
    return pl.col(column).str.slice(0, SHOWN)
