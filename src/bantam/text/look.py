"""Look at a data file: what its columns hold, and what it could be used for."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bantam.errors import BadInput
from bantam.text import clean, columns, read, references, roles
from bantam.text import values as values_of
from bantam.text.columns import Column
from bantam.text.report import label_counts, quantiles
from bantam.text.roles import Guess, Task
from bantam.toml_lines import quoted

MOST_ROWS = 200_000  # that are looked at
FEWEST_ROWS = 10  # below, nothing can be said to repeat


@dataclass(frozen=True)
class Look:
    """What was seen. `rows` counts those looked at, `rows_in_all` is an estimate if `partly`.

    `task` is the kind of model that the data seem to be for. Labels are those of "classify";
    `answer` are the lengths of written outputs, `fields` the keys of extracted objects, the
    commonest first.
    """

    path: Path
    rows: int
    rows_in_all: int
    partly: bool
    columns: list[Column]
    task: Task
    input: Guess
    output: Guess
    tools: Guess
    group: Guess
    labels: dict[str, int]
    merged_labels: dict[str, str]
    characters: dict[str, int]
    words: dict[str, int]
    answer: dict[str, int]
    fields: list[str]
    dropped: dict[str, int]
    warnings: list[str]


def look(path: Path) -> Look:
    """Read a labelled file (the first 200,000 rows of a large one) and guess what is what.

    BadInput: unreadable, or no column that could be the text or the label, or another output.
    """
    all_names = [name for name in read.names(path) if name]
    names = [name for name in all_names if all_names.count(name) == 1]
    alike = dict.fromkeys(name for name in all_names if name not in names)
    if any(roles.hint(name, f"{roles.INPUT_NAMES} {roles.OUTPUT_NAMES}") for name in alike):
        raise BadInput(
            f"{path}: several columns are called {', '.join(map(quoted, alike))}",
            "give each column a name of its own",
        )
    at = {name: f"c{number}" for number, name in enumerate(names)}
    wanted = {short: name for name, short in at.items()}
    table = read.table(path, wanted, MOST_ROWS, lists=wanted, values=wanted)
    frame = table.frame.filter(pl.col("reason").is_null()).select(
        pl.col(short).str.strip_chars().replace("", None).alias(name) for name, short in at.items()
    )
    if frame.height < FEWEST_ROWS:
        raise BadInput(
            f"{path} has only {frame.height} rows that can be read",
            "give more: some hundred for a first try, some thousand for a good model",
        )
    held = [columns.column(frame[name]) for name in names]
    task, text, label, tools = roles.guess_task(path, frame, held)
    group = roles.guess_group(frame, held, text, label, task)
    if task == "classify":
        rows, merged = _cleaned(path, frame, text, label, group)
    else:
        rows, merged = _cleaned_answers(path, task, text, label, tools, group), {}
    kept = rows.filter(clean.KEPT)
    multi = label.separator is not None and task == "classify"
    _check_outputs(path, task, kept["output"], multi, label)
    partly = frame.height >= MOST_ROWS
    lost = rows["reason"].drop_nulls().value_counts(sort=True)
    return Look(
        path=path,
        rows=frame.height,
        rows_in_all=_estimate(path, frame) if partly else frame.height,
        partly=partly,
        columns=_with_remarks(frame, held, task, text, label, tools, group),
        task=task,
        input=text,
        output=label,
        tools=tools,
        group=group,
        labels=label_counts(kept, multi) if task == "classify" else {},
        merged_labels=merged,
        characters=quantiles(kept["input"].str.len_chars()),
        words=quantiles(kept["input"].str.count_matches(r"\S+")),
        answer={} if task == "classify" else quantiles(kept["output"].str.len_chars()),
        fields=_fields(kept["output"]) if task == "extract" and tools.column is None else [],
        dropped=dict(lost.iter_rows()),
        warnings=[*table.notes, *_warnings(table.frame, frame, label.column or "", alike)],
    )


def _warnings(
    whole: pl.DataFrame, readable: pl.DataFrame, label: str, alike: Iterable[str]
) -> Iterator[str]:
    lost = whole.filter(pl.col("reason").is_not_null())
    if lost.height:
        first = f"row {lost['row'][0]}: {lost['reason'][0]}"
        yield f"{lost.height} rows cannot be read and are left out; {first}"
    if readable[label].eq(label).any():
        yield f"is the first row a header? {quoted(label)} is also a value of its column"
    for column in readable:
        if others := values_of.broken(column.drop_nulls()):
            yield (
                f"{quoted(column.name)}: most cells are JSON, but not {quoted(others[0][:80])}; "
                "mend such cells if its JSON is what a model should write"
            )
    if alike:
        yield f"columns that are called alike are passed over: {', '.join(map(quoted, alike))}"


def _cleaned(
    path: Path, frame: pl.DataFrame, text: Guess, label: Guess, group: Guess
) -> tuple[pl.DataFrame, dict[str, str]]:
    """The same steps as the real run takes, with its rule for contradictions left at `drop`."""
    nothing = pl.lit(None, pl.String)
    rows = frame.select(
        pl.col(text.column or "").alias("input"),
        pl.col(label.column or "").alias("output"),
        (pl.col(group.column) if group.column else nothing).alias("group"),
        nothing.alias("split"),
        nothing.alias("reason"),
        pl.lit(str(path)).alias("file"),
        pl.int_range(1, pl.len() + 1).alias("row"),
    )
    rows = clean.missing(rows, multi=label.separator is not None)
    if label.separator is None:
        rows, merged = clean.merge_labels(rows)
    else:
        rows, merged = clean.label_sets(rows, label.separator)
    rows, _ = clean.contradictions(clean.identify(rows), "drop")
    return clean.duplicates(rows), merged


def _cleaned_answers(
    path: Path, task: Task, text: Guess, output: Guess, tools: Guess, group: Guess
) -> pl.DataFrame:
    """The rows of written answers as the real run cleans them; the column is read again, for only
    now it is known what its cells are."""
    roles = {"input": text, "output": output, "tools": tools, "group": group}
    wanted = {role: guess.column for role, guess in roles.items() if guess.column}
    lists, held = (["output"], []) if task == "generate" else ([], ["output", "tools"])
    nothing = pl.lit(None, pl.String)
    rows = read.table(path, wanted, MOST_ROWS, lists=lists, values=held).frame.with_columns(
        nothing.alias("split"),
        pl.lit(str(path)).alias("file"),
        *(nothing.alias(name) for name in ("group", "accepted") if name not in wanted),
    )
    rows = rows.filter(clean.KEPT)
    if task == "generate":
        rows = clean.missing(references.parted(rows), what="output")
        return clean.duplicates(clean.identify(rows), "input")
    rows = clean.missing(rows, what="output")
    rows = values_of.calls(rows) if tools.column else values_of.outputs(rows)
    key = "question" if tools.column else "key"
    rows, _ = clean.contradictions(clean.identify(rows), "drop", key, "output")
    return clean.duplicates(rows, key)


def _check_outputs(path: Path, task: Task, outputs: pl.Series, multi: bool, output: Guess) -> None:
    if clean.single(outputs, multi).n_unique() >= 2:
        return
    what, needs = (
        ("labels", "a classifier needs texts with at least two labels")
        if task == "classify"
        else ("outputs", "a model needs different outputs to learn from")
    )
    raise BadInput(
        f'{path}: fewer than two {what} are left in column "{output.column}" without '
        "duplicates and contradictions",
        needs,
    )


def _fields(outputs: pl.Series) -> list[str]:
    """The keys of outputs that are objects, the commonest first."""
    found = map(values_of.parse, outputs.head(values_of.LOOKED_AT))
    counts = Counter(key for value in found if isinstance(value, dict) for key in value)
    return [key for key, _ in counts.most_common()]


def _with_remarks(
    frame: pl.DataFrame,
    columns: list[Column],
    task: Task,
    text: Guess,
    label: Guess,
    tools: Guess,
    group: Guess,
) -> list[Column]:
    used = (text.column, label.column, tools.column, group.column)
    return [
        column
        if column.name in used
        else Column(**{**vars(column), "remark": _remark(frame, column, task, label.column or "")})
        for column in columns
    ]


def _remark(frame: pl.DataFrame, column: Column, task: Task, label: str) -> str:
    if column.kind == "constant":
        return "always the same value"
    if column.kind == "empty":
        return "empty"
    if column.kind == "id":
        prefix = frame[column.name].str.extract(r"^(.+)[_:/#.-][0-9]+$")
        if prefix.null_count() == 0 and 20 <= prefix.n_unique() <= frame.height / 1.5:
            return (
                f"an id such as {quoted(column.samples[0])}: if rows with the same beginning "
                "belong together, put it in a column of its own and name that as group"
            )
        return ""
    if task != "classify":
        more = task == "generate" and column.name == "input" and column.kind in ("text", "words")
        return "belongs to the question? Then join it to the column of data.input" if more else ""
    told = _told(frame, column, label)
    common = frame[label].drop_nulls().value_counts(sort=True)["count"][0] / frame.height
    if told >= 0.95 and common < 0.8:
        return f"tells the label for {told:.0%} of the rows; is the label made from it?"
    return ""


def _told(frame: pl.DataFrame, column: Column, label: str) -> float:
    """The share of rows whose label one would guess from the column's value alone.

    Numbers with many values are first cut into up to 100 bins of at least 10 rows.
    """
    rows = frame.select(
        pl.col(column.name).alias("value"), pl.col(label).alias("label")
    ).drop_nulls()
    bins = min(100, rows.height // 10)
    if column.kind == "number" and column.distinct > bins:
        rank = pl.col("value").cast(pl.Float64).rank("min")
        rows = rows.with_columns(rank * bins // rows.height)
    elif column.distinct > rows.height / 2:
        return 0.0
    counts = rows.group_by("value", "label").len().group_by("value")
    right = counts.agg(pl.col("len").max())["len"].sum()
    return float(right) / max(1, rows.height)


def _estimate(path: Path, frame: pl.DataFrame) -> int:
    """Rows in all of a file of which the beginning was read, from its size."""
    cells = frame.select(pl.sum_horizontal(pl.all().str.len_bytes().fill_null(0) + 1).sum()).item()
    return max(frame.height, path.stat().st_size * frame.height // max(1, int(cells)))
