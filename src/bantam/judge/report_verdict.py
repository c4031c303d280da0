"""What the page shows of a verdict: the score, the rivals, where the model is right and wrong.

Each function returns None or an empty list when there is nothing to show.
"""

import heapq
import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from bantam.judge.verdict import OURS
from bantam.kinds import several
from bantam.page import charts, loose, words
from bantam.page.loose import Json

PAIRS = 10  # how many of the pairs most often confused
CELLS = 20  # labels in the confusion matrix, and in the first part of the table per label
METRICS = {"exact_match": "exactly right", "call_match": "calls right", "chrf": "chrF"}
# What else is told of written answers, by the metric that they are judged by.
BESIDE = {
    "exact_match": ("precision", "recall", "f1", "span_f1"),
    "call_match": ("function_match", "called_match", "none_match"),
    "chrf": ("exact_match", "bleu", "rouge1", "rougeL", "length_ratio", "copied", "invented"),
}
OUTCOMES = {"win": "beats", "tie": "ties with", "loss": "loses to"}


def named(metric: object) -> str:
    """A metric as people read it."""
    return METRICS.get(str(metric)) or words.spaced(metric or "score")


def beside(metric: object, models: Sequence[Json]) -> Json | None:
    """What else the scores of written answers say: its names, and a row a model."""
    names = BESIDE.get(str(metric), ())
    rows = [
        {**model, "values": [loose.number(loose.part(model.get("scores")).get(n)) for n in names]}
        for model in models
    ]
    known = [at for at in range(len(names)) if any(row["values"][at] is not None for row in rows)]
    if not known:
        return None
    shown = [row | {"values": [row["values"][at] for at in known]} for row in rows]
    free = next(
        (loose.part(m.get("scores")).get("parsed_freely") for m in models if m["ours"]), None
    )
    return {
        "names": [words.spaced(names[at]).replace("f1", "F1") for at in known],
        "rows": shown,
        "free": loose.number(free),
    }


def models(verdict: Json) -> list[Json]:
    """Ours and the rivals that have a score, best first, each with its bar."""
    found = []
    for index, model in enumerate(
        [loose.part(verdict.get("model")), *loose.rows(verdict.get("rivals"))]
    ):
        score = loose.number(model.get("score"))
        if score is not None:
            ends = [loose.number(model.get(f"score_{end}")) for end in ("low", "high")]
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


def headline(metric: str, models: Sequence[Json], rows: float | None) -> str:
    """The verdict in a dozen words: the score, and what came of the rivals, losses first."""
    ours = next((model for model in models if model["ours"]), None)
    if ours is None:
        return "This run has no verdict yet: it has not been judged."
    score = words.percent(ours["score"])
    multi = loose.number(loose.part(ours.get("scores")).get("micro_f1")) is not None
    right = "with every label right" if multi else "right"
    said = f"{score} {right}" if metric == "accuracy" else f"{score} {metric}"
    said += f" on {words.count(rows)} unseen rows" if rows else ""
    names = {
        outcome: [model["name"] for model in models if model["outcome"] == outcome]
        for outcome in ("loss", "tie", "win")
    }
    if names["win"] and not names["loss"] + names["tie"]:
        return f"{said}: it beats {_named(names['win'], 'all ')}."
    parts = [f"{OUTCOMES[outcome]} {_named(some)}" for outcome, some in names.items() if some]
    return f"{said}: it {', '.join(parts)}." if parts else f"{said}."


def _named(names: Sequence[str], all_of: str = "") -> str:
    if len(names) > 2:
        return f"{all_of}{len(names)} rivals"
    return " and ".join(words.clip(name, 40) for name in names)


def tiles(verdict: Json, metric: str) -> list[Json]:
    """The big numbers under the sentence."""
    ours = loose.part(verdict.get("model"))
    low, high = loose.number(ours.get("score_low")), loose.number(ours.get("score_high"))
    late = loose.number(ours.get("latency_p95_ms"))
    wanted = {limit["limit"]: limit for limit in limits(verdict)}
    rows = loose.number(verdict.get("test_rows"))
    tiles: list[Json] = [
        {
            "name": metric,
            "value": words.percent(ours.get("score")),
            "note": f"95% interval {100 * low:.1f} to {words.percent(high)}"
            if low is not None
            else "",
            "more": f"{words.count(rows)} held-out rows" if rows else "",
        },
        {
            "name": "size on disk",
            "value": words.size(ours.get("bytes")),
            "limit": wanted.get("size"),
        },
        {
            "name": "time for an answer",
            "value": words.milliseconds(ours.get("latency_p50_ms")),
            "note": f"median; 95% within {words.milliseconds(late)}"
            if late is not None
            else "median",
            "limit": wanted.get("latency"),
        },
        {
            "name": "peak memory",
            "value": words.size(ours.get("peak_memory_bytes")),
            "limit": wanted.get("memory"),
        },
    ]
    scores = loose.part(ours.get("scores"))
    if loose.number(scores.get("micro_f1")) is not None:
        tiles[0] |= {"name": "whole set right", "more": ""}
        f1 = {
            "name": "micro F1 of the labels",
            "value": words.decimals(scores.get("micro_f1"), 3),
            "note": f"macro F1 {words.decimals(scores.get('macro_f1'), 3)}",
            "more": "every label counts alike in macro F1",
        }
        tiles.insert(1, f1)
    return [tile for tile in tiles if tile["value"] != words.NONE]


