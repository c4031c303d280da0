"""The ledger: what a stage spent, its children too, in a file that survives a sudden end."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bantam import ledger

BUSY = "import time\nwhile time.process_time() < 0.4: pass"
LARGE = "import time\nheld = bytearray(150_000_000)\nheld[::4096] = b'x' * len(held[::4096])\n"


def test_a_child_counts(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with ledger.spent(path, "judge", "key") as entry:
        subprocess.run([sys.executable, "-c", BUSY], check=True)
        entry.tokens = 12
    assert entry.cpu_seconds >= 0.35  # the system counts in hundredths
    assert entry.wall_seconds >= 0.4
    (line,) = ledger.read(path)
    assert line == {
        "stage": "judge",
        "wall_seconds": entry.wall_seconds,
        "cpu_seconds": entry.cpu_seconds,
        "peak_memory_bytes": entry.peak_memory_bytes,
        "tokens": 12,
    }


def test_work_of_this_process_counts_and_waiting_does_not(tmp_path: Path) -> None:
    with ledger.spent(tmp_path / "ledger.jsonl", "text", "key") as busy:
        start = time.process_time()
        while time.process_time() - start < 0.2:
            pass
    with ledger.spent(tmp_path / "ledger.jsonl", "wait", "key") as idle:
        time.sleep(0.5)
    assert busy.cpu_seconds >= 0.15
    assert idle.wall_seconds >= 0.5
    assert idle.cpu_seconds < 0.3  # what the looks at the memory take


def test_memory_of_a_child_counts(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with ledger.spent(path, "small", "key") as small:
        time.sleep(ledger.INTERVAL * 1.5)
    with ledger.spent(path, "large", "key") as large:
        wait = f"time.sleep({ledger.INTERVAL * 3})"
        subprocess.run([sys.executable, "-c", LARGE + wait], check=True)
    assert small.peak_memory_bytes > 10_000_000
    assert large.peak_memory_bytes - small.peak_memory_bytes > 140_000_000


def test_a_failed_stage_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with pytest.raises(ZeroDivisionError), ledger.spent(path, "train", "key"):
        _ = 1 / 0
    assert ledger.read(path) == []


def test_the_newest_line_of_a_stage_counts_in_the_order_of_the_stages(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for number, stage in enumerate(["text", "train", "text", "pack"]):
        with ledger.spent(path, stage, "key") as entry:
            entry.tokens = number
    assert len(path.read_text().splitlines()) == 4
    found = [(line["stage"], line["tokens"]) for line in ledger.read(path)]
    assert found == [("text", 2), ("train", 1), ("pack", 3)]


TORN = ['{"stage": "train", "wall', "\0\0\0\0", "\udcff", "[1]\n", "7", '{"wall": 3}\n', '"stage"']


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_line(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "ledger.jsonl"
    with ledger.spent(path, "text", "key"):
        pass
    with path.open("ab") as file:
        file.write(torn.encode(errors="surrogateescape"))
    assert [line["stage"] for line in ledger.read(path)] == ["text"]
    with ledger.spent(path, "train", "key"):
        pass
    assert [line["stage"] for line in ledger.read(path)] == ["text", "train"]
    assert json.loads(path.read_text(errors="replace").splitlines()[-1])["stage"] == "train"


def test_no_ledger(tmp_path: Path) -> None:
    assert ledger.read(tmp_path / "ledger.jsonl") == []


WORK = """
import sys, time
from pathlib import Path
from bantam import ledger
with ledger.spent(Path(sys.argv[1]), "train", "key"):
    held = bytearray(150_000_000)
    held[::4096] = b"x" * len(held[::4096])
    while time.process_time() < 60: pass
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_calls_count(number: signal.Signals, tmp_path: Path) -> None:
    """A stage that is taken up again tells the seconds of all calls and the most memory of any."""
    path, kept = tmp_path / "ledger.jsonl", tmp_path / "train.spent.json"
    wall = cpu = 0.0
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", WORK, str(path)], stderr=subprocess.DEVNULL
        ) as process:
            while not kept.exists() or json.loads(kept.read_text())["cpu_seconds"] < cpu + 0.4:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(number)
        told = json.loads(kept.read_text())
        assert told["cpu_seconds"] >= cpu + 0.4
        assert told["wall_seconds"] >= wall + 0.4
        wall, cpu = told["wall_seconds"], told["cpu_seconds"]
    assert ledger.read(path) == []
    with ledger.spent(path, "train", "key") as entry:
        subprocess.run([sys.executable, "-c", BUSY], check=True)
    assert entry.cpu_seconds >= cpu + 0.35
    assert entry.wall_seconds >= wall + 0.4
    assert entry.peak_memory_bytes >= told["peak_memory_bytes"] > 150_000_000
    assert [line["wall_seconds"] for line in ledger.read(path)] == [entry.wall_seconds]
    assert list(tmp_path.iterdir()) == [path]


def test_calls_for_something_else_do_not_count(tmp_path: Path) -> None:
    path, kept = tmp_path / "ledger.jsonl", tmp_path / "train.spent.json"
    spent = {"wall_seconds": 1000.0, "cpu_seconds": 1000.0, "peak_memory_bytes": 1 << 50}
    for text in (json.dumps({"key": "another"} | spent), '{"key": "key"', "[]", ""):
        kept.write_text(text)
        with ledger.spent(path, "train", "key") as entry:
            pass
        assert entry.wall_seconds < 1000
        assert entry.peak_memory_bytes < 1 << 50


def test_a_child_at_work_counts_before_it_ends(tmp_path: Path) -> None:
    path, kept = tmp_path / "ledger.jsonl", tmp_path / "judge.spent.json"
    with (
        ledger.spent(path, "judge", "key") as entry,
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child,
    ):
        while not kept.exists() or json.loads(kept.read_text())["cpu_seconds"] < 0.5:
            time.sleep(0.01)
        child.kill()
    assert entry.cpu_seconds >= 0.5
