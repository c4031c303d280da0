"""Run folders: stages whole or not at all, whatever happens on the way."""

import errno
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bantam import runs
from bantam.errors import BadInput


def build(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "a.txt").write_text(text)
        (folder / "deep").mkdir(exist_ok=True)
        (folder / "deep" / "b.txt").write_text(text * 2)

    return write


def never(folder: Path) -> None:
    raise AssertionError("built again")


class Killed(BaseException):
    """Nothing after it runs, as when the process is killed."""


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "stage.json"
    }


# --- what is built, and when


class Stages(RuleBasedStateMachine):
    """A stage called with one key after another, some calls dying: against what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.run = Path(tempfile.mkdtemp())
        self.done: str | None = None  # key
        self.left: tuple[str, int] | None = None  # key and steps of an unfinished call

    def teardown(self) -> None:
        shutil.rmtree(self.run)

    @rule(key=st.sampled_from("ab"), resumes=st.booleans(), steps=st.integers(0, 3))
    def call(self, key: str, resumes: bool, steps: int) -> None:
        """A stage of three steps, killed after fewer than three."""
        kept = self.left[1] if resumes and self.left and self.left[0] == key else 0
        found: list[int] = []

        def work(folder: Path) -> None:
            progress = folder / "progress"
            found.append(len(progress.read_text()) if progress.exists() else 0)
            progress.write_text("x" * min(3, found[0] + steps))
            if found[0] + steps < 3:
                raise Killed

        try:
            made = runs.stage(self.run, "work", key, work, resumes=resumes)
        except Killed:
            assert self.done != key
            self.left = (key, kept + steps)
        else:
            assert made == runs.Stage(self.run / "work", key, self.done == key)
            if not made.reused:
                self.done, self.left = key, None
        assert found == ([] if self.done == key and not found else [kept])

    @invariant()
    def what_is_done_is_whole(self) -> None:
        if self.done is None:
            assert not (self.run / "work").exists()
        else:
            assert runs.sound(self.run / "work", self.done)
            assert files(self.run / "work") == {"progress": "xxx"}


Stages.TestCase.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)
TestStages = Stages.TestCase


def test_a_stage_is_made_once(tmp_path: Path) -> None:
    made = runs.stage(tmp_path, "text", "key", build("one"))
    assert made == runs.Stage(tmp_path / "text", "key", reused=False)
    assert files(made.folder) == {"a.txt": "one", "deep/b.txt": "oneone"}
    assert runs.stage(tmp_path, "text", "key", never).reused
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_another_key_makes_it_again(tmp_path: Path) -> None:
    runs.stage(tmp_path, "text", "key", build("one"))
    (tmp_path / "text" / "stray").write_text("of the old one")
    made = runs.stage(tmp_path, "text", "other", build("two"))
    assert not made.reused
    assert files(made.folder) == {"a.txt": "two", "deep/b.txt": "twotwo"}


def test_killed_between_the_seal_and_the_rename(tmp_path: Path) -> None:
    partial = tmp_path / "text.partial"
    partial.mkdir()
    (partial / runs.BEGUN).write_text("key")
    build("one")(partial)
    runs.seal(partial, "key")
    made = runs.stage(tmp_path, "text", "key", never)
    assert not made.reused
    assert files(made.folder) == {"a.txt": "one", "deep/b.txt": "oneone"}
    assert runs.sound(made.folder, "key")


@pytest.mark.parametrize("resumes", [False, True])
@pytest.mark.parametrize("damage", ["altered", "cut", "away", "manifest torn", "other key"])
def test_what_is_no_longer_as_sealed_is_made_again(
    tmp_path: Path, damage: str, resumes: bool
) -> None:
    partial = tmp_path / "text.partial"
    partial.mkdir()
    (partial / runs.BEGUN).write_text("another" if damage == "other key" else "key")
    (partial / "more").write_text("of it")
    build("one")(partial)
    runs.seal(partial, "another" if damage == "other key" else "key")
    match damage:
        case "altered":
            (partial / "a.txt").write_text("0ne")
        case "cut":
            (partial / "deep" / "b.txt").write_text("one")
        case "away":
            (partial / "a.txt").unlink()
        case "manifest torn":
            text = (partial / "stage.json").read_text()
            (partial / "stage.json").write_text(text[:-10])
    assert not runs.sound(partial, "key")
    made = runs.stage(tmp_path, "text", "key", build("two"), resumes=resumes)
    assert files(made.folder) == {"a.txt": "two", "deep/b.txt": "twotwo"}


def test_killed_within_the_seal_keeps_what_resumes(tmp_path: Path) -> None:
    """The hashing of large files takes seconds: the key must be there until the manifest is."""

    def work(folder: Path) -> None:
        (folder / "hours of work").write_text("done")
        (folder / "link").symlink_to("nowhere")  # the seal fails on it, half way

    with pytest.raises(FileNotFoundError, match="link"):
        runs.stage(tmp_path, "train", "key", work, resumes=True)
    (tmp_path / "train.partial" / "link").unlink()
    found: list[str] = []
    runs.stage(
        tmp_path,
        "train",
        "key",
        lambda folder: found.extend(path.name for path in folder.glob("hours*")),
        resumes=True,
    )
    assert found == ["hours of work"]


MANIFESTS = {
    "nothing": "",
    "a list": "[]",
    "a number": "7",
    "deep": "[" * 100_000,
    "not UTF-8": "\udcff",
    "no files": '{"format": 1, "key": "key"}',
    "files a list": '{"format": 1, "key": "key", "files": []}',
    "format a text": '{"format": "1", "key": "key", "files": {}}',
    "key a list": '{"format": 1, "key": ["key"], "files": {}}',
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_is_none(tmp_path: Path, name: str) -> None:
    done = tmp_path / "text"
    done.mkdir()
    (done / "stage.json").write_bytes(MANIFESTS[name].encode(errors="surrogateescape"))
    assert runs.manifest(done) == {}
    assert not runs.stage(tmp_path, "text", "key", build("one")).reused


def test_a_newer_run_is_refused(tmp_path: Path) -> None:
    done = runs.stage(tmp_path, "text", "key", build("one")).folder
    written = json.loads((done / "stage.json").read_text())
    (done / "stage.json").write_text(json.dumps(written | {"format": runs.FORMAT + 1}))
    for key in ("key", "another"):
        with pytest.raises(BadInput, match="newer version") as error:
            runs.stage(tmp_path, "text", key, never)
        assert str(done) in error.value.message
        assert "install the newest" in error.value.mend
    assert files(done) == {"a.txt": "one", "deep/b.txt": "oneone"}


def test_keys() -> None:
    assert runs.key_of("a", {"x": 1, "y": [1, 2]}) == runs.key_of("a", {"y": [1, 2], "x": 1})
    parts = [("a", "b"), ("ab",), ("a", ["b"]), ("b", "a"), (), ("a", None), ("a", 1), ("a", "1")]
    assert len({runs.key_of(*some) for some in parts}) == len(parts)
    assert runs.key_of("é") != runs.key_of("e")
    assert runs.key_of("\udcff") != runs.key_of("\udcfe")  # names of files that are no UTF-8
    # The same on every machine and in every version: runs would be made again otherwise.
    assert runs.key_of("text", 1) == hashlib.sha256(b'["text", 1]').hexdigest()


# --- killed, really


def killed_child(code: str, *arguments: object, after: float, until: Path) -> None:
    """Run Python code and kill it some seconds after `until` is there."""
    child = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)])
    try:
        end = time.monotonic() + 30
        while not until.exists():
            assert child.poll() is None
            assert time.monotonic() < end
            time.sleep(0.001)
        time.sleep(after)
    finally:
        child.kill()
        child.wait()


STAGES = """
import itertools, sys
from pathlib import Path
from bantam import runs

