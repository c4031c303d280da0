"""llama.cpp's own tokenizer, as the reference."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bantam import engine

Tokenize = Callable[[str, bool], list[int]]


def runtime_tokenizer(path: Path) -> Tokenize:
    """A function (text, special) -> ids, by llama.cpp's server on the model at `path`.

    In a process of its own: the server's destructor can hang in the one that made it.
    """
    return engine.start(path, threads=1, context=256).tokenize


@pytest.fixture(scope="session")
def runtime() -> Callable[[Path], Tokenize]:
    return runtime_tokenizer
