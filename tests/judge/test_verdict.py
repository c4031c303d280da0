import json
import math
import re

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from bantam.errors import BadInput, JobFailed
from bantam.judge.statistics import bootstrap_interval
from bantam.judge.verdict import Verdict, positive, verdict

LABELS = ["no", "yes"]
SYSTEM = {
    "file": "pack/model.gguf",
    "sha256": "ab" * 32,
    "latency_p50_ms": 20.0,
    "latency_p95_ms": 40.0,
    "items_per_second": 50.0,
    "peak_memory_bytes": 300_000_000,
    "bytes": 140_000_000,
}


def predictions(rates: dict[str, float], rows: int = 600, per_group: int | None = 10):
    """Each model is right on the first share of the rows, in an order that mixes the groups."""
    mixed = np.random.default_rng(0).permutation(rows)
    tables = []
    for model, rate in rates.items():
        right = mixed < round(rate * rows)
        sure = np.where(right, 0.8, 0.3)
        tables.append(
            pl.DataFrame(
                {
                    "model": [model] * rows,
                    "id": [f"{i:016x}" for i in range(rows)],
                    "group": [f"g{i // per_group}" if per_group else None for i in range(rows)],
                    "expected": ["yes"] * rows,
                    "answer": ["yes" if ok else "no" for ok in right],
                    "probabilities": [[1 - p, p] for p in sure.tolist()],
                    "latency_ms": [None] * rows,
                },
                schema_overrides={"group": pl.String, "latency_ms": pl.Float64},
            )
        )
    return pl.concat(tables)


def judge(frame: pl.DataFrame, systems=None, limits=None):
    systems = {"ours": SYSTEM} if systems is None else systems
    data = {"split_sha256": "cd" * 32, "seed": 7}
    task = ("reviews", "classify", "accuracy")
    return verdict(*task, frame, LABELS, systems, limits or {}, data, seed=7)


def test_is_the_public_contract() -> None:
    found = judge(
        predictions({"ours": 0.9, "tfidf": 0.7}),
        {"ours": SYSTEM, "tfidf": None},
        {"size": 160e6, "latency": 200.0},
    )
    measured = set(SYSTEM)
    system = measured | {"name", "score", "score_low", "score_high", "scores"}
    against = {"difference", "difference_low", "difference_high", "p_value", "outcome"}
    whole = {"schema", "task", "kind", "metric", "test_rows", "model", "rivals", "limits", "data"}
    whole |= {"smallest_detectable_difference", "sentence", "sure"}
    assert set(found) == whole
    assert set(found["model"]) == system
    assert [set(rival) for rival in found["rivals"]] == [system | against]
    assert found["schema"] == 1
    assert found["test_rows"] == 600
    assert found["model"]["name"] == "ours"
    assert found["data"] == {"split_sha256": "cd" * 32, "seed": 7}
    assert Verdict.model_validate(json.loads(json.dumps(found, allow_nan=False)))
    assert set(Verdict.model_json_schema()["properties"]) == whole


def test_scores_and_differences_are_those_of_the_rows() -> None:
    found = judge(predictions({"ours": 0.9, "tfidf": 0.7, "base": 0.55}))
    model, (simple, base) = found["model"], found["rivals"]
    assert model["score"] == model["scores"]["accuracy"] == 0.9
    assert model["score_low"] < 0.9 < model["score_high"]
    assert simple["difference"] == pytest.approx(0.2)
    assert base["difference"] == pytest.approx(0.35)
    assert simple["difference_low"] < 0.2 < simple["difference_high"]
    assert model["scores"]["log_loss"] == pytest.approx(
        -(0.9 * math.log(0.8) + 0.1 * math.log(0.3))
    )
    assert [rival["outcome"] for rival in found["rivals"]] == ["win", "win"]
    assert positive(found)
    for words in ("90.0% of 600", "tfidf (+20.0 points", "base (+35.0 points", "beat"):
        assert words in found["sentence"]
    assert "no language model" not in found["sentence"]


def test_the_order_of_the_rows_does_not_matter() -> None:
    frame = predictions({"ours": 0.9, "tfidf": 0.7})
    mixed = frame.group_by("model", maintain_order=True).map_groups(
        lambda table: table.sample(fraction=1, shuffle=True, seed=len(table["model"][0]))
    )
    assert judge(mixed) == judge(frame)


