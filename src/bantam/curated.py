"""The documents that `bantam text` kept, as texts: all of a split, or some of them by chance.

Files of documents follow the order of the sources. What is judged, and whatever learns from less
than all there is, must not see the first source only: chance goes by a document's id.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

LEAST = 100_000  # bytes of training text that a language is learned from
FEWEST = 4  # held-out documents: half to choose by, half to judge by
JUDGED = 4_000_000  # bytes of held-out documents that are looked at, on either side


def files(folder: Path) -> list[Path]:
    return sorted((folder / "text").glob("documents-*.parquet"))


def texts(path: Path, split: str) -> list[str]:
    """The texts of a split in a file of documents."""
    import polars as pl

    frame = pl.read_parquet(path, columns=["text", "split"])
    return frame.filter(pl.col("split") == split)["text"].to_list()


def size(folder: Path, split: str, without: Collection[str] = ()) -> int:
    """Bytes of a split, but for the sources in `without`."""
    return int(_sizes(folder, split, without)["bytes"].sum())


def drawn(
    folder: Path,
    split: str,
    most: int,
    seed: int,
    *,
    without: Collection[str] = (),
    fewest: int = 0,
) -> list[str]:
    """Texts of a split, `most` bytes of them or somewhat fewer, in the order in which chance draws
    them: `fewest` at least, where there are so many, and none of the sources in `without`."""
    import polars as pl

    from bantam.documents import draw

    found = _sizes(folder, split, without)
    found = found[draw.sample(found["id"], len(found), seed, f"{split} texts")]
    enough = pl.col("bytes").cum_sum() <= most
    taken = found.filter(enough | (pl.int_range(pl.len()) < fewest)).select("id")
    parts = [
        pl.read_parquet(path, columns=["id", "text"]).join(taken, on="id", how="semi")
        for path in files(folder)
    ]
    return taken.join(pl.concat(parts), on="id", how="left", maintain_order="left")[
        "text"
    ].to_list()


def judged(folder: Path, seed: int, without: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Held-out texts: those that choose among checkpoints, and those that judge."""
    held = drawn(folder, "val", 2 * JUDGED, seed, without=without, fewest=FEWEST)
    return held[0::2], held[1::2]


def _sizes(folder: Path, split: str, without: Collection[str]) -> pl.DataFrame:
    """`id` and `bytes` of the documents of a split that hold text, in the order of the files."""
    import polars as pl

    rows = (pl.col("split") == split) & ~pl.col("source").is_in(list(without))
    parts = [
        pl.read_parquet(path, columns=["id", "source", "split", "text"])
        .filter(rows & (pl.col("text") != ""))
        .select("id", bytes=pl.col("text").str.len_bytes().cast(pl.Int64))
        for path in files(folder)
    ]
    return pl.concat(parts)
