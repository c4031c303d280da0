"""report.html: what a run made, how it was judged and what it cost, on one page without scripts.

`read_run` gathers plain data from a run folder, `report` turns plain data into the page. A part
that is missing or damaged takes its section with it and nothing else.
"""

import functools
import heapq
import json
import math
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import polars

from bantam import ledger
from bantam.judge import charts

MISTAKES = 12  # how many of the worst mistakes are shown
PAIRS = 10  # how many of the pairs most often confused
CELLS = 20  # labels in the confusion matrix, and in the first part of the table per label
LARGE = 1e18  # no measurement reaches it
LONGEST = 2000  # characters of any one text that came from outside
NONE = "–"
WORDS = {"win": "beats", "tie": "ties with", "loss": "loses to"}
USES = {"train": "to learn from", "val": "to choose with", "test": "to judge with"}
QUANTILES = {
    "min": "shortest",
    "p5": "5%",
    "p50": "median",
    "p95": "95%",
    "p99": "99%",
    "max": "longest",
}
SMOOTH = 40  # the training loss is averaged over a window of 1/SMOOTH of the run

Json = dict[str, Any]


def report(run: Json) -> str:
    """The page as HTML text, from what `read_run` returns (any part of it may be missing)."""
    run = _plain(run)
    verdict, plan = _part(run.get("verdict")), _part(run.get("plan"))
    metric = _words(verdict.get("metric") or "score")
    models, stages = _models(verdict), _rows(run.get("ledger"))
    scores = _part(_part(verdict.get("model")).get("scores"))
    per_class = _rows(scores.get("per_class"))
    return _template().render(
        task=verdict.get("task") or run.get("name") or "A run",
        verdict=verdict,
        metric=metric,
        headline=_headline(metric, models, _number(verdict.get("test_rows"))),
        models=models,
        tiles=_tiles(verdict, metric),
        outcomes=_outcomes(models),
        differences=_differences(models),
        limits=_limits(verdict),
        costs=_costs(models, metric),
        confusion=_confusion(per_class, _list(scores.get("confusion"))),
        per_class=_by_label(per_class),
        reliability=_reliability(scores),
        even_odds=math.log(max(len(per_class), 1)),
        training=_training(_rows(run.get("metrics"))),
        plan=_pairs(plan),
        data=_data(_part(run.get("text"))),
        mistakes=_rows(run.get("mistakes")),
        ledger=_ledger(stages),
        spent=_spent(stages),
        proof=_rows(run.get("proof")),
        lineage=_lineage(_part(run.get("lock")), _part(verdict.get("data"))),
        unreadable=_list(run.get("unreadable")),
    )


def read_run(folder: Path) -> Json:
    """What `report` shows of a run folder, as plain data.

    A missing file leaves its key out; a damaged one does too and is named under "unreadable".
    """
    run: Json = {"name": folder.resolve().name, "unreadable": []}
    for key, file, read in _PARTS:
        try:
            run[key] = read(folder / file)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError, polars.exceptions.PolarsError):
            run["unreadable"].append(file)
    return run


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def _json_lines(path: Path) -> list[Any]:
    """The objects of a log; a last line that was cut off by a crash is left out."""
    lines = path.read_text("utf-8").splitlines()
    found = [json.loads(line) for line in lines[:-1] if line.strip()]
    try:
        return found + [json.loads(line) for line in lines[-1:]]
    except ValueError:
        return found


def _mistakes(predictions: Path) -> list[Json]:
    """The wrong answers that the model was surest of, with their texts."""
    texts = polars.scan_parquet(predictions.parents[1] / "text" / "test.parquet").select(
        "id", "file", "row", polars.col("input").str.slice(0, LONGEST)
    )
    return (
        polars.scan_parquet(predictions)
        .filter(
            polars.col("model") == "ours", polars.col("answer").ne_missing(polars.col("expected"))
        )
        .with_columns(probability=polars.col("probabilities").list.max())
        .sort("probability", "id", descending=[True, False], nulls_last=True)
        .select("id", "expected", "answer", "probability")
        .head(MISTAKES)
        .join(texts.unique("id"), on="id", how="left", maintain_order="left")
        .collect()
        .to_dicts()
    )


