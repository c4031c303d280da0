"""What a run or a model is, what it was made from and what it scored, as plain data and as text."""

import json
import math
from pathlib import Path
from typing import Any

from bantam import licences
from bantam.formats import gguf
from bantam.kinds.sure import NEVER
from bantam.model import Model
from bantam.model_files import find
from bantam.page import loose, words

Facts = dict[str, Any]


def facts(name: str) -> Facts:
    """The facts of a model file, and of its run's verdict when it lies in a run."""
    path = find(name)
    model = Model(path)
    data = model.file.metadata
    told: Facts = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "architecture": data.get("general.architecture"),
        "name": data.get("general.name"),
        "licence": data.get("bantam.licence") or data.get("general.license"),
        "parameters": sum(_count(info) for info in model.file.tensors.values()),
        "tensor_types": sorted({info.type for info in model.file.tensors.values()}),
        "chat_template": isinstance(data.get("tokenizer.chat_template"), str),
    }
    if model.task:
        told["task"] = {
            "kind": model.task.kind,
            "name": model.task.name,
            "instruction": model.task.instruction,
            "labels": list(model.task.labels),
            "multi": model.task.multi,
            "thresholds": list(model.task.thresholds),
            "schema": json.loads(model.task.schema) if model.task.schema else None,
            "most_calls": model.task.most_calls,
        }
    if lineage := _object(data.get("bantam.lineage")):
        told["lineage"] = lineage
    verdict = path.parent.parent / "judge" / "verdict.json"
    if path.parent.name == "pack" and verdict.is_file():
        told["verdict"] = _object(verdict.read_text(encoding="utf-8", errors="replace"))
    return told


def describe(told: Facts) -> str:
    """The facts for a terminal."""
    lines = [
        f"{Path(told['file']).name}: {words.size(told['bytes'])}, "
        f"{told['parameters'] / 1e6:.{2 * (told['parameters'] < 1e7)}f}M parameters, "
        f"{told['architecture']}, "
        f"{'/'.join(told['tensor_types'])}"
    ]
    if task := told.get("task"):
        labels = task["labels"]
        more = f" and {len(labels) - 20} more" if len(labels) > 20 else ""
        several = ", several labels a text" if task.get("multi") else ""
        lines.append(f"task      {task['name']} ({task['kind']}{several}): {task['instruction']}")
        if labels:
            lines.append(f"labels    {', '.join(labels[:20])}{more}")
        if task.get("schema"):
            lines.append(f"fields    {', '.join(task['schema'].get('properties', {})) or 'a list'}")
        if most := task.get("most_calls"):
            lines.append(f"calls     at most {most} of the functions that come with a text")
        if task.get("thresholds") and not task.get("multi"):
            lines.append(f"sure      {_sure(task['thresholds'])}")
    lines.append(f"licence   {licences.told(told['licence'])}")
    lineage = loose.part(told.get("lineage"))
    if origin := loose.part(lineage.get("base")).get("origin"):
        lines.append(f"base      {origin}")
    for name, digest in loose.part(lineage.get("data")).items():
        lines.append(f"data      {name}  sha256 {str(digest)[:16]}")
    if sentence := loose.part(told.get("verdict")).get("sentence"):
        lines.append(f"verdict   {sentence}")
    return "\n".join(lines)


def _sure(thresholds: list[float]) -> str:
    """When an answer of a single-label task is sure."""
    bounds = [bound for bound in thresholds if bound < NEVER]
    if not bounds:
        return "no answer is"
    never = len(thresholds) - len(bounds)
    apart = f"; never with {never} of the {len(thresholds)} labels" if never else ""
    # Rounded down: 1.000 would say never.
    low, high = (f"{math.floor(1000 * end(bounds)) / 1000:.3f}" for end in (min, max))
    between = low if low == high else f"{low} to {high}"
    return f"answers with a probability above {between}, by their label{apart}"


def _object(text: object) -> Facts:
    """A JSON object from a file that may be broken; then it is empty."""
    try:
        return loose.part(json.loads(text) if isinstance(text, str) else None)
    except (ValueError, RecursionError):
        return {}


def _count(info: gguf.TensorInfo) -> int:
    count = 1
    for size in info.shape:
        count *= size
    return count
