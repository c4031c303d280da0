"""The folder that `curate` works in, written by hand: documents, and what became of each."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import polars as pl

from bantam.documents import contamination, quality, redact, words
from bantam.documents.steps import GONE
from bantam.recipe_documents import Documents

LINES = pl.Schema({"id": pl.String(), **{k: GONE[k] for k in ("line", "text", "reason", "value")}})
DOCUMENT = pl.Schema(
    {
        **dict.fromkeys(("id", "text", "source", "path", "part", "licence"), pl.String()),
        **dict.fromkeys(("reason", "value", "language", "split"), pl.String()),
        "words": pl.Int64(),
        "cluster": pl.Int64(),
        "survivor": pl.String(),
        "similarity": pl.Float64(),
    }
)
FOOTER = "Call jo@<EMAIL> for more of the same."
COPIES = ("duplicate", "near duplicate")


def document(path: str, text: str, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """A document as the steps leave it; its lines that went are (number, text, reason, value)."""
    return {
        "id": blake2b(path.encode(), digest_size=8).hexdigest(),
        "text": text,
        "source": "house",
        "path": path,
        "part": None,
        "licence": None,
        "reason": reason,
        "value": None if reason is None else "1",
        "language": "en",
        "split": "train",
        "words": len(text.split()),
        "survivor": None,
        "similarity": 1.0,
        "lines": [],
        **more,
    }


def work(
    folder: Path,
    documents: Sequence[dict[str, Any]],
    shards: Sequence[int] | None = None,
    hits: Sequence[dict[str, Any]] = (),
    redacted: Sequence[dict[str, Any]] = (),
) -> Path:
    """Write them in shards: `shards` says which one each is in. Copies have their survivor's
    cluster; `hits` are rows of `contamination.FOUND`, `redacted` of `redact.FOUND`."""
    shards = shards or [0] * len(documents)
    number = {row["id"]: at for at, row in enumerate(documents)}
    rows = [{**row, "cluster": number[row["survivor"] or row["id"]]} for row in documents]
    for shard in sorted(set(shards)):
        here = [row for row, of in zip(rows, shards, strict=True) if of == shard]
        _shard(folder, f"{shard:05d}", here, hits, redacted if shard == min(shards) else ())
    compared = pl.DataFrame(rows, DOCUMENT).filter(
        pl.col("reason").is_null() | pl.col("reason").is_in(COPIES)
    )
    (folder / "compared").mkdir()
    found = compared.select("id", "survivor", "similarity", "cluster", "split")
    found.write_parquet(folder / "compared" / "found.parquet")
    passed = [["house", "link.txt", "a link out of the folder is not followed"]]
    (folder / "passed.json").write_text(json.dumps(passed))
    return folder


def _shard(folder: Path, name: str, rows: list[dict[str, Any]], hits: Any, redacted: Any) -> None:
    read, clean, settle = (folder / step / name for step in ("read", "clean", "settle"))
    for step in (read, clean, settle):
        step.mkdir(parents=True)
    frame = pl.DataFrame(rows, DOCUMENT)
    whole = ["\n".join([row["text"], *(line[1] for line in row["lines"])]) for row in rows]
    raw = frame.select("id", "source", "path", "part", "licence", text=pl.Series(whole))
    raw.write_parquet(read / "documents-000.parquet")
    told = {
        "documents": len(rows),
        "bytes": sum(len(text.encode()) for text in whole),
        "mended": {"mojibake": 1, "white space": len(rows)},
        "unread": [["house", f"{name}.pdf", f"it is damaged (ValueError: page {name})"]],
    }
    (read / "read.json").write_text(json.dumps(told))

    copies = pl.col("reason").is_in(COPIES)
    cleaned = frame.drop("split", "cluster", "survivor", "similarity").with_columns(
        pl.when(~copies).then(pl.col(column)) for column in ("reason", "value")
    )
    cleaned.write_parquet(clean / "documents-000.parquet")
    found = words.split(frame["text"])
    measures = quality.measure(found, Documents(), frame["language"])
    measures.write_parquet(clean / "measures-000.parquet")
    lines = [
        {"id": row["id"], "line": at, "text": text, "reason": reason, "value": value}
        for row in rows
        for at, text, reason, value in row["lines"]
    ]
    taken = pl.DataFrame(lines, LINES)
    taken.write_parquet(clean / "lines-000.parquet")
    here = [hit for hit in hits if hit["id"] in frame["id"].to_list()]
    pl.DataFrame(here, contamination.FOUND).write_parquet(clean / "contaminated-000.parquet")
    pl.DataFrame(redacted, redact.FOUND).write_parquet(clean / "redacted.parquet")

    stays = frame["reason"].is_null()
    kept = frame.filter(stays).drop("reason", "value", "survivor", "similarity")
    kept = kept.with_columns(sentences=pl.lit(3), word_length=pl.lit(4.5))
    kept.write_parquet(settle / "kept-000.parquet")
    placed = taken.join(frame.select("id", "source", "path", "part"), on="id", how="left")
    gone = frame.filter(~stays).with_columns(line=None)
    parts = [part.select(GONE.names()).cast(dict(GONE)) for part in (gone, placed)]
    pl.concat(parts).write_parquet(settle / "gone-000.parquet")


def run(folder: Path, made: Path) -> Path:
    """A run whose text/ holds what a folder of `work` came to, without its report."""
    text = folder / "text"
    text.mkdir(parents=True)
    for at, kept in enumerate(sorted(made.glob("settle/*/kept-*.parquet"))):
        pl.read_parquet(kept).write_parquet(text / f"documents-{at:05d}.parquet")
    gone = pl.concat(map(pl.read_parquet, sorted(made.glob("settle/*/gone-*.parquet"))))
    gone.write_parquet(text / "dropped.parquet")
    return folder


def documents() -> list[dict[str, Any]]:
    """Forty that stay, some that went by each sort of rule, copies, and lines that went."""
    stay = [
        document(
            f"stay/{at}.txt",
            f"The garden of house {at} is wide and green. " * (at + 1),
            split="val" if at % 10 == 0 else "train",
            licence="CC0-1.0" if at % 4 == 0 else None,
            source="house" if at % 2 else "shed",
            lines=[(2, FOOTER, "boilerplate", "40")] if at < 12 else [],
        )
        for at in range(40)
    ]
    survivor = stay[7]
    near = [
        document(
            f"near/{at}.txt",
            survivor["text"] + f" And {at}.",
            "near duplicate",
            value=f"{survivor['id']}, {0.8 + at / 100:.2f} alike",
            survivor=survivor["id"],
            similarity=0.8 + at / 100,
        )
        for at in range(5)
    ]
    exact = document(
        "copy.txt",
        stay[9]["text"],
        "duplicate",
        value=stay[9]["id"],
        survivor=stay[9]["id"],
        lines=[(1, "Enable javascript, please do.", "c4.javascript", "javascript")],
    )
    went = [
        document("empty.txt", "", "no text", language=None),
        document("exam.txt", "what is asked in the exam " * 4, "contaminated"),
        *(document(f"short/{at}.txt", f"Nr. {at}", "gopher.min_words") for at in range(9)),
        *(document(f"deutsch/{at}", "Das ist so.", "language", language="de") for at in (1, 2)),
        document("odd.txt", "odd " * 60, "repetition.max_top_2_gram"),
    ]
    return [*stay, *near, exact, *went]


HITS = [
    {"id": row["id"], "benchmark": name, "row": 4, "runs": 2 + at, "shared": "what is asked"}
    for row in documents()
    if row["path"] == "exam.txt"
    for at, name in enumerate(("exam", "quiz"))
]
FOUND = [{"kind": "email", "count": 12, "documents": 12, "examples": ["j***@***.com"]}]
