"""What was seen in a data file in words, and a first recipe for it with the reasons as comments."""

import json
import os
from pathlib import Path

from bantam import recipe
from bantam.recipe_file import default_name
from bantam.text import read
from bantam.text.look import Look
from bantam.text.roles import PROMPT_NAMES, Guess, hint
from bantam.toml_lines import quoted

TEST_ROWS, VAL_ROWS = 800, 400  # enough to tell models about 4 points apart, and soon judged


def write_recipe(look: Look, path: Path) -> str:
    """The text of a recipe for this data, to be saved at `path`: only the folder of it matters."""
    source = Path(os.path.relpath(look.path, path.parent)).as_posix()
    if ":" in source:  # else it could be taken for a source such as pypi:
        source = str(look.path.absolute())
    test = _share(TEST_ROWS / look.rows_in_all, 0.2)
    val = _share(VAL_ROWS / look.rows_in_all, 0.1)
    lines = [
        f"# Written after a look at {_about(look)}.",
        "# Change what is wrong; what stands after a # is a comment.",
        "",
        "[task]",
        f"name = {quoted(default_name(look.path))}",
        f"kind = {quoted(look.task)}",
        *_what_is_asked(look),
        "",
        "[data]",
        f"examples = [{quoted(source)}]",
        f"input = {quoted(look.input.column)}  # {look.input.reason}",
        f"output = {quoted(look.output.column)}  # {look.output.reason}",
        *(_labels_seen(look) if look.task == "classify" else _answers_seen(look)),
    ]
    if look.group.column is None:
        lines.append(f"# group = ...  # {look.group.reason}")
    else:
        lines.append(f"group = {quoted(look.group.column)}  # {look.group.reason}")
    lines += [
        f"val = {val}  # share of the rows that choose when to stop",
        f"test = {test}  # share that judges: about {round(test * look.rows_in_all)} rows",
    ]
    lines += [f"# dropped: {rows} rows: {reason}" for reason, rows in look.dropped.items()]
    if look.task != "generate":
        several = "labels" if look.task == "classify" else "outputs"
        lines.append(
            f'conflicts = "drop"  # one text with several {several}: drop all, "majority" or "keep"'
        )
    lines += [
        "",
        "[train]",
        'budget = "5 min"  # more time usually means a better model',
        "",
        "# [limits]           # what your device allows; a model over a limit fails",
        '# size = "160 MB"',
        '# latency = "200 ms"',
        "",
        "[judge]",
        "# What the model must beat; add any .gguf, pypi:... or hf:... model.",
        f"rivals = {json.dumps(recipe.default_rivals(look.task, look.tools.column is not None))}",
        "",
    ]
    remarks = [f"# {quoted(c.name)}: {c.remark}" for c in look.columns if c.remark]
    if remarks:
        lines += ["# Other columns:", *remarks, ""]
    return "\n".join(lines)


def _what_is_asked(look: Look) -> list[str]:
    if look.task == "classify":
        return [
            "# The question that the model is asked about every text.",
            f"instruction = {quoted(_question(look))}",
            *_several(look.output),
        ]
    lines = [
        "# What the model is told to do with every text.",
        f"instruction = {quoted(_instruction(look))}",
    ]
    if look.task == "extract" and look.tools.column is None:
        lines.append(
            '# schema = "schema.json"  # without it the schema is inferred from the outputs'
        )
    return lines + (_several(look.output) if look.task == "extract" else [])


def _instruction(look: Look) -> str:
    text, output = look.input.column or "", look.output.column or ""
    if look.tools.column is not None:
        return "Write the calls that answer the request, or none."
    if look.task == "extract":
        return f"Read this {text} and write its fields as JSON."
    return (
        f"Answer this {text}."
        if hint(text, PROMPT_NAMES)
        else f"Write the {output} of this {text}."
    )


def _labels_seen(look: Look) -> list[str]:
    labels = ", ".join(f"{quoted(label)} {rows}" for label, rows in list(look.labels.items())[:12])
    more = len(look.labels) - 12
    return [
        *_separated(look),
        *_shares(look),
        f"# {len(look.labels)} labels: {labels}" + (f" and {more} more" if more > 0 else ""),
        *(f"# {quoted(old)} counts as {quoted(new)}" for old, new in _few(look.merged_labels)),
    ]


