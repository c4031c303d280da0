"""Less is more: a model of raw documents against one of what `bantam text` keeps of them.

    python benchmarks/less.py             equal tokens and a half of them, three seeds
    python benchmarks/less.py --ablate    what each step of the text stages is worth

The documents are the messy ones of benchmarks/corpora.py: package descriptions, mails and manual
pages in eleven languages, as they lie about. *Raw* is all that the readers make of the files, the
mails already without headers; *curated* is what the text stages keep for English; *scored* is the
share of that which is most like some pages that somebody showed (`[documents.score]`). Thresholds
as they come are for prose of the web: of Python's library reference they keep 44 pages of 472. The
recipe therefore has some (`THRESHOLDS`) under which nine in ten of these pages pass each rule;
nobody is judged by them. All models have one shape, equal tokens and Bantam's own training, but for
the counts that it would begin with: those read all of a corpus. They have one tokenizer, that of
the raw documents, and once more, *own vocabulary*, one of as many tokens that is learned from what
is kept, as `bantam make` does: a token costs the same and holds more text.

All are judged in bits per byte on prose of Python's manual: clean by its nature, of the wanted
kind, in no corpus, and chosen by none of the rules that chose the curated. The score has seen
other pages of that manual, the beginnings of a half of them: what somebody who wants such texts
can show. Beside it stands `kept`: documents that the text stages keep and that are held out of all
(their near copies too). These are the curated model's own kind, so it should be better there.

A schedule ends at its last step, so a half of the tokens is a run of its own. What is finished
stands in runs/bench-less/runs.jsonl.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import polars as pl

import corpora
from apart import Run, markdown, prepared, run_of, spread
from bantam import curation
from bantam.documents.read import read
from bantam.documents.walk import Source
from scratch import OURS, SCRIPT, UNCOUNTED, final

FOLDER = Path("runs") / "bench-less"
GOOD = FOLDER / "good"
SOURCES = ("descriptions", "mails", "manuals")
RAW, CURATED, SCORED, WITHOUT = "raw", "curated", "scored", "without "
OWN = ", own vocabulary"
SIDES = (CURATED, CURATED + OWN, SCORED, SCORED + OWN)
KEPT = 0.3  # of what is curated, by the score
SHARES = (1.0, 0.5)  # of the raw model's tokens
STEPS = {  # each step, and what switches it off
    "markup": "markup = false",
    "languages": "languages = []",
    "boilerplate": "boilerplate = false",
    "gopher": "gopher = false",
    "repetition": "repetition = false",
    "c4": "c4 = false",
    "fineweb": "fineweb = false",
    "redaction": "redact = { kinds = [] }",
    "duplicates": "",  # those that went are put back
    "own thresholds": "",  # as they come
}
REPEATED = {5: 0.26, 6: 0.25, 7: 0.22, 8: 0.21, 9: 0.19, 10: 0.18}
THRESHOLDS = {
    "gopher": ["min_words = 30", "min_alphabetic = 0.6"],
    "repetition": [f"max_{n}_grams = {share}" for n, share in REPEATED.items()],
    "c4": ["curly_brackets = false", "javascript = false"],
    "fineweb": ["max_repeated_characters = 0.1"],
}
COPIES = ("duplicate", "near duplicate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ablate", action="store_true", help="leave out each step in turn")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, help="to leave out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", default="3M")
    parser.add_argument("--tokens", type=int, default=1 << 20, help="that the raw model learns")
    asked = parser.parse_args()
    names = [WITHOUT + step for step in asked.steps] if asked.ablate else []
    prepare([RAW, CURATED, *names] if names else [RAW, *SIDES])
    size = {"size": asked.size, "threads": asked.threads, "tokens": asked.tokens}
    if asked.ablate:
        print(ablation_table(list(ablated(names, asked.seeds, size))))
    else:
        print(table(list(compared(asked.seeds, size))))


def made(corpus: str, asked: Run) -> Run:
    return run_of(
        SCRIPT, FOLDER, {"side": OURS, "change": UNCOUNTED, "data": str(FOLDER / corpus), **asked}
    )


def compared(seeds: Sequence[int], size: Run) -> Iterator[Run]:
    for seed in seeds:
        yield made(RAW, size | {"seed": seed}) | {"corpus": RAW, "share": 1.0}
        for corpus, share in product(SIDES, SHARES):
            tokens = round(share * size["tokens"])
            run = made(corpus, size | {"seed": seed, "tokens": tokens})
            yield run | {"corpus": corpus, "share": share}


def ablated(names: Sequence[str], seeds: Sequence[int], size: Run) -> Iterator[Run]:
    for seed in seeds:
        for name in (RAW, CURATED, *names):
            yield made(name, size | {"seed": seed}) | {"corpus": name}


# The corpora


def prepare(names: Sequence[str]) -> None:
    """A folder for each corpus, with what it learns and what all are judged by."""
    folder, pages = corpora.messy()
    clean = pages.filter(~shown(pages))
    show(pages.filter(shown(pages)))
    held: pl.DataFrame | None = None
    for name in names:
        if not (FOLDER / name / "train.parquet").exists():
            held = held_out(folder) if held is None else held
            write(name, corpus_of(name, folder), clean, held)
    for name in names:
        other = {} if name == RAW or name.endswith(OWN) else {"tokenizer": str(FOLDER / RAW)}
        prepared(SCRIPT, FOLDER / name, other)


def shown(pages: pl.DataFrame) -> pl.Series:
    """Which pages the score may see: a half, by their names."""
    return pl.Series([corpora.place(path) % 2 == 0 for path in pages["path"]])


def show(pages: pl.DataFrame) -> None:
    """Files of what the score is told is good."""
    GOOD.mkdir(parents=True, exist_ok=True)
    for name, text in pages.select("id", "text").iter_rows():
        (GOOD / f"{name}.txt").write_text(text, "utf-8")


def write(name: str, frame: pl.DataFrame, clean: pl.DataFrame, held: pl.DataFrame) -> None:
    target = FOLDER / name
    target.mkdir(parents=True, exist_ok=True)
    clean.select("id", "text").write_parquet(target / "held_out.parquet")
    held.filter("judged").select("id", "text").write_parquet(target / "kept.parquet")
    frame = frame.join(held, on="id", how="anti").select("id", "source", "text")
    frame.write_parquet(target / "train.parquet")
    sizes = frame.group_by("source").agg(pl.len(), pl.col("text").str.len_bytes().sum() / 1e6)
    told = ", ".join(f"{s} {n} ({mb:.1f} MB)" for s, n, mb in sizes.sort("source").iter_rows())
    print(f"{name}: {told}", flush=True)


def corpus_of(name: str, folder: Path) -> pl.DataFrame:
    """`id`, `source` and `text` of all documents of a corpus."""
    if name == RAW:
        return pl.concat(read([Source(s, folder / s) for s in SOURCES], []))
    step = name.removeprefix(WITHOUT) if name.startswith(WITHOUT) else None
    kept, dropped = curated(folder, step, scored=name.startswith(SCORED))
    if step == "duplicates":
        copies = dropped.filter(pl.col("reason").is_in(COPIES) & pl.col("line").is_null())
        kept = pl.concat(
            [kept.select("id", "source", "text"), copies.select("id", "source", "text")]
        )
    return kept


def held_out(folder: Path) -> pl.DataFrame:
    """`id` of documents that nobody learns: those that are judged (`text` of these), and copies."""
    kept, dropped = curated(folder, None)
    val = kept.filter(pl.col("split") == "val")
    copies = dropped.filter(pl.col("reason").is_in(COPIES) & pl.col("line").is_null())
    survivor = pl.col("value").str.split(",").list.first()
    copies = copies.filter(survivor.is_in(val["id"].to_list()))
    beginning = corpora.judged(val.with_columns(path=pl.lit("")))
    return pl.concat(
        [
            beginning.select("id", "text", judged=pl.lit(True)),
            copies.select("id", "text", judged=pl.lit(False)),
        ]
    ).unique("id", maintain_order=True)


def curated(
    folder: Path, without: str | None, scored: bool = False
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the text stages keep and what they drop; what is found on the way stays for the next."""
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe_of(without, scored), "utf-8")
    run = FOLDER / "curation"
    curation.text(recipe, run)
    kept = pl.concat(pl.read_parquet(path) for path in sorted(run.glob("text/documents-*.parquet")))
    return kept, pl.read_parquet(run / "text" / "dropped.parquet")


