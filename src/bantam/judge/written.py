"""The judge of written answers: the packed file against its rivals on the test rows, scored once.

As in judge.py every choice is made on validation rows, and all are measured alike: the test rows by
a crowd for items per second, then some one at a time on one thread in a fresh process, for latency
and memory. Rivals that write JSON are held to the schema as ours is, so that only the models
differ; what ours writes without that hold is counted beside.
"""

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bantam import crowd as crowds
from bantam import kinds, recipe, runs
from bantam.answer import Written
from bantam.judge import lead, nearest, patterns, prompted, tagger
from bantam.judge.judge import Advance, places, quantiles
from bantam.judge.measure import Measure, measure, references
from bantam.judge.metrics import expected_error, reliability
from bantam.judge.plain import Plain
from bantam.judge.verdict import OURS, verdict
from bantam.kinds import Row, schema, texts
from bantam.model import Model, TooLong

CONTEXT = 2048  # tokens
PIECE = 4  # rows that a process takes at a time
FREELY = 100  # test rows that ours also answers without being held to the schema
LATENCY_ROWS = 20
PLAIN: dict[str, Callable[..., Plain]] = {
    "lead": lead.lead,
    "nearest": nearest.nearest,
    "patterns": patterns.patterns,
    "tagger": tagger.tagger,
}


@dataclass(frozen=True)
class Split:
    """The rows of a split, and how answers to them are scored."""

    frame: pl.DataFrame
    rows: list[Row]
    measure: Measure

    def first(self, count: int, kind: str) -> Measure:
        return measure(kind, self.frame.head(count))


@dataclass
class Judged:
    """One model's answers to the test rows, and what they took."""

    answers: list[str | None]
    probabilities: list[float | None]
    sure: list[bool | None]
    latencies: dict[int, float]  # ms by test row
    system: dict[str, Any] = field(default_factory=dict)


def split_of(kind: str, frame: pl.DataFrame) -> Split:
    return Split(frame, rows_of(frame), measure(kind, frame))


def drawn(frame: pl.DataFrame, most: int | None = None) -> pl.DataFrame:
    """Rows in another order, `most` of them: files are often sorted, and the first rows of all are
    what choices begin with. Always the same."""
    chance = random.Random(0)  # noqa: S311
    rows = chance.sample(range(frame.height), frame.height)
    return frame[rows[:most]]


def rows_of(frame: pl.DataFrame) -> list[Row]:
    """The rows of a split as the kinds of written answers take them."""
    columns = ["input", "output", *(["tools"] if "tools" in frame.columns else [])]
    return [Row(*row) for row in frame.select(columns).iter_rows()]


def judge(
    folder: Path,
    made: recipe.Recipe,
    packed: Path,
    base: Path,
    others: dict[str, Path],
    frames: dict[str, pl.DataFrame],
    data: dict[str, Any],
    advance: Advance,
) -> dict[str, Any]:
    """Write predictions.parquet and verdict.json into `folder` and return the verdict.

    `frames` are the splits by their names, `others` rival models by their name in the recipe.
    `data` goes into the verdict as it is.
    """
    task = Model(packed).asked()
    frames = frames | {"val": drawn(frames["val"])}
    train, val, test = (split_of(task.kind, frames[name]) for name in ("train", "val", "test"))
    judged = {OURS: _ours(packed, task, test, advance)}
    for name in made.judge.rivals:
        if name in ("base", "base-few-shot"):
            ways: tuple[str, ...] = ("few",) if name == "base-few-shot" else ("zero",)
            judged[name] = _language(name, base, task, ways, made.judge, train, val, test, advance)
        elif name in others:
            ways = ("zero", "few")
            path = others[name]
            judged[name] = _language(name, path, task, ways, made.judge, train, val, test, advance)
        else:
            judged[name] = _plain(name, task, train, val, test, advance)
    scores = {name: test.measure.each(found.answers) for name, found in judged.items()}
    predictions = pl.concat(_frame(n, found, scores[n], test) for n, found in judged.items())
    predictions.write_parquet(folder / "predictions.parquet")
    summaries = {name: test.measure.summary(found.answers) for name, found in judged.items()}
    summaries[OURS] |= _certainty(judged[OURS], scores[OURS])
    choices = {name: found.system.pop("choice", None) for name, found in judged.items()}
    runs.write_json(folder / "choices.json", choices)
    result = verdict(
        task.name,
        task.kind,
        test.measure.metric,
        predictions,
        (),
        {name: found.system for name, found in judged.items()},
        made.limits.model_dump(),
        data,
        seed=made.data.seed,
        sure=made.task.sure,
        summaries=summaries,
    )
    runs.write_json(folder / "verdict.json", result)
    return result


