"""The command line: one thin function a command. Heavy imports wait inside the functions."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bantam import __version__
from bantam.errors import BadInput, BantamError

if TYPE_CHECKING:
    from bantam.model import Model

as_json = click.option("--json", "json_", is_flag=True, help="Print one JSON object and no more.")
PATH = click.Path(path_type=Path)
LONGEST = 1 << 20  # characters of a text that is to be gone on with


def main() -> None:
    """Run the command line; every expected failure is one message with its mend."""
    try:
        code = bantam.main(standalone_mode=False)
    except BantamError as error:
        click.echo(f"bantam: {error}", err=True)
        code = error.exit_code
    except click.exceptions.Abort:
        click.echo("stopped", err=True)
        code = 130
    except click.ClickException as error:
        error.show()
        code = 2
    except BrokenPipeError:  # the reader, such as `head`, had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        click.echo(f"bantam: {_told(error)}", err=True)
        code = 1
    sys.exit(code or 0)


def _told(error: OSError) -> str:
    """What the system refused, and a mend."""
    mend = "look whether it is there, and whether you may read and write it"
    if error.errno == errno.ENOSPC:
        mend = "free space; the same command goes on from there"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        mend = "look at its rights, or name another place with --run or --output"
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}\n  mend: {mend}"


@contextmanager
def _kept() -> Iterator[None]:
    """Say what becomes of work that Ctrl-C stops."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("\nwhat is finished is kept; the same command goes on from there", err=True)
        raise


def _writable(output: Path) -> None:
    """Refuse a file to write that cannot be, before any work."""
    if output.is_dir():
        raise BadInput(f"{output} is a folder", "name a file in it")
    if not output.parent.is_dir():
        raise BadInput(f"{output.parent} is no folder", "make it first, or name another place")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bantam")
@click.option("--offline", is_flag=True, help="Forbid the network.")
def bantam(offline: bool) -> None:
    """A recipe and your data in, the smallest language model that does your job out."""
    if offline:
        os.environ["BANTAM_OFFLINE"] = "1"


@bantam.command()
@click.argument("data", type=PATH)
@click.option("-o", "--output", type=PATH, help="The recipe to write [default: beside DATA].")
@click.option("--force", is_flag=True, help="Replace a recipe that is there.")
@as_json
def new(data: Path, output: Path | None, force: bool, json_: bool) -> None:
    """Look at DATA and write a recipe for it: of a file of labelled rows, or a folder of text."""
    from dataclasses import asdict

    from bantam.runs import write_text
    from bantam.text.read import only_tables

    if output:
        _writable(output)
    output = output or data.parent / "recipe.toml"
    documents = data.is_dir() and not only_tables(data)
    if documents and output.absolute().is_relative_to(data.absolute()):
        raise BadInput(
            f"{output} would stand among the documents", "write it elsewhere: -o ../recipe.toml"
        )
    if data.exists() and output.exists() and not force:
        raise BadInput(f"{output} is there already", "add --force to replace it, or -o elsewhere")
    recipe, seen, told = _first_recipe(data, output, documents)
    write_text(output, recipe)
    if json_:
        _print_json({"recipe": str(output), "look": asdict(seen)})
    else:
        click.echo(told)
        click.echo(f"\nwrote {output}; next: bantam check {shlex.quote(str(output))}")


def _first_recipe(data: Path, output: Path, documents: bool) -> tuple[str, Any, str]:
    """The recipe for what is there, what was seen of it, and that in words."""
    from bantam.documents import first_recipe as of_documents
    from bantam.documents.look import look as look_into
    from bantam.text import first_recipe as of_rows
    from bantam.text.look import look

    if not documents:
        rows = look(data)
        return of_rows.write_recipe(rows, output), rows, of_rows.describe(rows)
    folder = look_into(data)
    return of_documents.write_recipe(folder, output), folder, of_documents.describe(folder)


