"""The verdict: what the packed model scored, against whom it won, and what the limits say.

`Verdict` is the public contract of `verdict.json`; `Verdict.model_json_schema()` gives its JSON
Schema. What is unknown or not finite is null.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from bantam.errors import JobFailed
from bantam.judge import statistics
from bantam.judge.metrics import classification, label_sets

OURS = "ours"
NO_LANGUAGE_MODEL = (
    *("majority", "tfidf", "patterns", "nearest", "tagger", "lead"),
    *("zstd", "ngram"),
)
SIGNIFICANT = 0.05
COARSE = 0.05  # a test that misses differences of 5 points is called too small

# Which measurement each limit is held against, its name in a sentence, and its unit. A latency that
# half of the requests exceed is not kept, so the limit is on the 95th percentile.
LIMITS = {
    "size": ("bytes", "size", "MB", 1e6),
    "latency": ("latency_p95_ms", "latency", "ms", 1.0),
    "memory": ("peak_memory_bytes", "memory", "MB", 1e6),
}


MEASURED = (
    "file",
    "sha256",
    "latency_p50_ms",
    "latency_p95_ms",
    "items_per_second",
    "peak_memory_bytes",
    "bytes",
)


def _known(value: Any) -> Any:
    """A measurement, or None where there is none: NaN has no place in JSON."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_known)]