_PARTS: tuple[tuple[str, str, Callable[[Path], Any]], ...] = (
    ("verdict", "judge/verdict.json", _json),
    ("mistakes", "judge/predictions.parquet", _mistakes),
    ("metrics", "train/metrics.jsonl", _json_lines),
    ("plan", "train/plan.json", _json),
    ("text", "text/report.json", _json),
    ("ledger", "ledger.jsonl", ledger.read),
    ("lock", "recipe.lock.json", _json),
    ("proof", "pack/proof.json", _json),
)


# What the sections show. Each returns None or an empty list when there is nothing to show.


def _models(verdict: Json) -> list[Json]:
    """Ours and the rivals that have a score, best first, each with its bar."""
    found = []
    for index, model in enumerate([_part(verdict.get("model")), *_rows(verdict.get("rivals"))]):
        score = _number(model.get("score"))
        if score is not None:
            ends = [_number(model.get(f"score_{end}")) for end in ("low", "high")]
            low, high = (score if end is None else end for end in ends)
            known = {
                "name": str(model.get("name") or "?"),
                "ours": index == 0,
                "outcome": str(model.get("outcome")),
                "score": score,
                "low": low,
                "high": high,
                "bar": charts.score_bar(score, low, high, index == 0),
            }
            found.append({**model, **known})
    return sorted(found, key=lambda model: -model["score"])


def _headline(metric: str, models: Sequence[Json], rows: float | None) -> str:
    """The verdict in a dozen words: the score, and what came of the rivals, losses first."""
    ours = next((model for model in models if model["ours"]), None)
    if ours is None:
        return "This run has no verdict yet: it has not been judged."
    score = _percent(ours["score"])
    said = f"{score} right" if metric == "accuracy" else f"{score} {metric}"
    said += f" on {_count(rows)} unseen rows" if rows else ""
    names = {
        outcome: [model["name"] for model in models if model["outcome"] == outcome]
        for outcome in ("loss", "tie", "win")
    }
    if names["win"] and not names["loss"] + names["tie"]:
        return f"{said}: it beats {_named(names['win'], 'all ')}."
    parts = [f"{WORDS[outcome]} {_named(some)}" for outcome, some in names.items() if some]
    return f"{said}: it {', '.join(parts)}." if parts else f"{said}."


def _named(names: Sequence[str], all_of: str = "") -> str:
    if len(names) > 2:
        return f"{all_of}{len(names)} rivals"
    return " and ".join(_clip(name, 40) for name in names)


def _tiles(verdict: Json, metric: str) -> list[Json]:
    """The big numbers under the sentence."""
    ours = _part(verdict.get("model"))
    low, high = _number(ours.get("score_low")), _number(ours.get("score_high"))
    late = _number(ours.get("latency_p95_ms"))
    limits = {limit["limit"]: limit for limit in _limits(verdict)}
    rows = _number(verdict.get("test_rows"))
    tiles: list[Json] = [
        {
            "name": metric,
            "value": _percent(ours.get("score")),
            "note": f"95% interval {100 * low:.1f} to {_percent(high)}" if low is not None else "",
            "more": f"{_count(rows)} held-out rows" if rows else "",
        },
        {"name": "size on disk", "value": _bytes(ours.get("bytes")), "limit": limits.get("size")},
        {
            "name": "time for an answer",
            "value": _ms(ours.get("latency_p50_ms")),
            "note": f"median; 95% within {_ms(late)}" if late is not None else "median",
            "limit": limits.get("latency"),
        },
        {
            "name": "peak memory",
            "value": _bytes(ours.get("peak_memory_bytes")),
            "limit": limits.get("memory"),
        },
    ]
    return [tile for tile in tiles if tile["value"] != NONE]


