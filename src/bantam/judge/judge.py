"""The judge: the packed file against its rivals on the test rows, scored once.

Every choice (a rival's settings, a prompt, a calibration) is made on validation rows before. All
are measured alike: the test rows in batches for items per second, then one at a time on one thread,
in a fresh process, for latency and memory.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bantam import kinds, recipe, runs
from bantam.judge import language, linear
from bantam.judge.crowd import CONTEXT, Ask, crowd
from bantam.judge.verdict import OURS, verdict
from bantam.kinds import classify, several
from bantam.model import Model

BATCH = 128  # texts
STATES = 512  # texts: so many that those of like length can be worked on together
LATENCY_ROWS = 40
WARM_UP = 3  # requests that are not timed: the prompt's fixed beginning is not yet cached

Predict = Callable[[Sequence[str]], NDArray[np.float64]]  # texts to probabilities [rows, labels]
States = Callable[[Sequence[str]], NDArray[np.float32]]  # texts to the base's states [rows, width]
Advance = Callable[[str, int, int], None]  # what is being judged, rows done, rows in all


@dataclass(frozen=True)
class Rows:
    """The splits as the judge needs them."""

    train: pl.DataFrame
    val: pl.DataFrame
    test: pl.DataFrame

    def texts(self, split: str) -> list[str]:
        return getattr(self, split)["input"].to_list()  # type: ignore[no-any-return]

    def labels(self, split: str) -> list[str]:
        return getattr(self, split)["output"].to_list()  # type: ignore[no-any-return]

    def shares(self, labels: Sequence[str]) -> NDArray[np.float64] | None:
        """How much of a training row's answer each label is, [rows, labels], where that is told."""
        if "shares" not in self.train.columns:
            return None
        told = self.train.select("output", "shares").iter_rows()
        return np.array(
            [[s[one] if s else float(one == output) for one in labels] for output, s in told]
        )


@dataclass
class Judged:
    """One model's answers on the test rows and what they took."""

    probabilities: NDArray[np.float64]
    latencies: dict[int, float]  # ms by test row
    system: dict[str, Any] = field(default_factory=dict)
    thresholds: NDArray[np.float64] | None = None  # with several labels a text, [labels]


def judge(
    folder: Path,
    made: recipe.Recipe,
    packed: Path,
    base: Path,
    others: dict[str, Path],
    rows: Rows,
    states: States,
    data: dict[str, Any],
    advance: Advance,
) -> dict[str, Any]:
    """Write predictions.parquet and verdict.json into `folder` and return the verdict.

    `others` are rival models by their name in the recipe; `states` is asked only for the linear
    probe. `data` goes into the verdict as it is.
    """
    judged = {OURS: _packed(packed, rows, advance)}
    task = Model(packed).asked()
    if task.multi:
        judged[OURS].thresholds = np.array(task.thresholds)
    for name in made.judge.rivals:
        if name in ("majority", "tfidf", "linear-probe"):
            judged[name] = _simple(name, task, rows, states, advance)
            if name == "linear-probe":  # it cannot be used without the base
                judged[name].system["bytes"] += base.stat().st_size
        elif name == "base":
            judged[name] = _language(name, base, task, ("zero",), made.judge, rows, advance)
        elif name == "base-few-shot":
            judged[name] = _language(name, base, task, ("few",), made.judge, rows, advance)
        else:
            path, ways = others[name], ("zero", "few")
            judged[name] = _language(name, path, task, ways, made.judge, rows, advance)
    predictions = pl.concat(_frame(name, found, task, rows) for name, found in judged.items())
    predictions.write_parquet(folder / "predictions.parquet")
    choices = {name: found.system.pop("choice", None) for name, found in judged.items()}
    runs.write_json(folder / "choices.json", choices)
    result = verdict(
        task.name,
        task.kind,
        "accuracy",
        predictions,
        task.labels,
        {name: found.system for name, found in judged.items()},
        made.limits.model_dump(),
        data,
        seed=made.data.seed,
        multi=task.multi,
        sure=made.task.sure,
    )
    runs.write_json(folder / "verdict.json", result)
    return result


