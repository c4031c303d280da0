"""Language models from scratch: Bantam against Hugging Face's Trainer and a plain GPT-2 loop.

    python benchmarks/scratch.py throughput   tokens a second at several sizes
    python benchmarks/scratch.py quality      seconds until Trainer's final loss is reached
    python benchmarks/scratch.py samples      loss after one to eight passes over few tokens
    python benchmarks/scratch.py ablate       what each of our measures is worth

All sides learn the same tokens of benchmarks/corpora.py's documentation, with the same tokenizer
and, but for GPT-2, the same shape; one function judges them all, in bits per byte of the same
documents that are held out. The sides are Bantam as it comes (Muon), Bantam with AdamW for
everything, Trainer (LlamaForCausalLM, bfloat16 if quicker, packed blocks, fused AdamW with warm-up,
nothing saved or logged), and the loop of most tutorials (AdamW, cosine, autocast). Each computes in
the quickest of its ways, compiled or not. All but Bantam as it comes get the best of `--rates`,
found with the first seed; Trainer has the better of a linear and a cosine schedule.

Seconds are those on the clock from before the model is made to after its last step, what is
compiled compiled from nothing. Judging does not count, for no side. Searches do not count either.

A schedule ends at its last step, so half a run is no run of half the length. `quality` therefore
finds the shortest of `LENGTHS` (in shares of Trainer's tokens) whose whole run reaches Trainer's
final loss, with the first seed. The other seeds run that length, and if they miss the loss, longer
ones until they meet it; their time is that of the run which does. Each run is a process of its own,
the sides take turns. What is finished stands in runs/bench-scratch/runs.jsonl.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from apart import Run, markdown, prepared, run_of, spread

SCRIPT = "scratch_sides.py"
FOLDER = Path("runs") / "bench-scratch"
OURS, ADAMW, TRAINER, LOOP = "bantam", "bantam with AdamW", "trainer", "GPT-2 loop"
SIDES = (OURS, ADAMW, TRAINER, LOOP)
PACED = (OURS, TRAINER, LOOP)  # AdamW for everything is paced by `quality`
WAYS = {  # in which each side may compute
    OURS: ("eager", "compiled"),
    ADAMW: ("eager", "compiled"),
    TRAINER: ("sdpa", "eager", "sdpa, compiled"),
    LOOP: ("eager", "compiled"),
}
SCHEDULES = ("linear", "cosine")
UNCOUNTED = "nothing counted first"
CHANGES = (  # of Bantam as it comes; the last is one that it does without
    UNCOUNTED,
    "no normed queries and keys",
    "outputs that do not begin at zero",
    "a cosine in place of an even rate that falls",
    "documents that see each other",
    "no weight decay",
    "no clipping",
    "averaged weights",
)
LENGTHS = (1 / 12, 1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1.0, 1.5, 2.0)
PASSES = (1, 2, 4, 8)
ABLATED = 1 << 17  # tokens of each run, of 3M parameters
PACE = 5.0  # seconds that decide in which way a whole run computes


class Wanted(NamedTuple):
    """What is to be measured."""

    sides: Sequence[str]
    threads: Sequence[int]
    seeds: Sequence[int]
    rates: Sequence[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("throughput", "quality", "samples", "ablate"))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3, 8e-3])
    parser.add_argument("--sizes", nargs="+", default=["3M", "15M", "30M"], help="for throughput")
    parser.add_argument("--seconds", type=float, default=15, help="of each pace, after its start")
    parser.add_argument("--rows", type=int, default=8, help="of 256 tokens a step; throughput")
    parser.add_argument("--size", help="of the models; 7M, for samples 3M")
    parser.add_argument("--tokens", type=int, default=1 << 19, help="that Trainer learns; quality")
    parser.add_argument("--unique", type=int, default=300_000, help="tokens of a pass; samples")
    parser.add_argument("--passes", type=int, nargs="+", default=PASSES)
    asked = parser.parse_args()
    wanted = Wanted(asked.sides, asked.threads, asked.seeds, asked.rates)
    prepare()
    if asked.what == "throughput":
        print(pace_table(list(paces(wanted, asked.sizes, asked.rows, asked.seconds))))
    elif asked.what == "quality":
        print(quality_table(list(qualities(wanted, asked.size or "7M", asked.tokens))))
    elif asked.what == "ablate":
        print(ablation_table(list(ablations(wanted, asked.size or "3M"))))
    else:
        size = asked.size or "3M"
        print(sample_table(list(samples(wanted, size, asked.unique, asked.passes))))


def ablations(wanted: Wanted, size: str) -> Iterator[Run]:
    """Bantam without each of its measures, and with what it does without, seed by seed."""
    most = max(wanted.threads)
    asked = {"size": size, "threads": most, "timed": False, "tokens": ABLATED}
    rate = best_rate(ADAMW, asked | {"seed": wanted.seeds[0]}, wanted.rates, ABLATED)
    for seed in wanted.seeds:
        # Said, since a run is known again by what is asked of it.
        yield made({"side": OURS, **asked, "way": "eager", "seed": seed, "change": ""})
        yield made({"side": ADAMW, **asked, "way": "eager", "seed": seed, "rate": rate})
        for change in CHANGES:
            yield made({"side": OURS, **asked, "way": "eager", "seed": seed, "change": change})


def ablation_table(runs: Sequence[Run]) -> str:
    """Bits per byte, and how much more than Bantam as it comes, seed by seed."""
    usual = {run["seed"]: final(run) for run in runs if run.get("change") == ""}
    rows = []
    for name in dict.fromkeys(map(measure, runs)):
        own = [run for run in runs if measure(run) == name]
        more = [final(run) - usual[run["seed"]] for run in own]
        quick = [run["tokens_per_second"] for run in own]
        cells = [spread([final(run) for run in own], ".3f"), spread(more, "+.3f")]
        rows.append([name, *cells, spread(quick, ".0f")])
    return markdown(["", "bits per byte", "more than as it comes", "tokens/s"], rows)


def measure(run: Run) -> str:
    """That it went without, or its side."""
    return str(run.get("change") or run["side"])


def prepare() -> None:
    """The documentation as all sides read it."""
    import corpora  # not for the sides, which import this module too: it would be in their memory

    folder = FOLDER / "docs"
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in zip(("train", "held_out"), corpora.docs(), strict=True):
        if not (folder / f"{name}.parquet").exists():
            frame.write_parquet(folder / f"{name}.parquet")
    prepared(SCRIPT, folder, {})


def made(asked: Run) -> Run:
    return run_of(SCRIPT, FOLDER, {"data": str(FOLDER / "docs"), **asked})


def turns(wanted: Wanted) -> Iterator[tuple[int, int, str]]:
    """Threads (the most first), seed and side of each run, the sides taking turns."""
    counts = sorted(wanted.threads, reverse=True)
    pairs = ((threads, seed) for threads in counts for seed in wanted.seeds)
    for number, (threads, seed) in enumerate(pairs):
        for side in wanted.sides[:: -1 if number % 2 else 1]:
            yield threads, seed, side


# Throughput


def paces(wanted: Wanted, sizes: Sequence[str], rows: int, seconds: float) -> Iterator[Run]:
    wanted = wanted._replace(sides=[side for side in PACED if side in wanted.sides])
    for size in sizes:
        for threads, seed, side in turns(wanted):
            asked = {"side": side, "size": size, "threads": threads, "rows": rows}
            way = way_of(asked | {"seed": wanted.seeds[0]}, seconds)
            yield pace(asked | {"seed": seed, "way": way}, seconds)


def pace(asked: Run, seconds: float) -> Run:
    return made({"measure": "pace", "seconds": seconds, **asked})


def way_of(asked: Run, seconds: float, tokens: int = 1 << 60) -> str:
    """A side's way that is done soonest with so many tokens, its start counted."""
    tried = {way: pace(asked | {"way": way}, seconds) for way in WAYS[asked["side"]]}
    return min(tried, key=lambda w: tried[w]["start"] + tokens / tried[w]["tokens_per_second"])


