"""The verdict on a model that completes text: bits per byte on held-out documents, paired by
document.

Documents are what is resampled: those of one file are alike. What is less is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bantam.judge import statistics
from bantam.judge.verdict import MEASURED, OURS, SIGNIFICANT, Verdict

MOST = 8.0  # bits that anybody needs for a byte
Bits = NDArray[np.float64]


def verdict(
    task: str,
    bits: Mapping[str, Bits],
    sizes: NDArray[np.int64],
    systems: Mapping[str, Mapping[str, Any]],
    data: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """The public contract of `judge.verdict.Verdict` as plain data.

    `bits` [documents] of each model by its name, "ours" among them; `sizes` are the documents'
    bytes. `systems` maps a name to its file, sha256 and bytes, where it has them.
    """
    documents, total = len(sizes), int(sizes.sum())

    def system(name: str) -> dict[str, Any]:
        low, high = statistics.ratio_interval(bits[name], sizes, (0.0, MOST), seed=seed)
        score = float(bits[name].sum() / total)
        scores = {"bits_per_byte": score, "documents": documents, "bytes": total}
        told: dict[str, Any] = dict.fromkeys(MEASURED)
        told |= {"name": name, "score": score, "score_low": low, "score_high": high}
        return {**told, "scores": scores, **systems.get(name, {})}

    names = [name for name in bits if name != OURS]
    # The mean of these is the difference in bits per byte.
    scale = documents / total
    pairs = [
        statistics.paired(bits[OURS] * scale, bits[name] * scale, seed=seed).p_value
        for name in names
    ]
    rivals = []
    for name, p_value in zip(names, statistics.holm(pairs), strict=True):
        apart = bits[OURS] - bits[name]
        low, high = statistics.ratio_interval(apart, sizes, (-MOST, MOST), seed=seed)
        difference = float(apart.sum() / total)
        clear = p_value < SIGNIFICANT and (high < 0 or low > 0)
        rivals.append(
            system(name)
            | {
                "difference": difference,
                "difference_low": low,
                "difference_high": high,
                "p_value": p_value,
                "outcome": "tie" if not clear else "win" if difference < 0 else "loss",
            }
        )
    model = system(OURS)
    checked = Verdict.model_validate(
        {
            "schema": 1,
            "task": task,
            "kind": "complete",
            "metric": "bits_per_byte",
            "test_rows": documents,
            "model": model,
            "rivals": rivals,
            "smallest_detectable_difference": None,
            "limits": [],
            "data": dict(data),
            "sentence": _sentence(model, rivals, documents),
        }
    )
    return checked.model_dump(mode="json", by_alias=True)


def _sentence(model: Mapping[str, Any], rivals: Sequence[Mapping[str, Any]], documents: int) -> str:
    said = (
        f"The model takes {model['score']:.3f} bits for a byte of {documents:,} unseen documents "
        f"(95% interval {model['score_low']:.3f} to {model['score_high']:.3f})"
    )
    contests = []
    enough = statistics.fewest(SIGNIFICANT / max(1, len(rivals)))  # Holm's for the clearest one
    few = f"cannot be told on fewer than {enough} documents from"
    tied = few if documents < enough else "tied with"
    for outcome, verb in (("win", "beat"), ("tie", tied), ("loss", "lost to")):
        of_it = [f"{r['name']} ({r['score']:.3f})" for r in rivals if r["outcome"] == outcome]
        if of_it:
            contests.append(f"{verb} {_and(of_it)}")
    said += f"; it {_and(contests)}." if contests else "."
    better = [
        r["name"] for r in rivals if r["outcome"] == "loss" and r["name"] in ("zstd", "ngram")
    ]
    if better:
        said += f" {_and(better)} did better: give it more time or more text."
    return said


def _and(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts)
