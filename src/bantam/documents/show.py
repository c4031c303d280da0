"""`bantam text show`: documents or labelled rows of a run, kept and dropped, in the terminal.

A row of `data.examples` is shown as a document whose source is its file.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from bantam.documents.draw import drawn
from bantam.documents.words import STIR
from bantam.errors import BadInput
from bantam.page.loose import visible
from bantam.sources.door import suggest

if TYPE_CHECKING:
    from rich.text import Text

SHOWN = 1500  # characters of a text in the terminal
BEFORE = 200  # of them before the word that was sought
SPLITS = ("train", "val", "test")  # of labelled rows

Plain = dict[str, Any]


def rows(
    run: Path,
    *,
    kept: bool = False,
    dropped: str | None = None,
    source: str | None = None,
    word: str | None = None,
    count: int = 20,
    seed: int = 0,
) -> list[Plain]:
    """Documents of a run, drawn by chance from all that fit; lines only where their rule is named.

    `kept` asks for what stays, `dropped` for what a rule took: by its name, or what that begins
    with ("gopher"), or "" for any. With neither, both. `word` is sought in texts, in any case.
    A row has what documents-*.parquet or dropped.parquet tell; `reason` is null for what is kept.
    Raises BadInput where no documents are, and for a rule or source that there is not.
    """
    folder = run / "text" if (run / "text").is_dir() else run
    stay, gone = _scans(folder)
    if not stay or not (folder / "dropped.parquet").is_file():
        raise BadInput(f"{run} holds no documents", "name a run that `bantam text` made")
    both = not kept and dropped is None
    scans = []
    if kept or both:
        stays = {name: pl.lit(None, pl.String) for name in ("reason", "value")}
        scans += [scan.with_columns(**stays, line=pl.lit(None, pl.Int64)) for scan in stay]
    if dropped is not None or both:
        scans.append(_taken(gone, dropped or ""))
    if source is not None:
        names = {name for scan in scans for name in _names(scan, "source")}
        if source not in names:
            raise BadInput(f'no source "{source}" is in this run', suggest(source, names))
    best = pl.DataFrame()
    for frame in _batches(scans):
        if source is not None:
            frame = frame.filter(pl.col("source") == source)
        if word:
            frame = frame.filter(pl.col("text").str.contains(f"(?i){pl.escape_regex(word)}"))
        lines = frame["line"].fill_null(0).to_numpy().astype(np.uint64)
        chance = drawn(frame["id"], seed, "show") ^ (lines * STIR)
        more = frame.with_columns(pl.Series("chance", chance))
        best = pl.concat([best, more], how="diagonal").sort("chance", "path").head(count)
    return best.drop("chance", strict=False).to_dicts()


def _scans(folder: Path) -> tuple[list[pl.LazyFrame], pl.LazyFrame]:
    """What stays, and what went, of documents or else of labelled rows."""
    gone = folder / "dropped.parquet"
    if paths := sorted(folder.glob("documents-*.parquet")):
        return [pl.scan_parquet(path) for path in paths], pl.scan_parquet(gone)
    paths = [path for name in SPLITS if (path := folder / f"{name}.parquet").is_file()]
    stay = [_examples(path).with_columns(split=pl.lit(path.stem)) for path in paths]
    nothing = {"line": pl.lit(None, pl.Int64), "value": pl.lit(None, pl.String)}
    return stay, _examples(gone).with_columns(**nothing)


def _examples(path: Path) -> pl.LazyFrame:
    renamed = {"text": "input", "source": "file", "path": "file"}
    scan = pl.scan_parquet(path).with_columns(**{new: pl.col(old) for new, old in renamed.items()})
    columns = ["id", *renamed, "output", "group", "^reason$"]
    return scan.select(*columns, part=pl.format("row {}", "row"))


def _batches(scans: Iterable[pl.LazyFrame]) -> Iterator[pl.DataFrame]:
    """The rows of all scans, some at a time; those of several scans at once would fill memory."""
    for scan in scans:
        yield from scan.collect_batches()


def _taken(gone: pl.LazyFrame, rule: str) -> pl.LazyFrame:
    """What a rule took out, or whole documents that any rule did."""
    if not rule:
        return gone.filter(pl.col("line").is_null())
    names = _names(gone, "reason")
    begins = tuple(f"{rule}{sign}" for sign in ".: ")
    wanted = [name for name in names if name == rule or name.startswith(begins)]
    if not wanted:
        raise BadInput(f'no rule "{rule}" took anything in this run', suggest(rule, names))
    return gone.filter(pl.col("reason").is_in(wanted))


def _names(scan: pl.LazyFrame, column: str) -> list[str]:
    found = scan.select(pl.col(column).drop_nulls().unique()).collect(engine="streaming")
    return sorted(found[column].to_list())


def written(
    shown: Iterable[Plain], *, word: str | None = None, colour: bool = False, width: int = 80
) -> Iterator[str]:
    """The rows as text for a terminal, one at a time; without colour each line is as it stands.

    Characters that would steer a terminal, or are not seen, are made visible.
    """
    from rich.console import Console

    for row in shown:
        out = io.StringIO()
        # In plain text nothing is folded, so that other programs find lines whole.
        console = Console(
            file=out,
            force_terminal=colour,
            color_system="standard" if colour else None,
            width=width,
            soft_wrap=not colour,
        )
        for part in _parts(row, word):
            console.print(part, highlight=False)
        yield out.getvalue()


def _parts(row: Plain, word: str | None) -> Iterator[Text]:
    from rich.text import Text

    if row["reason"] is None:
        told = Text("kept", style="bold green")
    else:
        what = "line dropped" if row["line"] is not None else "dropped"
        told = Text(f"{what} by {visible(row['reason'])}", style="bold red")
    if row["value"] is not None:
        told.append(f"  {visible(row['value'])}", style="not bold red")
    yield told
    place = [*dict.fromkeys((row["source"], row["path"])), row["part"]]
    place += [f"line {row['line']:,}"] if row["line"] is not None else []
    place += [row[name] for name in ("language", "split", "licence") if name in row]
    yield Text(" · ".join(visible(one) for one in place if one is not None), style="dim")
    text = Text(_excerpt(row["text"], word))
    if word:
        text.highlight_words([word], style="reverse", case_sensitive=False)
    yield text
    if "output" in row:
        yield Text(f"→ {_answer(row['output'])}", style="bold")
    yield Text()


def _answer(output: str | None) -> str:
    """A label or a written answer; of several references the first."""
    return visible((output or "").partition("\x1f")[0][:SHOWN])


def _excerpt(text: str, word: str | None) -> str:
    """The beginning of a text, or of what stands around the word."""
    at = text.lower().find(word.lower()) if word else 0
    begin = max(0, at - BEFORE)
    end = begin + SHOWN
    more = f"\n… {len(text) - end:,} more characters" if len(text) > end else ""
    return f"{'… ' if begin else ''}{visible(text[begin:end])}{more}"
