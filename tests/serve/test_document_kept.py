"""What its OpenAPI document says the server keeps, whatever is sent: schemathesis asks it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from foreign import environment, run
from process import Process
from rooms import ask
from shelved import models

pytestmark = pytest.mark.slow

PINNED = ("schemathesis==4.32.5",)
NAMES = ["chat", "labels", "calls", "nobody"]
# Some changes that Ollama makes are refused with 501, as the document says.
SETTINGS = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "4xx", "501"]
"""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
)
# What goes only together with another field, which a schema says badly: most requests with all
# fields would be refused for these alone, and nothing else of them tried.
TOGETHER = ("max_tokens", "top_logprobs", "stream_options", "tool_choice", "best_of", "suffix")


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("programs") / "env", *PINNED)


@pytest.fixture
def port(tmp_path: Path, tiny_model: Path) -> Iterator[int]:
    places = models(tmp_path, tiny_model)
    named = [f"{name}={path}" for name, path in places.items()]
    served = Process(*named, "--threads", 1, "--feedback", tmp_path / "said.db")
    yield served.port
    code, log = served.end()
    assert code == 0
    assert "Traceback" not in log and " 500 " not in log


def aimed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the names of real models in it: others are refused at once."""

    def walk(node: Any) -> None:
        if isinstance(node, list):
            for one in node:
                walk(one)
        if not isinstance(node, dict):
            return
        model = node.get("properties", {}).get("model", {})
        if isinstance(model, dict) and model.get("type") == "string":
            model["enum"] = NAMES
        if (node.get("in"), node.get("name")) == ("path", "name"):
            node["schema"]["enum"] = NAMES
        for one in node.values():
            walk(one)

    walk(document)
    schemas = document["components"]["schemas"]
    for name in ("ChatRequest", "TextRequest", "ResponseRequest"):
        for field in TOGETHER:
            schemas[name]["properties"].pop(field, None)
    message = schemas["ChatMessage"]
    message["required"] = ["role", "content"]
    message["properties"]["role"]["enum"] = ["system", "user", "assistant"]
    return document


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_what_is_answered_is_what_the_document_says(
    mode: str, commands: Path, port: int, tmp_path: Path
) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(aimed(ask(port, "/openapi.json").json)), encoding="utf-8")
    (tmp_path / "settings.toml").write_text(SETTINGS, encoding="utf-8")
    told = run(
        [
            *(commands / "st", "--config-file", tmp_path / "settings.toml", "run", document),
            *("--url", f"http://127.0.0.1:{port}", "--mode", mode, "--checks", ",".join(CHECKS)),
            *("--seed", "1", "--max-examples", "25", "--phases", "coverage,fuzzing"),
            *("--suppress-health-check", "all", "--continue-on-failure", "--request-timeout", "30"),
        ],
        tmp_path,
        timeout=550,
    )
    found = re.search(r"(\d+) generated", told)
    assert found and int(found[1]) > 1000
    if mode == "positive":  # not all was refused
        answered = ask(port, "/metrics").body.decode()
        for interface in ("openai", "anthropic", "ollama", "tasks", "feedback"):
            assert f'requests_total{{interface="{interface}",status="200"}}' in answered
