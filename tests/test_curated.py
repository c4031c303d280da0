"""Which of the documents that `bantam text` kept are judged, and learned from in part."""

import random
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest

from bantam import curated

SIZE = 1000  # bytes of a document


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of documents of one source after the other, every tenth held out."""
    (tmp_path / "text").mkdir()
    for number, source in enumerate("ab"):
        texts = [f"{source}{n} ".ljust(SIZE, "é" if n == 3 else ".") for n in range(400)]
        frame = pl.DataFrame({"text": texts}).with_columns(
            id=pl.Series([sha256(text.encode()).hexdigest()[:16] for text in texts]),
            source=pl.lit(source),
            split=pl.Series(["train" if n % 10 else "val" for n in range(400)]),
        )
        frame.write_parquet(tmp_path / "text" / f"documents-{number:03d}.parquet")
    return tmp_path


def sources(texts: list[str]) -> dict[str, int]:
    return {source: sum(text[0] == source for text in texts) for source in "ab"}


def test_a_part_is_of_all_sources(folder: Path) -> None:
    texts = curated.drawn(folder, "train", 100 * SIZE, 0)
    assert 98 <= len(texts) <= 100
    assert min(sources(texts).values()) > 30  # one in ten thousand draws is below
    assert len(set(texts)) == len(texts)
    assert sum(len(text.encode()) for text in texts) <= 100 * SIZE


def test_chance_goes_by_the_seed_and_not_by_the_files(folder: Path) -> None:
    texts = curated.drawn(folder, "train", 50 * SIZE, 0)
    assert texts != curated.drawn(folder, "train", 50 * SIZE, 1)
    frames = [pl.read_parquet(path) for path in curated.files(folder)]
    whole = pl.concat(frames)
    rows = random.Random(0).sample(range(len(whole)), len(whole))
    whole[rows].write_parquet(curated.files(folder)[0])
    curated.files(folder)[1].unlink()
    assert curated.drawn(folder, "train", 50 * SIZE, 0) == texts


def test_both_sides_of_what_is_held_out_are_of_all_sources(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choosing, judging = curated.judged(folder, 0)
    assert len(choosing) == len(judging) == 40
    assert not set(choosing) & set(judging)
    monkeypatch.setattr(curated, "JUDGED", 10 * SIZE)
    choosing, judging = curated.judged(folder, 0)
    assert len(choosing) == len(judging) == 10
    assert min(sources(choosing + judging).values()) > 2
    monkeypatch.setattr(curated, "JUDGED", 10)
    assert [len(side) for side in curated.judged(folder, 0)] == [2, 2]  # some there must be


def test_sources_that_are_never_read_count_for_nothing(folder: Path) -> None:
    assert sources(curated.drawn(folder, "train", 1 << 30, 0, without=["a"])) == {"a": 0, "b": 360}
    choosing, judging = curated.judged(folder, 0, ["b"])
    assert sources(choosing + judging) == {"a": 40, "b": 0}
    every = curated.drawn(folder, "train", 1 << 30, 0)
    assert curated.size(folder, "train") == sum(len(text.encode()) for text in every)
    assert curated.size(folder, "train", ["a"]) == sum(
        len(text.encode()) for text in every if text[0] == "b"
    )
