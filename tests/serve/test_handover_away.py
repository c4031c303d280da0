"""A run whose recipe names an endpoint, and the server that hands over as was picked for it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from process import Process
from rooms import ask

import job
from away import Told, away, said
from bantam.judge.handover import HandOver

SECRET = "a-key-that-nobody-sees"


def chat(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


def answered(wanted: dict[str, str]) -> Callable[[dict[str, Any]], Told]:
    """A model that knows the labels of some texts."""

    def answer(body: dict[str, Any]) -> Told:
        content = body["messages"][0]["content"]
        label = next((label for text, label in wanted.items() if text in content), None)
        return said(json.dumps({"label": label}) if label else "I cannot tell.")

    return answer


def test_a_recipe_that_names_an_endpoint_and_a_server_that_does_as_was_picked(
    made: Path, tmp_path: Path, bantam: Callable[..., job.Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "job"
    shutil.copytree(made, folder)
    path, run = folder / "recipe.toml", folder / "runs/tiny"
    plain = path.read_text("utf-8")
    known = dict(job.texts_and_labels(job.ROWS)) | {"neither camera": "poor"}
    with away(answered(known)) as there:
        table = f'[handover]\nmodel = "{there.address}"\nkey_env = "SOME_KEY"\n'
        path.write_text(f"{plain}\n{table}allow_network = true\n", "utf-8")
        os.environ["SOME_KEY"] = SECRET
        done = bantam("--offline", "make", path, "--run", run)
        assert done.code == 2
        assert "the network is forbidden" in done.err
        del os.environ["BANTAM_OFFLINE"]
        checked = bantam("check", path, "--run", run)
        assert f"texts are sent to {there.address}; SOME_KEY is set" in checked.out
        assert there.asked == []
        done = bantam("make", path, "--run", run)
        assert done.code == 0, done.err
        told = HandOver.model_validate_json((run / "handover/handover.json").read_text("utf-8"))
        assert told.picked and told.model == there.address
        assert told.test.score >= told.test.ours
        assert {headers["Authorization"] for headers in there.headers} == {f"Bearer {SECRET}"}
        for file in folder.rglob("*"):
            assert file.is_dir() or SECRET.encode() not in file.read_bytes(), file
        # Below another threshold the same run hands over what it would not have.
        sure = told.model_copy(update={"threshold": 1.0})
        (run / "handover/handover.json").write_text(sure.model_dump_json(by_alias=True), "utf-8")
        monkeypatch.setenv("BANTAM_HANDOVER_KEY", SECRET)
        there.headers.clear()
        served = Process(run, "--handover", there.address, "--allow-network", "--threads", 1)
        try:
            text, label = "neither camera nor phone, it is plain and awful", "poor"
            answer = ask(served.port, "/tasks/tiny", "POST", {"text": text}).json
            assert (answer["label"], answer["handed_to"]) == (label, there.address)
            told_ = ask(served.port, "/v1/chat/completions", "POST", chat("tiny", text)).json
            (choice,) = told_["choices"]
            assert choice["message"]["content"] == label
            assert choice["bantam"]["handed_to"] == there.address
            assert choice["bantam"]["confidence"] is choice["bantam"]["probabilities"] is None
            counted = ask(served.port, "/metrics").body.decode()
            assert "bantam_handed_over_total{" in counted
            assert [one["Authorization"] for one in there.headers] == [f"Bearer {SECRET}"] * 2
        finally:
            code, log = served.end()
        assert code == 0
        assert SECRET not in log and text not in log
