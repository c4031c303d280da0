"""The verdict on a model that completes text, and its page."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bantam.judge import completion, completion_page
from bantam.judge.verdict import Verdict, positive

SIZES = np.random.default_rng(0).integers(200, 4000, 60)


def bits(rate: float, seed: int) -> Any:
    return SIZES * (rate + 0.1 * np.random.default_rng(seed).standard_normal(60))


@pytest.fixture
def found() -> dict[str, Any]:
    told = {
        "ours": bits(1.5, 1),
        "zstd": bits(2.5, 2),
        "ngram": bits(1.51, 3),
        "a.gguf": bits(1, 4),
    }
    systems = {"ours": {"file": "m.gguf", "bytes": 5}}
    return completion.verdict("tiny", told, SIZES, systems, {"text_key": "x"}, 0)


def test_less_is_better(found: dict[str, Any]) -> None:
    outcomes = {rival["name"]: rival["outcome"] for rival in found["rivals"]}
    assert outcomes == {"zstd": "win", "ngram": "tie", "a.gguf": "loss"}
    assert found["model"]["score"] == pytest.approx(bits(1.5, 1).sum() / SIZES.sum())
    assert found["model"]["score_low"] < found["model"]["score"] < found["model"]["score_high"]
    assert found["model"]["bytes"] == 5
    assert found["rivals"][0]["difference"] == pytest.approx(-1, abs=0.1)
    assert "beat zstd" in found["sentence"] and "lost to a.gguf" in found["sentence"]
    assert not positive(found)
    Verdict.model_validate(found)


def test_the_interval_holds_what_it_says() -> None:
    """Of many corpora of the same kind 95% have the true rate in their interval."""
    inside = 0
    for seed in range(200):
        chance = np.random.default_rng(seed)
        sizes = chance.integers(200, 4000, 40)
        rate = 2 + 0.3 * chance.standard_normal(40)
        told = completion.verdict("t", {"ours": sizes * rate}, sizes, {}, {}, 0)["model"]
        inside += told["score_low"] <= 2 <= told["score_high"]
    assert 0.88 <= inside / 200 <= 0.99


def test_one_document_decides_nothing() -> None:
    told = completion.verdict(
        "t", {"ours": np.array([10.0]), "zstd": np.array([99.0])}, np.array([8]), {}, {}, 0
    )
    assert told["rivals"][0]["outcome"] == "tie"
    assert "it cannot be told on fewer than 6 documents from zstd" in told["sentence"]
    theirs = 99.0 + np.arange(7)  # no two documents are quite alike
    bits = {"ours": np.full(7, 10.0), "zstd": theirs, "ngram": theirs}
    for documents, outcome in ((6, "tie"), (7, "win")):
        some = {name: row[:documents] for name, row in bits.items()}
        told = completion.verdict("t", some, np.full(documents, 80), {}, {}, 0)
        assert {rival["outcome"] for rival in told["rivals"]} == {outcome}
        assert ("cannot be told" in told["sentence"]) == (outcome == "tie")


def test_the_page_shows_strangers_texts_as_text(found: dict[str, Any], tmp_path: Path) -> None:
    run = {
        "name": "tiny",
        "verdict": found,
        "samples": [{"step": 3, "prompt": "<script>x", "text": "\u202e</b>"}],
        "metrics": [{"step": 1, "loss": 3.0, "bits_per_byte": 3.0, "seconds": 1.0}] * 3,
        "plan": {"steps": 4, "rows": 2, "context": 8, "seed": 0},
        "tokens": {"documents": 3, "bytes": 10, "tokens": 5, "vocabulary": 257},
    }
    page = completion_page.page(run)
    assert "<script" not in page and "&lt;script&gt;x" in page and "\u202e" not in page
    assert "a.gguf" in page
    assert "| zstd |" in completion_page.card(run)
    for part in run:  # whatever is missing
        less = {key: value for key, value in run.items() if key != part or key == "name"}
        assert completion_page.page(less) and completion_page.card(less)
    assert completion_page.page(completion_page.read_run(tmp_path))