run = Path(sys.argv[1])

def build(text):
    def write(folder):
        for number in range(20):
            (folder / f"{number}.txt").write_text(text * 100)
        (folder / "begun").write_text("")
    return write

for number in itertools.count():
    runs.stage(run, "text", f"key {number}", build(str(number)))
"""


def test_killed_at_any_moment_a_stage_is_whole(tmp_path: Path) -> None:
    chance = random.Random(0)
    for number in range(6):
        run = tmp_path / str(number)
        run.mkdir()
        killed_child(
            STAGES, run, after=chance.uniform(0, 0.1), until=run / "text.partial" / "begun"
        )
        done = run / "text"
        key = runs.manifest(done).get("key")
        if done.exists():
            assert key is not None
            assert runs.sound(done, key)
            assert set(files(done).values()) == {key.removeprefix("key ") * 100, ""}
        made = runs.stage(run, "text", "last", build("last"))
        assert files(made.folder) == {"a.txt": "last", "deep/b.txt": "lastlast"}
        assert [path.name for path in run.iterdir()] == ["text"]


WRITES = """
import itertools, sys
from pathlib import Path
from bantam import runs

path = Path(sys.argv[1])
for number in itertools.count():
    runs.write_text(path, str(number % 10) * 300_000)
"""


def test_killed_at_any_moment_a_file_is_whole(tmp_path: Path) -> None:
    chance = random.Random(0)
    path = tmp_path / "verdict.json"
    for _ in range(6):
        path.unlink(missing_ok=True)
        killed_child(WRITES, path, after=chance.uniform(0, 0.05), until=path)
        text = path.read_text()
        assert text == text[0] * 300_000


HOLDS = """
import sys, time
from pathlib import Path
from bantam import runs

with runs.alone(Path(sys.argv[1])):
    Path(sys.argv[1], "held").touch()
    time.sleep(60)
"""


def test_one_at_a_time(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    child = subprocess.Popen([sys.executable, "-c", HOLDS, str(run)])
    try:
        while not (run / "held").exists():
            assert child.poll() is None
            time.sleep(0.005)
        with pytest.raises(BadInput, match="another bantam") as error, runs.alone(run):
            pass
        assert str(run) in error.value.message
        assert "--run" in error.value.mend
    finally:
        child.kill()
        child.wait()
    with runs.alone(run):  # the system has given it back
        pass
    with runs.alone(run):
        pass


# --- files


def test_write_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    runs.write_json(path, {"naïve": [1, 2.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"naïve": [1, 2.5, None]}
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        runs.write_json(path, {"score": float("nan")})
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(200)
    made = runs.stage(folder, "text", "key", build("one"))
    runs.write_text(folder / "a.txt", "short")

    with pytest.raises(OSError, match="No space left") as error:
        runs.write_text(folder / "a.txt", "long" * 100_000)
    assert error.value.errno == errno.ENOSPC
    assert (folder / "a.txt").read_text() == "short"
    with pytest.raises(OSError, match="No space left"):
        runs.stage(folder, "text", "other", build("much" * 100_000))
    assert runs.sound(made.folder, "key")

    small_disk(5_000)
    assert runs.stage(folder, "text", "key", never).reused
    runs.write_text(folder / "a.txt", "long" * 100_000)
    assert len((folder / "a.txt").read_text()) == 400_000
    assert runs.stage(folder, "text", "other", build("much" * 100_000)).reused is False