@bantam.command()
@click.argument("recipe", type=PATH)
@click.option("--run", type=PATH, default=Path("runs"), help="Where the run will be made.")
@as_json
def check(recipe: Path, run: Path, json_: bool) -> None:
    """Try everything that RECIPE needs; nothing is spent."""
    from bantam.check import check

    lines = check(recipe, run)
    if json_:
        _print_json({"ok": all(line["ok"] for line in lines), "checks": lines})
    else:
        for line in lines:
            mark = click.style("✓", "green") if line["ok"] else click.style("✗", "red")
            click.echo(f"{mark} {line['what']}")
            if not line["ok"]:
                click.echo(f"    mend: {line['mend']}")
            for warning in line["warnings"]:
                click.echo(f"    warning: {warning}")
    if not all(line["ok"] for line in lines):
        sys.exit(2)


@bantam.command()
@click.argument("recipe", type=PATH)
@click.option("--run", type=PATH, help="The run's folder [default: runs/NAME].")
@click.option("--require", is_flag=True, help="Exit with 3 when the verdict is negative.")
@click.option(
    "--nproc",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="Processes that train a model from scratch together.",
)
@click.option("--ray", metavar="ADDRESS", help="Of a Ray cluster that cleans its documents.")
@as_json
def make(
    recipe: Path, run: Path | None, require: bool, nproc: int, ray: str | None, json_: bool
) -> None:
    """Make the model of RECIPE: train, pack, judge, report. Goes on where it was stopped."""
    from bantam.judge.verdict import positive
    from bantam.pipeline import make, run_folder

    folder = run or run_folder(recipe)
    with _kept():
        verdict = make(recipe, folder, processes=nproc, ray=ray)
    if json_:
        _print_json({"run": str(folder), "verdict": verdict})
    else:
        click.echo(verdict["sentence"])
        click.echo(f"report: {folder / 'report.html'}")
        click.echo(f'use it: bantam run {shlex.quote(str(folder))} "a text"')
    if require and not positive(verdict):
        sys.exit(3)


