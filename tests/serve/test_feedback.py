"""Feedback: kept only if asked for, never lost, gone when it is deleted, and learned from."""

import asyncio
import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import job
from bantam.errors import BadInput
from bantam.kinds import classify
from bantam.kinds import texts as writing
from bantam.recipe import Data
from bantam.serve import feedback, keys, tasks
from bantam.serve.ask import Refusal
from bantam.serve.feedback import Given, Row, Store
from bantam.serve.shelf import Shelf
from bantam.text.prepare import prepare
from tiny_tasks import TOOLS, packed, serving

SECRET = "a secret that nobody may find again"
SCHEMA = {
    "type": "object",
    "properties": {"thing": {"type": "string"}},
    "required": ["thing"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Shelf:
    folder = tmp_path_factory.mktemp("shelf")
    calls = writing.task("extract", "calls", "", most_calls=2)
    made = {
        "labels": classify.task("labels", "Is it good?", ["yes", "no"]),
        "several": classify.task("several", "What is it?", ["a", "b", "c"], multi=True),
        "record": writing.task("extract", "record", "", answer_schema=SCHEMA),
        "calls": replace(calls, max_answer_tokens=60),
        "text": writing.task("generate", "text", "Say it."),
    }
    places = {
        name: packed(folder / f"{name}.gguf", tiny_model, task) for name, task in made.items()
    }
    return Shelf(places | {"chat": tiny_model}, threads=1, parallel=1)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "feedback.db"


@pytest.fixture
def client(shelf: Shelf, kept: Path) -> Iterator[httpx.Client]:
    with serving(shelf, tasks.routes, SimpleNamespace(feedback=kept)) as client:
        yield client
    asyncio.run(close(shelf))


async def close(shelf: Shelf) -> None:
    """The models' processes, each of which the next test starts again."""
    for place in shelf._places.values():
        if place.copy:
            for watched in place.copy.processes():
                watched.close()


def say(client: httpx.Client, **said: Any) -> str:
    response = client.post("/feedback", json=said)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def refused(client: httpx.Client, status: int, **said: Any) -> str:
    response = client.post("/feedback", json=said)
    assert response.status_code == status, response.text
    return str(response.json()["error"]["message"])


def exported(client: httpx.Client, **how: str) -> list[Any]:
    response = client.get("/feedback/export", params=how)
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def row(number: int, text: str = "a text") -> Row:
    return Row(f"fb-{number}", 0, Given("labels", "classify", text, "", "yes"), "up", None)


def test_nothing_is_kept_unless_asked_for(shelf: Shelf, tmp_path: Path) -> None:
    with serving(shelf, tasks.routes, SimpleNamespace(feedback=None)) as client:
        assert client.get("/feedback").json() == {"kept": False, "rows": 0}
        said = {"model": "labels", "text": "a", "answer": "yes", "thumb": "up"}
        assert client.post("/feedback", json=said).status_code == 404
        assert "--feedback FILE" in client.get("/feedback/export").text
        assert client.delete("/feedback").status_code == 404
    assert list(tmp_path.iterdir()) == []


def test_a_thumb_and_a_correction_of_an_answer(client: httpx.Client) -> None:
    first, second, third = (
        client.post("/tasks/labels", json={"text": text}).json() for text in "abc"
    )
    say(client, answer_id=first["id"], thumb="up")
    wrong = {"yes": "no", "no": "yes"}[second["label"]]
    say(client, answer_id=second["id"], thumb="down", correction=wrong)
    say(client, answer_id=third["id"], thumb="down")  # what would be right is not known
    assert exported(client) == [
        {"text": "a", "label": first["label"]},
        {"text": "b", "label": wrong},
    ]
    say(client, answer_id=first["id"], correction="no")  # takes the first one's place
    assert {"text": "a", "label": "no"} in exported(client)
    assert client.get("/feedback").json() == {"kept": True, "rows": 3}


def test_the_disk_keeps_nobody_waiting(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are read in threads: another request may hold the file for long."""
    threads = []

    class Watched(sqlite3.Connection):
        def execute(self, *how: Any) -> sqlite3.Cursor:
            threads.append(asyncio._get_running_loop())
            return super().execute(*how)

    connect = partial(sqlite3.connect, factory=Watched)
    monkeypatch.setattr(feedback.sqlite3, "connect", connect)
    said = {"model": "labels", "text": "a", "answer": "yes", "thumb": "up"}
    id = say(client, **said)
    threads.clear()  # the file is opened before the server answers
    assert client.get("/feedback").json() == {"kept": True, "rows": 1}
    assert exported(client) == [{"text": "a", "label": "yes"}]
    say(client, **said)
    assert client.delete(f"/feedback/{id}").json() == {"deleted": 1}
    assert client.delete("/feedback").json() == {"deleted": 1}
    assert threads and not any(threads)


def test_every_kind_of_answer(client: httpx.Client) -> None:
    say(client, model="several", text="s", answer=["a"], correction=["c", "b"])
    say(client, model="several", text="none", answer=["a"], correction=[])
    say(client, model="record", text="r", answer={"thing": "x"}, correction={"thing": "ü\n"})
    call = [{"name": "mend", "arguments": {"thing": "phone"}}]
    say(client, model="calls", text="c", answer=[], correction=call, tools=TOOLS)
    say(client, model="text", text="t", answer="said", thumb="up")
    say(client, model="chat", text="q", answer="talked", thumb="up")
    assert exported(client, model="several") == [
        {"text": "s", "label": "b|c"},
        {"text": "none", "label": ""},
    ]
    assert exported(client, model="record", input="in", output="out") == [
        {"in": "r", "out": {"thing": "ü\n"}}
    ]
    assert exported(client, model="calls") == [{"text": "c", "label": call, "tools": TOOLS}]
    assert exported(client, model="text") == [{"text": "t", "label": "said"}]
    assert exported(client, model="chat") == [{"text": "q", "label": "talked"}]
    assert "record" in client.get("/feedback/export").json()["error"]["message"]  # which one?
    assert client.get("/feedback/export", params={"model": "other"}).status_code == 400
    assert client.get("/feedback/export", params={"output": "text"}).status_code == 400
    table = client.get("/feedback/export", params={"model": "record", "format": "csv"}).text
    (cells,) = csv.DictReader(io.StringIO(table))
    assert cells == {"text": "r", "label": '{"thing": "ü\\n"}'}


def test_what_is_no_answer_is_refused(client: httpx.Client) -> None:
    given = {"model": "labels", "text": "a", "answer": "yes"}
    assert "the labels are yes, no" in refused(client, 400, **given, correction="maybe")
    assert "no such label" in refused(client, 400, **given | {"answer": 7}, thumb="up")
    assert "neither a thumb nor" in refused(client, 400, **given)
    assert "name answer_id" in refused(client, 400, text="a", thumb="up")
    assert "no answer x" in refused(client, 404, answer_id="x", thumb="up")
    assert "no model" in refused(client, 404, **given | {"model": "other"}, thumb="up")
    record = {"model": "record", "text": "a", "answer": {"thing": "x"}}
    assert "schema" in refused(client, 400, **record, correction={"thing": 1})
    long = "x" * (feedback.LONGEST + 1)
    assert "at most" in refused(client, 413, model="text", text="a", answer=long, thumb="up")
    assert client.post("/feedback", json=given | {"text": long}).status_code == 422
    body = b'{"model": "record", "text": "a", "answer": {"thing": "\\ud800"}, "thumb": "up"}'
    assert client.post("/feedback", content=body).status_code in (400, 422)
    assert client.get("/feedback").json()["rows"] == 0


def test_what_is_deleted_is_nowhere_any_more(client: httpx.Client, kept: Path) -> None:
    def there() -> bool:
        return any(SECRET.encode() in file.read_bytes() for file in kept.parent.iterdir())

    given = {"model": "text", "answer": "x", "thumb": "up"}
    id = say(client, **given, text=SECRET)
    say(client, **given, text="another")
    assert there()
    assert client.delete(f"/feedback/{id}").json() == {"deleted": 1}
    assert not there()
    assert [one["text"] for one in exported(client)] == ["another"]
    assert client.delete(f"/feedback/{id}").status_code == 404
    say(client, **given, text=SECRET)
    assert client.delete("/feedback").json() == {"deleted": 2}
    assert not there()
    assert client.get("/feedback").json()["rows"] == 0


def test_a_key_for_some_models_sees_no_others(kept: Path) -> None:
    store = Store(kept)
    store.add(row(1))
    asked = (store, None, "jsonl", "text", "label")
    with pytest.raises(BadInput, match="no feedback on any model"):
        feedback.examples(*asked, lambda name: name != "labels")  # type: ignore[arg-type]
    assert list(feedback.examples(*asked))  # type: ignore[arg-type]
    store.close()
    limited = keys.Key("one", b"", frozenset({"other"}))
    token = keys.asking.set(limited)
    try:
        with pytest.raises(Refusal, match="only ask its models"):
            feedback.may_delete_all()
    finally:
        keys.asking.reset(token)
    feedback.may_delete_all()


WRITER = """
import itertools, sys
from pathlib import Path
from bantam.serve.feedback import Given, Row, Store
store = Store(Path(sys.argv[1]))
for number in itertools.count():
    given = Given("labels", "classify", f"text {number} " * 50, "", "yes")
    store.add(Row(f"{sys.argv[2]}-{number}", 0, given, "up", None))
    print(number, flush=True)
"""


def test_no_row_is_lost_when_the_server_is_killed(kept: Path) -> None:
    """What was told to be kept is there after kill -9, however often that happens."""
    told: set[str] = set()
    for run in "abc":
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(kept), run], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout
        for line in writer.stdout:
            told.add(f"{run}-{line.strip()}")
            if line == "60\n":
                os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        store = Store(kept)
        there = {one.id for one in store.rows("labels")}
        assert told <= there
        assert store._rows.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store.close()


def test_every_row_waits_for_the_disk(kept: Path) -> None:
    store = Store(kept)
    assert store._rows.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._rows.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: each commit
    assert kept.stat().st_mode & 0o077 == 0
    store.close()


def test_the_file_has_a_bound(kept: Path) -> None:
    store = Store(kept, most_bytes=100_000)
    with pytest.raises(Refusal, match="full") as told:
        for number in range(1000):
            store.add(row(number, "x" * 1000))
    assert told.value.status == 507
    held = len(store)
    assert 10 < held < 100
    assert store.forget() == held
    store.add(row(1, "there is room again"))
    assert len(store) == 1
    store.close()


def test_a_file_of_another_sort_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("this is no database, and it stays as it is " * 100, "utf-8")
    with pytest.raises(BadInput, match="is no feedback file"):
        Store(text)
    newer = tmp_path / "newer.db"
    with sqlite3.connect(newer) as made:
        made.execute("PRAGMA user_version = 2")
    made.close()
    with pytest.raises(BadInput, match="another version of Bantam"):
        Store(newer)
    with pytest.raises(BadInput, match="cannot be written"):
        Store(tmp_path / "missing" / "feedback.db")


def test_old_answers_are_forgotten(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "REMEMBERED", 3)
    monkeypatch.setattr(feedback, "REMEMBERED_CHARACTERS", 1000)
    found = feedback.Feedback(Store(kept))
    for number in range(5):
        found.remember(f"ans-{number}", row(number).given)
    assert found.answer("ans-4").text == "a text"
    with pytest.raises(Refusal, match="too old"):
        found.answer("ans-1")
    found.remember("large", row(6, "x" * 990).given)
    with pytest.raises(Refusal):
        found.answer("ans-4")
    found.store.close()


def test_the_command_writes_examples_that_make_can_read(
    bantam: Callable[..., job.Done], kept: Path
) -> None:
    store = Store(kept)
    for number in range(30):
        given = Given("labels", "classify", f'text "{number}",\n{"x" * number}', "", "yes")
        store.add(Row(f"fb-{number}", 0, given, "", ["yes", "no"][number % 2]))
    store.close()
    done = bantam("feedback", "export", kept, "-o", "examples.csv", "--input", "message")
    assert done.code == 0, done.err
    written = kept.parent / "examples.csv"
    data = Data(examples=["examples.csv"], input="message", val=0.2, test=0.2)
    prepared = prepare(data, [written], [], [], False, "classify", None)
    assert prepared.train.height + prepared.val.height + prepared.test.height == 30
    assert set(prepared.train["output"]) == {"yes", "no"}
    done = bantam("feedback", "export", kept, "-o", "examples.txt")
    assert (done.code, "jsonl" in done.err) == (2, True)
    done = bantam("feedback", "export", kept.parent / "none.db", "-o", "examples.csv")
    assert done.code == 2
    assert not (kept.parent / "none.db").exists()