def _packed(path: Path, rows: Rows, advance: Advance) -> Judged:
    """Our model, asked as its users ask it."""

    def ask(model: Model, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([list(answer.probabilities.values()) for answer in model.batch(texts)])

    with crowd(path) as many:
        found = _score(OURS, lambda texts: many(ask, texts), rows, advance)
    return _alone(found, OURS, path, ask, rows, advance)


def _language(
    name: str,
    path: Path,
    task: kinds.Task,
    ways: Sequence[str],  # "zero" and "few" shots: which prompts are tried
    settings: recipe.Judge,
    rows: Rows,
    advance: Advance,
) -> Judged:
    """A language model that is only prompted, with the prompt that validation likes best."""
    done = 0

    def tried(count: int) -> None:
        nonlocal done
        done += count
        advance(
            f"{name}: choosing a prompt", done, language.rows_asked(len(prompts), rows.val.height)
        )

    task = language.untuned(task)
    model = Model(path, context=CONTEXT)
    prompts = language.zero_shot(model, task, settings.prompts) if "zero" in ways else {}
    if "few" in ways:
        train = rows.texts("train"), rows.labels("train")
        prompts |= language.few_shot(model, task, settings.prompts, *train, settings.shots)
    model.close()
    with crowd(path) as many:
        asked = language.choose_prompt(many, prompts, rows.texts("val"), rows.labels("val"), tried)
        ask = language.asking(asked)
        found = _score(name, lambda texts: many(ask, texts), rows, advance)
    if task.multi:
        found.probabilities = found.probabilities[:, :-1]  # the last says that there is none
        found.thresholds = asked.thresholds
    found.system["choice"] = {
        "prompt": asked.name,
        "calibrated": asked.prior is not None,
        "validation_score": asked.validation_score,
    }
    return _alone(found, name, path, ask, rows, advance)


def _alone(found: Judged, name: str, path: Path, ask: Ask, rows: Rows, advance: Advance) -> Judged:
    """Time a model one text at a time on one thread in a fresh process."""
    with Model(path, threads=1, context=CONTEXT) as model:
        texts = rows.texts("test")
        found.latencies = _latencies(name, lambda some: ask(model, some), texts, advance)
        memory = model.runtime.peak_memory_bytes
    size, digest = path.stat().st_size, runs.file_sha256(path)
    found.system |= {"file": path.name, "sha256": digest, "bytes": size}
    found.system |= {"peak_memory_bytes": memory} | quantiles(found.latencies)
    return found


def _simple(name: str, task: kinds.Task, rows: Rows, states: States, advance: Advance) -> Judged:
    """A rival that is no language model, or only the base's states."""
    labels, multi = (rows.labels("train"), rows.labels("val"), task.labels), task.multi
    shares = rows.shares(task.labels)
    if name == "majority":
        fitted = linear.majority(*labels, multi=multi)
        predict: Predict = fitted.predict
    elif name == "tfidf":
        train, val = rows.texts("train"), rows.texts("val")
        fitted = linear.tfidf(
            train, labels[0], val, labels[1], labels[2], seed=0, multi=multi, shares=shares
        )
        predict = fitted.predict
    else:

        def told(split: str) -> NDArray[np.float32]:
            texts, found = rows.texts(split), []
            for start in range(0, len(texts), STATES):
                advance(f"{name}: states of the {split} rows", start, len(texts))
                found.append(states(texts[start : start + STATES]))
            return np.concatenate(found)

        at = told("train"), told("val")
        fitted = linear.probe(
            at[0], labels[0], at[1], labels[1], labels[2], multi=multi, shares=shares
        )

        def predict(texts: Sequence[str]) -> NDArray[np.float64]:
            return fitted.predict(states(texts))

    found = _score(name, predict, rows, advance)
    found.thresholds = fitted.thresholds
    found.latencies = _latencies(name, predict, rows.texts("test"), advance)
    choice = fitted.choice | {"validation_score": fitted.validation_score}
    found.system |= {"bytes": fitted.bytes, "choice": choice} | quantiles(found.latencies)
    return found


def _score(name: str, predict: Predict, rows: Rows, advance: Advance) -> Judged:
    texts = rows.texts("test")
    predict(texts[:1])  # start the runtime outside the measurement
    began, parts = time.perf_counter(), []
    for start in range(0, len(texts), BATCH):
        parts.append(predict(texts[start : start + BATCH]))
        advance(name, min(start + BATCH, len(texts)), len(texts))
    seconds = time.perf_counter() - began
    return Judged(np.concatenate(parts), {}, {"items_per_second": len(texts) / seconds})


def _latencies(
    name: str, predict: Predict, texts: Sequence[str], advance: Advance
) -> dict[int, float]:
    """Milliseconds a request for rows spread evenly over the test rows."""
    chosen = places(len(texts), LATENCY_ROWS)
    for place in chosen[:WARM_UP]:
        predict([texts[place]])
    taken = {}
    for count, place in enumerate(chosen, 1):
        began = time.perf_counter()
        predict([texts[place]])
        taken[place] = (time.perf_counter() - began) * 1000
        if count % 10 == 0:
            advance(f"{name}: one at a time", count, len(chosen))
    return taken


def places(rows: int, most: int) -> list[int]:
    """Row numbers spread evenly, at most so many."""
    found: list[int] = np.linspace(0, rows - 1, min(most, rows)).astype(int).tolist()
    return found


def quantiles(latencies: dict[int, float]) -> dict[str, float]:
    p50, p95 = np.percentile(list(latencies.values()), [50, 95])
    return {"latency_p50_ms": float(p50), "latency_p95_ms": float(p95)}


def _frame(name: str, found: Judged, task: kinds.Task, rows: Rows) -> pl.DataFrame:
    if found.thresholds is not None:
        given = found.probabilities >= found.thresholds
        answers = [several.joined(compress(task.labels, row)) for row in given]
        whole = np.where(given, found.probabilities, 1 - found.probabilities).prod(axis=1)
    else:
        answers = [task.labels[i] for i in found.probabilities.argmax(axis=1)]
        whole = found.probabilities.max(axis=1)
    shares = found.probabilities.tolist()
    # The rivals have no thresholds to be sure by.
    sure = [classify.sure(task, row) if name == OURS else None for row in shares]
    return rows.test.select(
        pl.lit(name).alias("model"),
        "id",
        "group",
        pl.col("output").alias("expected"),
        pl.Series("answer", answers),
        pl.Series("probability", whole),
        pl.Series("sure", sure, dtype=pl.Boolean),
        pl.Series("probabilities", shares, dtype=pl.List(pl.Float64)),
        pl.Series(
            "latency_ms",
            [found.latencies.get(i) for i in range(rows.test.height)],
            dtype=pl.Float64,
        ),
    )
