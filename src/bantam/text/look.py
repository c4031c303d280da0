"""Look at a data file: what its columns hold, and what it could be used for."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from bantam.errors import BadInput
from bantam.text import clean, read, references
from bantam.text import values as values_of
from bantam.text.report import label_counts, quantiles
from bantam.toml_lines import quoted

MOST_ROWS = 200_000  # that are looked at
MOST_LABELS = 1000
FEWEST_ROWS = 10  # below, nothing can be said to repeat
INPUT_NAMES = "text review comment message sentence content body description title question tweet"
OUTPUT_NAMES = "label class category target sentiment output answer intent topic tag section team"
OUTPUT_NAMES += " classes categories genre"
ANSWER_NAMES = "output answer summary target response completion translation reference"
JSON_NAMES = f"{ANSWER_NAMES} json call field record entity extraction expected label"
PROMPT_NAMES = "prompt instruction question request query"
GROUP_NAMES = "group user author customer client patient speaker thread conversation session"
GROUP_NAMES += " document doc review source product url"

SEPARATORS = "|;,"  # that are looked for between the labels of a cell
LEAST_SEVERAL = 0.02  # share of the cells with several labels, below which the mark is an accident
LEAST_ALONE = 0.5  # share of the labels in such cells that are the whole of another cell elsewhere
LABEL_WORDS = 4  # most words of one of several labels

Kind = Literal["text", "words", "number", "id", "constant", "empty", "list", "json", "functions"]
Task = Literal["classify", "extract", "generate"]


@dataclass(frozen=True)
class Column:
    """A column: what it seems to hold, how many different values, some of them, and a remark."""

    name: str
    kind: Kind
    distinct: int
    missing: int
    samples: list[str]
    remark: str = ""
    separator: str | None = None  # between the labels of a cell, where it seems to hold several


@dataclass(frozen=True)
class Guess:
    """The column for a role (None: no column), and why; several labels are between `separator`."""

    column: str | None
    reason: str
    separator: str | None = None


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
    if any(hint(name, f"{INPUT_NAMES} {OUTPUT_NAMES}") for name in alike):
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
    columns = [_column(frame[name]) for name in names]
    task, text, label, tools = _guess_task(path, frame, columns)
    group = _guess_group(frame, columns, text, label, task)
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
        columns=_with_remarks(frame, columns, task, text, label, tools, group),
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
    if alike:
        yield f"columns that are called alike are passed over: {', '.join(map(quoted, alike))}"


def _column(values: pl.Series) -> Column:
    present = values.drop_nulls()
    distinct = present.n_unique()
    held = values_of.seen(present)
    if held == "json" and distinct == 1:
        held = None
    kind = held or _kind(present, distinct)
    separator = None if held else _separator(present)
    if separator:
        distinct = len(_labels(present, separator))
    return Column(
        name=values.name,
        kind="list" if separator == read.ITEM else kind,
        distinct=distinct,
        missing=values.null_count(),
        samples=present.unique(maintain_order=True).head(3).to_list(),
        separator=separator,
    )


def _separator(present: pl.Series) -> str | None:
    """What stands between the labels of a column's cells, if it is plain that they hold several.

    It is where labels repeat, are short, come in varying number, and mostly stand alone as well:
    "Portland, Oregon" is no two labels.
    """
    if present.str.contains(read.ITEM, literal=True).any():
        return read.ITEM
    for mark in SEPARATORS:
        cells = present.filter(present.str.contains(mark, literal=True))
        if len(cells) < max(2, LEAST_SEVERAL * len(present)):
            continue
        beginning = _labels(cells.head(100), mark)
        if any(len(label.split()) > LABEL_WORDS for label in beginning):
            continue
        alone = set(present.filter(~present.str.contains(mark, literal=True)))
        labels, within = _labels(present, mark), _labels(cells, mark)
        known = sum(count for label, count in within.items() if label in alone)
        short = all(len(label.split()) <= LABEL_WORDS for label in labels)
        repeat = 2 <= len(labels) <= min(MOST_LABELS, labels.total() // 5)
        if short and repeat and known >= LEAST_ALONE * within.total():
            return mark
    return None


def _labels(present: pl.Series, separator: str) -> Counter[str]:
    """How often each label stands in the cells."""
    parts = present.str.split(separator).explode().str.strip_chars()
    return Counter(parts.filter(parts != ""))


def _kind(present: pl.Series, distinct: int) -> Kind:
    if distinct < 2:
        return "constant" if distinct else "empty"
    number = present.str.contains(r"^[+-]?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?$").all()
    measured = number and present.str.contains(r"[.eE]").any()
    if distinct == len(present) and not measured and not present.str.contains(r"\s").any():
        return "id"
    if number:
        return "number"
    words = present.str.count_matches(r"\S+").median()
    return "text" if isinstance(words, float) and words >= 4 else "words"


def hint(name: str, hints: str) -> bool:
    """Whether one of the words of a column's name is, but for a plural, one of the hints."""
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())
    return any(word in hints.split() or word.removesuffix("s") in hints.split() for word in words)


