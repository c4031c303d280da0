"""What a run or a model is, what it was made from and what it scored, as plain data and as text."""

import json
from pathlib import Path
from typing import Any

from bantam.formats import gguf
from bantam.model import Model, find

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
        }
    if isinstance(lineage := data.get("bantam.lineage"), str):
        told["lineage"] = json.loads(lineage)
    verdict = path.parent.parent / "judge" / "verdict.json"
    if path.parent.name == "pack" and verdict.is_file():
        told["verdict"] = json.loads(verdict.read_text(encoding="utf-8"))
    return told


def describe(told: Facts) -> str:
    """The facts for a terminal."""
    lines = [
        f"{Path(told['file']).name}: {told['bytes'] / 1e6:.0f} MB, "
        f"{told['parameters'] / 1e6:.0f}M parameters, {told['architecture']}, "
        f"{'/'.join(told['tensor_types'])}"
    ]
    if task := told.get("task"):
        labels = task["labels"]
        more = f" and {len(labels) - 20} more" if len(labels) > 20 else ""
        lines.append(f"task      {task['name']} ({task['kind']}): {task['instruction']}")
        lines.append(f"labels    {', '.join(labels[:20])}{more}")
    lines.append(f"licence   {told['licence'] or 'not stated'}")
    if lineage := told.get("lineage"):
        lines.append(f"base      {lineage['base']['origin']}")
        lines += [f"data      {n}  sha256 {d[:16]}" for n, d in lineage["data"].items()]
    if verdict := told.get("verdict"):
        lines.append(f"verdict   {verdict['sentence']}")
    return "\n".join(lines)


def _count(info: gguf.TensorInfo) -> int:
    count = 1
    for size in info.shape:
        count *= size
    return count