def pace_table(runs: Sequence[Run]) -> str:
    """Tokens a second and the share of the matrix peak, medians and ranges over the seeds."""
    header = ["size", "threads", "side", "tokens/s", "times trainer", "matrix peak", "start, s"]
    rows = []
    for size, threads in dict.fromkeys((run["size"], run["threads"]) for run in runs):
        here = [run for run in runs if (run["size"], run["threads"]) == (size, threads)]
        theirs = {r["seed"]: r["tokens_per_second"] for r in here if r["side"] == TRAINER}
        for side in dict.fromkeys(sorted((r["side"] for r in here), key=SIDES.index)):
            own = [run for run in here if run["side"] == side]
            times = [r["tokens_per_second"] / theirs[r["seed"]] for r in own if theirs]
            cells = [
                spread([r["tokens_per_second"] for r in own], ".0f"),
                spread(times) if times else "",
                spread([r["share_of_peak"] for r in own]),
                spread([r["start"] for r in own], ".1f"),
            ]
            rows.append([size, str(threads), named(own[0]), *cells])
    return markdown(header, rows)


# Time to quality


def qualities(wanted: Wanted, size: str, tokens: int) -> Iterator[Run]:
    """A run of each side, number of threads and seed, with `target` and the seconds to it."""
    most, first = max(wanted.threads), wanted.seeds[0]
    search = {"size": size, "threads": most, "seed": first, "timed": False}
    settings = {OURS: {}, TRAINER: best_trainer(search, wanted.rates, tokens)}
    for side in (ADAMW, LOOP):
        if side in wanted.sides:
            part = tokens // 2 if side == ADAMW else tokens
            settings[side] = {"rate": best_rate(side, search, wanted.rates, part)}

    def run(side: str, length: float, threads: int, seed: int) -> Run:
        some = round(length * tokens)
        asked = {"side": side, "size": size, "threads": threads, "seed": seed, **settings[side]}
        paced = {"side": side, "size": size, "threads": threads, "seed": first}
        way = way_of(paced, PACE, some)
        return made(asked | {"way": way, "tokens": some})

    found: dict[str, int] = {}
    for threads, seed, side in turns(wanted):
        target = final(run(TRAINER, 1.0, threads, seed))
        if side == TRAINER:
            whole = run(side, 1.0, threads, seed)
            yield whole | {"target": target, "reached": whole["seconds"]}
            continue
        go = lambda place: run(side, LENGTHS[place], threads, seed)  # noqa: B023, E731
        if side not in found:
            found[side] = shortest(go, target)
        place = next((p for p in range(found[side], len(LENGTHS)) if final(go(p)) <= target), None)
        yield reached(go(len(LENGTHS) - 1 if place is None else place), target)