def recipe_of(without: str | None, scored: bool = False) -> str:
    lines = ["[task]", 'name = "less"', 'kind = "complete"', "", "[documents]"]
    if without != "languages":
        lines.append('languages = ["en"]')
    if without:
        lines.append(STEPS[without])
    for name in SOURCES:
        lines += ["", f"[documents.sources.{name}]", f'files = ["{name}/"]']
    for rule, keys in THRESHOLDS.items():
        if without not in (rule, "own thresholds"):
            lines += ["", f"[documents.{rule}]", *keys]
    if scored:
        good = f'good = ["{GOOD.resolve()}/"]'
        lines += ["", "[documents.score]", good, f"keep = {KEPT}"]
    return "\n".join(lines) + "\n"


# Tables


def table(runs: Sequence[Run]) -> str:
    """Medians and ranges over the seeds; which share of the tokens was enough, seed by seed."""
    header = ["learned", "thousand tokens", "MB", "bits per byte", "of what is kept", "grammar"]
    header += ["seeds as good as raw"]
    raw = {run["seed"]: run for run in runs if run["corpus"] == RAW}
    rows = []
    for corpus, share in dict.fromkeys((run["corpus"], run["share"]) for run in runs):
        own = [run for run in runs if (run["corpus"], run["share"]) == (corpus, share)]
        good = sum(final(run) <= final(raw[run["seed"]]) for run in own)
        rows.append(
            [
                corpus,
                f"{own[0]['tokens'] / 1e3:.0f}",
                f"{own[0]['tokens'] * own[0]['bytes_per_token'] / 1e6:.2f}",
                spread([final(run) for run in own], ".3f"),
                spread([run["kept"] for run in own], ".3f"),
                spread([run["grammar"] for run in own], ".3f"),
                f"{good} of {len(own)}" if corpus != RAW else "",
            ]
        )
    others = dict.fromkeys(run["corpus"] for run in runs if run["corpus"] != RAW)
    told = [met(runs, raw, corpus) for corpus in others]
    return "\n".join([markdown(header, rows), "", *told])


