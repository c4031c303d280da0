"""Many processes of one model: the answers of one, in order, and none of them left behind."""

import os
import signal
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import job
from bantam import crowd as crowds
from bantam import kinds
from bantam.answer import Answer
from bantam.crowd import crowd, room
from bantam.formats import gguf
from bantam.kinds import classify
from bantam.model import Model
from bantam.model_files import find

TEXTS = [text for text, _ in job.texts_and_labels(60)]


def many(path: Path, threads: int) -> list[Answer]:
    pieces = [TEXTS[i : i + 7] for i in range(0, len(TEXTS), 7)]
    with crowd(path, threads=threads) as share:
        return [answer for found in share(Model.batch, pieces) for answer in found]


def alike(answers: list[Answer], others: list[Answer]) -> None:
    assert len(answers) == len(others) == len(TEXTS)
    for one, other in zip(answers, others, strict=True):
        assert list(one.probabilities.values()) == pytest.approx(
            list(other.probabilities.values()), abs=0.02
        )


@pytest.mark.parametrize("threads", [1, 3])
def test_a_crowd_answers_as_one_process_does(threads: int, made: Path) -> None:
    path = find(made / "runs/tiny")
    with Model(path, threads=1) as alone:
        alike(many(path, threads), alone.batch(TEXTS))


def test_work_is_shared_and_taken_as_it_is_done(made: Path) -> None:
    """A stream without an end has answers at once, from all processes."""
    taken = 0

    def stream() -> Iterator[int]:
        nonlocal taken
        while True:
            yield (taken := taken + 1)

    def work(model: Model, part: int) -> tuple[int, int]:
        model(f"text {part}")
        time.sleep(0.01)  # so that nobody does all of it
        return part, id(model)

    with crowd(find(made / "runs/tiny"), threads=2) as share:
        answers = share(work, stream())
        found = [next(answers) for _ in range(20)]
        assert [part for part, _ in found] == list(range(1, 21))
        assert len({model for _, model in found}) == 2
        assert taken <= 20 + crowds.AHEAD * 2 + 1
    assert not running()


def running() -> list[psutil.Process]:
    """The processes of the runtime that this one has started and not ended."""
    mine = psutil.Process().children()
    return [child for child in mine if "bantam.engine.llama_cpp" in child.cmdline()]


def test_an_error_ends_all(made: Path) -> None:
    before = running()

    def fail(model: Model, part: int) -> int:
        model("a text")
        return 1 // part

    with pytest.raises(ZeroDivisionError), crowd(find(made / "runs/tiny"), threads=2) as share:
        list(share(fail, [3, 2, 1, 0, 1, 2, 3]))
    assert running() == before


def test_ctrl_c_ends_all_and_leaves_no_half_file(made: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.txt"
    rows.write_text("\n".join(TEXTS * 2000), "utf-8")
    command = ("run", made / "runs/tiny", "-f", rows, "-o", "out.csv", "--threads", 2)
    with job.start(*command, cwd=tmp_path) as process:
        me = psutil.Process(process.pid)
        children: list[psutil.Process] = []
        while len(children) < 2:
            assert process.poll() is None, process.communicate()
            children = me.children()
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    assert list(tmp_path.iterdir()) == [rows]


Memory = namedtuple("Memory", "available")


@pytest.mark.parametrize(("free", "count"), [(0, 1), (0.9, 1), (1.9, 1), (2.1, 2), (8.5, 8)])
def test_there_are_as_many_as_the_memory_holds(
    free: float, count: int, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = tiny_model.stat().st_size + crowds.OWN
    monkeypatch.setattr(crowds.psutil, "virtual_memory", lambda: Memory(int(free * each)))
    assert room(tiny_model) == count


@pytest.mark.slow
def test_a_real_model(smollm: Path, tmp_path: Path) -> None:
    """The answers of one process, and the weights in memory once."""
    file = gguf.read(smollm)
    task = classify.task("things", "How good is it?", list(job.LABELS))
    tensors = [
        (
            name,
            info.shape,
            "F32" if len(info.shape) == 1 else "Q8_0",
            lambda name=name: gguf.tensor(file, name),
        )
        for name, info in file.tensors.items()
    ]
    path = tmp_path / "task.gguf"
    gguf.write(path, file.metadata | kinds.to_metadata(task), tensors)
    with Model(path, threads=1) as alone:
        alike(many(path, 2), alone.batch(TEXTS))
    others = running()
    with crowd(path, threads=2) as share:
        list(share(Model.batch, [TEXTS[:7]] * 6))
        own = [child.memory_full_info().uss for child in running() if child not in others]
    assert len(own) == 2
    assert max(own) < crowds.OWN < path.stat().st_size + min(own)