def best_trainer(search: Run, rates: Sequence[float], tokens: int) -> Run:
    """The rate that is best with a linear schedule, and the schedule that is best with it."""
    first, *others = SCHEDULES
    rate = best_rate(TRAINER, search | {"schedule": first}, rates, tokens)
    tried = [
        sought(TRAINER, search | {"schedule": schedule}, rate, tokens)
        for schedule in (first, *others)
    ]
    return {"rate": rate, "schedule": min(tried, key=final)["schedule"]}


def best_rate(side: str, search: Run, rates: Sequence[float], tokens: int) -> float:
    tried = [sought(side, search, rate, tokens) for rate in rates]
    best = float(min(tried, key=final)["rate"])
    if len(rates) > 1 and best in (min(rates), max(rates)):
        print(f"{side}: {best:g} is the last of its --rates: there may be a better one beyond")
    return best


def sought(side: str, search: Run, rate: float, tokens: int) -> Run:
    """A run whose time is of no interest: compiled, with what was compiled before."""
    return made({"side": side, **search, "way": WAYS[side][-1], "rate": rate, "tokens": tokens})


def shortest(go: Callable[[int], Run], target: float) -> int:
    """The place in LENGTHS of the shortest run that reaches a loss, by halving; the last if none
    does."""
    low, high = 0, len(LENGTHS) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if final(go(middle)) <= target else (middle + 1, high)
    return low


