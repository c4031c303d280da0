"""Which rows can be learnt from: missing cells, spellings of labels, duplicates, contradictions.

Each function takes a frame with `input`, `output`, `group`, `split` (null, or "val" and "test" for
rows from files of their own), `reason` (null for rows that are kept) and, once `identify` has run,
`id` and `key`, and gives it back with more reasons. No row is removed, so none gets lost. Only rows
without a split are compared among themselves; val and test files are used as they are.
"""

import hashlib
import unicodedata
from collections import Counter
from typing import Any, Literal

import numpy as np
import polars as pl

from bantam.errors import BadInput
from bantam.kinds import several
from bantam.text import read

CONTRADICTED = "contradicted"  # begins the reason of contradictions
KEPT = pl.col("reason").is_null()
POOL = KEPT & pl.col("split").is_null()


def normalised(text: str) -> str:
    """A text for comparing: case folded, accents composed (NFC), a run of white space one space.

    Accents and punctuation stay: "good." and "good!" may be two opinions.
    """
    folded = unicodedata.normalize("NFD", text).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


def mark(frame: pl.DataFrame, where: pl.Expr, reason: str) -> pl.DataFrame:
    """Give the rows that are still kept and meet the condition this reason."""
    return frame.with_columns(
        pl.when(KEPT & where).then(pl.lit(reason)).otherwise(pl.col("reason")).alias("reason")
    )


def missing(
    frame: pl.DataFrame, none: str | None = None, multi: bool = False, what: str = "label"
) -> pl.DataFrame:
    """Outer white space goes; rows without a text or a label are marked.

    With `none`, rows without a label have this one. With `multi` they are no fault. `what` is the
    word for an output.
    """
    for column in ("input", "output", "group"):
        stripped = pl.col(column).str.strip_chars()
        frame = frame.with_columns(pl.when(stripped != "").then(stripped).alias(column))
    if none is not None:
        frame = frame.with_columns(pl.col("output").fill_null(none))
    frame = mark(frame, pl.col("input").is_null(), "no text")
    return frame if multi else mark(frame, pl.col("output").is_null(), f"no {what}")


def merge_labels(frame: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, str]]:
    """Labels that differ only in case or white space become the commonest spelling.

    Gives the frame and {spelling that went: spelling that stays}.
    """
    counts = dict(frame.filter(KEPT).group_by("output").len().iter_rows())
    merged = _spellings(counts)
    return frame.with_columns(pl.col("output").replace(merged)), merged


def _spellings(counts: dict[str, int]) -> dict[str, str]:
    """{a spelling: the commonest of the same label}, but for those that stay."""
    commonest: dict[str, str] = {}
    merged = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        stays = commonest.setdefault(normalised(label), label)
        if stays != label:
            merged[label] = stays
    return merged


def label_sets(
    frame: pl.DataFrame, separator: str, none: str | None = None
) -> tuple[pl.DataFrame, dict[str, str]]:
    """Cells of several labels, as text with a separator or as `read.table` writes lists, become
    sets as `several.joined` writes them; a cell without a label is the empty set, or `none`.

    Spellings of each label are merged as by `merge_labels`, and told likewise. Raises BadInput for
    a label that holds the mark that is put between labels.
    """
    cells = frame.filter(KEPT)["output"].value_counts().drop_nulls()
    sets = {cell: _labels_in(cell, separator) or [none or ""] for cell, _ in cells.iter_rows()}
    counts: Counter[str] = Counter()
    for cell, rows in cells.iter_rows():
        counts.update(dict.fromkeys(sets[cell], rows))
    bad = next((label for label in sorted(counts) if several.SEPARATOR in label), None)
    if bad is not None:
        cell = next(cell for cell, labels in sets.items() if bad in labels)
        first = frame.filter(pl.col("output") == cell).row(0, named=True)
        raise BadInput(
            f'{first["file"]}, row {first["row"]}: the label "{bad}" holds "{several.SEPARATOR}", '
            "which Bantam itself puts between labels",
            f'write it without, or say data.separator = "{several.SEPARATOR}" if it stands between '
            "labels",
        )
    merged = _spellings(counts)
    written = {
        cell: several.joined(merged.get(label, label) for label in labels)
        for cell, labels in sets.items()
    }
    empty = pl.lit(none or "")
    output = pl.col("output").replace(written).fill_null(empty)
    return frame.with_columns(output), merged