class _Default(click.Group):
    """A group of commands that takes anything else for the argument of its first one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            args = [next(iter(self.commands)), *args]
        return super().resolve_command(ctx, args)


@bantam.group(cls=_Default)
def text() -> None:
    """Clean the documents or labelled rows of a recipe: `bantam text RECIPE`."""


@text.command("clean")
@click.argument("recipe", type=PATH)
@click.option("--run", type=PATH, help="The run's folder [default: runs/NAME].")
@click.option("--workers", type=click.IntRange(1), help="Processes [default: one a core].")
@click.option("--ray", metavar="ADDRESS", help="Of a Ray cluster; 'local' starts one here.")
@as_json
def text_clean(
    recipe: Path, run: Path | None, workers: int | None, ray: str | None, json_: bool
) -> None:
    """Read, clean and report what RECIPE is to learn from. Goes on where it stopped."""
    from bantam import curation, labelled
    from bantam.documents import told
    from bantam.pipeline import run_folder
    from bantam.recipe_file import has_documents

    with _kept():
        if has_documents(recipe):
            report = curation.text(recipe, run, workers=workers, ray=ray)
            summary = told.words(report)
        elif workers or ray:
            raise BadInput("labelled rows are cleaned in one process", "leave out --workers, --ray")
        else:
            report = labelled.text(recipe, run or run_folder(recipe))
            summary = labelled.words(report)
    _print_json(report) if json_ else click.echo(summary)


@text.command("show")
@click.argument("run", type=PATH)
@click.option("--kept", is_flag=True, help="What stays.")
@click.option("--dropped", metavar="RULE", help="What a rule took, such as gopher; '' for any.")
@click.option("--source", help="Of this source alone; of labelled rows, this file.")
@click.option("--word", help="That hold this word.")
@click.option("-n", "count", default=20, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the draw.")
@as_json
def text_show(
    run: Path,
    kept: bool,
    dropped: str | None,
    source: str | None,
    word: str | None,
    count: int,
    seed: int,
    json_: bool,
) -> None:
    """Page through documents or rows of RUN that were kept or dropped, drawn by chance."""
    from bantam.documents import show

    found = show.rows(
        run, kept=kept, dropped=dropped, source=source, word=word, count=count, seed=seed
    )
    if json_:
        _print_json(found)
        return
    if not found:
        click.echo("nothing in this run fits", err=True)
        return
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns
    told = show.written(found, word=word, colour=terminal, width=width)
    click.echo_via_pager(told) if terminal else click.echo("".join(told))


@text.command("rate")
@click.argument("run", type=PATH)
@click.option("-o", "--output", type=PATH, default=Path("ratings.jsonl"), show_default=True)
@click.option("-n", "count", default=50, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the draw.")
def text_rate(run: Path, output: Path, count: int, seed: int) -> None:
    """Say which documents of RUN are good: what a score is learned from. Goes on where it was."""
    from bantam.documents.rate import rate_run
    from bantam.toml_lines import quoted

    _writable(output)
    rate_run(run, output, seed, count)
    if output.exists() and output.stat().st_size:
        told = f"[documents.score]\nratings = {quoted(str(output))}"
        click.echo(f"learn from them, in the recipe:\n\n{told}", err=True)


@bantam.command()
@click.argument("model")
@click.argument("text", required=False)
@click.option("-f", "--file", type=PATH, help="A csv, tsv, jsonl or txt of many texts.")
@click.option("-c", "--column", default=None, help="The column of the texts [default: text].")
@click.option("-o", "--output", type=PATH, help="Where the answers go [default: standard output].")
@click.option("--tools", type=PATH, help="A JSON file of the functions that may be called.")
@click.option("--threads", type=click.IntRange(1, 1024), help="[default: as fits]")
@as_json
def run(
    model: str,
    text: str | None,
    file: Path | None,
    column: str | None,
    output: Path | None,
    tools: Path | None,
    threads: int | None,
    json_: bool,
) -> None:
    """Ask MODEL about TEXT, the rows of a file, or standard input (a text a line)."""
    from bantam import use
    from bantam.model_files import load

    if text is not None and file is not None:
        raise BadInput("a text and a file were given", "give one of them")
    if text is not None and output is not None:
        raise BadInput("a text and an output were given", "--output takes the rows of a file")
    if output:
        _writable(output)
    declared = use.declarations(tools) if tools else None
    with load(model, threads=threads) as loaded:
        if loaded.completes:
            if file or output or tools:
                raise BadInput("this model goes on with a text", "give a text, or standard input")
            _complete(loaded, text, json_)
        elif text is not None:
            answer = loaded(text, declared)
            _print_json(use.plain(answer)) if json_ else click.echo(use.line(answer))
            if answer.cut:
                read = loaded.asked().max_text_tokens
                click.echo(f"warning: over {read:,} tokens: the end was not read", err=True)
        else:
            count = use.rows(loaded, file, column, output, json_, declared)
            if output and json_:
                _print_json({"answers": count, "output": str(output)})
            elif output:
                click.echo(f"{count} answers in {output}", err=True)


def _complete(loaded: Model, text: str | None, json_: bool) -> None:
    """Write a text, by default what stands on standard input, and what may follow it."""
    if text is None:
        text = "" if sys.stdin.isatty() else sys.stdin.read(LONGEST).removesuffix("\n")
    pieces = loaded.complete(text)
    if json_:
        _print_json({"text": text, "continuation": "".join(pieces)})
        return
    click.echo(text, nl=False)
    for piece in pieces:
        click.echo(piece, nl=False)
    click.echo()


@bantam.command()
@click.argument("model")
@click.option("--system", help="What the model is told first.")
@click.option(
    "--temperature",
    type=click.FloatRange(0),
    help="0 takes the likeliest token [default: what MODEL recommends, else 0.7].",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 2), help="For the same replies again.")
@click.option("--max-tokens", default=512, show_default=True, type=click.IntRange(1))
def chat(
    model: str, system: str | None, temperature: float | None, seed: int | None, max_tokens: int
) -> None:
    """Talk to MODEL, any instruct GGUF. Ctrl-D or an empty line ends it."""
    from bantam.model_files import load

    messages = [{"role": "system", "content": system}] if system else []
    with load(model) as loaded:
        for said in _turns():
            messages.append({"role": "user", "content": said})
            reply = ""
            try:
                for piece in loaded.stream(
                    messages, max_tokens=max_tokens, temperature=temperature, seed=seed
                ):
                    reply += piece
                    click.echo(piece, nl=False)
            except KeyboardInterrupt:  # stops the answer, not the conversation
                click.echo(" ...", nl=False)
            click.echo()
            messages.append({"role": "assistant", "content": reply})


def _turns() -> Iterator[str]:
    """What the person says, until an empty line or the end of the input."""
    asks = sys.stdin.isatty()
    while True:
        try:
            said = input("> " if asks else "").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if not said:
            return
        yield said


@bantam.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535))
@click.option("--keys", type=PATH, help="A file of keys, one a line [default: $BANTAM_KEYS].")
@click.option("--allow-host", "hosts", multiple=True, help="A name that this server is called by.")
@click.option("--allow-origin", "origins", multiple=True, help="A web site that may ask.")
@click.option(
    "--parallel",
    default=4,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Requests that a model works on at once.",
)
@click.option("--context", type=click.IntRange(16), help="Tokens for each [default: as fits].")
@click.option("--threads", type=click.IntRange(1, 1024), help="Of each model [default: as fits].")
@click.option("--memory", help='Of all models, such as "4 GB" [default: most of what is free].')
@click.option("--feedback", type=PATH, help="A file to keep thumbs and corrections in.")
@click.option("--handover", metavar="MODEL[=BELOW]", help="Who answers what is not sure enough.")
@click.option("--allow-network", is_flag=True, help="Let texts be handed over to an endpoint.")
@as_json
def serve(
    models: tuple[str, ...],
    host: str,
    port: int,
    keys: Path | None,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    parallel: int,
    context: int | None,
    threads: int | None,
    memory: str | None,
    feedback: Path | None,
    handover: str | None,
    allow_network: bool,
    json_: bool,
) -> None:
    """Serve MODELs to programs that speak to OpenAI, Anthropic or Ollama. Ctrl-C ends it.

    A MODEL is a run, a pack folder, a .gguf or a source; MODEL+ADAPTER has a LoRA adapter over it,
    a run's or a .gguf; NAME=MODEL gives it another name.
    """
    from bantam.serve.start import Ready, serve

    def ready(told: Ready) -> None:
        if json_:
            _print_json({"address": told.address, "models": told.models})
        else:
            click.echo(told.words())
        sys.stdout.flush()  # it may be a file or a pipe, and much time passes until the end

    serve(
        models,
        host=host,
        port=port,
        keys=keys,
        hosts=hosts,
        origins=origins,
        parallel=parallel,
        context=context,
        threads=threads,
        memory=memory,
        feedback=feedback,
        handover=handover,
        allow_network=allow_network,
        ready=ready,
    )


@bantam.group()
def feedback() -> None:
    """What users said of answers, where `bantam serve` kept it."""


@feedback.command()
@click.argument("file", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The .csv or .jsonl to write.")
@click.option("--model", help="Whose answers [default: the only model's].")
@click.option("--input", default="text", show_default=True, help="The column of the texts.")
@click.option("--label", default="label", show_default=True, help="The column of right answers.")
def export(file: Path, output: Path, model: str | None, input: str, label: str) -> None:
    """Write the right answers in FILE as examples for the next `bantam make`."""
    from bantam.serve.feedback import export

    _writable(output)
    export(file, output, model, input, label)
    click.echo(f"wrote {output}; name it in data.examples", err=True)


@bantam.command()
@click.argument("what")
@as_json
def show(what: str, json_: bool) -> None:
    """Show what a run or a model is, what it was made from and what it scored."""
    from bantam.show import describe, facts

    told = facts(what)
    _print_json(told) if json_ else click.echo(describe(told))


@bantam.command()
@click.option("--clear", "clear_", metavar="NAME", help="Remove one source; 'all' removes all.")
@as_json
def cache(clear_: str | None, json_: bool) -> None:
    """List what was fetched, or remove it."""
    from bantam import sources

    if clear_:
        freed = sources.clear(None if clear_ == "all" else clear_)
        _print_json({"freed_bytes": freed}) if json_ else click.echo(f"freed {freed / 1e6:.1f} MB")
        return
    held = sources.cached()
    if json_:
        _print_json(
            [
                {"name": e.name, "bytes": e.size, "sha256": e.sha256, "origin": e.origin}
                for e in held
            ]
        )
    for entry in held if not json_ else ():
        click.echo(f"{entry.size / 1e6:9.1f} MB  {entry.name}  {entry.origin}")


def _print_json(data: Any) -> None:
    from bantam.runs import json_text

    click.echo(json_text(data, indent=2))
