"""The processes of a Ray cluster make the same of documents as this one by itself."""

import contextlib
import os
import random
import sys
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import psutil
import pytest

from bantam import curation, recipe_documents
from bantam.documents import cluster
from bantam.errors import BadInput, JobFailed

WORDS = "soil seed water light root leaf bloom frost mulch spade bed row plant harvest the of and"
RECIPE = "[documents]\nfiles = ['notes/']\nfineweb = false\nc4 = false\nrepetition = false\n"

# Not imported here: Ray reads its settings when it is.
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


def test_ray_that_is_not_there_or_not_allowed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for nowhere in ("127.0.0.1:1", "127.0.0.1:here"):
        with (
            pytest.raises(BadInput, match=f"no Ray cluster at {nowhere}"),
            cluster.joined(nowhere, [tmp_path]),
        ):
            pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(BadInput, match=r"pip install 'bantam-lm\[ray\]'"),
        cluster.joined("local", [tmp_path]),
    ):
        pass
    monkeypatch.setenv("BANTAM_OFFLINE", "1")
    with (
        pytest.raises(BadInput, match="--offline forbids to reach"),
        cluster.joined("192.0.2.1:6379", [tmp_path]),
    ):
        pass


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of notes that come to several shards, copies among them."""
    monkeypatch.setattr("bantam.documents.batches.BATCH", 30_000)
    chance, words = random.Random(5), WORDS.split()
    (tmp_path / "notes").mkdir()
    for number in range(120):
        lines = [" ".join(chance.choices(words, k=12)).capitalize() + "." for _ in range(12)]
        (tmp_path / "notes" / f"{number:03}.txt").write_text("\n".join(lines))
        if number % 5 == 0:  # it goes to another shard than its copy
            lines[0] = "Another line begins this one."
            (tmp_path / "notes" / f"z{number:03}.txt").write_text("\n".join(lines))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def kept(run: Path) -> list[pl.DataFrame]:
    paths = [*sorted((run / "text").glob("documents-*.parquet")), run / "text" / "dropped.parquet"]
    return [pl.read_parquet(path) for path in paths]


def kill_a_worker(which: str) -> bool:
    """End a process of Ray that is at work on a shard, or waits for one."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[0].startswith(which):
                process.kill()
                return True
    return False


@pytest.mark.slow
@needs_ray
@pytest.mark.skipif(os.name == "nt", reason="Ray's processes are named on Unix")
def test_two_workers_of_which_some_are_killed_keep_the_same(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    alone = curation.text(Path("recipe.toml"), Path("alone"), workers=1)
    killed = []
    advance = curation.curate

    def watched(*asked, mapped):  # type: ignore[no-untyped-def]
        def mortal(work, items):  # type: ignore[no-untyped-def]
            for number, found in enumerate(mapped(work, items)):
                if number == 1:
                    killed.append(kill_a_worker("ray::_called"))
                yield found

        return advance(*asked, mapped=mortal)

    monkeypatch.setattr(curation, "curate", watched)
    told = curation.text(Path("recipe.toml"), Path("spread"), workers=2, ray="local")
    assert len(killed) == 3 and any(killed)
    assert told == alone
    assert told["kept"]["documents"] == 120
    for one, other in zip(kept(here / "alone"), kept(here / "spread"), strict=True):
        assert one.equals(other)
    assert not list(here.glob("spread/shards/*/*.partial"))


@pytest.mark.slow
@needs_ray
def test_what_goes_wrong_elsewhere_is_told_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster.joined("local", [tmp_path], workers=1) as mapped:
        with pytest.raises(BadInput, match="nowhere"):
            list(mapped(recipe_documents.load, [tmp_path / "nowhere"]))
        with pytest.raises(JobFailed, match="a shard failed"):
            list(mapped(os._exit, [3]))
        import ray

        address = ray.get_runtime_context().gcs_address
        cluster._check(ray, address, [tmp_path])
        with pytest.raises(BadInput, match=r"does not see .*/nowhere"):
            cluster._check(ray, address, [tmp_path, tmp_path / "nowhere"])
        monkeypatch.setattr(cluster, "HERE", tmp_path)
        with pytest.raises(BadInput, match="has another Bantam"):
            cluster._check(ray, address, [tmp_path])