def _guess_task(
    path: Path, frame: pl.DataFrame, columns: list[Column]
) -> tuple[Task, Guess, Guess, Guess]:
    """What the data are for, and the columns for input, output and tools.

    A column of JSON is an output unless another is called a label; a column of labels is one unless
    only another column is called an answer. Where there is neither, texts beside texts are answers.
    """
    found = _guess_json(frame, columns)
    if found is not None:
        output, tools = found
        return "extract", _guess_input(path, frame, columns), output, tools
    pair = _guess_answer(path, frame, columns)
    if pair is not None:
        return "generate", *pair, Guess(None, "")
    text = _guess_input(path, frame, columns)
    return "classify", text, _guess_output(path, frame, columns, text), Guess(None, "")


def _guess_json(frame: pl.DataFrame, columns: list[Column]) -> tuple[Guess, Guess] | None:
    candidates = [
        c
        for c in columns
        if c.kind == "json" and c.missing < 0.5 * frame.height and not hint(c.name, "accepted")
    ]
    named = [c for c in candidates if hint(c.name, JSON_NAMES)]
    if not candidates or (not named and _label_columns(frame, columns, named=True)):
        return None
    best = (named or candidates)[0]
    tools = next((c for c in columns if c.kind == "functions"), None)
    if tools is None:
        return Guess(best.name, "its cells are JSON"), Guess(None, "")
    reason = "its cells declare the functions that may be called"
    return Guess(best.name, "its cells are JSON: the calls"), Guess(tools.name, reason)


def _guess_answer(
    path: Path, frame: pl.DataFrame, columns: list[Column]
) -> tuple[Guess, Guess] | None:
    """A text and the text that answers it."""
    texts = [
        c
        for c in columns
        if c.kind in ("text", "words", "list")
        and c.distinct > 0.5 * (frame.height - c.missing)
        and c.missing < 0.5 * frame.height
        and (c.kind != "list" or hint(c.name, ANSWER_NAMES))
    ]
    named = [c for c in texts if hint(c.name, ANSWER_NAMES)]
    labels = _label_columns(frame, columns, named=bool(named))
    if labels or len(texts) < 2:
        return None
    if named:
        answer, why = (
            max(named, key=lambda c: (c.kind != "words", _letters(frame, c))),
            "its name says so",
        )
    else:
        long = sorted((c for c in texts if c.kind == "text"), key=lambda c: -_letters(frame, c))
        if len(long) < 2:
            return None
        first = _guess_input(path, frame, long)
        answer = next(c for c in long if c.name != first.column)
        why = "texts beside the texts, and no column looks like a label"
    others = [c for c in texts if c is not answer and not c.separator]
    if not others:
        return None
    asked = [c for c in others if hint(c.name, PROMPT_NAMES)]
    text = Guess(asked[0].name, "its name says so") if asked else _guess_input(path, frame, others)
    return text, Guess(answer.name, why, answer.separator)