def _ours(path: Path, task: kinds.Task, test: Split, advance: Advance) -> Judged:
    """Our model, asked as its users ask it."""

    def ask(model: Model, rows: Sequence[Row]) -> list[tuple[str | None, float, bool | None]]:
        told = [answered(model, task, row) for row in rows]
        nothing = None, 0.0, texts.sure(task, 0.0)
        return [(one.text, one.probability, one.sure) if one else nothing for one in told]

    with crowds.crowd(path, context=CONTEXT) as share:
        began = time.perf_counter()
        told = shared(share, ask, test.rows, lambda n: advance(OURS, n, len(test.rows)))
        seconds = time.perf_counter() - began
        system: dict[str, Any] = {"items_per_second": len(told) / seconds}
        if task.kind == "extract":
            some = [test.rows[place] for place in places(len(test.rows), FREELY)]
            count = f"{OURS}: without the schema"
            written = shared(
                share,
                lambda model, rows: [_freely(model, task, row) for row in rows],
                some,
                lambda n: advance(count, n, len(some)),
            )
            right = [_follows(task, row, one) for row, one in zip(some, written, strict=True)]
            system["parsed_freely"] = float(np.mean(right))
    texts_, likely, sure = (list(column) for column in zip(*told, strict=True))
    found = Judged(texts_, likely, sure, {}, system)
    return _alone(found, OURS, path, task, (), test, advance)


def answered(model: Model, task: kinds.Task, row: Row) -> Written | None:
    """A model's answer to a row; None where it has no room for the question."""
    try:
        return model.written(task, row.text, row.tools)
    except TooLong:
        return None


def _freely(model: Model, task: kinds.Task, row: Row) -> str:
    try:
        return model.freely(task, row.text, row.tools)
    except TooLong:
        return ""


def _follows(task: kinds.Task, row: Row, written: str) -> bool:
    """Whether what a model wrote freely is JSON that follows the schema."""
    try:
        value = json.loads(written)
    except (ValueError, RecursionError):
        return False
    return schema.mistake(texts.schema_of(task, row.tools), value) is None


def shared(
    share: crowds.Share,
    ask: Callable[[Model, Sequence[Row]], list[Any]],
    rows: Sequence[Row],
    progress: Callable[[int], None],
) -> list[Any]:
    """The answers of a crowd to rows, in their order."""
    parts = [rows[i : i + PIECE] for i in range(0, len(rows), PIECE)]
    found: list[Any] = []
    for part in share(ask, parts):
        found += part
        progress(len(found))
    return found


def _language(
    name: str,
    path: Path,
    task: kinds.Task,
    ways: Sequence[str],  # "zero" and "few" shots: which prompts are tried
    settings: recipe.Judge,
    train: Split,
    val: Split,
    test: Split,
    advance: Advance,
) -> Judged:
    """A language model that is only prompted, with the prompt that validation likes best."""
    outputs = [references(row.output)[0] for row in train.rows]
    stop = prompted.stops(outputs) if task.kind == "generate" else ()
    prompts: dict[str, kinds.Task] = {}
    with Model(path, context=CONTEXT) as model:
        if "zero" in ways:
            prompts = prompted.zero_shot(model, task, settings.prompts)
        if "few" in ways:
            room = prompted.longest(model, task, val.rows)
            prompts |= prompted.few_shot(model, task, train.rows, settings.shots, room)
    done = 0

    def tried(count: int) -> None:
        nonlocal done
        done += count
        advance(f"{name}: choosing a prompt", done, max(done, len(prompts) * prompted.TRIED * 2))

    with crowds.crowd(path, context=CONTEXT) as share:

        def answers(ask: prompted.Ask, rows: Sequence[Row]) -> list[str | None]:
            return shared(share, ask, rows, lambda _: None)

        asked = prompted.choose(
            answers, prompts, stop, val.rows, lambda n: val.first(n, task.kind), tried
        )
        began = time.perf_counter()
        ask = prompted.asking(asked.task, stop)
        told = shared(share, ask, test.rows, lambda n: advance(name, n, len(test.rows)))
        seconds = time.perf_counter() - began
    nothing: list[Any] = [None] * len(told)
    found = Judged(told, nothing, nothing, {}, {"items_per_second": len(told) / seconds})
    found.system["choice"] = {
        "prompt": asked.name,
        "validation_score": asked.validation_score,
    }
    return _alone(found, name, path, asked.task, stop, test, advance)