def _answers_seen(look: Look) -> list[str]:
    lines = [f"# {_answer_lengths(look)}"]
    if look.fields:
        shown = ", ".join(map(quoted, look.fields[:12]))
        more = f" and {len(look.fields) - 12} more" if len(look.fields) > 12 else ""
        lines.append(f"# {len(look.fields)} fields: {shown}{more}")
    if look.tools.column is not None:
        lines.append(f"tools = {quoted(look.tools.column)}  # {look.tools.reason}")
        lines += [
            f"# accepted = {quoted(column.name)}  # if it holds all the calls that are right"
            for column in look.columns
            if column.kind == "json" and hint(column.name, "accepted")
        ]
    return lines


def _answer_lengths(look: Look) -> str:
    return (
        f"an output has {look.answer['p50']} characters in the middle, {look.answer['max']} at most"
    )


def _question(look: Look) -> str:
    column = look.output.column or ""
    fit = "fit" if look.output.separator and column.endswith("s") else "fits"
    return f"Which {column} {fit} this {look.input.column}?"


def _several(label: Guess) -> list[str]:
    if label.separator is None:
        return ["# sure = 0.9  # mark as sure what should be right so often; the rest is unsure"]
    what = (
        "lists" if label.separator == read.ITEM else f"labels with {label.separator} between them"
    )
    return [f"multi = true  # a text may have several labels or none: cells hold {what}"]


def _separated(look: Look) -> list[str]:
    mark, lines = look.output.separator, []
    if mark is None:
        return []
    if mark != read.ITEM:
        lines.append(f"separator = {quoted(mark)}  # between the labels of a cell")
    empty = next(c.missing for c in look.columns if c.name == look.output.column)
    if empty:
        lines.append(f"# {empty} rows have no label: from them it learns when none applies")
    return lines


def _shares(look: Look) -> list[str]:
    """The beginning of columns of votes or probabilities, where there is one for every label."""
    numbers = {column.name for column in look.columns if column.kind == "number"}
    if look.output.separator is not None:
        return []
    first = next(iter(look.labels))
    for name in sorted(numbers):
        beginning = name.removesuffix(first)
        if beginning not in ("", name) and all(
            beginning + label in numbers for label in look.labels
        ):
            return [f"shares = {quoted(beginning)}  # columns that say how sure each label is"]
    return []


def describe(look: Look) -> str:
    """What was seen, for a person to read in a terminal."""
    width = min(30, max(len(_plain(column.name)) for column in look.columns))
    lines = [_about(look), ""]
    for column in look.columns:
        samples = " | ".join(_plain(sample)[:40] for sample in column.samples)
        lines.append(
            f"  {_plain(column.name)[:30]:{width}}  {column.kind:8} "
            f"{column.distinct:>7} different   {samples}"
        )
    lines.append("")
    for role, guess in (("input", look.input), ("output", look.output), ("group", look.group)):
        name = quoted(guess.column) if guess.column else "none"
        lines.append(f"  {role:6} = {name}: {guess.reason}")
    if look.tools.column:
        lines.append(f"  {'tools':6} = {quoted(look.tools.column)}: {look.tools.reason}")
    if look.task == "classify":
        total = sum(look.labels.values())
        lines += ["", f"  {len(look.labels)} labels"]
        for label, rows in list(look.labels.items())[:12]:
            lines.append(f"    {rows:>8}  {rows / total:>4.0%}  {_plain(label)[:60]}")
    else:
        lines += ["", f"  kind = {quoted(look.task)}: {_answer_lengths(look)}"]
        if look.fields:
            lines.append(f"  fields: {_plain(', '.join(look.fields[:12]))[:200]}")
    lines += [
        "",
        f"  a text has {look.characters['p50']} characters and {look.words['p50']} words in the "
        f"middle, {look.characters['max']} characters at most",
    ]
    lines += [f"  {rows} rows will be dropped: {reason}" for reason, rows in look.dropped.items()]
    lines += [f"  {quoted(old)} counts as {quoted(new)}" for old, new in _few(look.merged_labels)]
    lines += [
        f"  {quoted(column.name)}: {column.remark}" for column in look.columns if column.remark
    ]
    lines += [f"  {warning}" for warning in look.warnings]
    return "\n".join(lines)


def _about(look: Look) -> str:
    partly = f" (the first of about {look.rows_in_all})" if look.partly else ""
    return f"{look.rows} rows{partly} of {_plain(look.path.name)}"


def _share(wanted: float, most: float) -> float:
    return float(f"{min(most, wanted):.2g}")


def _few(merged: dict[str, str]) -> list[tuple[str, str]]:
    return list(merged.items())[:12]


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