def outcomes(models: Sequence[Json]) -> list[Json]:
    """Each rival with what came of it, the losses first: they matter most."""
    rivals = [model for model in models if model["outcome"] in OUTCOMES]
    return sorted(rivals, key=lambda model: ("loss", "tie", "win").index(model["outcome"]))


def differences(models: Sequence[Json]) -> list[Json]:
    found = []
    for model in models:
        ends = [loose.number(model.get(f"difference{end}")) for end in ("", "_low", "_high")]
        values = [value for value in ends if value is not None]
        if model["outcome"] in OUTCOMES and len(values) == 3:
            found.append({**model, "values": values})
    reach = max((abs(value) for model in found for value in model["values"]), default=0.0)
    for model in found:
        difference, low, high = model["values"]
        model["bar"] = charts.difference_bar(difference, low, high, reach, model["outcome"])
    return found


def limits(verdict: Json) -> list[Json]:
    """The recipe's limits, each with what was measured, in words."""
    return [
        {
            "limit": name,
            "said": words.LIMITS[name][0],
            "kept": limit.get("kept"),
            "wanted": words.LIMITS[name][1](limit.get("wanted")),
            "measured": words.LIMITS[name][1](limit.get("measured")),
        }
        for limit in loose.rows(verdict.get("limits"))
        if (name := str(limit.get("limit"))) in words.LIMITS
    ]


def costs(models: Sequence[Json], metric: str) -> list[Json]:
    """Score against latency and against size, of the models that have both."""
    found = []
    for key, title, write in (
        ("latency_p50_ms", "median time for an answer, log scale", words.milliseconds),
        ("bytes", "size on disk, log scale", words.size),
    ):
        points = [
            charts.Point(m["name"], cost, m["score"], m["low"], m["high"], m["ours"])
            for m in models
            if (cost := loose.number(m.get(key)) or 0) > 0
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


def confusion(per_class: Sequence[Json], matrix: Sequence[Any]) -> Json | None:
    """The counts (rows expected, columns answered), collapsed when there are many labels."""
    labels = [str(row.get("label")) for row in per_class]
    counts = [[max(int(loose.number(cell) or 0), 0) for cell in loose.items(row)] for row in matrix]
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


def by_label(per_class: Sequence[Json]) -> list[Json]:
    rows = [
        {**row, "bar": charts.share_bar(loose.number(row.get("f1")) or 0, ours=True)}
        for row in per_class
    ]
    return sorted(rows, key=lambda row: -(loose.number(row.get("support")) or 0))


def reliability(scores: Json, multi: bool) -> Json | None:
    """Bins with rows in them; of each label's probability if a text may have several."""
    bins = [
        (said, right, int(count))
        for one in loose.rows(scores.get("reliability"))
        if (said := loose.number(one.get("confidence"))) is not None
        and (right := loose.number(one.get("accuracy"))) is not None
        and (count := loose.number(one.get("rows")) or 0) > 0
    ]
    axes = ("probability of a label", "share of rows that it applies to") if multi else ()
    return {"chart": charts.reliability(bins, *axes), **scores} if bins else None


def coverage(models: Sequence[Json], sure: Json) -> Markup | None:
    """How many of the surest answers are right, of every model; ours is drawn last, on top."""
    lines = [
        charts.Line(name, "ours" if name == OURS else "theirs", points)
        for model in models
        if (points := _shares(model.get("points"))) and (name := str(model.get("name")))
    ]
    if all(len(line.points) < 2 for line in lines):
        return None
    used = _shares([[sure.get("share"), sure.get("right")]])
    return charts.coverage(sorted(lines, key=lambda line: line.name == OURS), *used)


def _shares(points: object) -> list[tuple[float, float]]:
    """The points whose places are both shares."""
    found = []
    for point in map(loose.items, loose.items(points)):
        place = [x for part in point if (x := loose.number(part)) is not None and 0 <= x <= 1]
        if len(place) == 2 == len(point):
            found.append((place[0], place[1]))
    return found


def mistakes(rows: Sequence[Json], multi: bool) -> list[Json]:
    """The wrong answers; sets of labels as people write them."""
    if not multi:
        return list(rows)
    return [row | {key: _written(row.get(key)) for key in ("expected", "answer")} for row in rows]


def _written(labels: object) -> str:
    return str(labels).replace(several.SEPARATOR, ", ") if labels else "no label"
