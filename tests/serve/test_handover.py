"""Hand-over: what is not sure enough is answered by a larger model, held to the same answers."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from rooms import room

from away import Away, Told, away, called, said, wrong
from bantam.judge import described, language
from bantam.judge import larger as larger_
from bantam.kinds import Row, classify, declarations
from bantam.kinds import texts as writing
from bantam.model import Model
from bantam.serve import handover, keys, metrics, tasks
from bantam.serve.handover import Handover
from bantam.serve.shelf import Shelf
from bantam.sources import endpoint
from tiny import tiny_llama
from tiny_tasks import TEXTS, TOOLS, packed, serving

SCHEMA = {
    "type": "object",
    "properties": {"thing": {"enum": ["camera", "phone"]}},
    "required": ["thing"],
    "additionalProperties": False,
}
LABELS = replace(
    classify.task("labels", "Is it good?", ["yes", "no", "not at all"]), max_text_tokens=256
)
RECORD = replace(writing.task("extract", "record", "", answer_schema=SCHEMA), max_answer_tokens=60)
CALLS = replace(writing.task("extract", "calls", "", most_calls=2), max_answer_tokens=60)
SAID = replace(writing.task("generate", "text", "Say it."), max_answer_tokens=8)


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("larger") / "larger.gguf", seed=1)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, larger: Path) -> Shelf:
    folder = tmp_path_factory.mktemp("shelf")
    several = classify.task("several", "What?", ["a", "b"], multi=True)
    made = {"labels": LABELS, "record": RECORD, "calls": CALLS, "text": SAID, "several": several}
    places = {
        name: packed(folder / f"{name}.gguf", tiny_model, task) for name, task in made.items()
    }
    return Shelf(places | {"larger": larger}, threads=1, parallel=1)


@pytest.fixture(scope="module")
def handing(shelf: Shelf) -> Iterator[Callable[..., Any]]:
    """Answers of a server that hands over as it is told."""
    settings = SimpleNamespace()
    with serving(shelf, tasks.routes, settings) as client:

        def said(name: str, to: Handover | None, **asked: Any) -> Any:
            settings.handover = to
            response = client.post(f"/tasks/{name}", json=asked)
            assert response.status_code == 200, response.text
            return response.json()

        yield said
    asyncio.run(shelf.close())


def counted(what: str, model: str, to: str) -> float:
    labels = {"model": model, "handed_to": to}
    return metrics.REGISTRY.get_sample_value(f"{what}_total", labels) or 0.0


ALWAYS = Handover("larger", 1.0)


def test_nothing_is_handed_over_unless_asked_for(handing: Callable[..., Any]) -> None:
    for to in (None, Handover("larger", 0.0)):
        told = handing("labels", to, text=TEXTS[0])
        assert told["handed_to"] is None
        assert told["confidence"] is not None


def test_only_what_is_not_sure_is_handed_over(handing: Callable[..., Any]) -> None:
    ours = handing("labels", None, texts=TEXTS)["answers"]
    middle = sorted(one["confidence"] for one in ours)[len(ours) // 2]
    before = counted("bantam_handed_over", "labels", "larger")
    told = handing("labels", Handover("larger", middle), texts=TEXTS)["answers"]
    handed = [one["handed_to"] == "larger" for one in told]
    # In batches the runtime adds the same numbers in another order.
    clear = [abs(one["confidence"] - middle) > 0.005 for one in ours]
    for one, gone, known in zip(ours, handed, clear, strict=True):
        assert not known or gone == (one["confidence"] < middle)
    assert 0 < sum(handed) < len(told)
    assert counted("bantam_handed_over", "labels", "larger") - before == sum(handed)


def test_of_a_long_text_no_more_is_read_than_its_task_reads(
    handing: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    answers = larger_.answers

    def watched(model: Model, task: Any, rows: Any) -> Any:
        seen.extend(len(row.text) for row in rows)
        return answers(model, task, rows)

    monkeypatch.setattr(larger_, "answers", watched)
    long = "It broke in a day. " * 20_000
    assert handing("labels", ALWAYS, text=long)["handed_to"] == "larger"
    assert seen[0] < len(long) / 10


def test_labels_are_asked_as_the_judge_asks(handing: Callable[..., Any], larger: Path) -> None:
    told = handing("labels", ALWAYS, text=TEXTS[3])
    assert told["handed_to"] == "larger"
    assert (told["confidence"], told["sure"]) == (None, None)  # nothing says what they mean
    with Model(larger, threads=1) as model:
        task = language.untuned(LABELS)
        asked = language.zero_shot(model, task, ())["chat"]
        (row,) = language.asking(language.Asked("", asked, None, 0.0))(model, [TEXTS[3]])
    shares = dict(zip(LABELS.labels, row.tolist(), strict=True))
    assert told["probabilities"] == pytest.approx(shares, abs=0.02)
    assert told["label"] == max(told["probabilities"], key=told["probabilities"].get)
    assert told["probabilities"] != handing("labels", None, text=TEXTS[3])["probabilities"]


def test_what_it_writes_is_held_to_the_schema(handing: Callable[..., Any], larger: Path) -> None:
    told = handing("record", ALWAYS, text=TEXTS[0])
    assert told["handed_to"] == "larger"
    jsonschema.validate(told["object"], SCHEMA)
    calls = handing("calls", ALWAYS, text="mend the phone", tools=TOOLS)
    assert calls["handed_to"] == "larger"
    assert {call["name"] for call in calls["object"]} <= {"praise", "mend"}
    text = handing("text", ALWAYS, text=TEXTS[0])
    assert text["handed_to"] == "larger"
    with Model(larger, threads=1) as model:
        asked = described.prompts(model, SAID)["chat"]
        assert text["text"] == model.written(asked, TEXTS[0], "", larger_.END).text


def test_ours_stands_where_the_larger_cannot_answer(handing: Callable[..., Any]) -> None:
    ours = handing("labels", None, text=TEXTS[0])
    gone = Handover("gone", 1.0)  # not on the shelf
    before = counted("bantam_handovers_failed", "labels", "gone")
    told = handing("labels", gone, text=TEXTS[0])
    assert told["handed_to"] is None
    assert told["probabilities"] == pytest.approx(ours["probabilities"], abs=0.02)
    assert counted("bantam_handovers_failed", "labels", "gone") == before + 1


def test_what_is_never_handed_over(handing: Callable[..., Any]) -> None:
    assert handing("several", ALWAYS, text=TEXTS[0])["handed_to"] is None
    itself = Handover("labels", 1.0)
    assert handing("labels", itself, text=TEXTS[0])["handed_to"] is None


def test_a_question_without_room(larger: Path) -> None:
    with Model(larger, threads=1, context=64) as model:
        task = replace(RECORD, max_text_tokens=10_000)
        (told,) = larger_.answers(
            model, CALLS, [Row(TEXTS[0], "", json.dumps(declarations.tools(TOOLS, "tools")))]
        )
        assert told is None
        assert len(larger_.answers(model, task, [Row(TEXTS[0] * 50, "")])) == 1


def test_a_server_needs_no_package_of_the_judges() -> None:
    """It hands over where only what runs models is installed."""
    told = (
        "import sys, bantam.serve.handover, bantam.serve.tasks\n"
        "import bantam.judge.larger, bantam.judge.elsewhere\n"
        "print(*{'torch', 'polars', 'sklearn', 'scipy', 'sacrebleu'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def there(answer: Callable[[dict[str, Any]], Told], seconds: float = 30.0) -> Any:
    """A hand-over of everything to an endpoint that answers so, and is waited for so long."""

    @contextmanager
    def handed() -> Iterator[tuple[Handover, Away]]:
        with away(answer) as found:
            where = endpoint.parse(found.address)
            with endpoint.connect(where, "the key", seconds=seconds) as line:
                yield Handover(where.name, 1.0, line), found

    return handed()


def test_an_endpoint_is_asked_for_labels(handing: Callable[..., Any]) -> None:
    with there(lambda _: said('{"label": "not at all"}')) as (to, found):
        before = counted("bantam_handed_over", "labels", to.model)
        told = handing("labels", to, texts=TEXTS[:3])["answers"]
        assert [one["label"] for one in told] == ["not at all"] * 3
        assert {one["handed_to"] for one in told} == {to.model}
        assert {(one["confidence"], one["sure"], *one["probabilities"]) for one in told} == {
            (None, None)
        }
        assert counted("bantam_handed_over", "labels", to.model) == before + 3
    asked = sorted(found.asked, key=lambda one: one["messages"][0]["content"])
    for body, text in zip(asked, TEXTS, strict=False):
        (turn,) = body["messages"]
        assert "Is it good? Answer with one of: yes, no, not at all." in turn["content"]
        assert text in turn["content"]
        form = body["response_format"]["json_schema"]
        assert form["strict"] and form["schema"]["properties"]["label"]["enum"] == [*LABELS.labels]
    assert {headers["Authorization"] for headers in found.headers} == {"Bearer the key"}


def test_an_endpoint_is_asked_for_what_is_written(handing: Callable[..., Any]) -> None:
    with there(lambda _: said('```json\n{"thing": "phone"}\n```')) as (to, found):
        told = handing("record", to, text=TEXTS[0])
        assert (told["object"], told["handed_to"]) == ({"thing": "phone"}, to.model)
        assert found.asked[0]["response_format"]["json_schema"]["schema"] == SCHEMA
        assert "JSON that follows this schema" in found.asked[0]["messages"][0]["content"]
    with there(lambda _: called(("mend", '{"thing": "phone"}'))) as (to, found):
        told = handing("calls", to, text="mend the phone", tools=TOOLS)
        assert told["object"] == [{"name": "mend", "arguments": {"thing": "phone"}}]
        assert [one["function"]["name"] for one in found.asked[0]["tools"]] == ["praise", "mend"]
        assert "mend the phone" in found.asked[0]["messages"][0]["content"]
    with there(lambda _: said("Nothing fits.")) as (to, _):
        assert handing("calls", to, text="hello", tools=TOOLS)["object"] == []
    with there(lambda _: said("  So it is. ", "length")) as (to, _):
        told = handing("text", to, text=TEXTS[0])
        assert (told["text"], told["whole"], told["handed_to"]) == ("So it is.", False, to.model)


@contextmanager
def real(kind: str, path: Path) -> Iterator[str]:
    """Endpoints that are no stub: this server, and llama.cpp's own in a process of its own."""
    if kind == "bantam":
        with room({"larger": path}) as made:
            yield f"http://127.0.0.1:{made.serve()}/v1#larger"
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", LLAMA, str(path), str(port)])
    try:
        for _ in range(400):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1#larger"
    finally:
        server.kill()
        server.wait()


