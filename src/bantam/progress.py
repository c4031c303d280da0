"""What a person sees while they wait, on standard error: standard output has results alone."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bantam.units import write_seconds

PLAIN_INTERVAL = 15.0  # seconds between lines where there is no terminal

# Done, in all (0: nobody knows), what is told beside the bar.
Advance = Callable[[int, int, str], None]


def say(line: str) -> None:
    """Print a line as it is."""
    from rich.console import Console

    Console(stderr=True, soft_wrap=True).print(line, markup=False, highlight=False)


@contextmanager
def bar(what: str) -> Iterator[Advance]:
    """A bar with time left; without a terminal, a line now and then. One piece of work may follow
    another: it has another total, or begins lower."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    began = told = time.monotonic()
    first = last = whole = 0
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as shown:
        task = shown.add_task(what, total=None, note="")

        def advance(done: int, total: int, note: str = "") -> None:
            nonlocal began, told, first, last, whole
            # Of other work what came before says nothing of the pace.
            if total != whole or done < last:
                began, first = time.monotonic(), done
                shown.reset(task)
            last, whole = done, total
            shown.update(task, completed=done, total=total or None, note=note)
            if not console.is_terminal and time.monotonic() - told > PLAIN_INTERVAL:
                told = time.monotonic()
                left = (told - began) * (total - done) / max(1, done - first)
                of = f"/{total}" if total else ""
                pace = f" ({write_seconds(round(left))} left)" if total and done > first else ""
                say(f"{what}: {done}{of}{pace} {note}".rstrip())

        yield advance