def test_a_tie_with_a_simple_rival_is_said() -> None:
    found = judge(predictions({"ours": 0.8, "majority": 0.5, "tfidf": 0.8}))
    assert [rival["outcome"] for rival in found["rivals"]] == ["win", "tie"]
    assert "tied with tfidf (+0.0 points" in found["sentence"]
    assert "tfidf did as well: you may need no language model" in found["sentence"]
    assert not positive(found)


def test_a_loss_to_a_simple_rival_is_said() -> None:
    found = judge(predictions({"ours": 0.6, "tfidf": 0.8, "base": 0.5}))
    assert [rival["outcome"] for rival in found["rivals"]] == ["loss", "win"]
    assert "lost to tfidf (-20.0 points" in found["sentence"]
    assert "tfidf did better: you need no language model" in found["sentence"]
    assert not positive(found)


def test_a_tie_whose_interval_leaves_out_zero_is_explained() -> None:
    """One comparison would call it; eight at once do not."""
    rates = {"ours": 0.78, "tfidf": 0.766}
    explained = (
        "Of 8 comparisons at once, chance alone may well give a difference like that to tfidf."
    )
    one = judge(predictions(rates))
    assert one["rivals"][0]["outcome"] == "win"
    others = {f"model {number}": 0.78 for number in range(7)}
    found = judge(predictions(rates | others))
    tfidf = next(rival for rival in found["rivals"] if rival["name"] == "tfidf")
    assert tfidf["difference_low"] > 0 and tfidf["outcome"] == "tie"
    assert explained in found["sentence"]
    assert "comparisons at once" not in one["sentence"]


def test_a_loss_to_a_language_model_is_no_negative_verdict() -> None:
    found = judge(predictions({"ours": 0.8, "tfidf": 0.6, "gemma": 0.9}))
    assert [rival["outcome"] for rival in found["rivals"]] == ["win", "loss"]
    assert positive(found)


def test_too_few_rows_to_tell_is_said_with_what_could_have_shown() -> None:
    found = judge(predictions({"ours": 0.8, "tfidf": 0.7}, rows=40, per_group=None))
    assert found["rivals"][0]["outcome"] == "tie"
    points = 100 * found["smallest_detectable_difference"]
    assert points > 10
    assert "too small to tell" in found["sentence"]
    assert f"{points:.1f} points or more from tfidf" in found["sentence"]

    one_group = judge(predictions({"ours": 0.8, "tfidf": 0.2}, rows=40, per_group=40))
    assert one_group["smallest_detectable_difference"] is None
    assert one_group["rivals"][0]["outcome"] == "tie"
    assert "too small to tell" in one_group["sentence"]


def test_several_rivals_make_each_win_harder() -> None:
    rates = {"ours": 0.8, "tfidf": 0.79}  # six rows that only ours got right: p = 0.03
    alone = judge(predictions(rates, per_group=None))["rivals"][0]
    assert alone["p_value"] == pytest.approx(2 / 2**6)
    assert alone["outcome"] == "win"
    among = judge(predictions(rates | {"a": 0.8, "b": 0.8}, per_group=None))["rivals"][0]
    assert among["p_value"] == pytest.approx(3 * 2 / 2**6)
    assert among["outcome"] == "tie"


def test_limits_are_held_against_what_was_measured() -> None:
    frame = predictions({"ours": 0.9, "tfidf": 0.7})
    measured = {**SYSTEM, "peak_memory_bytes": None}
    limits = {"size": 100e6, "latency": 40.0, "memory": 1e9}
    found = judge(frame, {"ours": measured}, limits)
    assert found["limits"] == [
        {"limit": "size", "wanted": 100e6, "measured": 140e6, "kept": False},
        {"limit": "latency", "wanted": 40.0, "measured": 40.0, "kept": True},
        {"limit": "memory", "wanted": 1e9, "measured": None, "kept": None},
    ]
    assert "breaks the limit on size, 100.0 MB: measured 140.0 MB" in found["sentence"]
    assert "Not measured: the limit on memory, 1,000.0 MB" in found["sentence"]
    assert not positive(found)
    assert positive(judge(frame, limits={"size": 200e6, "latency": None}))


def sure_of(shown, frame: pl.DataFrame) -> dict:
    """The verdict when ours is sure where `shown` says."""
    task, data = ("reviews", "classify", "accuracy"), {"seed": 7}
    frame = frame.with_columns(pl.when(model="ours").then(shown).alias("sure"))
    return verdict(*task, frame, LABELS, {"ours": SYSTEM}, {}, data, seed=7, sure=0.9)