def met(runs: Sequence[Run], raw: dict[int, Run], corpus: str) -> str:
    """A sentence about when the runs with all tokens have the raw ones' final loss."""
    whole = [run for run in runs if (run["corpus"], run["share"]) == (corpus, 1.0)]
    crossed = [share for run in whole if (share := crossing(run, final(raw[run["seed"]])))]
    told = "never in the whole run"
    if len(crossed) == len(raw):
        told = f"after {spread(crossed)} of its tokens, before its learning rate has come down"
    return f"The model of {corpus!r} meets the raw one's final loss {told}."


def crossing(run: Run, loss: float) -> float | None:
    """The share of a run's tokens at which a loss is met, on straight lines between judgings."""
    before: tuple[float, float] | None = None
    for tokens, _, value in run["curve"]:
        if value <= loss:
            if before is None or before[1] <= value:
                return float(tokens / run["tokens"])
            way = (before[1] - loss) / (before[1] - value)
            return float((before[0] + way * (tokens - before[0])) / run["tokens"])
        before = tokens, value
    return None


def ablation_table(runs: Sequence[Run]) -> str:
    """Bits per byte without each step, and how much worse that is than with all, seed by seed."""
    header = ["learned", "bits per byte", "worse than curated", "of what is kept", "worse"]
    best = {run["seed"]: run for run in runs if run["corpus"] == CURATED}
    rows = []
    for corpus in dict.fromkeys(run["corpus"] for run in runs):
        own = [run for run in runs if run["corpus"] == corpus]
        cells = [
            spread([final(run) for run in own], ".3f"),
            spread([final(run) - final(best[run["seed"]]) for run in own], "+.3f"),
            spread([run["kept"] for run in own], ".3f"),
            spread([run["kept"] - best[run["seed"]]["kept"] for run in own], "+.3f"),
        ]
        rows.append([corpus, *cells])
    return markdown(header, rows)


if __name__ == "__main__":
    main()