def _labels_in(cell: str, separator: str) -> list[str]:
    mark = separator.strip() or separator  # ", " also stands at the end of a cell, as ","
    parts = cell.split(read.ITEM if read.ITEM in cell else mark)
    return [part.strip() for part in parts if part.strip()]


def single(outputs: pl.Series, multi: bool) -> pl.Series:
    """The labels one by one: of each set (`multi`) all that it holds, else the series itself."""
    if not multi:
        return outputs
    parts = outputs.str.split(several.SEPARATOR).explode()
    return parts.filter(parts != "")


def identify(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `id`, as docs/architecture.md has it, and `key`: the first 8 bytes of sha256 of the
    normalised input, so that comparing texts is comparing numbers.

    Where rows have `tools`, these count in `id`, and `question` is the key of input and tools.
    """
    with_tools = ["tools"] if "tools" in frame.columns else []
    ids, keys, questions = [], bytearray(), bytearray()
    for text, group, *tools in frame.select("input", "group", *with_tools).iter_rows():
        digest = hashlib.sha256(normalised(text or "").encode())
        keys += digest.digest()[:8]
        question = digest.copy()
        digest.update(b"\0" + (group or "").encode())
        for declared in tools:
            for hashed in (question, digest):
                hashed.update(b"\0" + (declared or "").encode())
        questions += question.digest()[:8]
        ids.append(digest.hexdigest()[:16])
    found = [pl.Series("id", ids, pl.String), _numbers("key", keys)]
    return frame.with_columns(found + [_numbers("question", questions)] * len(with_tools))


def _numbers(name: str, hashes: bytearray) -> pl.Series:
    return pl.Series(name, np.frombuffer(hashes, dtype="<u8"), pl.UInt64)


def contradictions(
    frame: pl.DataFrame,
    rule: Literal["drop", "majority", "keep"],
    key: str = "key",
    what: str = "label",
) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """One text with several labels: all its rows go, or those against its commonest label, or none.

    A tie has no majority: all go. Gives the frame and, for each such text in the order of the
    texts, {"text", "labels": {label: rows}}. Equal texts have an equal `key`; `what` is the word
    for an output.
    """
    reason = f"{CONTRADICTED} {what}"
    pool = frame.filter(POOL)
    labels = pool.group_by(key).agg(pl.col("output").n_unique())
    texts = labels.filter(pl.col("output") > 1)[key]
    several = (
        pool.filter(pl.col(key).is_in(texts.implode()))
        .group_by(key, "output")
        .agg(pl.len().alias("rows"), pl.col("input").min().alias("text"))
        .sort(pl.col("text").min().over(key), key, "output")
    )
    found = [
        {
            "text": rows["text"].min(),
            "labels": dict(zip(rows["output"], rows["rows"], strict=True)),
        }
        for _, rows in several.group_by(key, maintain_order=True)
    ]
    if rule == "drop":
        frame = mark(frame, POOL & pl.col(key).is_in(texts.implode()), reason)
    elif rule == "majority":
        most = pl.col("rows") == pl.col("rows").max().over(key)
        winners = several.filter(most).filter(pl.len().over(key) == 1)
        right = winners.select(key, "output", pl.lit(True).alias("right"))
        frame = frame.join(right, on=[key, "output"], how="left", maintain_order="left")
        against = pl.col(key).is_in(texts.implode()) & pl.col("right").is_null()
        frame = mark(frame, POOL & against, reason).drop("right")
    return frame, found


def duplicates(frame: pl.DataFrame, key: str = "key") -> pl.DataFrame:
    """Of rows with the same normalised text (the same `key`) and the same label the first stays."""
    numbered = frame.with_row_index("at")
    first = numbered.filter(POOL).unique([key, "output"], keep="first").select("at", first=True)
    numbered = numbered.join(first, on="at", how="left", maintain_order="left")
    return mark(numbered, POOL & pl.col("first").is_null(), "duplicate").drop("at", "first")


def apart(frame: pl.DataFrame) -> pl.DataFrame:
    """A text or group of a test file goes from all other rows; one of a val file from training."""
    for held_out, others in (
        ("test", pl.col("split").is_null() | (pl.col("split") == "val")),
        ("val", pl.col("split").is_null()),
    ):
        held = frame.filter(KEPT & (pl.col("split") == held_out))
        for column, what in (("key", "text"), ("group", "group")):
            taken = pl.col(column).is_in(held[column].drop_nulls().unique().implode())
            frame = mark(frame, others & taken, f"its {what} stands in the {held_out} file")
    return frame
