"""How fast documents are cleaned and what is found, against datatrove, one core each.

    python benchmarks/text.py                  both, on 80 MB of manuals, docs and descriptions
    python benchmarks/text.py --memory 1000    ours alone, on so many MB: peak memory, and speed on
                                               all cores

The corpus is made of what a Debian machine has: manual pages, /usr/share/doc, and the descriptions
of apt's packages if there are any (`apt-get -o Acquire::Languages=en update`; APT_CONFIG may name
lists elsewhere). A fifth of it are planted copies with up to 6% of their words replaced. datatrove
is installed into a Python of its own below runs/bench-text at the first call.

Times are processor seconds, so a busy machine changes them less than a clock. "True" similarity is
Jaccard's, of all runs of five words.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import polars as pl
import psutil

from bantam.documents import boilerplate, c4, contamination, duplicates, quality, words
from bantam.documents.normalise import normalise
from bantam.documents.pool import mapped
from bantam.documents.read import SHARD, read_files
from bantam.documents.walk import Source, files
from bantam.documents.words import SYMBOL
from bantam.recipe_documents import C4, Boilerplate, FineWeb, Gopher, Repetition, Rules

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))
import debian_index

FOLDER = Path("runs") / "bench-text"
SEED = 4
PART = 28_000_000  # bytes of each source
LARGEST = 200_000  # bytes of a document: changelogs would be all of /usr/share/doc
PLANTED = 0.2  # share of the documents that are copied
CHANGED = 0.06  # of the words of a copy, at most
ROWS = 200  # passages that stand for a benchmark
BANDS = ((0.95, 1.01), (0.85, 0.95), (0.75, 0.85), (0.65, 0.75), (0.3, 0.65))
SECTIONS = ("repetition", "gopher", "c4", "fineweb")
DATATROVE = "datatrove[processing]==0.10.1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", type=int, metavar="MB")
    asked = parser.parse_args()
    if asked.memory:
        grow(asked.memory)
        return
    frame = corpus()
    psutil.Process().cpu_affinity([0])
    raw = shards(frame)
    size = frame["text"].str.len_bytes().sum() / 1e6
    chain([shard.head(20) for shard in raw], {})  # compiles
    seconds: dict[str, float] = {}
    ours = chain(raw, seconds)
    theirs = datatrove(ours)
    print(f"{len(frame)} documents, {size:.0f} MB, one core\n")
    speeds(seconds, theirs["seconds"], size)
    agreement(ours, theirs["dropped"])
    near(frame, ours, theirs)


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.process_time()
    yield
    seconds[name] = seconds.get(name, 0) + time.process_time() - began


def chain(raw: list[pl.DataFrame], seconds: dict[str, float]) -> pl.DataFrame:
    """Parsed text to kept ids. Gives the documents with `reason`, and `plain`, `copy`, `group`:
    their text when it was normalised, and what `duplicates.find` says of all of them.
    """
    rules = Rules()
    shards, told, sketches = [], [], []
    rows = passages(raw)
    for shard in raw:
        with timed(seconds, "normalise"):
            shard = shard.with_columns(text=normalise(shard["text"])[0])
        shards.append(shard.with_columns(plain="text"))
    with timed(seconds, "boilerplate"):
        counted = pl.concat([boilerplate.count(shard, Boilerplate()) for shard in shards])
        sizes = pl.concat([boilerplate.sizes(shard) for shard in shards])
        common = boilerplate.recurring(counted, sizes, Boilerplate())
    with timed(seconds, "index of rows"):
        sought = contamination.index(rows)
    for shard in shards:
        with timed(seconds, "boilerplate"):
            shard, _ = boilerplate.drop(shard, common)
        with timed(seconds, "C4 lines"):
            shard, _ = c4.drop(shard, rules.c4)
        with timed(seconds, "words"):
            found = words.split(shard["text"])
        with timed(seconds, "rules"):
            measures = quality.measure(found, rules)
            shard = quality.judge(shard, measures, rules)
        with timed(seconds, "decontaminate"):
            shard = contamination.mark(shard, contamination.search(shard, found, sought))
        with timed(seconds, "sketch"):
            sketches.append(duplicates.sketch(found))
        told.append(shard.hstack(spoken(found)))
    frame = pl.concat(told)
    exact = np.concatenate([one.exact for one in sketches])
    signatures = np.concatenate([one.signatures for one in sketches])
    with timed(seconds, "duplicates"):
        kept = frame["reason"].is_null().to_numpy()
        copies = duplicates.find(frame.filter(kept), exact[kept], signatures[kept])
        frame = duplicates.mark(frame, copies)
    every = duplicates.find(frame, exact, signatures)
    return frame.with_columns(copy=every["survivor"], group=every["cluster"])


def spoken(found: words.Words) -> pl.DataFrame:
    """`words` and `symbols`: how many each text has."""
    symbols = np.concatenate([[0], np.cumsum(found.kind == SYMBOL)])
    symbols = np.diff(symbols[found.first])
    return pl.DataFrame({"words": np.diff(found.first) - symbols, "symbols": symbols})


def speeds(ours: dict[str, float], theirs: dict[str, float], size: float) -> None:
    beside = ("boilerplate", "index of rows")
    chained = sum(value for name, value in ours.items() if name not in beside)
    print(f"ours, MB/s: {size / chained:.1f}; with boilerplate {size / sum(ours.values()):.1f}")
    for name, value in ours.items():
        print(f"    {name:16} {size / value:8.1f}  {1e3 * value / size:6.2f} ns a byte")
    total = sum(theirs.values())
    print(f"datatrove, MB/s: {size / total:.2f} (with the same words; ratio {total / chained:.1f})")
    for name, value in theirs.items():
        print(f"    {name:16} {size / value:8.1f}")


def agreement(ours: pl.DataFrame, theirs: dict[str, dict[str, str]]) -> None:
    """Of the documents, those that both keep and both drop by the rules of each section."""
    off: dict[str, bool] = dict.fromkeys(SECTIONS, False)
    frame = ours.select(
        "id", text="plain", reason=pl.lit(None, pl.String), value=pl.lit(None, pl.String)
    )
    print("\nagreement, by section (kept by both, dropped by both, by ours alone, by theirs alone)")
    for section, of in zip(SECTIONS, (Repetition, Gopher, C4, FineWeb), strict=True):
        rules = Rules.model_validate(off | {section: of()})
        judged = c4.drop(frame, rules.c4)[0] if section == "c4" else frame
        judged = quality.judge(judged, quality.measure(words.split(judged["text"]), rules), rules)
        mine = judged["reason"].is_not_null().to_numpy()
        other = frame["id"].is_in(list(theirs[section])).to_numpy()
        counts = [(~mine & ~other), (mine & other), (mine & ~other), (~mine & other)]
        print(f"    {section:12}", *(f"{int(count.sum()):8}" for count in counts))


def near(frame: pl.DataFrame, ours: pl.DataFrame, theirs: dict[str, list[list[str]]]) -> None:
    """Planted copies found by true similarity, precision of what goes and of clusters."""
    text = dict(zip(ours["id"], ours["text"], strict=True))
    plain = dict(zip(ours["id"], ours["plain"], strict=True))
    origin = dict(zip(frame["id"], frame["of"], strict=True))
    clusters = [group["id"].to_list() for _, group in ours.group_by("group") if len(group) > 1]
    survivor = dict(ours.filter(pl.col("copy").is_not_null()).select("id", "copy").iter_rows())
    gone = set(theirs["removed"])
    kept_of = {
        name: next(other for other in cluster if other not in gone)
        for cluster in theirs["clusters"]
        for name in cluster
    }
    chosen = random.Random(SEED)
    print("\nplanted copies found, by true similarity")
    for engine, texts, found, survivors in (
        ("ours", text, clusters, survivor),
        ("datatrove", plain, theirs["clusters"], {name: kept_of[name] for name in gone}),
    ):
        grams = cache(lambda name, texts=texts: runs_of(texts[name]))

        def alike(one: str, other: str, grams=grams) -> float:
            a, b = grams(one), grams(other)
            return len(a & b) / max(1, len(a | b))

        where = {name: at for at, cluster in enumerate(found) for name in cluster}
        pairs = [
            (name, of)
            for name, of in origin.items()
            if of and min(map(len, (grams(name), grams(of)))) > 20
        ]
        true = np.array([alike(*pair) for pair in pairs])
        hit = np.array([where.get(one, -1) == where.get(other, -2) for one, other in pairs])
        told = []
        for low, high in BANDS:
            band = (true >= low) & (true < high)
            told.append(f"{low:.2f}-{min(high, 1):.2f}: {hit[band].mean():.3f} of {band.sum()}")
        print(f"    {engine:10}", "   ".join(told))
        some = chosen.sample(sorted(survivors.items()), min(2000, len(survivors)))
        close = np.mean([alike(*pair) >= 0.75 for pair in some])
        within = [chosen.sample(cluster, 2) for cluster in found for _ in cluster[1:]]
        joined = np.mean(
            [alike(*pair) >= 0.65 for pair in chosen.sample(within, min(2000, len(within)))]
        )
        print(
            f"    {'':10} removed {len(survivors)}, 0.75 or more like what stays {close:.3f}; "
            f"pairs of a cluster 0.65 or more alike {joined:.3f}; largest {max(map(len, found))}"
        )


def runs_of(text: str) -> frozenset[int]:
    found = words.split(pl.Series([text]))
    line = found.folded[found.kind != SYMBOL].tolist()
    return frozenset(hash(tuple(line[at : at + 5])) for at in range(max(1, len(line) - 4)))


def passages(raw: list[pl.DataFrame]) -> pl.DataFrame:
    """Some passages of the corpus, as rows of a benchmark, and as many of nothing in it."""
    texts = raw[0].filter(pl.col("text").str.len_chars() > 600)["text"].head(ROWS).to_list()
    inside = [" ".join(text.split()[20:50]) for text in texts[: ROWS // 10]]
    outside = [" ".join(f"{word}x" for word in text.split()[:30]) for text in texts[ROWS // 10 :]]
    rows = [("passages", number, text) for number, text in enumerate(inside + outside)]
    return pl.DataFrame(
        rows, {"benchmark": pl.String, "row": pl.Int64, "text": pl.String}, orient="row"
    )


def corpus() -> pl.DataFrame:
    """`id`, `source`, `text`, `licence`, `reason`, `value`; `of` is the id of a copy's original."""
    path = FOLDER / "corpus.parquet"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        rows = [("manuals", text) for text in read("manuals", "/usr/share/man")]
        rows += [("docs", text) for text in read("docs", "/usr/share/doc")]
        rows += [("packages", text) for text in packages()]
        planted(rows).write_parquet(path)
    return pl.read_parquet(path)