def test_what_is_sure_is_told_with_its_interval_over_groups() -> None:
    frame = predictions({"ours": 0.7, "tfidf": 0.5})
    right = pl.col("answer") == pl.col("expected")
    row = pl.int_range(pl.len()).over("model")
    found = sure_of((right & (row % 7 > 1)) | (row % 29 == 0), frame)
    ours = frame.filter(model="ours").with_row_index("row")
    kept = ours.filter((right & (pl.col("row") % 7 > 1)) | (pl.col("row") % 29 == 0))
    share = kept.select(right.mean()).item()
    low, high = bootstrap_interval(
        kept.select(right).to_series().to_numpy(), kept["group"].to_list(), seed=7
    )
    assert 0.9 < share < 1
    assert found["sure"] == pytest.approx(
        {
            "wanted": 0.9,
            "share": len(kept) / 600,
            "right": share,
            "right_low": low,
            "right_high": high,
        }
    )
    assert (
        f"It is sure of {len(kept) / 600:.1%} of its answers, and {share:.1%} of these are right "
        f"(95% interval {low:.1%} to {high:.1%}; asked for: 90%)."
    ) in found["sentence"]
    assert Verdict.model_validate(found).sure


def test_a_model_that_is_sure_of_nothing() -> None:
    found = sure_of(pl.lit(False), predictions({"ours": 0.7}))
    none = {"right": None, "right_low": None, "right_high": None}
    assert found["sure"] == {"wanted": 0.9, "share": 0.0, **none}
    assert found["sentence"].endswith(
        "It is sure of no answer (asked for: 90% of the sure ones right)."
    )
    assert judge(predictions({"ours": 0.7}))["sure"] is None


def test_what_is_unknown_is_null() -> None:
    frame = predictions({"ours": 0.9, "base": 0.7}, per_group=None).with_columns(
        pl.when(model="ours").then("probabilities").alias("probabilities")
    )
    found = judge(frame, {"ours": SYSTEM | {"latency_p50_ms": math.nan, "bytes": math.inf}})
    assert found["model"]["latency_p50_ms"] is None
    assert found["model"]["bytes"] is None
    base = found["rivals"][0]
    assert base["file"] is base["bytes"] is base["scores"]["ece"] is None
    json.dumps(found, allow_nan=False)


def test_measurements_may_be_numpy_numbers() -> None:
    measured = {"latency_p50_ms": np.float64(3.5), "bytes": np.int64(10), "file": "a"}
    found = judge(predictions({"ours": 0.9}), {"ours": measured})
    assert (found["model"]["latency_p50_ms"], found["model"]["bytes"]) == (3.5, 10)
    json.dumps(found)


def test_no_rivals() -> None:
    found = judge(predictions({"ours": 0.9}))
    assert found["rivals"] == []
    assert found["smallest_detectable_difference"] is None
    assert re.fullmatch(r"The model got 90\.0% of 600 .* right \(.*\)\.", found["sentence"])


def test_a_missing_answer_is_wrong() -> None:
    frame = predictions({"ours": 1.0, "base": 1.0}).with_columns(
        pl.when(pl.col("model") != "base").then("answer").alias("answer")
    )
    assert judge(frame)["rivals"][0]["score"] == 0


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda frame: frame.filter(model="base"), "no predictions"),
        (lambda frame: frame[:-1], "base did not answer the same test rows"),
    ],
)
def test_unequal_rows_are_refused(spoil, says: str) -> None:
    with pytest.raises(JobFailed, match=says):
        judge(spoil(predictions({"ours": 0.9, "base": 0.7})))


def test_rows_of_one_text_are_paired_in_their_order_and_are_one_group() -> None:
    """A test file may repeat rows, and texts that differ in case alone have the same id."""
    frame = predictions({"ours": 0.9, "base": 0.7}, per_group=None)
    repeated = frame.with_columns(id=pl.col("id").str.head(15))  # 16 rows of each
    found, grouped = judge(repeated), judge(frame.with_columns(group=pl.col("id").str.head(15)))
    assert found["rivals"] == grouped["rivals"]
    assert found["model"]["score"] == pytest.approx(0.9)


def test_unknown_labels_and_metrics_are_refused() -> None:
    frame = predictions({"ours": 0.9}).with_columns(expected=pl.lit("maybe"))
    with pytest.raises(BadInput, match="maybe"):
        judge(frame)
    with pytest.raises(ValidationError, match="metric"):
        verdict("t", "classify", "bleu", predictions({"ours": 0.9}), LABELS, {}, {}, {}, seed=0)
