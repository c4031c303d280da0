"""`bantam text rate`: documents are shown one at a time, and somebody says which are good.

Each thumb goes to a file at once, a JSON line each: `id`, `sha256` (of the text), `thumb` ("good",
"bad", "skip", or null for one that was taken back) and `text`. Of lines about the same text the
last one counts. So nothing is lost when the terminal closes, and the file may be kept, or joined
with another's: the texts to learn from are in it.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import click
import numpy as np
import polars as pl

from bantam.documents.draw import drawn, sample
from bantam.errors import BadInput
from bantam.page.loose import visible

WANTED = 50  # thumbs
LONGEST = 100_000  # characters of a text that are kept
LARGEST = 1 << 30  # bytes of the file
NEAR = 0.1  # share of the documents whose scores count as near the threshold
KEYS = {"g": "good", "b": "bad", "s": "skip"}
QUESTION = "g good, b bad, s skip, u undo, q quit: "


class Thumb(TypedDict):
    """A line of the file."""

    id: str
    sha256: str
    thumb: Literal["good", "bad", "skip"] | None
    text: str


def read(path: Path) -> dict[str, Thumb]:
    """The thumbs in a file, by the texts' sha256, without those taken back; empty where there is no
    file. Raises BadInput for a line that is no thumb.

    What a killed process left of its last line does not count.
    """
    if not path.exists():
        return {}
    if path.stat().st_size > LARGEST:
        raise BadInput(f"{path} is over 1 GB", "is it a file of thumbs?")
    found: dict[str, Thumb] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            thumb = _thumb(line)
            if thumb is None:
                raise BadInput(
                    f"{path}, line {number}: no thumb", "take the line out, or name another file"
                )
            found.pop(thumb["sha256"], None)
            if thumb["thumb"] is not None:
                found[thumb["sha256"]] = thumb
    return found


def texts(path: Path, thumb: Literal["good", "bad"]) -> pl.Series:
    """The texts that got this thumb, for `score.learn`."""
    told = [one["text"] for one in read(path).values() if one["thumb"] == thumb]
    return pl.Series("text", told, pl.String)


def pick(
    ids: pl.Series, seed: int, scores: pl.Series | None = None, least: float = 0.0
) -> pl.Series:
    """Ids to show, in order: by chance, and if there are scores every second one from the tenth of
    the documents that are nearest to the least score which is kept. At most ten times WANTED.
    """
    most = min(10 * WANTED, len(ids))
    chance = sample(ids, most, seed, "rate")
    if scores is None or len(ids) == 0:
        return ids.gather(chance)
    count = min(len(ids), max(most, round(NEAR * len(ids))))
    distance = np.abs(scores.to_numpy() - least)
    near = np.argpartition(distance, count - 1)[:count]
    near = near[np.argsort(drawn(ids.gather(near), seed, "near"), kind="stable")][:most]
    both = np.stack([chance, near], axis=1).ravel()
    return ids.gather(both).unique(maintain_order=True).head(most)


def rate(
    documents: pl.DataFrame,
    path: Path,
    keys: Iterator[str],
    show: Callable[[str], None],
    wanted: int = WANTED,
) -> tuple[int, int]:
    """Show the documents in order, those that have a thumb left out, and write down what `keys` say
    of them, until there are `wanted` thumbs up or down. Gives how many are good and bad.

    `documents` has `id`, `text`, `source`, `path` and `part`. A key is one of "g", "b", "s"; "u" to
    go back one; "q" to stop, as the end of `keys` does.
    """
    given = read(path)
    waiting = _waiting(documents, given)
    with path.open("ab") as file:
        _mend(path, file.tell())
        at = 0
        while at < len(waiting) and _counted(given) < wanted:
            row = waiting[at]
            show(_screen(row, given, wanted))
            key = next(keys, "q")
            if key == "q":
                break
            if key in KEYS:
                _write(file, row, KEYS[key], given)
                at += 1
            elif key == "u" and at > 0:
                at -= 1
                _write(file, waiting[at], None, given)
            else:
                show("there is nothing to take back\n" if key == "u" else "no such key\n")
    good, bad = (_counted(given, (name,)) for name in ("good", "bad"))
    if good + bad < wanted and at == len(waiting):
        show("these are all documents\n")
    show(f"\n{good} good, {bad} bad in {path}\n")
    return good, bad


def typed() -> Iterator[str]:
    """Keys as they are typed, or, where no terminal is, the first letters of the lines of standard
    input."""
    if not sys.stdin.isatty():
        yield from (line.strip()[:1].lower() for line in sys.stdin if line.strip())
        return
    while True:
        try:
            yield click.getchar().lower()
        except (KeyboardInterrupt, EOFError):
            return


def rate_run(run: Path, path: Path, seed: int, wanted: int = WANTED) -> tuple[int, int]:
    """Rate documents of a run of `bantam text` in the terminal; the thumbs go to `path`.

    Those that are kept are shown, and with a score also those that it dropped.
    """
    kept = sorted((run / "text").glob("documents-*.parquet"))
    if not kept:
        raise BadInput(f"{run} holds no documents", "run `bantam text` first, and name its run")
    shown = ["id", "text", "source", "path", "part"]
    held = pl.scan_parquet(kept)
    scored = "score" in held.collect_schema().names()
    score = pl.col("score") if scored else pl.lit(None, pl.Float64).alias("score")
    dropped = pl.scan_parquet(run / "text" / "dropped.parquet").filter(
        (pl.col("reason") == "score") & scored
    )
    low = pl.col("value").cast(pl.Float64).alias("score")
    all = pl.concat([held.select(*shown, score), dropped.select(*shown, low)])
    numbers = all.select("id", "score").collect()
    rated = pl.Series([one["id"] for one in read(path).values()], dtype=pl.String)
    left = numbers.filter(~pl.col("id").is_in(rated.to_list()))
    least = held.select(score.min()).collect().item()
    ids = pick(left["id"], seed, left["score"] if scored else None, least or 0.0)
    documents = all.filter(pl.col("id").is_in(ids.to_list())).collect()
    documents = ids.to_frame().join(documents, on="id", how="left", maintain_order="left")
    return rate(documents, path, typed(), lambda told: click.echo(told, nl=False), wanted)


def _thumb(line: bytes) -> Thumb | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    match found:
        case {
            "id": str(id),
            "sha256": str(sha256),
            "thumb": "good" | "bad" | "skip" | None as thumb,
            "text": str(text),
        }:
            return {"id": id, "sha256": sha256, "thumb": thumb, "text": text}
    return None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _waiting(documents: pl.DataFrame, given: dict[str, Thumb]) -> list[dict[str, Any]]:
    """The documents that have no thumb, each text once."""
    rows = {_sha256(row["text"]): row for row in reversed(documents.to_dicts())}
    return [row for sha256, row in reversed(rows.items()) if sha256 not in given]


def _counted(given: dict[str, Thumb], which: Sequence[str] = ("good", "bad")) -> int:
    return sum(one["thumb"] in which for one in given.values())


def _mend(path: Path, size: int) -> None:
    """Take away what a killed process left of its last line."""
    if size == 0:
        return
    with path.open("r+b") as file:
        end = size
        while end > 0:
            begin = max(0, end - (1 << 16))
            file.seek(begin)
            at = file.read(end - begin).rfind(b"\n")
            if at >= 0:
                file.truncate(begin + at + 1)
                return
            end = begin
        file.truncate(0)


def _write(file: Any, row: dict[str, Any], thumb: Any, given: dict[str, Thumb]) -> None:
    """Put a line on the disk."""
    told: Thumb = {
        "id": row["id"],
        "sha256": _sha256(row["text"]),
        "thumb": thumb,
        "text": row["text"][:LONGEST],
    }
    file.write(json.dumps(told, ensure_ascii=False).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())
    given.pop(told["sha256"], None)
    if thumb is not None:
        given[told["sha256"]] = told


def _screen(row: dict[str, Any], given: dict[str, Thumb], wanted: int) -> str:
    """A document as it is shown: as much of it as fits."""
    columns, lines = shutil.get_terminal_size()
    place = ", ".join(filter(None, (f"{row['source']}: {row['path']}", row["part"])))
    left = max(lines - 5, 5)
    head = row["text"][: columns * left]
    pieces = [
        line[at : at + columns]
        for line in visible(head.replace("\r", " ")).expandtabs(4).split("\n")
        for at in range(0, max(len(line), 1), columns)
    ]
    whole = len(head) == len(row["text"]) and len(pieces) <= left
    more = "" if whole else f"... the beginning of {len(row['text']):,} characters\n"
    place = " ".join(visible(place).split())
    title = f"--- {_counted(given)} of {wanted} rated --- {place}"[:columns]
    return "\n".join(["", title, *pieces[:left], ""]) + more + QUESTION