def _outcomes(models: Sequence[Json]) -> list[Json]:
    """Each rival with what came of it, the losses first: they matter most."""
    rivals = [model for model in models if model["outcome"] in WORDS]
    return sorted(rivals, key=lambda model: ("loss", "tie", "win").index(model["outcome"]))


def _differences(models: Sequence[Json]) -> list[Json]:
    found = []
    for model in models:
        ends = [_number(model.get(f"difference{end}")) for end in ("", "_low", "_high")]
        values = [value for value in ends if value is not None]
        if model["outcome"] in WORDS and len(values) == 3:
            found.append({**model, "values": values})
    reach = max((abs(value) for model in found for value in model["values"]), default=0.0)
    for model in found:
        difference, low, high = model["values"]
        model["bar"] = charts.difference_bar(difference, low, high, reach, model["outcome"])
    return found


def _limits(verdict: Json) -> list[Json]:
    """The recipe's limits, each with what was measured, in words."""
    return [
        {
            "limit": name,
            "said": LIMITS[name][0],
            "kept": limit.get("kept"),
            "wanted": LIMITS[name][1](limit.get("wanted")),
            "measured": LIMITS[name][1](limit.get("measured")),
        }
        for limit in _rows(verdict.get("limits"))
        if (name := str(limit.get("limit"))) in LIMITS
    ]


def _costs(models: Sequence[Json], metric: str) -> list[Json]:
    """Score against latency and against size, of the models that have both."""
    found = []
    for key, title, write in (
        ("latency_p50_ms", "median time for an answer, log scale", _ms),
        ("bytes", "size on disk, log scale", _bytes),
    ):
        points = [
            charts.Point(m["name"], cost, m["score"], m["low"], m["high"], m["ours"])
            for m in models
            if (cost := _number(m.get(key)) or 0) > 0
        ]
        names = {point.name for point in points}
        if len(points) > 1:
            found.append(
                {
                    "chart": charts.scatter(points, title, metric, write),
                    "missing": [m["name"] for m in models if m["name"] not in names],
                }
            )
    return found


