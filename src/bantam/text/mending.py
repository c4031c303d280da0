"""The sheet of rows to look at: written for a person, read again with what the person made of it.

A row of the sheet stands for all rows of the data with its `id` and `label`, wherever they have
moved to. Its cell `mended` holds the label that is right, or `DROP` if the rows are to go; empty,
it says nothing.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl

from bantam.errors import BadInput
from bantam.kinds import several
from bantam.text import read
from bantam.text.clean import KEPT, mark, normalised

COLUMNS = ("file", "row", "id", "input", "label", "suggested", "reason", "confidence", "mended")
SHEET = dict.fromkeys(COLUMNS, pl.String) | {"row": pl.Int64, "confidence": pl.Float64}
NEEDED = ("id", "label", "mended")
DROP = "-"
NO_LABELS = several.SEPARATOR  # a set of no labels, where an empty cell would say nothing
LONGEST = 2000  # characters of an input: it is there to be read, rows are known by their id
NAMED = 3  # rows that are spelt out
GONE = "dropped by hand"

# A spreadsheet would take such a cell for a formula, and such an id for a number.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"\d+(?:e\d+)?")


class Mended(NamedTuple):
    """Rows after the sheet; the rows of the sheet that fit them; how many rows were changed and
    dropped, and how many of the sheet fit nothing; and notes."""

    frame: pl.DataFrame
    sheet: pl.DataFrame
    told: dict[str, int]
    notes: list[str]


def write(path: Path, suspects: pl.DataFrame, mended: pl.DataFrame | None = None) -> None:
    """Write the sheet: first what is mended already, so that the file can take the place of the
    one that was filled in, then the suspects. Both have the columns of `SHEET`."""
    sheet = suspects if mended is None else pl.concat([mended, suspects])
    sheet = sheet.with_columns(pl.col("input").str.head(LONGEST))
    guarded = [
        pl.Series(name, [_guarded(name, cell) for cell in sheet[name]], pl.String)
        for name in COLUMNS
        if SHEET[name] == pl.String
    ]
    # The mark at its beginning tells spreadsheets that the file is UTF-8.
    sheet.with_columns(guarded).write_csv(path, include_bom=True)


def load(path: Path) -> pl.DataFrame:
    """The rows of a sheet that a person filled in, in the columns of `SHEET`; columns that were
    taken out are null, but for those `NEEDED`.

    BadInput: it is no such sheet, or says two things of the same rows.
    """
    there = read.names(path)
    if missing := [name for name in NEEDED if name not in there]:
        raise BadInput(
            f'{path} has no column "{missing[0]}"',
            "take a copy of text/to_mend.csv in the run folder and fill in its column mended",
        )
    held = [name for name in COLUMNS if name in there]
    table = read.table(path, {f"its {name}": name for name in held}).frame
    cells = {name: [_bare(name, cell) for cell in table[f"its {name}"]] for name in held}
    sheet = pl.DataFrame(cells, schema=dict.fromkeys(held, pl.String)).with_columns(
        pl.lit(None, pl.String).alias(name) for name in COLUMNS if name not in held
    )
    filled = (pl.col("mended") != "") & (pl.col("id") != "")
    _check(path, sheet.with_columns(line=table["row"]).filter(filled))
    types = [pl.col(name).cast(type, strict=False) for name, type in SHEET.items()]
    return sheet.filter(filled).select(types)


def applied(frame: pl.DataFrame, sheet: pl.DataFrame, spelt: Callable[[str], str] = str) -> Mended:
    """Give the rows that the sheet speaks of their mended outputs, or a reason to go.

    `frame` has `id`, `output` and `reason`, as in `clean`; `spelt` makes an output of what a person
    wrote. Labels are compared as `normalised`. A row of the sheet whose text has the mended label
    already fits, and changes nothing.
    """
    wanted = {(id, _same(label)): mended for id, label, mended in sheet.select(NEEDED).iter_rows()}
    meant = frame.with_row_index("at").filter(KEPT & pl.col("id").is_in(sheet["id"].implode()))
    outputs: dict[int, str] = {}
    dropped: list[int] = []
    seen: set[tuple[str, str]] = set()
    for at, id, output in meant.select("at", "id", "output").iter_rows():
        seen.add((id, _same(output)))
        mended = wanted.get((id, _same(output)))
        if mended == DROP:
            dropped.append(at)
        elif mended is not None and (new := spelt(mended)) != output:
            outputs[at] = new
    output = frame["output"].scatter(list(outputs), list(outputs.values()))
    frame = frame.with_columns(output)
    frame = mark(frame, pl.int_range(pl.len()).is_in(dropped), GONE)
    fits = [
        (id, _same(label)) in seen or (id, _same(spelt(mended))) in seen
        for id, label, mended in sheet.select(NEEDED).iter_rows()
    ]
    lost = sheet.filter(~pl.Series(fits, dtype=pl.Boolean))
    told = {"changed": len(outputs), "dropped": len(dropped), "lost": lost.height}
    return Mended(frame, sheet.filter(pl.Series(fits, dtype=pl.Boolean)), told, _notes(frame, lost))


def _same(label: str | None) -> str:
    return normalised("" if label in (None, NO_LABELS) else label)


def _notes(frame: pl.DataFrame, lost: pl.DataFrame) -> list[str]:
    if not lost.height:
        return []
    there = set(frame.filter(pl.col("id").is_in(lost["id"].implode()))["id"])
    named = "; ".join(
        f'{id} ("{label}"): ' + ("its label is another now" if id in there else "no such text")
        for id, label in lost.select("id", "label").head(NAMED).iter_rows()
    )
    more = f" and {lost.height - NAMED} more" if lost.height > NAMED else ""
    return [f"data.mended: rows that fit no row of the data any more: {named}{more}"]


def _check(path: Path, filled: pl.DataFrame) -> None:
    """Refuse a sheet that says two things of the same rows."""
    said: dict[tuple[str, str], tuple[int, str]] = {}
    for line, id, label, mended in filled.select("line", *NEEDED).iter_rows():
        first, before = said.setdefault((id, _same(label)), (line, mended))
        if before != mended:
            raise BadInput(
                f'{path}: row {first} says "{before}" and row {line} "{mended}" of the same text '
                "and label",
                "empty the cell mended of one of them",
            )


def _guarded(name: str, cell: str | None) -> str | None:
    return f"'{cell}" if cell and cell != DROP and _misread(name, cell) else cell


def _bare(name: str, cell: str | None) -> str:
    """A cell as it was before it was guarded."""
    cell = (cell or "").strip()
    bare = cell.removeprefix("'")
    return bare if _misread(name, bare) else cell


def _misread(name: str, cell: str) -> bool:
    return bool(_FORMULA.match(cell) or (name == "id" and _NUMBER.fullmatch(cell)))
