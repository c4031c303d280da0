"""The preflight: everything that a recipe needs is tried, and nothing is spent."""

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import psutil

from bantam import recipe, sources, units
from bantam.errors import BadInput, BantamError
from bantam.formats import gguf, safetensors

Line = dict[str, Any]  # what, ok, mend
Found = TypeVar("Found")


def check(path: Path, run: Path) -> list[Line]:
    """A line for each thing tried: recipe, sources, rows, base, disk, memory, time.

    What depends on something that failed, or that is yet to be fetched, is left out.
    """
    lines: list[Line] = []

    def tried(act: Callable[[], Found], told: Callable[[Found], str]) -> Found | None:
        try:
            found = act()
        except BantamError as error:
            lines.append({"what": error.message, "ok": False, "mend": error.mend})
            return None
        lines.append({"what": told(found), "ok": True, "mend": ""})
        return found

    made = tried(lambda: recipe.load(path), lambda r: f"recipe {path}: {r.task.name}")
    if made is None:
        return lines
    tried(_installed, lambda _: "PyTorch, polars and scikit-learn are installed")
    data = {name: tried(lambda n=name: _here(made, n), _told) for name in _data(made)}
    models = {name: tried(lambda n=name: _here(made, n), _told) for name in _models(made)}
    if all(source and source.path.exists() for source in data.values()):
        tried(lambda: _split(made, data), lambda rows: rows)
    base = models[made.base.model]
    if base is not None:
        shape = tried(
            lambda: _parameters(base), lambda n: f"base: {n / 1e6:.0f} million parameters"
        )
        if shape:
            tried(lambda: _disk(shape, run), lambda text: text)
            tried(lambda: _memory(shape, made), lambda text: text)
    tried(lambda: _time(made), lambda text: text)
    return lines


def _data(made: recipe.Recipe) -> list[str]:
    splits = [part for part in (made.data.val, made.data.test) if isinstance(part, list)]
    return list(dict.fromkeys(name for part in [made.data.examples, *splits] for name in part))


def _models(made: recipe.Recipe) -> list[str]:
    rivals = [name for name in made.judge.rivals if name not in recipe.SIMPLE_RIVALS]
    return list(dict.fromkeys([made.base.model, *rivals]))


def _installed() -> None:
    missing = [name for name in ("torch", "polars", "sklearn") if find_spec(name) is None]
    if missing:
        raise BadInput(
            f"not installed: {', '.join(missing)}", "pip install 'bantam-lm[train]' to make models"
        )


def _here(made: recipe.Recipe, name: str) -> sources.Source | None:
    """The source if it is on this disk; None when `make` will fetch it."""
    if sources.held(name):
        return sources.resolve(name, relative_to=made.path.parent)
    if sources.offline():
        raise BadInput(
            f"{name} is not in the cache and the network is forbidden",
            "run once without --offline",
        )
    return None