def read(name: str, folder: str) -> Iterator[str]:
    source = Source(name, Path(folder))
    paths = [path for path in files(source) if isinstance(path, str)]
    random.Random(SEED).shuffle(paths)
    size = 0
    for shard in read_files(((source, path) for path in paths), []):
        for text in shard["text"]:
            if len(text.encode()) <= LARGEST:
                size += len(text.encode())
                yield text
            if size > PART:
                return


def packages() -> Iterator[str]:
    size = 0
    for index in debian_index.ask_apt():
        for entry in debian_index.entries(index):
            if text := entry.get("Description-en"):
                yield text.replace("\n .\n", "\n\n")
                size += len(text)
                if size > PART:
                    return


def planted(rows: list[tuple[str, str]]) -> pl.DataFrame:
    chosen = random.Random(SEED)
    vocabulary = [word for _, text in rows[:2000] for word in text.split()[:50]]
    told = []
    for number, (source, text) in enumerate(rows):
        name = f"{number:08}"
        told.append((name, source, text, None))
        if chosen.random() < PLANTED:
            pieces = text.split(" ")
            for _ in range(round(chosen.uniform(0, CHANGED) * len(pieces))):
                pieces[chosen.randrange(len(pieces))] = chosen.choice(vocabulary)
            told.append((f"{name}c", source, " ".join(pieces), name))
    chosen.shuffle(told)
    frame = pl.DataFrame(told, ["id", "source", "text", "of"], orient="row")
    none = pl.lit(None, pl.String)
    return frame.with_columns(licence=none, reason=none, value=none)