LLAMA = """
import sys, time, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.port = sys.argv[1], int(sys.argv[2])
settings.hostnames, settings.verbosity = ["127.0.0.1"], -1
settings.n_ctx, settings.cpuparams.n_threads = 512, 1
server = xllamacpp.Server(settings)
time.sleep(1e6)
"""


@pytest.mark.parametrize("kind", ["bantam", "llama.cpp"])
def test_real_servers_are_endpoints(handing: Callable[..., Any], larger: Path, kind: str) -> None:
    """A random model that the endpoint holds to the schema can only give one of the labels."""
    with real(kind, larger) as address:
        where = endpoint.parse(address)
        with endpoint.connect(where, "", seconds=20) as line:
            to = Handover(where.name, 1.0, line)
            told = handing("labels", to, texts=TEXTS[:4])["answers"]
            assert {one["handed_to"] for one in told} == {where.name}
            assert {one["label"] for one in told} <= set(LABELS.labels)
            assert handing("record", to, text=TEXTS[0])["object"]["thing"] in ("camera", "phone")
            told = handing("text", to, text=TEXTS[0])
            assert told["handed_to"] == where.name and told["text"]


WRONG = [
    said('{"label": "perhaps"}'),
    said("I would rather not say."),
    said('{"label": ["yes"]}'),
    wrong(500, TEXTS[0]),
    wrong(429),
    wrong(401, "no such key"),
    Told(b"<html>"),
    Told({}, wait=2.5),
    Told(b"", 307, (("Location", "http://127.0.0.1:1/"),)),
]


