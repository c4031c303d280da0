"""The model card: README.md of a run, from the same plain data as the report."""

from typing import Any


def card(run: dict[str, Any]) -> str:
    """Markdown with data, base, licences, scores and limits of use; what is missing is left out."""
    verdict, lock = run.get("verdict") or {}, run.get("lock") or {}
    text, plan = run.get("text") or {}, run.get("plan") or {}
    multi = bool(verdict) and verdict["model"]["scores"].get("micro_f1") is not None
    kind = verdict.get("kind", "classify")
    lines = [f"# {verdict.get('task', run['name'])}", ""]
    if verdict:
        lines += [verdict["sentence"], "", *_scores(verdict), ""]
    lines += ["## Use", "", "```", f'bantam run {run["name"]} "a text"', "```", ""]
    if sources := lock.get("sources"):
        lines += [
            "## Made from",
            "",
            "| source | what was taken | licence | sha256 |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {_cell(name)} | {_cell(s['origin'])} | {_cell(s['licence'] or 'not stated')} "
            f"| `{s['sha256'][:16]}` |"
            for name, s in sources.items()
        ]
        lines.append("")
    if plan:
        lines += [
            f"Tuned by {plan['method']}: {plan['steps']} steps of {plan['batch_size']} examples, "
            f"seed {plan['seed']}.",
            "",
        ]
    lines += [
        "## Limits",
        "",
        f"The scores hold for texts like those of the {verdict.get('test_rows', '')} test rows, "
        f"which were held out and scored once. {_answers(kind, multi)}",
        "",
    ]
    if sure := verdict.get("sure"):
        lines += [
            f"Of the answers that it marks as sure {100 * sure['wanted']:g}% should be right; "
            "what it is unsure of is for a person.",
            "",
        ]
    lines += [
        f"- {_cell(warning)}" for warning in (*text.get("warnings", []), *lock.get("warnings", []))
    ]
    return "\n".join(lines).rstrip() + "\n"


def _answers(kind: str, multi: bool) -> str:
    if kind == "extract":
        return (
            "The model's JSON always follows its schema; that its values are right is what the "
            "scores tell. A text that has none of them gets an answer too."
        )
    if kind == "generate":
        return "The model writes what looks like its examples; it may write what is not so."
    which = "those of its labels that it finds to apply" if multi else "one of its labels"
    return (
        f"The model answers every text with {which}, also a text that has nothing to do with them."
    )


def _scores(verdict: dict[str, Any]) -> list[str]:
    multi = verdict["model"]["scores"].get("micro_f1") is not None
    rows = [
        f"| model | {_metric(verdict)} {'| micro F1 | macro F1 ' if multi else ''}"
        "| 95% interval | p50 ms | MB | against it |",
        f"|---|---{'|---|---' if multi else ''}|---|---|---|---|",
    ]
    for system in (verdict["model"], *verdict["rivals"]):
        latency, size = system["latency_p50_ms"], system["bytes"]
        against = (
            f"{system['outcome']}, {system['difference']:+.3f} "
            f"[{system['difference_low']:+.3f}, {system['difference_high']:+.3f}]"
            if "outcome" in system
            else ""
        )
        scores = system["scores"]
        f1 = f"| {scores['micro_f1']:.3f} | {scores['macro_f1']:.3f} " if multi else ""
        rows.append(
            f"| {_cell(system['name'])} | {system['score']:.3f} {f1}"
            f"| {system['score_low']:.3f} to {system['score_high']:.3f} "
            f"| {'' if latency is None else f'{latency:.1f}'} "
            f"| {'' if size is None else f'{size / 1e6:.1f}'} | {against} |"
        )
    return rows


def _metric(verdict: dict[str, Any]) -> str:
    return str(verdict["metric"]).replace("_", " ")


def _cell(text: str) -> str:
    """Text that cannot break out of a table's cell."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")
