"""Many texts through a model: rows of a file or lines of standard input, answers as rows."""

import codecs
import csv
import json
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from bantam.answer import Answer, Written
from bantam.crowd import PIECE, crowd
from bantam.documents.separator import said, separator
from bantam.errors import BadInput
from bantam.model import Model
from bantam.progress import bar, say
from bantam.runs import json_text, sync

TOOLS = "tools"  # the column of the functions that a row declares
FEW = 32  # texts for one process: each more costs half a second before its first answer
Row = dict[str, Any]
END = "\x1eend of file\x1e"
csv.field_size_limit(1 << 27)  # a long document is no error


Reply = Answer | Written


def declarations(file: Path) -> Any:
    """What a JSON file of function declarations holds. Raises BadInput when it is none."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}", "look at its name") from None
    except (ValueError, RecursionError) as error:
        mend = 'give a list of {"type": "function", "function": {"name", "parameters"}}'
        raise BadInput(f"{file} is not JSON: {error}", mend) from None


def plain(answer: Reply) -> Row:
    """An answer as JSON has it; `sure` only where the task says when an answer is."""
    told: Row
    if isinstance(answer, Written):
        said = answer.text if answer.value is None else answer.value
        told = {"answer": said, "probability": round(answer.probability, 6), "whole": answer.whole}
    else:
        told = {
            "label": answer.label,
            "labels": list(answer.labels),
            "probability": round(answer.probability, 6),
            "probabilities": {k: round(p, 6) for k, p in answer.probabilities.items()},
        }
    told["cut"] = answer.cut
    return told if answer.sure is None else told | {"sure": answer.sure}


def line(answer: Reply) -> str:
    """An answer as a person reads it, a label in one line to be cut at its tabs; none: "-"."""
    if isinstance(answer, Written):
        return answer.text
    told = f"{answer.label or '-'}\t{answer.probability:.3f}"
    return told if answer.sure is None else f"{told}\t{'sure' if answer.sure else 'unsure'}"


def rows(
    model: Model,
    file: Path | None,
    column: str | None,
    output: Path | None,
    json_: bool,
    tools: Any = None,
) -> int:
    """Answer every row of `file`, or every line of standard input; returns how many.

    A model that calls functions is given `tools`, or those in the column of this name.
    `output` (.csv, .tsv or .jsonl) takes the rows with the answers beside them, whole or not at
    all; without it answers go to standard output as they come.
    """
    if output and output.suffix.lower() not in (".csv", ".tsv", ".jsonl"):
        raise BadInput(f"{output}: answers are written as .csv, .tsv or .jsonl", "choose one")
    if output and file and output.resolve() == file.resolve():
        raise BadInput(f"{output} is the file that is read", "name another output")
    # A row that cannot be read is told before any answer is waited for.
    twice = file is not None and file.is_file()
    total = sum(1 for _ in _read(file, column, say)) if twice else 0
    source = _read(file, column, _nothing if twice else say)
    name = column or "text"
    task = model.asked()
    multi, read = task.multi, task.max_text_tokens
    tooled = TOOLS if task.most_calls and tools is None else None
    asks = file is None and sys.stdin.isatty()
    if asks:
        say("a text a line; Ctrl-D ends it")
    done = cut = 0
    with ExitStack() as stack:
        names = _columns(file, output)
        write = stack.enter_context(_Written(output, multi, names)) if output else None
        gathered: list[Row] = []
        advance = None if asks else stack.enter_context(bar("run"))
        ask = _asking(model, name, tools, tooled)
        answers = stack.enter_context(closing(_answers(model, source, ask, asks)))
        for row, answer in answers:
            if write:
                write(row, answer)
            elif json_:
                gathered.append({"text": row[name]} | plain(answer))
            else:
                print(line(answer), flush=True)
            done += 1
            cut += answer.cut
            if advance:
                advance(done, total, "")
        if json_ and not output:
            print(json_text({"answers": gathered}, indent=2))
    if cut:
        say(f"warning: {cut} of {done} texts have over {read:,} tokens: their ends were not read")
    return done


def _asking(
    model: Model, name: str, tools: Any, tooled: str | None
) -> Callable[[Model, list[Row]], list[Reply]]:
    """How rows are answered: their texts stand in the column `name`, their functions, if each has
    its own, in `tooled`."""
    labels = model.asked().kind == "classify"

    def answer(model: Model, rows: list[Row]) -> list[Reply]:
        if labels:
            return list(model.batch([row[name] for row in rows]))
        return [_reply(model, row, name, tools, tooled) for row in rows]

    return answer


def _reply(model: Model, row: Row, name: str, tools: Any, tooled: str | None) -> Written:
    """The answer to a row; what is wrong with its functions or their length is told with its text,
    by which it is found again."""
    try:
        return model.write(row[name], _tools(row, tooled) if tooled else tools)
    except BadInput as error:
        shown = json.dumps(row[name][:60], ensure_ascii=False)
        raise BadInput(f"the text {shown}: {error.message}", error.mend) from None


def _tools(row: Row, column: str) -> Any:
    if column not in row:
        raise BadInput(
            f'there is no column "{column}" with the functions of each text',
            "give the functions of all texts with --tools FILE",
        )
    return row[column]


def _answers(
    model: Model,
    source: Iterator[Row],
    ask: Callable[[Model, list[Row]], list[Reply]],
    asks: bool,
) -> Generator[tuple[Row, Reply], None, None]:
    """Each row with the answer to its text: from `model` if they are few or typed (`asks`), else
    from a crowd, which closing the generator ends."""

    def answer(model: Model, rows: list[Row]) -> list[tuple[Row, Reply]]:
        return list(zip(rows, ask(model, rows), strict=True))

    first = [] if asks else list(islice(source, FEW + 1))
    source = chain(first, source)
    if len(first) > FEW:
        with crowd(model.path, threads=model.threads, context=model.context) as share:
            pieces = iter(lambda: list(islice(source, PIECE)), [])
            yield from chain.from_iterable(share(answer, pieces))
    else:
        for row in source:
            yield row, ask(model, [row])[0]


def _nothing(_: str) -> None:
    """What was told when the file was first read is not told again."""


def _read(file: Path | None, column: str | None, tell: Callable[[str], None]) -> Iterator[Row]:
    try:
        if file is None:
            if isinstance(sys.stdin, TextIOWrapper):  # some systems let anything through
                sys.stdin.reconfigure(encoding="utf-8", errors="strict")
            yield from _lines(sys.stdin, column or "text", tell)
            return
        name, errors, note = _encoding(file)
        if note:
            tell(f"{file}: {note}")
        with file.open(encoding=name, errors=errors, newline="") as opened:
            yield from _rows(file, opened, column or "text", tell)
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}", "look at its name") from None
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{file or 'standard input'} is not UTF-8: {error.reason}",
            'save it as UTF-8 (from a spreadsheet as "CSV UTF-8") and run again',
        ) from None
    except csv.Error as error:
        raise BadInput(f"{file} is no sound table: {error}", "export it again") from None


def _encoding(file: Path) -> tuple[str, str, str]:
    """How to open a file: UTF-8, or UTF-16 where its mark says so, as spreadsheets write; else what
    it is learned from as well, with a note, where what guesses that is installed."""
    with file.open("rb") as opened:
        if opened.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16", "strict", ""
    try:
        with file.open(encoding="utf-8") as opened_as_text:
            while opened_as_text.read(1 << 20):
                pass
    except UnicodeDecodeError:
        with suppress(ModuleNotFoundError):
            from bantam.documents import encoding

            return encoding.detect(file)
    return "utf-8-sig", "strict", ""


def _rows(file: Path, opened: IO[str], column: str, tell: Callable[[str], None]) -> Iterator[Row]:
    kind = file.suffix.lower()
    found: Iterable[Row]
    if kind == ".txt":
        found = _lines(opened, column, tell)
    elif kind == ".jsonl":
        found = _objects(file, opened)
    elif kind in (".csv", ".tsv"):
        header = next(opened, "")
        if named := kind == ".csv" and said(header):
            header = next(opened, "")
        mark = named or ("\t" if kind == ".tsv" else separator(header))
        found = _cells(csv.DictReader(chain([header], opened, [END]), delimiter=mark))
    else:
        raise BadInput(
            f"{file}: cannot read {kind or 'this'} files",
            'give .csv, .tsv, .jsonl or .txt; a spreadsheet program can save "CSV UTF-8"',
        )
    for number, row in enumerate(found, 1):
        if column not in row:
            there = ", ".join(str(key) for key in row)
            raise BadInput(
                f'{file}, row {number}: there is no column "{column}"; there are: {there}',
                "name the column of the texts with --column",
            )
        if not isinstance(row[column], str) or None in row:
            raise BadInput(
                f'{file}, row {number}: no text in "{column}", or fields that have no column',
                "mend this row: is a quote or a separator missing?",
            )
        yield row


def _cells(table: "csv.DictReader[str]") -> Iterator[Row]:
    """The rows of a table whose last line is END."""
    names = list(table.fieldnames or ())
    if twice := [name for name in names if names.count(name) > 1]:
        raise csv.Error(f'two columns are called "{twice[0]}"')
    for row in table:
        cells = [cell for cell in row.values() if isinstance(cell, str)]
        if cells == [END]:
            return
        if cells and cells[-1].endswith(END):
            raise csv.Error("a quotation mark opens a cell that never ends")
        yield row


def _columns(file: Path | None, output: Path | None) -> list[str]:
    """The columns of a table that takes the objects of a file, which may all have others; none
    where the first row tells them."""
    if not (file and output and file.is_file() and file.suffix.lower() == ".jsonl"):
        return []
    if output.suffix.lower() == ".jsonl":
        return []
    # One that cannot be read is told when its rows are.
    with suppress(OSError), file.open(encoding=_encoding(file)[0], errors="replace") as opened:
        return list(dict.fromkeys(key for row in _objects(file, opened) for key in row))
    return []


def _lines(opened: IO[str], column: str, tell: Callable[[str], None]) -> Iterator[Row]:
    blank = 0
    for text in opened:
        if text.strip():
            yield {column: text.rstrip("\r\n")}
        else:
            blank += 1
    if blank and not opened.isatty():
        tell(f"blank lines have no answers: {blank} were passed over")


def _objects(file: Path, opened: IO[str]) -> Iterator[Row]:
    for number, text in enumerate(opened, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{file}, line {number}: not JSON ({error})", "mend this line") from None
        if not isinstance(row, dict):
            raise BadInput(f"{file}, line {number}: not a JSON object", "mend this line")
        yield row


class _Written:
    """The answers' file, renamed into place when the block ends well.

    With several labels a text they are a list in .jsonl, else one cell as "a|b". Whether an answer
    is sure is true or false.
    """

    def __init__(self, path: Path, multi: bool, names: list[str]) -> None:
        self.path, self.partial = path, path.with_name(f".{path.name}.partial")
        self.multi, self.names = multi, names
        self.table: Any = None

    def __enter__(self) -> "_Written":
        self.file = self.partial.open("w", encoding="utf-8", errors="replace", newline="")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.file.close()
        if kind is None:
            sync(self.partial)
            self.partial.replace(self.path)
        else:
            self.partial.unlink()

    def __call__(self, row: Row, answer: Reply) -> None:
        suffix = self.path.suffix.lower()
        added: Row = {"answer": str(answer), "probability": round(answer.probability, 6)}
        if answer.sure is not None:
            added["sure"] = answer.sure if suffix == ".jsonl" else json.dumps(answer.sure)
        if suffix == ".jsonl":
            said = plain(answer)
            if isinstance(answer, Written):
                added["answer"] = said["answer"]
            else:
                added["probabilities"] = said["probabilities"]
                if self.multi:
                    added["answer"] = said["labels"]
        there = {*self.names, *row}
        if taken := [name for name in added if name in there]:
            raise BadInput(
                f'the rows have a column "{taken[0]}" already, where ours would stand',
                "rename it, or take it out",
            )
        told = row | added
        if suffix == ".jsonl":
            self.file.write(json_text(told) + "\n")
            return
        if self.table is None:
            delimiter = "\t" if suffix == ".tsv" else ","
            names = list(dict.fromkeys([*self.names, *told]))
            self.table = csv.DictWriter(self.file, names, delimiter=delimiter)
            self.table.writeheader()
        self.table.writerow(told)