@pytest.mark.parametrize("told", WRONG, ids=range(len(WRONG)))
def test_ours_stands_where_an_endpoint_does_not_answer(
    handing: Callable[..., Any], told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    ours = handing("labels", None, text=TEXTS[0])
    with there(lambda _: told, seconds=1.0) as (to, _):
        before = counted("bantam_handovers_failed", "labels", to.model)
        found = handing("labels", to, text=TEXTS[0])
        assert (found["handed_to"], found["label"]) == (None, ours["label"])
        assert found["confidence"] == pytest.approx(ours["confidence"], abs=0.02)
        assert counted("bantam_handovers_failed", "labels", to.model) == before + 1
    assert TEXTS[0] not in caplog.text


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("record", said('{"thing": "car"}')),
        ("record", said('{"thing": "phone", "more": NaN}')),
        ("record", said("[" * 10_000)),
        ("calls", called(("sing", "{}"))),
        ("calls", called(("mend", "{"))),
        ("calls", called(("mend", '{"thing": "car"}'))),
    ],
)
def test_what_breaks_the_schema_is_no_answer(
    handing: Callable[..., Any], name: str, told: Told
) -> None:
    tools = {"tools": TOOLS} if name == "calls" else {}
    with there(lambda _: told) as (to, _):
        assert handing(name, to, text=TEXTS[0], **tools)["handed_to"] is None


def test_few_questions_are_asked_at_a_time(handing: Callable[..., Any]) -> None:
    now, most = 0, 0
    lock = threading.Lock()

    def answer(_: dict[str, Any]) -> Told:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        return said('{"label": "yes"}')

    with there(answer) as (to, found):
        told = handing("labels", to, texts=TEXTS[:40])["answers"]
    assert {one["handed_to"] for one in told} == {to.model}
    assert len(found.asked) == 40
    assert 1 < most <= 8


def test_each_model_has_its_own_threshold(handing: Callable[..., Any]) -> None:
    with there(lambda _: said('{"label": "yes"}')) as (to, _):
        own = replace(to, below={"labels": 1.0})
        assert handing("labels", own, text=TEXTS[0])["handed_to"] == to.model
        assert handing("record", own, text=TEXTS[0])["handed_to"] is None


def test_a_key_for_some_models_sends_nothing_away(handing: Callable[..., Any]) -> None:
    with there(lambda _: said('{"label": "yes"}')) as (to, found):
        limited = keys.read("some-key-0123456789 models=labels", "the test")[0]
        token = keys.asking.set(limited)
        try:
            book = SimpleNamespace(name="labels", task=LABELS)
            assert not handover._may(to, book)  # type: ignore[arg-type]
        finally:
            keys.asking.reset(token)
        assert handover._may(to, book)  # type: ignore[arg-type]
        assert found.asked == []