def _confusion(per_class: Sequence[Json], matrix: Sequence[Any]) -> Json | None:
    """The counts (rows expected, columns answered), collapsed when there are many labels."""
    labels = [str(row.get("label")) for row in per_class]
    counts = [[max(int(_number(cell) or 0), 0) for cell in _list(row)] for row in matrix]
    if not labels or len(counts) != len(labels) or any(len(r) != len(labels) for r in counts):
        return None
    wrong = ((n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if i != j and n)
    pairs = [
        {"expected": labels[i], "answered": labels[j], "count": n, "of": sum(counts[i])}
        for n, i, j in heapq.nlargest(PAIRS, wrong)
    ]
    groups, names = [[i] for i in range(len(labels))], labels
    if len(labels) > CELLS:
        order = sorted(groups, key=lambda group: -sum(counts[group[0]]))
        rest = [i for group in order[CELLS:] for i in group]
        groups = [*order[:CELLS], rest]
        names = [*(labels[i] for (i,) in order[:CELLS]), f"{len(rest)} others"]
    shown = [
        [sum(counts[i][j] for i in down for j in across) for across in groups] for down in groups
    ]
    return {
        "labels": names,
        "rows": [
            {"label": name, "cells": _cells(row, i, names, len(groups[i]) > 1)}
            for i, (name, row) in enumerate(zip(names, shown, strict=True))
        ],
        "collapsed": len(labels) if len(labels) > CELLS else 0,
        "pairs": pairs if len(labels) > 4 else [],
    }


def _cells(row: Sequence[int], own: int, names: Sequence[str], mixed: bool) -> list[Json]:
    """A row of the matrix; in the row of the other labels right and wrong are mixed."""
    total = max(sum(row), 1)
    return [
        {
            "count": n,
            "share": f"{n / total:.0%}",
            "tint": 0 if mixed else round(math.sqrt(n / total), 2),  # the root shows small shares
            "right": j == own,
            "said": f"answered {names[j]}: {n} of {total}",
        }
        for j, n in enumerate(row)
    ]


def _by_label(per_class: Sequence[Json]) -> list[Json]:
    rows = [
        {**row, "bar": charts.share_bar(_number(row.get("f1")) or 0, ours=True)}
        for row in per_class
    ]
    return sorted(rows, key=lambda row: -(_number(row.get("support")) or 0))


def _reliability(scores: Json) -> Json | None:
    """Bins with rows in them."""
    bins = [
        (said, right, int(count))
        for one in _rows(scores.get("reliability"))
        if (said := _number(one.get("confidence"))) is not None
        and (right := _number(one.get("accuracy"))) is not None
        and (count := _number(one.get("rows")) or 0) > 0
    ]
    return {"chart": charts.reliability(bins), **scores} if bins else None


def _training(metrics: Sequence[Json]) -> Json | None:
    """The curves: loss in one chart, validation score in the other, the kept checkpoint marked."""
    raw = _curve(metrics, "loss")
    val_loss, val_score = _curve(metrics, "val_loss"), _curve(metrics, "val_score")
    losses = dict(val_loss)  # of two equal scores the one with less loss is kept
    chosen = max(val_score, key=lambda p: (p[1], -losses.get(p[0], 0.0)), default=None)
    smooth = _smooth(raw)
    lines = [
        charts.Line("training, each step", "faint", _thin(raw)),
        charts.Line("training, smoothed", "theirs", _thin(smooth)),
        charts.Line("validation", "ours", _thin(val_loss)),
    ]
    lines = [line for line in lines if len(line.points) > 1]
    found: Json = {"lines": lines, "charts": []}
    if lines:
        ys = [y for _, y in [*smooth, *val_loss]]
        band = (min(0.0, *ys), max(ys)) if ys else None
        found["charts"].append(charts.curves(lines, "step", "loss", band=band))
    if len(val_score) > 1:
        line = charts.Line("validation", "ours", _thin(val_score))
        found["charts"].append(charts.curves([line], "step", "validation score", chosen))
    seconds = [s for row in metrics if (s := _number(row.get("seconds"))) is not None]
    examples = [n for row in metrics if (n := _number(row.get("examples_seen"))) is not None]
    found["seconds"] = max(seconds, default=None)
    found["examples"] = max(examples, default=None)
    return found if found["charts"] else None


def _curve(metrics: Sequence[Json], key: str) -> list[tuple[float, float]]:
    points = [(_number(row.get("step")), _number(row.get(key))) for row in metrics]
    return sorted((x, y) for x, y in points if x is not None and y is not None)


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A running mean; it starts as the mean of what there is, not of zeros."""
    keep = 1 - min(1.0, SMOOTH / max(len(points), 1))
    total = weight = 0.0
    smooth = []
    for x, y in points:
        total, weight = keep * total + y, keep * weight + 1
        smooth.append((x, total / weight))
    return smooth


def _thin(points: Sequence[tuple[float, float]], most: int = 300) -> list[tuple[float, float]]:
    """At most about so many of the points, the last one always."""
    step = math.ceil(len(points) / most) or 1
    return [*points[:-1:step], *points[-1:]]


def _ledger(stages: Sequence[Json]) -> list[Json]:
    longest = max((_number(stage.get("wall_seconds")) or 0 for stage in stages), default=0)
    return [
        {
            **stage,
            "bar": charts.share_bar((_number(stage.get("wall_seconds")) or 0) / (longest or 1)),
        }
        for stage in stages
    ]


def _spent(stages: Sequence[Json]) -> Json:
    """The whole of the ledger: sums, and the largest memory."""

    def numbers(key: str) -> list[float]:
        return [value for stage in stages if (value := _number(stage.get(key))) is not None]

    return {
        "wall": sum(numbers("wall_seconds")),
        "cpu": sum(numbers("cpu_seconds")),
        "memory": max(numbers("peak_memory_bytes"), default=None),
        "tokens": sum(numbers("tokens")),
        "predicted": sum(numbers("predicted_seconds")),
    }


def _data(report: Json) -> Json | None:
    """text/report.json: rows per split, labels per split, what was dropped and why."""
    splits = {name: _part(split) for name, split in _part(report.get("splits")).items()}
    files = [str(file.get("file")) for file in _rows(report.get("files"))]
    fates = [
        (name, _use(name, split), _number(split.get("rows"))) for name, split in splits.items()
    ]
    fates += [
        ("dropped", _words(row.get("reason")), _number(row.get("rows")))
        for row in _rows(report.get("dropped"))
    ]
    read = _number(report.get("rows_read"))
    whole = read or sum(rows or 0 for _, _, rows in fates) or 1
    labels = {name: _part(split.get("labels")) for name, split in splits.items()}
    counts = {
        label: [_number(split.get(label)) or 0.0 for split in labels.values()]
        for label in dict.fromkeys(label for split in labels.values() for label in split)
    }
    most = max((sum(row) for row in counts.values()), default=0) or 1
    lengths = {unit: _part(points) for unit, points in _part(report.get("lengths")).items()}
    found = {
        "read": read,
        "files": _clip(files[0], 80) if len(files) == 1 else f"{len(files)} files" if files else "",
        "fates": [
            {"name": name, "why": why, "rows": n, "bar": charts.share_bar((n or 0) / whole)}
            for name, why, n in fates
        ],
        "splits": list(splits),
        "labels": [
            {"label": label, "counts": row, "bar": charts.share_bar(sum(row) / most)}
            for label, row in sorted(counts.items(), key=lambda item: -sum(item[1]))
        ],
        "points": list(dict.fromkeys(point for points in lengths.values() for point in points)),
        "lengths": lengths,
        "notes": [*_data_notes(report), *map(str, _list(report.get("warnings")))],
    }
    return found if any(found.values()) else None


def _use(split: str, of_it: Json) -> str:
    groups = _number(of_it.get("groups"))
    return USES.get(split, "") + (f", in {_count(groups)} groups" if groups else "")


def _data_notes(report: Json) -> list[str]:
    """What was done to labels that contradict each other or are written in several ways."""
    notes = []
    contradictions = _part(report.get("contradictions"))
    if texts := _number(contradictions.get("texts")):
        rule = contradictions.get("rule")
        notes.append(f"{_count(texts)} texts had more than one label; the rule for them: {rule}")
    if merged := _part(report.get("merged_labels")):
        shown = ", ".join(f'"{one}" as "{other}"' for one, other in list(merged.items())[:10])
        notes.append(f"labels read as one: {shown}" + (" and more" if len(merged) > 10 else ""))
    return notes


def _lineage(lock: Json, data: Json) -> Json | None:
    """The lock as it stands: records by name as tables, all else as pairs."""
    tables, rest = [], {}
    for name, value in lock.items():
        records = _part(value)
        if records and all(isinstance(record, dict) for record in records.values()):
            columns = list(dict.fromkeys(key for record in records.values() for key in record))
            rows = [
                [key, *(_value(column, record.get(column)) for column in columns)]
                for key, record in records.items()
            ]
            tables.append({"name": name, "columns": ["name", *columns], "rows": rows})
        elif name != "plan":  # the section on training shows it
            rest[name] = value
    pairs = _pairs(rest) + _pairs({"data": data})
    return {"tables": tables, "pairs": pairs} if tables or pairs else None


def _pairs(part: Json, before: str = "") -> list[tuple[str, str]]:
    """Nested records as (name, value) lines: {"base": {"seed": 1}} is ("base seed", "1")."""
    found = []
    for key, value in part.items():
        if isinstance(value, dict):
            found += _pairs(value, f"{before}{key} ")
        elif value is not None:
            found.append((before + key, _value(key, value)))
    return found


def _value(key: str, value: object) -> str:
    """One value of a record whose keys are not known beforehand."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_value(key, one) for one in value)
    if isinstance(value, int) and key.endswith(("bytes", "size")) and key != "batch_size":
        return _bytes(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


# Numbers and names in words.


def _percent(value: object) -> str:
    return NONE if (number := _number(value)) is None else f"{100 * number:.1f}%"


def _points(value: object) -> str:
    """A difference of two shares in percentage points, always with its sign."""
    return NONE if (number := _number(value)) is None else f"{100 * number:+.1f}".replace("-", "−")


def _decimals(value: object, places: int = 2) -> str:
    return NONE if (number := _number(value)) is None else f"{number:.{places}f}"


def _p_value(value: object) -> str:
    number = _number(value)
    return NONE if number is None else "< 0.001" if number < 0.001 else f"{number:.3f}"


def _count(value: object) -> str:
    return NONE if (number := _number(value)) is None else f"{number:,.0f}"


def _bytes(value: object) -> str:
    """145 MB and the like, in powers of a thousand."""
    number = _number(value)
    if number is None or number <= 0:
        return NONE
    for scale, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= scale * 0.9995:
            return f"{_figures(number / scale)} {unit}"
    return f"{number:.0f} B"


def _ms(value: object) -> str:
    number = _number(value)
    if number is None or number < 0:
        return NONE
    return f"{_figures(number / 1000)} s" if number >= 999.5 else f"{_figures(number)} ms"


def _seconds(value: object) -> str:
    number = _number(value)
    if number is None or number < 0:
        return NONE
    if number < 60:
        return f"{_figures(number)} s"
    minutes, seconds = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _figures(value: object) -> str:
    """Three figures, and no exponent."""
    if (number := _number(value)) is None:
        return NONE
    digits = 0 if number >= 99.95 else 1 if number >= 9.995 else 2
    text = f"{number:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# The limits of a recipe: in words, and how their figures are written.
LIMITS: dict[str, tuple[str, Callable[[object], str]]] = {
    "size": ("size on disk", _bytes),
    "latency": ("time for 95% of the answers", _ms),
    "memory": ("peak memory", _bytes),
}


def _words(name: object) -> str:
    return str(name).replace("_", " ").replace("f1", "F1")


def _clip(value: object, most: int) -> str:
    text = NONE if value is None else str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


# Data from outside.


def _number(value: object) -> float | None:
    """A number that can be a measurement, or None for anything else (NaN is out of the range)."""
    if isinstance(value, int | float) and not isinstance(value, bool) and -LARGE < value < LARGE:
        return float(value)
    return None


def _part(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _rows(value: object) -> list[Json]:
    return [row for row in _list(value) if isinstance(row, dict)]


# Characters that are not seen or that turn the text around them: controls (but not tab and line
# ends), soft hyphen, zero-width and direction marks, surrogates, tags.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\uffff\U000e0000-\U000e0fff]"
)


def _is_hash(value: str) -> bool:
    return re.fullmatch("[0-9a-f]{40,}", value) is not None


def _plain(value: Any) -> Any:
    """The same data with every text cut to LONGEST and its unseen characters made visible."""
    if isinstance(value, str):
        text = value if len(value) <= LONGEST else value[:LONGEST] + "…"
        return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)
    if isinstance(value, dict):
        return {_plain(str(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,
    )
    environment.filters.update(
        bytes=_bytes,
        clip=_clip,
        count=_count,
        decimals=_decimals,
        figures=_figures,
        ms=_ms,
        p_value=_p_value,
        percent=_percent,
        points=_points,
        seconds=_seconds,
        value=functools.partial(_value, ""),
        words=_words,
    )
    environment.tests["hash"] = _is_hash
    environment.globals.update(WORDS=WORDS, QUANTILES=QUANTILES, score_axis=charts.score_axis)
    source = files("bantam.judge").joinpath("report.html.jinja").read_text("utf-8")
    return environment.from_string(source)