def _letters(frame: pl.DataFrame, column: Column) -> float:
    return float(frame[column.name].str.len_chars().fill_null(0).sum())


def _guess_input(path: Path, frame: pl.DataFrame, columns: list[Column]) -> Guess:
    candidates = [
        c
        for c in columns
        if c.kind in ("text", "words") and not c.separator and c.distinct > 0.1 * frame.height
    ]
    if not candidates:
        raise BadInput(
            f"{path}: no column holds texts that differ from row to row",
            "is it the right file? A recipe written by hand can name any column as data.input",
        )
    length = {c.name: _letters(frame, c) for c in candidates}

    def score(column: Column) -> tuple[bool, bool, float]:
        is_text = column.kind == "text"
        return is_text, is_text and hint(column.name, INPUT_NAMES), length[column.name]

    best = max(candidates, key=score)
    longest = max(length, key=lambda name: length[name]) == best.name
    return Guess(best.name, "the longest texts" if longest else "texts, and its name says so")


def _guess_output(path: Path, frame: pl.DataFrame, columns: list[Column], text: Guess) -> Guess:
    most = _most_labels(frame)
    candidates = [c for c in _label_columns(frame, columns) if c.name != text.column]
    if not candidates:
        raise BadInput(
            f"{path}: no column looks like a label: 2 to {most} different values that repeat",
            "is it the right file? A recipe written by hand can name any column as data.output",
        )
    named = [c for c in candidates if hint(c.name, OUTPUT_NAMES)]
    best = min(named or candidates, key=lambda c: (c.kind == "number", c.distinct))
    why = "its name says so, and " if named else ""
    what = "labels, several a cell," if best.separator else "values"
    return Guess(best.name, f"{why}its {best.distinct} {what} repeat", best.separator)


def _most_labels(frame: pl.DataFrame) -> int:
    return min(MOST_LABELS, frame.height // 5)


def _label_columns(frame: pl.DataFrame, columns: list[Column], named: bool = False) -> list[Column]:
    """The columns whose values repeat as labels do; `named`: those that are called labels."""
    return [
        c
        for c in columns
        if c.kind not in ("json", "functions")
        and 2 <= c.distinct <= _most_labels(frame)
        and (c.missing < 0.5 * frame.height or c.separator)
        and (not named or hint(c.name, OUTPUT_NAMES))
    ]


def _guess_group(
    frame: pl.DataFrame, columns: list[Column], text: Guess, label: Guess, task: Task
) -> Guess:
    """Values that come in blocks, or whose name says so, many enough to be spread over splits."""
    labels = next(c.distinct for c in columns if c.name == label.column)
    fewest = max(20, labels + 1) if task == "classify" else 20
    none = "a column whose rows belong together, such as a customer: none was seen"
    for column in columns:
        if column.name in (text.column, label.column) or column.separator:
            continue
        if column.kind in ("text", "id", "constant", "json", "functions"):
            continue
        values = frame[column.name]
        present = values.drop_nulls()
        if column.distinct < fewest and hint(column.name, GROUP_NAMES):
            few = f"{column.distinct} values are too few to be spread over splits"
            none = f"{quoted(column.name)}? {few}, but name it if its rows belong together"
        if column.distinct < fewest or len(present) < 1.5 * column.distinct:
            continue
        if present.value_counts(sort=True)["count"][0] > 0.2 * frame.height:
            continue
        runs = int((values != values.shift(1)).fill_null(True).sum())
        blocks = runs <= 1.2 * column.distinct
        if blocks or hint(column.name, GROUP_NAMES):
            why = "rows with the same value follow each other" if blocks else "its name says so"
            return Guess(column.name, f"{why}: rows of one group stay in one split")
    return Guess(None, none)


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
