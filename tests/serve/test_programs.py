"""Other people's programs against `bantam serve`: what each says is in the files in trials/."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from foreign import environment, run
from process import Process
from shelved import models

from bantam.kinds import texts as writing
from tiny import rewritten, tiny_llama
from tiny_tasks import packed

pytestmark = pytest.mark.slow

PINNED = ("litellm==1.110.2", "langchain-openai==1.7.4", "instructor==1.17.0", "llm==0.36")
LLM_MODELS = """
- model_id: bantam
  model_name: chat
  api_base: {address}/v1
  supports_schema: true
- model_id: bantam-labels
  model_name: labels
  api_base: {address}/v1
- model_id: bantam-calls
  model_name: calls
  api_base: {address}/v1
  supports_tools: true
- model_id: bantam-text
  model_name: chat
  api_base: {address}/v1
  completion: true
"""
MULTIPLY = """
def multiply(x: int, y: int) -> int:
    "The product of two numbers."
    return x * y
"""


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("programs") / "env", *PINNED)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[str]:
    """A server of one that converses, one that labels and one that calls functions."""
    folder = tmp_path_factory.mktemp("models")
    places = models(folder, tiny_model)
    # These programs say much about a schema before they ask, and the tiny tokens are short.
    places["chat"] = rewritten(folder / "chat.gguf", tiny_model, {"llama.context_length": 4096})
    # Not every random model calls functions; this one does.
    calls = replace(writing.task("extract", "calls", "", most_calls=2), max_answer_tokens=60)
    places["calls"] = packed(
        folder / "calls.gguf",
        tiny_llama(folder / "calls-base.gguf", seed=9),
        replace(calls, max_text_tokens=200),
    )
    served = Process(*(f"{name}={path}" for name, path in places.items()), "--threads", 1)
    yield f"http://127.0.0.1:{served.port}"
    _, log = served.end()
    assert "Traceback" not in log
    assert " 500 " not in log and " 503 " not in log


@pytest.mark.parametrize("name", ["litellm", "langchain", "instructor"])
def test_a_library(name: str, commands: Path, address: str, tmp_path: Path) -> None:
    trial = Path(__file__).parent / "trials" / f"{name}_trial.py"
    print(run([commands / "python", trial, address], tmp_path))


@pytest.fixture
def llm(tmp_path: Path, commands: Path, address: str) -> Callable[..., str]:
    """The command `llm` with the server's models."""
    models = LLM_MODELS.format(address=address)
    (tmp_path / "extra-openai-models.yaml").write_text(models, encoding="utf-8")

    def asked(*args: str) -> str:
        return run([commands / "llm", *args], tmp_path, LLM_USER_PATH=str(tmp_path)).rstrip("\n")

    return asked


def test_the_command_llm(llm: Callable[..., str]) -> None:
    cold = ("-o", "temperature", "0", "-o", "max_tokens", "12")
    assert "OpenAI Chat: bantam-labels" in llm("models", "list")
    whole = llm("-m", "bantam", "--no-stream", *cold, "Name a colour.")
    assert whole and llm("-m", "bantam", *cold, "Name a colour.") == whole
    assert " input, 12 output" in llm("-m", "bantam", *cold, "-s", "Be short", "-u", "Name one.")
    before = json.loads(llm("logs", "--json", "-n", "1"))
    llm("-m", "bantam", *cold, "-c", "And another.")
    (after,) = json.loads(llm("logs", "--json", "-n", "1"))
    assert after["conversation_id"] == before[0]["conversation_id"]
    form = llm("-m", "bantam", *cold, "--schema", "colour, count int", "A red thing.")
    assert isinstance(json.loads(form)["count"], int)
    assert llm("-m", "bantam-labels", "It is good.") in ("yes", "no", "not at all")
    assert llm("-m", "bantam-text", *cold, "The picture")


def test_the_command_llm_with_functions(llm: Callable[..., str]) -> None:
    """Its loop ends: what the function gave is the answer."""
    told = llm("-m", "bantam-calls", "--functions", MULTIPLY, "--td", "What is 2 * 3?")
    assert "Tool call: multiply(" in told
    product = int(told.split("\n")[-1])
    assert told.count(str(product)) >= 2  # of the call, and said after it
