"""report.html: what a run made, how it was judged and what it cost, on one page without scripts.

`read_run` gathers plain data from a run folder, `report` turns plain data into the page. A part
that is missing or damaged takes its section with it and nothing else.
"""

import functools
import json
import math
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import polars

from bantam import ledger
from bantam.judge import metrics, report_run, report_verdict
from bantam.page import charts, loose, template
from bantam.page.loose import Json

MISTAKES = 12  # how many of the worst mistakes are shown
QUANTILES = {
    "min": "shortest",
    "p5": "5%",
    "p50": "median",
    "p95": "95%",
    "p99": "99%",
    "max": "longest",
}


def report(run: Json) -> str:
    """The page as HTML text, from what `read_run` returns (any part of it may be missing)."""
    run = loose.cleaned(run)
    verdict, plan = loose.part(run.get("verdict")), loose.part(run.get("plan"))
    metric = report_verdict.named(verdict.get("metric"))
    models, stages = report_verdict.models(verdict), loose.rows(run.get("ledger"))
    scores = loose.part(loose.part(verdict.get("model")).get("scores"))
    fields = loose.rows(scores.get("per_field")) + loose.rows(scores.get("per_span"))
    per_class = loose.rows(scores.get("per_class")) or fields
    multi = loose.number(scores.get("micro_f1")) is not None
    even = math.log(max(len(per_class), 1))
    return _template().render(
        task=verdict.get("task") or run.get("name") or "A run",
        verdict=verdict,
        metric=metric,
        headline=report_verdict.headline(metric, models, loose.number(verdict.get("test_rows"))),
        models=models,
        tiles=report_verdict.tiles(verdict, metric),
        outcomes=report_verdict.outcomes(models),
        differences=report_verdict.differences(models),
        limits=report_verdict.limits(verdict),
        handover=loose.part(run.get("handover")).get("sentence"),
        costs=report_verdict.costs(models, metric),
        confusion=report_verdict.confusion(per_class, loose.items(scores.get("confusion"))),
        per_class=report_verdict.by_label(per_class),
        fields=bool(fields),
        beside=report_verdict.beside(verdict.get("metric"), models),
        reliability=report_verdict.reliability(scores, multi),
        goodness="good" if verdict.get("metric") == "chrf" else "right",
        coverage=None
        if multi
        else report_verdict.coverage(
            loose.rows(run.get("coverage")), loose.part(verdict.get("sure"))
        ),
        multi=multi,
        even_odds=len(per_class) * math.log(2) if multi else even,
        training=report_run.training(loose.rows(run.get("metrics"))),
        plan=report_run.pairs(plan),
        labels=report_run.labels(loose.part(run.get("text"))),
        data=report_run.data(loose.part(run.get("text")), loose.part(run.get("lock"))),
        mistakes=report_verdict.mistakes(loose.rows(run.get("mistakes")), multi),
        ledger=report_run.ledger(stages),
        spent=report_run.spent(stages),
        proof=loose.rows(run.get("proof")),
        lineage=report_run.lineage(loose.part(run.get("lock")), loose.part(verdict.get("data"))),
        unreadable=loose.items(run.get("unreadable")),
    )


Parts = tuple[tuple[str, str, Callable[[Path], Any]], ...]  # key, file, how it is read


def read_run(folder: Path, parts: Parts | None = None) -> Json:
    """What `report` shows of a run folder, or these parts of it, as plain data.

    A missing file leaves its key out; a damaged one does too and is named under "unreadable".
    """
    run: Json = {"name": folder.resolve().name, "unreadable": []}
    for key, file, read in _PARTS if parts is None else parts:
        try:
            run[key] = read(folder / file)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError, polars.exceptions.PolarsError):
            if file not in run["unreadable"]:
                run["unreadable"].append(file)
    return run


def object_of(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def lines_of(path: Path) -> list[Any]:
    """The objects of a log; a last line that was cut off by a crash is left out."""
    lines = path.read_text("utf-8").splitlines()
    found = [json.loads(line) for line in lines[:-1] if line.strip()]
    try:
        return found + [json.loads(line) for line in lines[-1:]]
    except ValueError:
        return found


def _mistakes(predictions: Path) -> list[Json]:
    """The wrong answers that the model was surest of, with their texts; of written texts those
    that are furthest from a reference."""
    texts = polars.scan_parquet(predictions.parents[1] / "text" / "test.parquet").select(
        "id", "file", "row", polars.col("input").str.slice(0, loose.LONGEST)
    )
    table = polars.read_parquet(predictions).filter(polars.col("model") == "ours").lazy()
    if "score" in table.collect_schema():
        table = table.filter(polars.col("score") < 1).sort(
            "score", "probability", "id", descending=[False, True, False], nulls_last=True
        )
    else:
        table = table.filter(polars.col("answer").ne_missing(polars.col("expected"))).sort(
            "probability", "id", descending=[True, False], nulls_last=True
        )
    return (
        table.select("id", "expected", "answer", "probability")
        .head(MISTAKES)
        .join(texts.unique("id"), on="id", how="left", maintain_order="left")
        .collect()
        .to_dicts()
    )


def _coverage(predictions: Path) -> list[Json]:
    """For each model how many of its surest answers are right, by how many are counted."""
    table = polars.read_parquet(predictions)
    table = table.filter(polars.col("probability").is_finite())
    if "score" not in table.columns:
        right = (polars.col("answer") == polars.col("expected")).fill_null(False)
        table = table.with_columns(right.cast(polars.Float64).alias("score"))
    return [
        {
            "name": name,
            "points": metrics.coverage(
                of_it["probability"].to_numpy(),
                of_it["score"].to_numpy(),
            ),
        }
        for (name,), of_it in table.group_by("model", maintain_order=True)
    ]


_PARTS: Parts = (
    ("verdict", "judge/verdict.json", object_of),
    ("handover", "handover/handover.json", object_of),
    ("mistakes", "judge/predictions.parquet", _mistakes),
    ("coverage", "judge/predictions.parquet", _coverage),
    ("metrics", "train/metrics.jsonl", lines_of),
    ("plan", "train/plan.json", object_of),
    ("text", "text/report.json", object_of),
    ("ledger", "ledger.jsonl", ledger.read),
    ("lock", "recipe.lock.json", object_of),
    ("proof", "pack/proof.json", object_of),
)


@functools.cache
def _template() -> jinja2.Template:
    environment = template.environment()
    environment.tests["hash"] = loose.is_hash
    environment.globals.update(
        WORDS=report_verdict.OUTCOMES, QUANTILES=QUANTILES, score_axis=charts.score_axis
    )
    source = files("bantam.judge").joinpath("report.html.jinja").read_text("utf-8")
    return environment.from_string(source)
