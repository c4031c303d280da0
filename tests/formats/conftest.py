"""llama.cpp's own tokenizer, as the reference."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

Tokenize = Callable[[str, bool], list[int]]


def runtime_tokenizer(path: Path) -> Tokenize:
    """A function (text, special) -> ids, by llama.cpp's server on the model at `path`."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 256
    params.n_parallel = 1
    params.verbosity = -1
    params.warmup = False
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)

    def tokenize(text: str, special: bool) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": special}
        request = urllib.request.Request(
            f"{server.listening_address}/tokenize",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            ids: list[int] = json.load(answer)["tokens"]
        return ids

    return tokenize


@pytest.fixture(scope="session")
def runtime() -> Callable[[Path], Tokenize]:
    return runtime_tokenizer
