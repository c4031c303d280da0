"""What the page shows of how the model was made: training, data, cost, lineage.

Each function returns None or an empty list when there is nothing to show.
"""

import math
from collections.abc import Sequence

from bantam.page import charts, loose, words
from bantam.page.loose import Json

USES = {"train": "to learn from", "val": "to choose with", "test": "to judge with"}
SMOOTH = 40  # the training loss is averaged over a window of 1/SMOOTH of the run


def training(metrics: Sequence[Json]) -> Json | None:
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
    seconds = [s for row in metrics if (s := loose.number(row.get("seconds"))) is not None]
    examples = [n for row in metrics if (n := loose.number(row.get("examples_seen"))) is not None]
    found["seconds"] = max(seconds, default=None)
    found["examples"] = max(examples, default=None)
    return found if found["charts"] else None


def _curve(metrics: Sequence[Json], key: str) -> list[tuple[float, float]]:
    points = [(loose.number(row.get("step")), loose.number(row.get(key))) for row in metrics]
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


def ledger(stages: Sequence[Json]) -> list[Json]:
    longest = max((loose.number(stage.get("wall_seconds")) or 0 for stage in stages), default=0)
    return [
        {
            **stage,
            "bar": charts.share_bar(
                (loose.number(stage.get("wall_seconds")) or 0) / (longest or 1)
            ),
        }
        for stage in stages
    ]


def spent(stages: Sequence[Json]) -> Json:
    """The whole of the ledger: sums, and the largest memory."""

    def numbers(key: str) -> list[float]:
        return [value for stage in stages if (value := loose.number(stage.get(key))) is not None]

    return {
        "wall": sum(numbers("wall_seconds")),
        "cpu": sum(numbers("cpu_seconds")),
        "memory": max(numbers("peak_memory_bytes"), default=None),
        "tokens": sum(numbers("tokens")),
        "predicted": sum(numbers("predicted_seconds")),
    }


def data(report: Json, lock: Json) -> Json | None:
    """text/report.json: rows per split, labels per split, what was dropped and why; warnings, also
    those of the lock."""
    warnings = loose.items(report.get("warnings")) + loose.items(lock.get("warnings"))
    splits = {name: loose.part(split) for name, split in loose.part(report.get("splits")).items()}
    files = [str(file.get("file")) for file in loose.rows(report.get("files"))]
    fates = [
        (name, _use(name, split), loose.number(split.get("rows"))) for name, split in splits.items()
    ]
    fates += [
        ("dropped", words.spaced(row.get("reason")), loose.number(row.get("rows")))
        for row in loose.rows(report.get("dropped"))
    ]
    read = loose.number(report.get("rows_read"))
    whole = read or sum(rows or 0 for _, _, rows in fates) or 1
    labels = {name: loose.part(split.get("labels")) for name, split in splits.items()}
    counts = {
        label: [loose.number(split.get(label)) or 0.0 for split in labels.values()]
        for label in dict.fromkeys(label for split in labels.values() for label in split)
    }
    most = max((sum(row) for row in counts.values()), default=0) or 1
    lengths = {
        unit: loose.part(points) for unit, points in loose.part(report.get("lengths")).items()
    }
    found = {
        "read": read,
        "files": words.clip(files[0], 80)
        if len(files) == 1
        else f"{len(files)} files"
        if files
        else "",
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
        "near": bool(loose.part(report.get("near_copies"))),
        "notes": [*_data_notes(report), *map(str, warnings)],
    }
    return found if report and any(found.values()) else None


def _use(split: str, of_it: Json) -> str:
    groups = loose.number(of_it.get("groups"))
    return USES.get(split, "") + (f", in {words.count(groups)} groups" if groups else "")


def _data_notes(report: Json) -> list[str]:
    """What was done to labels that contradict each other or are written in several ways."""
    notes = []
    if counts := loose.part(report.get("labels_a_row")):
        told = "; ".join(f"{words.count(rows)} with {count}" for count, rows in counts.items())
        notes.append(f"rows by how many labels they have: {told}")
    contradictions = loose.part(report.get("contradictions"))
    if texts := loose.number(contradictions.get("texts")):
        rule = contradictions.get("rule")
        what = "set of labels" if counts else "label"
        notes.append(
            f"{words.count(texts)} texts had more than one {what}; the rule for them: {rule}"
        )
    near = loose.part(report.get("near_copies"))
    if clusters := loose.number(near.get("clusters")):
        notes.append(
            f"near copies kept on one side of the split: {words.count(near.get('rows'))} rows in "
            f"{words.count(clusters)} clusters, at most {words.count(near.get('largest'))} in one"
        )
    for split, dates in loose.part(report.get("dates")).items():
        oldest, newest = (loose.items(dates) + [None] * 2)[:2]
        notes.append(f"rows of {split}: from {oldest} to {newest}")
    if mended := loose.part(report.get("mended")):
        notes.append(
            f"mended by hand: {words.count(mended.get('changed'))} rows got another label, "
            f"{words.count(mended.get('dropped'))} were dropped"
        )
    if merged := loose.part(report.get("merged_labels")):
        shown = ", ".join(f'"{one}" as "{other}"' for one, other in list(merged.items())[:10])
        notes.append(f"labels read as one: {shown}" + (" and more" if len(merged) > 10 else ""))
    return notes


def labels(report: Json) -> Json | None:
    """text/report.json, "label_check": the labels that may be wrong, and those that look alike."""
    check = loose.part(report.get("label_check"))
    reasons = loose.rows(check.get("suspects"))
    shown = [
        {**suspect, "reason": reason.get("reason")}
        for reason in reasons
        for suspect in loose.rows(reason.get("shown"))
    ]
    pairs = []
    for pair in loose.rows(check.get("alike")):
        names, taken = loose.items(pair.get("labels")), loose.items(pair.get("taken_for_the_other"))
        rows = loose.items(pair.get("rows"))
        if len(names) == len(taken) == len(rows) == 2:
            shares = [
                (loose.number(count) or 0) / (loose.number(of) or 1)
                for count, of in zip(taken, rows, strict=True)
            ]
            pairs.append({"labels": names, "shares": shares})
    found = {
        "rows": loose.number(check.get("rows")),
        "agrees": loose.number(check.get("agrees")),
        "reasons": reasons,
        "shown": shown,
        "alike": pairs,
    }
    return found if reasons or pairs else None


def lineage(lock: Json, data: Json) -> Json | None:
    """The lock as it stands: records by name as tables, all else as pairs."""
    tables, rest = [], {}
    for name, value in lock.items():
        records = loose.part(value)
        if records and all(isinstance(record, dict) for record in records.values()):
            columns = list(dict.fromkeys(key for record in records.values() for key in record))
            rows = [
                [key, *(words.field(column, record.get(column)) for column in columns)]
                for key, record in records.items()
            ]
            tables.append({"name": name, "columns": ["name", *columns], "rows": rows})
        elif name not in ("plan", "warnings"):  # the sections on training and data show them
            rest[name] = value
    found = pairs(rest) + pairs({"data": data})
    return {"tables": tables, "pairs": found} if tables or found else None


def pairs(part: Json, before: str = "") -> list[tuple[str, str]]:
    """Nested records as (name, value) lines: {"base": {"seed": 1}} is ("base seed", "1")."""
    found = []
    for key, value in part.items():
        if isinstance(value, dict):
            found += pairs(value, f"{before}{key} ")
        elif value is not None:
            found.append((before + key, words.field(key, value)))
    return found
