"""The train stage by several processes, which torchrun starts.

`bantam make --nproc N` does it on one machine. On a cluster, once `bantam make` has written the
tokens and the plan to a folder that all machines see:

    torchrun --nnodes M --nproc-per-node N --rdzv-backend c10d --rdzv-endpoint HOST:PORT \\
        -m bantam.train.several RUN
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from bantam.errors import JobFailed
from bantam.progress import bar
from bantam.train import document_stage, ranks

ASKED = "job.json"  # in the folder of the stage
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def start(folder: Path, count: int) -> None:
    """Have `count` processes of this machine do what stands in the folder. Raises JobFailed."""
    try:
        launch(work, (folder,), count)
    except ChildFailedError as error:
        reason = next((fault.message for fault in error.failures.values()), "")
        raise JobFailed(
            f"one of {count} training processes failed: {reason}",
            "look at what it said above; the same command goes on from the last checkpoint",
        ) from error


def launch(work: Callable[..., None], arguments: Sequence[Any], count: int) -> None:
    """What torchrun does, from within Python: `count` processes that know of each other."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="bantam",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
    )
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        elastic_launch(config, work)(*arguments)
    except SignalException:
        raise KeyboardInterrupt from None
    finally:
        for number, handler in before.items():  # it leaves its own behind
            signal.signal(number, handler)


def work(folder: Path) -> None:
    """What each of the processes does."""
    with ranks.together(), bar("train") as advance:
        told = advance if ranks.rank() == 0 else lambda done, total, note="": None
        document_stage.train(document_stage.read(folder / ASKED), folder, told)


if __name__ == "__main__":
    work(Path(sys.argv[1]) / "train.partial")
