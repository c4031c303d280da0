"""Tiny models for tests of the interfaces that programs speak."""

from dataclasses import replace
from pathlib import Path

from bantam.kinds import classify
from bantam.kinds import texts as writing
from tiny_tasks import packed

LABELS = ("yes", "no", "not at all")


def models(folder: Path, tiny: Path) -> dict[str, Path]:
    """One that converses, one that labels and one that calls functions."""
    labels = classify.task("labels", "Is it good?", LABELS)
    labels = replace(labels, thresholds=(0.0, 0.0, 0.0), max_text_tokens=100)
    calls = replace(writing.task("extract", "calls", "", most_calls=2), max_answer_tokens=60)
    return {
        "chat": tiny,
        "labels": packed(folder / "labels.gguf", tiny, labels),
        "calls": packed(folder / "calls.gguf", tiny, replace(calls, max_text_tokens=200)),
    }