def _alone(
    found: Judged,
    name: str,
    path: Path,
    task: kinds.Task,
    stop: Sequence[str],
    test: Split,
    advance: Advance,
) -> Judged:
    """Time a model one row at a time on one thread in a fresh process."""
    ask = prompted.asking(task, stop)
    with Model(path, threads=1, context=CONTEXT) as model:
        found.latencies = latencies(name, lambda row: ask(model, [row]), test.rows, advance)
        memory = model.runtime.peak_memory_bytes
    size, digest = path.stat().st_size, runs.file_sha256(path)
    found.system |= {"file": path.name, "sha256": digest, "bytes": size}
    found.system |= {"peak_memory_bytes": memory} | quantiles(found.latencies)
    return found


def latencies(
    name: str, ask: Callable[[Row], Any], rows: Sequence[Row], advance: Advance
) -> dict[int, float]:
    """Milliseconds a request for rows spread evenly over the test rows."""
    ask(rows[0])  # the prompt's fixed beginning is not yet cached
    taken = {}
    chosen = places(len(rows), LATENCY_ROWS)
    for count, place in enumerate(chosen, 1):
        began = time.perf_counter()
        ask(rows[place])
        taken[place] = (time.perf_counter() - began) * 1000
        advance(f"{name}: one at a time", count, len(chosen))
    return taken


def _plain(
    name: str, task: kinds.Task, train: Split, val: Split, test: Split, advance: Advance
) -> Judged:
    """A rival that is no language model."""
    advance(name, 0, len(test.rows))
    asked = [_asked(task, split.rows) for split in (train, val, test)]
    learned = [references(row.output)[0] for row in train.rows]
    wanted = [references(row.output)[0] for row in val.rows]

    def score(_: Sequence[str], answers: Sequence[str]) -> float:
        return val.measure.score(answers)

    fit = nearest.nearest_call if task.most_calls else PLAIN[name]
    fitted: Plain = fit(asked[0], learned, asked[1], wanted, score)
    began = time.perf_counter()
    told = fitted.answer(asked[2])
    seconds = time.perf_counter() - began
    system = {
        "items_per_second": len(told) / seconds,
        "bytes": fitted.bytes,
        "choice": fitted.choice | {"validation_score": fitted.validation_score},
    }
    nothing: list[Any] = [None] * len(told)
    found = Judged(list(told), nothing, nothing, {}, system)
    by_place = dict(zip(test.rows, asked[2], strict=True))
    found.latencies = latencies(
        name, lambda row: fitted.answer([by_place[row]]), test.rows, advance
    )
    found.system |= quantiles(found.latencies)
    return found


def _asked(task: kinds.Task, rows: Sequence[Row]) -> list[Any]:
    """What a rival that is no language model is given: texts, with the functions if there are."""
    if task.most_calls:
        return [(row.text, json.loads(row.tools)) for row in rows]
    return [row.text for row in rows]


def _certainty(ours: Judged, scores: NDArray[np.float64]) -> dict[str, Any]:
    """What the scores of ours have and those of rivals have not."""
    bins = reliability(np.array(ours.probabilities, dtype=float), scores)
    free = ours.system.pop("parsed_freely", None)
    return {"parsed_freely": free, "reliability": bins, "ece": expected_error(bins)}


def _frame(name: str, found: Judged, scores: NDArray[np.float64], test: Split) -> pl.DataFrame:
    return test.frame.select(
        pl.lit(name).alias("model"),
        "id",
        "group",
        pl.col("output").alias("expected"),
        pl.Series("answer", found.answers, dtype=pl.String),
        pl.Series("score", scores),
        pl.Series("probability", found.probabilities, dtype=pl.Float64),
        pl.Series("sure", found.sure, dtype=pl.Boolean),
        pl.Series(
            "latency_ms",
            [found.latencies.get(i) for i in range(test.frame.height)],
            dtype=pl.Float64,
        ),
    )
