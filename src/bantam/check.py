"""The preflight: everything that a recipe needs is tried, and nothing is spent."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from math import inf, prod
from pathlib import Path
from typing import Any, Protocol, TypeGuard, TypeVar

import psutil

from bantam import curated, licences, recipe, recipe_documents, recipe_file, sources, units
from bantam.errors import BadInput, BantamError
from bantam.formats import gguf, safetensors
from bantam.kinds import classify
from bantam.model_files import gguf_in, rival_in
from bantam.page import words
from bantam.sources import endpoint

Line = dict[str, Any]  # what, ok, mend, warnings
Found = TypeVar("Found")
# Bytes on disk for each: float32 weights, checkpoints with two moments, and the packed file.
PARAMETER = 4 + 2 * 16 + 1.1
TEXT = 3.0  # bytes on disk for each byte that is read: three steps, compressed, and the tokens


class Tried(Protocol):
    """Does something and tells it, or what was wrong with it."""

    def __call__(self, act: Callable[[], Found], told: Callable[[Found], str]) -> Found | None: ...


def check(path: Path, run: Path) -> list[Line]:
    """A line for each thing tried: recipe, sources, rows, base, disk, memory, time.

    What depends on something that failed, or that is yet to be fetched, is left out.
    """
    lines: list[Line] = []

    def tried(act: Callable[[], Found], told: Callable[[Found], str]) -> Found | None:
        try:
            found = act()
        except BantamError as error:
            lines.append({"what": error.message, "ok": False, "mend": error.mend, "warnings": []})
            return None
        lines.append({"what": told(found), "ok": True, "mend": "", "warnings": []})
        return found

    if _of_documents(path):
        _check_documents(path, run, tried, lines)
        return lines
    made = tried(lambda: recipe.load(path), lambda r: f"recipe {path}: {r.task.name}")
    if made is None:
        return lines
    installed = tried(_installed, lambda _: "PyTorch, polars and scikit-learn are installed")
    here = made.path.parent
    data = {
        name: tried(partial(_here, here, name), partial(_told, name)) for name in made.data.files
    }
    base, *rivals = (
        tried(partial(_here, here, name), partial(_told, name)) for name in _models(made)
    )
    held = {name: source for name, source in data.items() if source is not None}
    if len(held) == len(data):
        report = tried(partial(_split, made, held), _rows)
        if report:
            lines[-1]["warnings"] = report["warnings"]
    for rival in rivals:
        if rival is not None:
            tried(partial(_rival, rival, made.task.kind), lambda found: f"rival: {found.name}")
    if made.handover.away:
        tried(partial(_endpoint, made.handover), str)
    if base is not None:
        size = tried(partial(_parameters, base), lambda n: f"base: {n / 1e6:.0f}M parameters")
        if size is not None:
            tried(partial(_disk, size * PARAMETER, run), str)
        if size is not None and installed:
            tried(partial(_family, base), str)
            tried(partial(_memory, size, base, made), str)
    tried(partial(_time, made), str)
    return lines


def _of_documents(path: Path) -> bool:
    try:
        return recipe_file.has_documents(path)
    except BadInput:  # which reading the recipe tells
        return False


def _check_documents(path: Path, run: Path, tried: Tried, lines: list[Line]) -> None:
    made = tried(
        lambda: recipe_documents.load(path), lambda found: f"recipe {path}: {found.task.name}"
    )
    if made is None:
        return
    tried(_installed, lambda _: "PyTorch, polars and scikit-learn are installed")
    found = tried(partial(_read, made, path.parent), _told_documents)
    if found is not None and found[1] < curated.LEAST and made.task.kind == "complete":
        lines[-1]["warnings"].append(
            f"{curated.LEAST:,} bytes of text are the least that a language is learned from: "
            "this is less, unless it is packed"
        )
    held = made.documents.val * found[0] if found else inf
    if held < curated.FEWEST and made.task.kind == "complete":
        lines[-1]["warnings"].append(
            f"{curated.FEWEST} documents must be held out, documents.val takes about {held:.2g} if "
            "each file is one: raise it, or give more of them"
        )
    if made.continues:
        base = tried(partial(_here, path.parent, made.base.model), partial(_told, made.base.model))
        if base is not None:
            tried(partial(_family, base), str)
    for name in made.judge.rivals:
        if name not in recipe_documents.RIVALS:
            rival = tried(partial(_here, path.parent, name), partial(_told, name))
            if rival is not None:
                tried(partial(gguf_in, rival), lambda file: f"rival: {file.name}")
    if found is not None:
        tried(partial(_disk, found[1] * TEXT, run), str)
    if made.task.kind == "complete":
        tried(partial(_time_to_read, made), str)


def _read(made: recipe_documents.Recipe, here: Path) -> tuple[int, int] | None:
    """How many files would be read, and their bytes; None where `make` fetches some."""
    from bantam import curation
    from bantam.documents import walk

    try:
        with sources.closed():
            places = list(curation.places(made, here))
    except sources.NotHeld:
        if sources.offline():
            raise
        return None
    named = [place.folder / one for place in places for one in walk.files(place) if _is_path(one)]
    if not named:
        raise BadInput(
            "documents.files: there is no file to read", "name a folder, a file or a pattern"
        )
    return len(named), sum(file.stat().st_size for file in named)


def _is_path(one: object) -> TypeGuard[str]:
    return isinstance(one, str)  # else it is told why it is passed over


def _told_documents(found: tuple[int, int] | None) -> str:
    if found is None:
        return "documents: not all here yet, `bantam make` fetches them"
    return f"documents: {found[0]:,} file{'s' * (found[0] != 1)}, {words.size(found[1])}"


def _time_to_read(made: recipe_documents.Recipe) -> str:
    train = made.train
    if train.tokens:
        return f"time: {train.tokens:,} tokens of training, then the judging"
    budget = train.budget or recipe_documents.BUDGET
    return f"time: at most {units.write_seconds(budget)} of training, then the judging"


def _models(made: recipe.Recipe) -> list[str]:
    rivals = [name for name in made.judge.rivals if name not in recipe.SIMPLE_RIVALS]
    larger = made.handover.model
    others = [larger] if larger and not made.handover.away else []
    return list(dict.fromkeys([made.base.model, *rivals, *others]))


def _endpoint(asked: recipe.Handover) -> str:
    """What texts would be sent to; it is not asked."""
    found = endpoint.parse(asked.model or "")
    endpoint.connect(found, "").close()  # refused where the network is forbidden
    key = "is set" if os.environ.get(asked.key_env) else "is not set: it is asked without a key"
    return f"hand-over: texts are sent to {found.name}; {asked.key_env} {key}"


def _told(name: str, source: sources.Source | None) -> str:
    if source is None:
        return f"{name}: not here yet, `bantam make` fetches it"
    return f"{name}: {words.size(source.size)}, licence {licences.told(source.licence)}"


def _installed() -> bool:
    missing = [name for name in ("torch", "polars", "sklearn") if find_spec(name) is None]
    if missing:
        raise BadInput(
            f"not installed: {', '.join(missing)}", "pip install 'bantam-lm[train]' to make models"
        )
    return True


def _here(folder: Path, name: str) -> sources.Source | None:
    """The source if it is on this disk; None when `make` will fetch it."""
    try:
        with sources.closed():
            return sources.resolve(name, relative_to=folder)
    except sources.NotHeld:
        if sources.offline():
            raise
        return None


def _split(made: recipe.Recipe, data: dict[str, sources.Source]) -> dict[str, Any]:
    from bantam.text.prepare import SPLITS, prepare

    def files(names: float | list[str]) -> list[Path]:
        return [data[name].path for name in names] if isinstance(names, list) else []

    wanted = made.data
    multi, kind = made.task.multi, made.task.kind
    paths = files(wanted.examples), files(wanted.val), files(wanted.test)
    mended = data[wanted.mended].path if wanted.mended else None
    found = prepare(wanted, *paths, multi, kind, recipe.answer_schema(made), mended)
    if kind != "classify":
        _answers(wanted, {name: getattr(found, name) for name in SPLITS}, made)
        return found.report
    judged = {"val": found.val["output"], "test": found.test["output"]}
    classify.labels_of(found.train["output"], judged, multi)
    return found.report


def _answers(data: recipe.Data, splits: dict[str, Any], made: recipe.Recipe) -> None:
    """Refuse a schema or declarations that answers cannot be held to, and rivals for nothing."""
    from bantam.text import answers

    if data.tools:
        answers.settled_calls(splits)
    elif made.task.kind == "extract":
        answers.settled(splits, recipe.answer_schema(made))
    if "tagger" in made.judge.rivals:
        from bantam.judge import tagger

        tagger.check(splits["train"]["output"].to_list())


def _rival(source: sources.Source, kind: str) -> Path:
    path = rival_in(source, kind)
    gguf.read(path)
    return path


def _rows(report: dict[str, Any]) -> str:
    counts = ", ".join(f"{part['rows']} {name}" for name, part in report["splits"].items())
    labels = f"; {len(report['labels'])} labels" if report["labels"] else ""
    return f"{report['rows_read']} rows: {counts}{labels}"


def _parameters(base: sources.Source) -> int:
    """How many numbers the base has, from its header alone."""
    model = sources.model_file(base)
    if model.is_dir():
        shapes = [
            entry[1]
            for file in model.glob("*.safetensors")
            for entry in safetensors.check(file).values()
        ]
    else:
        shapes = [info.shape for info in gguf.read(model).tensors.values()]
    return sum(prod(shape) for shape in shapes)


def _family(base: sources.Source) -> str:
    """Which family the base is of, once it is one that can be tuned and packed."""
    from bantam.pack import gguf_file

    return f"base: of the family {gguf_file.check_base(sources.model_file(base)).family}"


def _disk(needed: float, run: Path) -> str:
    place = run
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise BadInput(
            f"disk: {free / 1e9:.1f} GB free, at most {needed / 1e9:.1f} GB needed",
            f"free space, or make the run on another disk with --run (now {run})",
        )
    return f"disk: {free / 1e9:.0f} GB free, at most {needed / 1e9:.1f} GB needed"


def _memory(parameters: int, base: sources.Source, made: recipe.Recipe) -> str:
    """Weights, for full tuning gradients and moments as well, and what a pass leaves behind."""
    from bantam.nets.load import config_of
    from bantam.train.budget import activations

    held = 5 * 4 if made.train.method == "full" else 4 + 2
    free = psutil.virtual_memory().available
    # Where memory is short, blocks keep nothing and are computed again.
    kept = min(activations(config_of(sources.model_file(base))), free // 2)
    needed = parameters * held + kept + 500_000_000
    if free < needed:
        raise BadInput(
            f"memory: {free / 1e9:.1f} GB free, about {needed / 1e9:.1f} GB needed",
            'close other programs, or set train.method = "lora"',
        )
    return f"memory: {free / 1e9:.1f} GB free, about {needed / 1e9:.1f} GB needed"


def _time(made: recipe.Recipe) -> str:
    train = made.train
    if train.budget is None:
        length = f"{train.epochs:g} passes" if train.epochs else f"{train.steps} steps"
        return f"time: {length} of training, then the judging"
    return f"time: at most {units.write_seconds(train.budget)} of training, then the judging"