Count = Annotated[int | None, BeforeValidator(_known)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelScore(Part):
    label: str
    precision: Number
    recall: Number
    f1: Number
    support: int


class Bin(Part):
    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


class Scores(Part):
    accuracy: float = Field(description="with several labels a text: of the whole set")
    macro_f1: float
    micro_f1: Number = Field(None, description="with several labels a text, else null")
    ece: Number
    log_loss: Number
    per_class: list[LabelScore]
    confusion: list[list[int]] = Field(
        description="rows expected, columns answered; empty with several labels a text"
    )
    reliability: list[Bin] | None = Field(
        description="by the answer's probability; with several labels a text by each label's"
    )


class FieldScore(LabelScore):
    """Of one field of the records, or one label of their spans."""


class WrittenScores(Part):
    """Of ours only, by the probabilities of its answers; null for rivals."""

    ece: Number = None
    reliability: list[Bin] | None = None
    parsed_freely: Number = Field(
        None, description="share that follow the schema where nothing holds the answers to it"
    )


class RecordScores(WrittenScores):
    exact_match: float
    parsed: float = Field(description="share of the answers that are JSON")
    precision: Number = Field(description="of the fields of all rows together, as are the next two")
    recall: Number
    f1: Number
    macro_f1: Number = Field(description="mean over the fields")
    per_field: list[FieldScore]
    span_f1: Number = Field(description="of entity spans; null: there are none")
    per_span: list[FieldScore] | None


class CallScores(WrittenScores):
    call_match: float
    function_match: float = Field(description="share with the right functions in order")
    called_match: Number = Field(description="of the rows that want a call")
    none_match: Number = Field(description="of the rows that want none")
    parsed: float


class TextScores(WrittenScores):
    exact_match: float
    chrf: float
    bleu: float
    rouge1: float
    rouge2: float
    rougeL: float
    length_ratio: Number
    copied: Number = Field(description="share of the answers' words that stand in the input")
    invented: Number = Field(description="share that stand in neither input nor reference")


class CompletionScores(Part):
    bits_per_byte: float = Field(description="over all bytes of the documents together")
    documents: int
    bytes: int


class System(Part):
    name: str
    file: str | None
    sha256: str | None
    score: float
    score_low: float
    score_high: float
    scores: Scores | RecordScores | CallScores | TextScores | CompletionScores
    latency_p50_ms: Number
    latency_p95_ms: Number
    items_per_second: Number
    peak_memory_bytes: Count
    bytes: Count


class Rival(System):
    difference: float = Field(description="our score minus theirs")
    difference_low: float
    difference_high: float
    p_value: float = Field(description="paired, Holm-corrected over all rivals")
    outcome: Literal["win", "tie", "loss"]


class Limit(Part):
    limit: Literal["size", "latency", "memory"]
    wanted: float
    measured: Number
    kept: bool | None = Field(description="null: not measured")


class Sure(Part):
    wanted: float = Field(description="which share of the sure answers should be right")
    share: float = Field(description="of the test rows that get a sure answer")
    right: Number = Field(description="share of the sure answers; null: there is none")
    right_low: Number
    right_high: Number


class Verdict(Part):
    schema_: Literal[1] = Field(alias="schema")
    task: str
    kind: str
    metric: Literal["accuracy", "exact_match", "call_match", "chrf", "bits_per_byte"] = Field(
        description="of bits_per_byte less is better: a win has a difference below zero"
    )
    test_rows: int = Field(description="or documents, of bits_per_byte")
    model: System
    rivals: list[Rival]
    smallest_detectable_difference: Number = Field(
        description="against the strongest rival, 80% power, two-sided 5% by the number of rivals; "
        "null: none could show"
    )
    limits: list[Limit]
    sure: Sure | None = Field(None, description="null: the recipe did not ask for sure answers")
    data: dict[str, JsonValue]
    sentence: str


def verdict(
    task: str,
    kind: str,
    metric: str,
    predictions: pl.DataFrame,
    labels: Sequence[str],
    systems: Mapping[str, Mapping[str, Any] | None],
    limits: Mapping[str, float | None],
    data: Mapping[str, Any],
    *,
    seed: int,
    multi: bool = False,
    sure: float | None = None,
    summaries: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The contract above as plain data, ready for JSON.

    `predictions` has the columns of docs/architecture.md and the model "ours"; a null answer is a
    wrong one. `systems` maps a model's name to its file, sha256, latency_p50_ms, latency_p95_ms,
    items_per_second, peak_memory_bytes and bytes, each or all of which may be missing. `limits` are
    in bytes (size, memory) and milliseconds (latency). With `multi` expected and answered are sets
    of labels, as `kinds.several.joined` writes them. `sure` is the share of the sure answers that
    should be right; then the column of this name says which of ours are. `summaries` are the scores
    of the models by their names where answers are written; then the column `score` says how good
    each is, from 0 to 1.

    Raises JobFailed unless every model answered the same rows, those with the same id in one order;
    BadInput as `classification`.
    """
    names = predictions["model"].unique(maintain_order=True).to_list()
    # Rows of one text, which a test file may repeat, stay in their order and are one group.
    tables = {
        name: predictions.filter(pl.col("model") == name).sort("id", maintain_order=True)
        for name in names
    }
    if OURS not in tables:
        raise JobFailed("the model itself has no predictions", "judge it again")
    ours = tables.pop(OURS)
    for name, table in tables.items():
        if not table["id"].equals(ours["id"]):
            raise JobFailed(f"{name} did not answer the same test rows", "judge it again")

    # A row without a group is a group of its own.
    groups = ours.select(pl.coalesce("group", "id")).to_series().to_list()
    right = {name: _right(table) for name, table in [(OURS, ours), *tables.items()]}

    def system(name: str, table: pl.DataFrame) -> dict[str, Any]:
        summary = _labels(table, labels, multi) if summaries is None else summaries[name]
        low, high = statistics.bootstrap_interval(right[name], groups, seed=seed)
        interval = {"score": float(right[name].mean()), "score_low": low, "score_high": high}
        measured = systems.get(name) or {}
        told = {key: measured.get(key) for key in MEASURED}
        return {"name": name, **interval, "scores": summary, **told}

    model = system(OURS, ours)
    pairs = {
        name: statistics.paired(right[OURS], right[name], groups, seed=seed) for name in tables
    }
    p_values = statistics.holm([pair.p_value for pair in pairs.values()])
    rivals = [
        {
            **system(name, tables[name]),
            "difference": pair.difference,
            "difference_low": pair.low,
            "difference_high": pair.high,
            "p_value": p_value,
            "outcome": _outcome(pair.difference, p_value),
        }
        for (name, pair), p_value in zip(pairs.items(), p_values, strict=True)
    ]
    strongest = max(tables, key=lambda name: right[name].sum(), default=None)
    smallest = (
        statistics.smallest_detectable_difference(
            right[OURS], right[strongest], groups, level=SIGNIFICANT / len(tables)
        )
        if strongest
        else None
    )
    kept = [_limit(name, wanted, model) for name, wanted in limits.items() if wanted is not None]
    relied = None if sure is None else _sure(sure, right[OURS], ours["sure"], groups, seed)
    checked = Verdict.model_validate(
        {
            "schema": 1,
            "task": task,
            "kind": kind,
            "metric": metric,
            "test_rows": ours.height,
            "model": model,
            "rivals": rivals,
            "smallest_detectable_difference": smallest,
            "limits": kept,
            "sure": relied,
            "data": dict(data),
            "sentence": _sentence(
                metric, model, rivals, ours.height, strongest, smallest, kept, relied
            ),
        }
    )
    return checked.model_dump(mode="json", by_alias=True)


def positive(verdict: Mapping[str, Any]) -> bool:
    """Whether ours beat every rival that needs no language model, and keeps every limit."""
    beaten = all(
        rival["outcome"] == "win"
        for rival in verdict["rivals"]
        if rival["name"] in NO_LANGUAGE_MODEL
    )
    return beaten and all(limit["kept"] for limit in verdict["limits"])


def _right(table: pl.DataFrame) -> NDArray[np.float64]:
    """How good each row's answer is, 0 to 1; a missing label is wrong."""
    if "score" in table.columns:
        return table["score"].to_numpy()
    found: NDArray[np.float64] = (
        (table["answer"] == table["expected"]).fill_null(False).cast(pl.Float64).to_numpy()
    )
    return found


def _labels(table: pl.DataFrame, labels: Sequence[str], multi: bool) -> dict[str, Any]:
    """The scores of a model whose answers are labels."""
    scored = label_sets if multi else classification
    return scored(
        table["expected"].to_list(),
        table["answer"].fill_null("").to_list(),
        _probabilities(table["probabilities"], len(labels)),
        labels,
    )


def _probabilities(column: pl.Series, labels: int) -> NDArray[np.float64] | None:
    """`[rows, labels]`, or None where a row has none."""
    if column.null_count():
        return None
    return np.array(column.to_list(), dtype=np.float64).reshape(len(column), labels)


def _outcome(difference: float, p_value: float) -> str:
    if p_value >= SIGNIFICANT:
        return "tie"
    return "win" if difference > 0 else "loss"


def _limit(name: str, wanted: float, model: Mapping[str, Any]) -> dict[str, Any]:
    measured = _known(model[LIMITS[name][0]])
    return {
        "limit": name,
        "wanted": wanted,
        "measured": measured,
        "kept": None if measured is None else measured <= wanted,
    }


def _sure(
    wanted: float, right: NDArray[np.float64], sure: pl.Series, groups: Sequence[str], seed: int
) -> dict[str, Any]:
    """What share of the rows is answered surely, and how many of these answers are right."""
    here = sure.to_numpy().astype(bool)
    told = {"wanted": wanted, "share": float(here.mean())}
    if not here.any():
        return told | dict.fromkeys(("right", "right_low", "right_high"))
    low, high = statistics.bootstrap_interval(right[here], list(compress(groups, here)), seed=seed)
    return told | {"right": float(right[here].mean()), "right_low": low, "right_high": high}


def _sentence(
    metric: str,
    model: Mapping[str, Any],
    rivals: Sequence[Mapping[str, Any]],
    rows: int,
    strongest: str | None,
    smallest: float | None,
    limits: Sequence[Mapping[str, Any]],
    sure: Mapping[str, Any] | None,
) -> str:
    """The verdict in plain words: the scores in one sentence, what to beware of after it."""
    interval = f"95% interval {model['score_low']:.1%} to {model['score_high']:.1%}"
    if metric == "chrf":
        score = (
            f"The model's answers to {rows:,} unseen rows reached a chrF of {model['score']:.1%}"
        )
        score += f" ({interval})"
    else:
        what, more = _what(metric, model["scores"])
        score = (
            f"The model got {model['score']:.1%} of {rows:,} unseen rows {what} ({interval}{more})"
        )
    contests = [
        f"{verb} {_and([_against(rival) for rival in rivals if rival['outcome'] == outcome])}"
        for outcome, verb in (("win", "beat"), ("tie", "tied with"), ("loss", "lost to"))
        if any(rival["outcome"] == outcome for rival in rivals)
    ]
    said = [f"{score}; it {_and(contests)}." if contests else f"{score}."]
    if sure:
        said.append(_relied(sure))

    if apart := [rival["name"] for rival in rivals if _apart_but_tied(rival)]:
        said.append(
            f"Of {len(rivals)} comparisons at once, chance alone may well give a difference like "
            f"that to {_and(apart)}."
        )

    outcomes = {rival["name"]: rival["outcome"] for rival in rivals}
    better, equal = (
        [name for name in NO_LANGUAGE_MODEL if outcomes.get(name) == outcome]
        for outcome in ("loss", "tie")
    )
    unclear = strongest is not None and outcomes[strongest] == "tie"
    coarse = unclear and (smallest is None or smallest > COARSE)
    if better:
        said.append(f"{_and(better)} did better: you need no language model for this.")
    elif equal and coarse:
        said.append(f"{_and(equal)} may do as well: you may need no language model.")
    elif equal:
        said.append(f"{_and(equal)} did as well: you may need no language model.")
    if strongest is not None and unclear:
        said.append(_power(strongest, smallest))
    said.extend(_broken(limit) for limit in limits if not limit["kept"])
    return " ".join(said)


def _what(metric: str, scores: Mapping[str, Any]) -> tuple[str, str]:
    """What was right of the rows, and what else to know of it."""
    if metric == "exact_match":
        return "exactly right", f"; F1 over fields {scores['f1']:.3f}" if scores["f1"] else ""
    if metric == "call_match":
        return "right, function and arguments", ""
    if scores["micro_f1"] is not None:
        return "right with all their labels and no other", f"; micro-F1 {scores['micro_f1']:.3f}"
    return "right", ""


def _apart_but_tied(rival: Mapping[str, Any]) -> bool:
    """A tie although its interval leaves out zero: the correction for many rivals made it one."""
    clear = rival["difference_low"] > 0 or rival["difference_high"] < 0
    return bool(clear and rival["outcome"] == "tie")


def _against(rival: Mapping[str, Any]) -> str:
    low, high = 100 * rival["difference_low"], 100 * rival["difference_high"]
    return f"{rival['name']} ({100 * rival['difference']:+.1f} points, {low:+.1f} to {high:+.1f})"


def _power(rival: str, smallest: float | None) -> str:
    if smallest is None:
        return f"The test set is too small to tell the model from {rival} by any difference."
    start = "The test set is too small to tell: only" if smallest > COARSE else "Only"
    return (
        f"{start} a difference of {100 * smallest:.1f} points or more from {rival} was likely to "
        "show."
    )


def _relied(sure: Mapping[str, Any]) -> str:
    asked = f"asked for: {100 * sure['wanted']:g}%"
    if sure["right"] is None:
        return f"It is sure of no answer ({asked} of the sure ones right)."
    return (
        f"It is sure of {sure['share']:.1%} of its answers, and {sure['right']:.1%} of these are "
        f"right (95% interval {sure['right_low']:.1%} to {sure['right_high']:.1%}; {asked})."
    )


def _broken(limit: Mapping[str, Any]) -> str:
    _, name, unit, scale = LIMITS[limit["limit"]]
    wanted = f"the limit on {name}, {limit['wanted'] / scale:,.1f} {unit}"
    if limit["kept"] is None:
        return f"Not measured: {wanted}."
    return f"It breaks {wanted}: measured {limit['measured'] / scale:,.1f} {unit}."


def _and(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts)