def reached(run: Run, target: float) -> Run:
    """The run with its seconds as a whole, None if it ends above the loss: what it has passed on
    its way, before its rates have come down, is no model that anybody would keep."""
    met = final(run) <= target
    return run | {"target": target, "reached": run["seconds"] if met else None}


def final(run: Run) -> float:
    """Bits per byte at the end; the curve is of (tokens, seconds, bits per byte)."""
    return float(run["curve"][-1][2])


def quality_table(runs: Sequence[Run]) -> str:
    """Medians and ranges over the seeds, and of the quotients of seconds seed by seed."""
    header = ["threads", "side", "s to the same loss", "trainer's by its own", "tokens"]
    header += ["bits per byte", "tokens/s", "start, s", "grammar", "GB"]
    rows = []
    for threads in dict.fromkeys(run["threads"] for run in runs):
        here = [run for run in runs if run["threads"] == threads]
        theirs = {r["seed"]: r["reached"] for r in here if r["side"] == TRAINER}
        for side in dict.fromkeys(sorted((r["side"] for r in here), key=SIDES.index)):
            own = [run for run in here if run["side"] == side]
            cells = ["missed", ""]
            if all(run["reached"] is not None for run in own):
                cells = [spread([run["reached"] for run in own], ".0f")]
                times = [theirs[r["seed"]] / r["reached"] for r in own if r["seed"] in theirs]
                cells.append(spread(times) if times else "")
            cells += [
                spread([run["tokens"] / 1e3 for run in own], ".0f") + " thousand",
                spread([final(run) for run in own], ".3f"),
                spread([run["tokens_per_second"] for run in own], ".0f"),
                spread([run["start"] for run in own], ".1f"),
                spread([run["grammar"] for run in own], ".3f"),
                spread([run["gigabytes"] for run in own]),
            ]
            rows.append([str(threads), named(own[0]), *cells])
    return markdown(header, rows)


def named(run: Run) -> str:
    told = [f"learning rate {run['rate']:g}"] if "rate" in run else []
    told += [run[key] for key in ("schedule", "way") if key in run]
    return f"{run['side']} ({', '.join(told)})" if told else str(run["side"])


# Few tokens, read often


def samples(wanted: Wanted, size: str, unique: int, passes: Sequence[int]) -> Iterator[Run]:
    """A whole run for each number of passes; rates are found at two of them."""
    most, first = max(wanted.threads), wanted.seeds[0]
    wanted = wanted._replace(threads=[most])
    search = {"size": size, "threads": most, "seed": first, "timed": False, "unique": unique}
    settings: dict[str, Run] = {OURS: {}}
    for side in wanted.sides:
        if side == TRAINER:
            settings[side] = best_trainer(search, wanted.rates, 2 * unique)
        elif side != OURS:
            settings[side] = {"rate": best_rate(side, search, wanted.rates, 2 * unique)}
    for _, seed, side in turns(wanted):
        for count in passes:
            asked = {"side": side, **search, "seed": seed, "way": WAYS[side][-1], **settings[side]}
            yield made(asked | {"tokens": count * unique}) | {"passes": count}


def sample_table(runs: Sequence[Run]) -> str:
    passes = sorted({run["passes"] for run in runs})
    rows = []
    for side in dict.fromkeys(sorted((run["side"] for run in runs), key=SIDES.index)):
        own = [run for run in runs if run["side"] == side]
        cells = [spread([final(r) for r in own if r["passes"] == count], ".3f") for count in passes]
        rows.append([named(own[0]), *cells])
    return markdown(["bits per byte after", *(f"{n} passes" for n in passes)], rows)


if __name__ == "__main__":
    main()
