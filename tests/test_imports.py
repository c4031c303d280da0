"""The rules of docs/architecture.md, read from the imports themselves.

A module is watched with all that it imports, at its top and inside its functions; imports that are
only there for the type checker do not count.
"""

import ast
import contextlib
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import pytest

import bantam

SOURCE = Path(bantam.__file__).parent
MODULES = {
    ".".join(("bantam", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(SOURCE.rglob("*.py"))
}

WITH_TORCH = ("nets", "pack", "train")
# What the program is started by: it gets at torch through functions only.
FRONT = {
    *("bantam", "bantam.cli", "bantam.pipeline", "bantam.packing", "bantam.labelled"),
    *("bantam.completing", "bantam.job", "bantam.check"),
}
NETWORK = {
    *("socket", "ssl", "http", "urllib.request", "ftplib", "smtplib", "asyncio", "xmlrpc"),
    *("requests", "httpx", "aiohttp", "urllib3", "huggingface_hub", "pip", "subprocess"),
    "ray",
}
# The engine's pipes and unix socket to its own child process.
ENGINE = {
    "bantam.engine.runtime": {"socket", "subprocess"},
    "bantam.engine.llama_cpp": {"socket", "http"},
}
# The pipes to the child process that reads documents of unknown origin.
READER = {"bantam.documents.apart": {"subprocess"}}
# The machines of a cluster that the command line names.
CLUSTER = {"bantam.documents.cluster": {"ray", "socket"}}
# What listens: it waits for clients with asyncio, and takes the port in one place.
SERVER = {"bantam.serve.start": {"asyncio", "socket"}}


class Import(NamedTuple):
    name: str
    at_top: bool


@cache
def imports(module: str) -> tuple[Import, ...]:
    return tuple(_imports(ast.parse(MODULES[module].read_text("utf-8")).body, at_top=True))


def _imports(body: list[ast.stmt], at_top: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "write imports in full"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield Import(whole if whole in MODULES else node.module, at_top)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _imports(node.orelse, at_top)
        else:
            inside = at_top and not isinstance(node, ast.FunctionDef)
            for field in ("body", "orelse", "handlers", "finalbody", "cases"):
                yield from _imports(getattr(node, field, []), inside)


def room(module: str) -> str:
    return module.split(".")[1]


def reaches(module: str, wanted: str, top_only: bool, seen: set[str]) -> list[str] | None:
    """The chain of imports from a module of ours to a package, None when there is none."""
    seen.add(module)
    for name, at_top in imports(module):
        if top_only and not at_top:
            continue
        if name.split(".")[0] == wanted:
            return [module, name]
        if name in MODULES and name not in seen:
            chain = reaches(name, wanted, top_only, seen)
            if chain:
                return [module, *chain]
    return None


def test_the_imports_are_really_read() -> None:
    assert Import("torch", True) in imports("bantam.nets.decoder")
    assert Import("bantam.pipeline", False) in imports("bantam.cli")
    assert reaches("bantam.pipeline", "torch", False, set())
    assert reaches("bantam.cli", "torch", False, set())


@pytest.mark.parametrize("module", MODULES)
def test_torch_is_only_where_weights_are_made(module: str) -> None:
    if module in FRONT:
        assert not reaches(module, "torch", True, set())
    elif room(module) not in WITH_TORCH:
        assert not reaches(module, "torch", False, set())


@pytest.mark.parametrize("module", MODULES)
def test_only_sources_can_open_a_connection(module: str) -> None:
    if not module.startswith("bantam.sources"):
        used = {
            banned
            for name, _ in imports(module)
            for banned in NETWORK
            if name == banned or name.startswith(f"{banned}.")
        }
        listening = {"asyncio"} if module.startswith("bantam.serve.") else set()
        allowed = ENGINE.get(module, set()) | READER.get(module, set())
        allowed |= CLUSTER.get(module, set())
        assert used <= allowed | SERVER.get(module, listening)


def test_arrows_run_down_the_figure_of_the_architecture_page() -> None:
    page = (SOURCE.parents[1] / "docs" / "architecture.md").read_text("utf-8")
    figure = page.partition("```\n")[2].partition("```")[0]
    rooms = {room(name) for name in MODULES if name != "bantam"}
    rows = {
        name: row
        for row, line in enumerate(figure.splitlines())
        for name in takewhile(rooms.__contains__, line.split())
    }
    assert rows.keys() == rooms
    arrows: dict[str, set[str]] = {name: set() for name in rooms}
    for module in MODULES.keys() - {"bantam"}:
        for name, _ in imports(module):
            if name.startswith("bantam.") and room(name) != room(module):
                assert rows[room(name)] >= rows[room(module)], f"{module} imports {name}"
                arrows[room(module)].add(room(name))
    TopologicalSorter(arrows).prepare()  # raises CycleError for a circle


HEAVY = "torch polars sklearn scipy numpy pydantic tokenizers xllamacpp transformers jinja2 rich"


def test_the_command_line_loads_nothing_heavy() -> None:
    told = f"import sys, bantam, bantam.cli; print(*set({HEAVY.split()}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_model_that_is_run_loads_no_torch(tiny_model: Path) -> None:
    told = (
        "import sys, bantam\n"
        f"model = bantam.load({str(tiny_model)!r})\n"
        "model.chat([{'role': 'user', 'content': 'Hello'}], max_tokens=1)\n"
        "heavy = {'torch', 'polars', 'sklearn', 'pydantic', 'transformers', 'numpy'}\n"
        "print(*heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_server_starts_without_numpy() -> None:
    """Which takes a quarter of a second to import, and only JSON by a schema needs it."""
    told = "import sys, bantam.serve.app, bantam.serve.server; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_help_is_at_once() -> None:
    """In processor seconds, which other work on this machine hardly changes: it waits for none."""

    def seconds() -> float:
        child = subprocess.Popen(
            [sys.executable, "-c", "from bantam.cli import main; main()", "--help"],
            stdout=subprocess.PIPE,
        )
        assert child.stdout and b"Usage" in child.stdout.read()
        child.stdout.close()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        return used.ru_utime + used.ru_stime

    assert statistics.median(seconds() for _ in range(5)) < 0.3


def test_reaching_for_another_machine_is_seen(no_connection: list[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, contextlib.suppress(OSError):
        udp.connect(("192.0.2.1", 9))  # sends nothing; nobody has this address
    assert no_connection == ["socket.connect 192.0.2.1"]
    no_connection.clear()
