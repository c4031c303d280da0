"""The ledger: what a stage spent, its children too, in a file that survives a sudden end."""

import json
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
    with ledger.spent(path, "judge") as entry:
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
    with ledger.spent(tmp_path / "ledger.jsonl", "text") as busy:
        start = time.process_time()
        while time.process_time() - start < 0.2:
            pass
    with ledger.spent(tmp_path / "ledger.jsonl", "wait") as idle:
        time.sleep(0.5)
    assert busy.cpu_seconds >= 0.15
    assert idle.wall_seconds >= 0.5
    assert idle.cpu_seconds < 0.3  # what the looks at the memory take


def test_memory_of_a_child_counts(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with ledger.spent(path, "small") as small:
        time.sleep(ledger.INTERVAL * 1.5)
    with ledger.spent(path, "large") as large:
        wait = f"time.sleep({ledger.INTERVAL * 3})"
        subprocess.run([sys.executable, "-c", LARGE + wait], check=True)
    assert small.peak_memory_bytes > 10_000_000
    assert large.peak_memory_bytes - small.peak_memory_bytes > 140_000_000


def test_a_failed_stage_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with pytest.raises(ZeroDivisionError), ledger.spent(path, "train"):
        _ = 1 / 0
    assert ledger.read(path) == []


def test_the_newest_line_of_a_stage_counts_in_the_order_of_the_stages(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for number, stage in enumerate(["text", "train", "text", "pack"]):
        with ledger.spent(path, stage) as entry:
            entry.tokens = number
    assert len(path.read_text().splitlines()) == 4
    found = [(line["stage"], line["tokens"]) for line in ledger.read(path)]
    assert found == [("text", 2), ("train", 1), ("pack", 3)]


TORN = ['{"stage": "train", "wall', "\0\0\0\0", "\udcff", "[1]\n", "7", '{"wall": 3}\n', '"stage"']


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_line(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "ledger.jsonl"
    with ledger.spent(path, "text"):
        pass
    with path.open("ab") as file:
        file.write(torn.encode(errors="surrogateescape"))
    assert [line["stage"] for line in ledger.read(path)] == ["text"]
    with ledger.spent(path, "train"):
        pass
    assert [line["stage"] for line in ledger.read(path)] == ["text", "train"]
    assert json.loads(path.read_text(errors="replace").splitlines()[-1])["stage"] == "train"


def test_no_ledger(tmp_path: Path) -> None:
    assert ledger.read(tmp_path / "ledger.jsonl") == []
