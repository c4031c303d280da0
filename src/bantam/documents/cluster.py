"""The same work on many shards at once, on the machines of a Ray cluster.

What goes over the network is which function to call on which files: the files themselves lie where
all machines see them under the same path. A machine or process that dies costs the shards that it
was at, which are made again elsewhere.
"""

from __future__ import annotations

import os
import pickle
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from bantam import runs
from bantam.documents.pool import Map, environment
from bantam.engine import cores
from bantam.errors import BadInput, JobFailed

LOCAL = "local"  # an address: Ray is started here, and ended with the work
AHEAD = 4  # shards for each core that are handed out before one of them is made
ANSWER = 10.0  # seconds
STORE = 80 << 20  # bytes for what is passed around, the least that Ray takes: it is only paths
# It reports to nobody, and says only what we do not.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
HERE = Path(__file__).parent

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def joined(address: str, folders: Sequence[Path], *, workers: int | None = None) -> Iterator[Map]:
    """The machines of a running cluster, of which this one is one, or of LOCAL `workers` processes
    (None: one a core).

    `folders` hold what is read and written; the first is written to. Raises BadInput where Ray is
    not installed, does not answer, or a machine has another Bantam or does not see the folders.
    """
    local = address == LOCAL
    if not local and os.environ.get("BANTAM_OFFLINE"):
        raise BadInput(f"--offline forbids to reach {address}", f"--ray {LOCAL} stays here")
    _answers(address)
    with ExitStack() as stack:
        stack.enter_context(environment(**QUIET, **(_token() if local else {})))
        try:
            import ray  # which reads the environment now, and once
        except ModuleNotFoundError:
            raise BadInput("Ray is not installed", "pip install 'bantam-lm[ray]'") from None
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if local:
            settings |= {
                "num_cpus": workers or cores(),
                "object_store_memory": STORE,
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": stack.enter_context(tempfile.TemporaryDirectory(prefix="bantam-")),
            }
        stack.callback(ray.shutdown)
        try:
            ray.init(address, **settings)
        except (ConnectionError, RuntimeError, ValueError) as error:
            said = str(error).strip().partition("\n")[0]
            raise _absent(address, said) from None
        if not local:
            _check(ray, address, folders)
        yield partial(_mapped, ray)


def _answers(address: str) -> None:
    """Refuse an address that nobody answers at: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host:
        try:
            socket.create_connection((host, int(port)), ANSWER).close()
        except (OSError, ValueError) as error:
            raise _absent(address, str(error)) from None


def _absent(address: str, why: str) -> BadInput:
    return BadInput(
        f"no Ray cluster at {address}: {why}",
        f"start it with `ray start --head`, join it from here, or use --ray {LOCAL}",
    )


@cache
def _token() -> dict[str, str]:
    """Ray listens on every address of this machine, but serves those alone who know this."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _mapped(ray: Any, work: Callable[[T], R], items: Sequence[T], /) -> Iterator[R]:
    remote = ray.remote(_called)
    most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting, left = [], iter(items)
    while True:
        for item in left:
            waiting.append(remote.remote(pickle.dumps((work, item))))
            if len(waiting) >= most:
                break
        if not waiting:
            return
        (done, *_), waiting = ray.wait(waiting)
        yield _had(ray, done)


def _had(ray: Any, done: Any) -> Any:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        said = str(error).strip().partition("\n")[0]
        raise JobFailed(
            f"a shard failed on each machine that was asked: {said}",
            "look at Ray's logs; the same command goes on from there",
        ) from None


def _called(packed: bytes) -> Any:
    """In a process of the cluster, which has one core: what is called is loaded only then."""
    os.environ |= {"POLARS_MAX_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    work, item = pickle.loads(packed)  # noqa: S301 - from the one who runs the cluster
    return work(item)


def _check(ray: Any, address: str, folders: Sequence[Path]) -> None:
    """Have each machine look for the folders, and for a file that was just written."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    with tempfile.NamedTemporaryFile(dir=folders[0], prefix=".seen-") as mark:
        paths = [mark.name, *map(str, folders)]
        for node in ray.nodes():
            if not node["Alive"] or not node["Resources"].get("CPU"):
                continue
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked = ray.remote(_seen).options(scheduling_strategy=there).remote(paths)
            code, missing = _had(ray, asked)
            name = node["NodeManagerHostname"]
            if code != _code():
                raise BadInput(
                    f"{name} has another Bantam than this machine",
                    "install the same one on all machines",
                )
            if missing:
                raise BadInput(
                    f"{name} does not see {missing[-1]}",
                    "put run and files in a folder that all machines share under one path",
                )


def _seen(paths: Sequence[str]) -> tuple[str, list[str]]:
    return _code(), [path for path in paths if not Path(path).exists()]


def _code() -> str:
    """The hash of what works on documents here."""
    return runs.key_of([runs.file_sha256(path) for path in sorted(HERE.rglob("*.py"))])