def shards(frame: pl.DataFrame) -> list[pl.DataFrame]:
    number = frame["text"].str.len_bytes().cast(pl.Int64).cum_sum() // SHARD
    return [part for _, part in frame.group_by(number, maintain_order=True)]


def datatrove(ours: pl.DataFrame) -> dict:
    """What `text_sides.py` tells of the normalised texts."""
    home = FOLDER / "datatrove"
    if not home.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([home / "bin" / "pip", "install", "--quiet", DATATROVE], check=True)
    given, pattern, out = (FOLDER / name for name in ("given.jsonl", "words.txt", "out.json"))
    ours.select("id", text="plain").write_ndjson(given)
    pattern.write_text(words.WORD.pattern, "utf-8")
    side = Path(__file__).with_name("text_sides.py")
    told = FOLDER / "datatrove.log"
    with told.open("wb") as log:
        command = [home / "bin" / "python", side, given, pattern, out]
        subprocess.run(command, check=True, stderr=log, stdout=log)
    return json.loads(out.read_text("utf-8"))


def grow(megabytes: int) -> None:
    """Much text, a shard at a time, in processes on all cores: time on the clock, memory."""
    if not (FOLDER / "shard-000.parquet").exists():
        for number, shard in enumerate(shards(corpus().drop("of"))):
            shard.write_parquet(FOLDER / f"shard-{number:03}.parquet")
        sys.exit("the shards are written: call again, so that this does not count in memory")
    paths = sorted(FOLDER.glob("shard-*.parquet"))
    turns = -(-megabytes * 1_000_000 // (SHARD * len(paths)))
    tasks = [(path, turn) for turn in range(turns) for path in paths]
    signatures = FOLDER / "signatures"
    size, most, exact, documents = 0, 0, [], []
    began = time.monotonic()
    with signatures.open("wb") as file:
        for told, drawn, bytes_read, memory in mapped(worked, tasks):
            size, most = size + bytes_read, max(most, memory)
            drawn.signatures.tofile(file)
            exact.append(drawn.exact)
            documents.append(told)
    frame = pl.concat(documents)
    drawn_before = np.memmap(signatures, np.uint32, "r", shape=(len(frame), duplicates.NUMBERS))
    found = duplicates.find(frame, np.concatenate(exact), drawn_before)
    took = time.monotonic() - began
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kept = found["survivor"].is_null().sum()
    print(f"{size / 1e6:.0f} MB, {len(frame)} documents of {len(tasks)} shards, {kept} kept")
    print(f"{size / 1e6 / took:.1f} MB/s on the clock with {psutil.cpu_count()} cores")
    print(f"peak memory: {own / 1e3:.0f} MB across all shards, {most / 1e3:.0f} MB a worker")
    signatures.unlink()


def worked(task: tuple[Path, int]) -> tuple[pl.DataFrame, duplicates.Sketch, int, int]:
    """A shard after all that is done to it alone. Later turns have words of their own."""
    path, turn = task
    rules = Rules()
    frame = pl.read_parquet(path)
    if turn:
        other = pl.col("text").str.replace_all(r"(\w+e)\b", f"${{1}}{turn}")
        frame = frame.with_columns(other, id=pl.format("{}-{}", "id", pl.lit(turn)))
    size = int(frame["text"].str.len_bytes().sum())
    frame = frame.with_columns(text=normalise(frame["text"])[0])
    boilerplate.count(frame, Boilerplate())
    frame, _ = c4.drop(frame, rules.c4)
    found = words.split(frame["text"])
    measures = quality.measure(found, rules)
    frame = quality.judge(frame, measures, rules)
    told = frame.hstack(spoken(found)).select("id", "licence", "words", "symbols")
    drawn = duplicates.sketch(found)
    return told, drawn, size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
