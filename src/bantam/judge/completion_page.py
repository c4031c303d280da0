"""report.html and the model card of a model that completes text, from what its run folder holds."""

import functools
from importlib.resources import files
from typing import Any

import jinja2

from bantam import ledger, licences
from bantam.judge import report, report_run, report_verdict
from bantam.judge.report import Parts, lines_of, object_of
from bantam.page import charts, loose, template
from bantam.page.loose import Json

SHOWN = 12  # samples, the last ones first
SHAPE = {
    "n_layers": "layers",
    "width": "width",
    "hidden_width": "width within the MLP",
    "n_heads": "heads",
    "n_kv_heads": "heads of keys and values",
    "head_size": "width of a head",
    "vocab_size": "vocabulary",
    "context": "context, tokens",
}
_PARTS: Parts = (
    ("verdict", "judge/verdict.json", object_of),
    ("metrics", "train/metrics.jsonl", lines_of),
    ("samples", "train/samples.jsonl", lines_of),
    ("plan", "train/plan.json", object_of),
    ("tokens", "tokens/tokens.json", object_of),
    ("ledger", "ledger.jsonl", ledger.read),
    ("lock", "recipe.lock.json", object_of),
    ("proof", "pack/proof.json", object_of),
)
read_run = functools.partial(report.read_run, parts=_PARTS)


def page(run: Json) -> str:
    """The page as HTML text; any part of the run may be missing."""
    run = loose.cleaned(run)
    verdict = loose.part(run.get("verdict"))
    model, rivals = loose.part(verdict.get("model")), loose.rows(verdict.get("rivals"))
    systems = sorted([model, *rivals], key=lambda one: loose.number(one.get("score")) or 0.0)
    worst = max((loose.number(one.get("score_high")) or 0.0 for one in systems), default=0.0)
    bars = [
        {
            **one,
            "ours": one is model,
            "bar": charts.share_bar(
                (loose.number(one.get("score")) or 0.0) / (worst or 1), one is model
            ),
        }
        for one in systems
        if loose.number(one.get("score")) is not None
    ]
    metrics, stages = loose.rows(run.get("metrics")), loose.rows(run.get("ledger"))
    last = metrics[-1] if metrics else {}
    return _template().render(
        task=verdict.get("task") or run.get("name") or "A run",
        verdict=verdict,
        model=model,
        systems=bars,
        rivals=rivals,
        words=report_verdict.OUTCOMES,
        training=report_run.training(metrics),
        learned=_learned(metrics),
        last=last,
        samples=loose.rows(run.get("samples"))[::-1][:SHOWN],
        plan=report_run.pairs(loose.part(run.get("plan"))),
        shape=_shape(loose.part(loose.part(run.get("lock")).get("shape"))),
        tokens=report_run.pairs(loose.part(run.get("tokens"))),
        ledger=report_run.ledger(stages),
        spent=report_run.spent(stages),
        proof=loose.rows(run.get("proof")),
        unreadable=loose.items(run.get("unreadable")),
    )


def _shape(shape: Json) -> list[tuple[str, str]]:
    """What people ask of a shape; the rest of it stands in the lock."""
    counts = ((name, loose.number(shape.get(key))) for key, name in SHAPE.items())
    return [(name, f"{count:,.0f}") for name, count in counts if count is not None]


def _learned(metrics: list[Json]) -> Any:
    """The curve of bits per byte, if there is one."""
    points = [
        (step, bits)
        for row in metrics
        if (step := loose.number(row.get("step"))) is not None
        and (bits := loose.number(row.get("bits_per_byte"))) is not None
    ]
    if len(points) < 2:
        return None
    chosen = min(points, key=lambda point: point[1])
    return charts.curves([charts.Line("held out", "ours", points)], "step", "bits per byte", chosen)


def card(run: Json) -> str:
    """Markdown: scores, data, how it was made, limits of use."""
    verdict, plan = loose.part(run.get("verdict")), loose.part(run.get("plan"))
    tokens, name = loose.part(run.get("tokens")), run["name"]
    lines = [f"# {verdict.get('task', name)}", ""]
    if verdict:
        lines += [verdict["sentence"], "", "| model | bits per byte | 95% interval | against it |"]
        lines += ["|---|---|---|---|"]
        lines += [
            f"| {_cell(one['name'])} | {one['score']:.3f} | {one['score_low']:.3f} to "
            f"{one['score_high']:.3f} | {one.get('outcome', '')} |"
            for one in (verdict["model"], *verdict["rivals"])
        ]
        lines.append("")
    lines += ["## Use", "", "```", f'bantam run {name} "the beginning of a text"', "```", ""]
    lines += ["It also loads in transformers (`model/`) and in all that runs GGUF (`pack/`).", ""]
    if plan and tokens:
        read = plan["steps"] * plan["rows"] * plan["context"]
        bases = loose.part(loose.part(run.get("lock")).get("base"))
        base = "".join(bases)
        how = f"`{_cell(base)}` went on reading, by LoRA," if base else "Trained from scratch on"
        lines += [
            "## Made from",
            "",
            f"{how} {tokens['documents']:,} documents of {tokens['bytes']:,} "
            f"bytes ({tokens['tokens']:,} tokens of a vocabulary of {tokens['vocabulary']:,}): "
            f"{plan['steps']:,} steps, {read:,} tokens, seed {plan['seed']}.",
            "",
        ]
        lines += [
            f"Licence of `{_cell(one)}`: {_cell(licences.told(loose.part(told).get('licence')))}.\n"
            for one, told in bases.items()
        ]
    lines += [
        "## Limits",
        "",
        "The model goes on with a text as its documents might. It knows nothing else, follows no "
        "instructions, and what it writes need not be true. It may repeat what stands in its "
        "documents word by word. The scores hold for documents like those that were held out.",
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


@functools.cache
def _template() -> jinja2.Template:
    source = files("bantam.judge").joinpath("completion.html.jinja").read_text("utf-8")
    return template.environment().from_string(source)
