"""From a messy folder to what is kept: by one process or two, killed, with other settings."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from bantam.documents import shards
from bantam.documents.curate import BENCHMARKS, curate
from bantam.documents.pool import mapped
from bantam.documents.walk import Source
from bantam.errors import BadInput
from bantam.recipe_documents import Documents

GARDEN = "soil seed water light root leaf bloom frost mulch spade bed row plant harvest"
KITCHEN = "flour oven dough knife salt bowl heat stir pan crust loaf yeast pinch rise"
TOPICS = {"garden": GARDEN.split(" "), "kitchen": KITCHEN.split(" ")}
LINKS = ["the", "of", "and", "to", "with", "in", "that", "have", "is", "for", "on"]
FOOTER = "Printed from the handbook of the house, all rights reserved."
WANTED = {"fineweb": False, "c4": {"min_sentences": False}, "languages": ["en"]}


def prose(chance: random.Random, topic: str, sentences: int = 12) -> str:
    """Sentences of words that no rule is against."""
    words = TOPICS[topic]
    told = []
    for _ in range(sentences):
        line = [chance.choice(words if at % 2 else LINKS) for at in range(chance.randint(9, 14))]
        told.append(" ".join(line).capitalize() + f" number {chance.randint(1, 10**6)}.")
    return "\n".join(told)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("messy")
    chance = random.Random(1)
    for topic in TOPICS:
        (folder / topic).mkdir()
        for number in range(30):
            text = f"{prose(chance, topic)}\n{FOOTER}\n"
            (folder / topic / f"{number:02d}.txt").write_text(text)
    garden = folder / "garden"
    (garden / "copy.txt").write_text((garden / "00.txt").read_text().replace("\n", "\n\n"))
    lines = (garden / "01.txt").read_text().splitlines()
    (garden / "near.txt").write_text("\n".join([*lines[:-1], "One more line at the end."]))
    (garden / "short.txt").write_text("Too short.")
    (garden / "list.txt").write_text("- one\n- two\n" * 60)
    (garden / "german.txt").write_text(
        "Der Garten ist im Winter still und die Beete ruhen unter dem Schnee. " * 3
        + "Im Frühling graben wir um und säen, was wir im Sommer ernten wollen. "
        + "Das Wasser holen wir aus dem Brunnen hinter dem Haus, wo auch die Kannen stehen. "
        + "Wer früh aufsteht, sieht die Amseln zwischen den Reihen nach Würmern suchen."
    )
    secret = (garden / "02.txt").read_text().replace("number", "mail jo.meier@sample-post.com", 1)
    (garden / "02.txt").write_text(secret)
    (garden / "broken.pdf").write_bytes(b"%PDF-1.4 nothing more")
    return folder


def places(folder: Path) -> list[Source]:
    return [Source(topic, folder / topic) for topic in TOPICS]


def benchmark(folder: Path) -> pl.DataFrame:
    words = (folder / "kitchen" / "05.txt").read_text().split()[5:30]
    return pl.DataFrame({"benchmark": ["exam"], "row": [3], "text": [" ".join(words)]}, BENCHMARKS)


def made(folder: Path, work: Path, workers: int = 1, **wanted: object) -> list[shards.Shard]:
    return curate(
        Documents.model_validate({"files": ["x"], **WANTED, **wanted}),
        places(folder),
        benchmark(folder),
        None,
        work,
        lambda step, done, total: None,
        mapped=partial(mapped, workers=workers),
    )


def held(found: list[shards.Shard], name: str) -> pl.DataFrame:
    parts = [part for shard in found for part in sorted(shard.folder.glob(f"{name}-*.parquet"))]
    return pl.concat(pl.read_parquet(part) for part in parts)


@pytest.fixture(scope="module")
def work(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("work")
    made(folder, work)
    return work


def test_what_is_kept_and_why_the_rest_went(folder: Path, work: Path) -> None:
    found = made(folder, work)
    kept, gone = held(found, "kept"), held(found, "gone")
    documents = gone.filter(pl.col("line").is_null())
    why = dict(documents.select("path", "reason").iter_rows())
    assert why["copy.txt" if "copy.txt" in why else "00.txt"] == "duplicate"
    assert why["near.txt" if "near.txt" in why else "01.txt"] == "near duplicate"
    assert why["short.txt"] == "gopher.min_words"
    assert why["german.txt"] == "language"
    assert why["05.txt"] == "contaminated"
    assert documents.filter(pl.col("path") == "05.txt")["source"].to_list() == ["kitchen"]
    assert len(kept) + len(documents) == 65
    assert not kept["text"].str.contains(FOOTER, literal=True).any()
    lines = gone.filter(pl.col("line").is_not_null())
    assert Counter(lines["reason"])["boilerplate"] >= 60
    assert set(lines["text"]) == {FOOTER}
    mail = kept.filter(pl.col("path") == "02.txt", pl.col("source") == "garden")["text"].item()
    assert "<EMAIL>" in mail and "sample-post" not in mail
    assert set(kept["split"]) <= {"train", "val"}
    unread = json.loads((work / "read" / "00000" / "read.json").read_text())["unread"]
    assert [path for _, path, _ in unread] == ["broken.pdf"]


def same(one: list[shards.Shard], other: list[shards.Shard]) -> bool:
    return all(held(one, name).equals(held(other, name)) for name in ("kept", "gone"))


@pytest.mark.parametrize(
    "workers",
    [1, pytest.param(2, marks=pytest.mark.slow)],  # that start anew, and load all there is
)
def test_several_shards_and_two_processes_keep_the_same(
    folder: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr("bantam.documents.batches.BATCH", 20_000)  # several shards
    found = made(folder, tmp_path, workers=workers)
    assert len(found) > 2
    whole = held(made(folder, work), "kept").sort("id")
    assert held(found, "kept").sort("id").drop("cluster").equals(whole.drop("cluster"))


def test_a_changed_threshold_makes_anew_what_it_touches(
    folder: Path, work: Path, tmp_path: Path
) -> None:
    def times(step: str) -> list[int]:
        stages = sorted((tmp_path / step).glob("*/stage.json"))
        return [stage.stat().st_mtime_ns for stage in stages]

    first = held(made(folder, tmp_path), "kept")
    before = {step: times(step) for step in ("read", "clean", "settle")}
    made(folder, tmp_path)
    assert {step: times(step) for step in before} == before
    stricter = held(made(folder, tmp_path, gopher={"min_words": 160}), "kept")
    assert times("read") == before["read"]
    assert times("clean") != before["clean"]
    assert 0 < len(stricter) < len(first)
    assert (stricter["words"] >= 160).all()
    assert held(made(folder, tmp_path), "kept").equals(first)


def test_a_changed_file_is_read_anew(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "messy"
    shutil.copytree(folder, copy)
    first = held(made(copy, tmp_path / "work"), "kept")
    text = prose(random.Random(7), "garden")
    (copy / "garden" / "29.txt").write_text(text)
    second = held(made(copy, tmp_path / "work"), "kept")
    assert len(second) == len(first)
    assert second.filter(pl.col("path") == "29.txt", pl.col("source") == "garden")[
        "text"
    ].to_list() == [text]


def test_nothing_left_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"leave no document: gopher\.min_words took"):
        made(folder, tmp_path, gopher={"min_words": 100_000})
    with pytest.raises(BadInput, match="no document was found"):
        curate(
            Documents(files=["x"]),
            [Source("none", folder / "garden", ("*.docx",))],
            BENCHMARKS.to_frame(),
            None,
            tmp_path / "none",
            lambda step, done, total: None,
            mapped=map,
        )


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from bantam.documents import batches
batches.BATCH = 20_000
import test_curate
test_curate.made(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are of Unix")
def test_killed_at_any_moment_it_goes_on_to_the_same_end(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bantam.documents.batches.BATCH", 20_000)
    whole = made(folder, tmp_path / "whole")
    chance, work, killed = random.Random(3), tmp_path / "killed", 0
    for _ in range(12):
        shards_before = len(list(work.glob("*/*/stage.json")))
        command = [sys.executable, "-c", CHILD, str(folder), str(work), str(Path(__file__).parent)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        end = time.monotonic() + 120
        while process.poll() is None and len(list(work.glob("*/*/stage.json"))) <= shards_before:
            assert time.monotonic() < end
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        killed += process.wait(60) == -signal.SIGKILL
    assert killed >= 6
    assert same(made(folder, work), whole)
