"""Task endpoints: one text, many, and streams of them, answered as the model itself answers."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from bantam.answer import Answer
from bantam.kinds import classify
from bantam.kinds import texts as writing
from bantam.model import Model
from bantam.serve import duplex, task_forms, tasks
from bantam.serve import lines as lines_
from bantam.serve.app import app
from bantam.serve.guard import Settings
from bantam.serve.shelf import Shelf
from tiny_tasks import TEXTS, TOOLS, packed, running, serving

SCHEMA = {
    "type": "object",
    "properties": {"thing": {"enum": ["camera", "phone"]}, "count": {"type": "integer"}},
    "required": ["thing", "count"],
    "additionalProperties": False,
}
LABELS = ["yes", "no", "not at all"]
LONG = "the battery lasts all day " * 300


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Shelf:
    folder = tmp_path_factory.mktemp("shelf")
    labels = classify.task("labels", "Is it good?", LABELS)
    record = writing.task("extract", "record", "", answer_schema=SCHEMA)
    record = replace(record, max_answer_tokens=60, max_text_tokens=300, certainty=(0.01, 1.0))
    calls = replace(writing.task("extract", "calls", "", most_calls=2), max_answer_tokens=60)
    text = replace(writing.task("generate", "text", "Say it."), max_answer_tokens=8)
    several = classify.task("several", "What is it?", LABELS, multi=True)
    made = {
        "labels": replace(labels, temperature=4.0, max_text_tokens=100, thresholds=(0.0, 0.0, 0.0)),
        "never": replace(labels, thresholds=(1.0, 1.0, 1.0)),
        "record": replace(record, thresholds=(0.2,)),
        "short": replace(record, max_answer_tokens=3, thresholds=(1.0,)),
        "calls": replace(calls, max_text_tokens=200),
        "text": text,
        "several": replace(several, thresholds=(0.0, 1.0, 0.0)),
    }
    places = {
        name: packed(folder / f"{name}.gguf", tiny_model, task) for name, task in made.items()
    }
    return Shelf(places | {"chat": tiny_model}, threads=1, parallel=2)


@pytest.fixture(scope="module")
def client(shelf: Shelf) -> Iterator[httpx.Client]:
    with serving(shelf, tasks.routes) as client:
        yield client
    asyncio.run(shelf.close())


@pytest.fixture(scope="module")
def wanted(shelf: Shelf) -> list[Answer]:
    """What the model itself says of TEXTS."""
    with Model(shelf.book("labels").path, threads=1) as model:
        return model.batch(TEXTS)


def said(client: httpx.Client, name: str, **asked: Any) -> Any:
    response = client.post(f"/tasks/{name}", json=asked)
    assert response.status_code == 200, response.text
    return response.json()


def refused(client: httpx.Client, name: str, status: int, **asked: Any) -> str:
    response = client.post(f"/tasks/{name}", json=asked)
    assert response.status_code == status, response.text
    return str(response.json().get("error", {}).get("message", response.text))


def lines(client: httpx.Client, name: str, body: bytes, **how: Any) -> list[Any]:
    response = client.post(f"/tasks/{name}/stream", content=body, **how)
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def test_the_models_with_a_task(client: httpx.Client) -> None:
    told = {one["name"]: one for one in client.get("/tasks").json()["tasks"]}
    assert "chat" not in told
    assert told["labels"]["labels"] == LABELS
    assert told["labels"]["instruction"] == "Is it good?"
    assert told["several"]["several"] and not told["labels"]["several"]
    assert told["record"]["answer_schema"] == SCHEMA
    assert told["record"]["labels"] is None
    assert (told["calls"]["calls"], told["record"]["calls"]) == (2, 0)


def test_one_text_is_labelled_as_the_model_labels_it(
    client: httpx.Client, wanted: list[Answer]
) -> None:
    told = said(client, "labels", text=TEXTS[0])
    assert told["kind"] == "classify"
    assert told["probabilities"] == pytest.approx(wanted[0].probabilities, abs=0.02)
    assert told["label"] == max(told["probabilities"], key=told["probabilities"].get)
    assert told["confidence"] == max(told["probabilities"].values())  # calibrated: see `packed`
    assert told["labels"] == [told["label"]]
    assert (told["sure"], told["whole"], told["cut"]) == (True, True, False)
    assert told["handed_to"] is None
    assert told["id"] != said(client, "labels", text=TEXTS[0])["id"]
    assert said(client, "never", text=TEXTS[0])["sure"] is False


def test_confidence_is_calibrated(client: httpx.Client) -> None:
    """The same weights with a higher temperature are less sure of the same answer."""
    warm, plain = (said(client, name, text=TEXTS[1]) for name in ("labels", "never"))
    shares = [p**0.25 for p in plain["probabilities"].values()]
    assert warm["confidence"] == pytest.approx(max(shares) / sum(shares), abs=0.02)


def test_many_texts_keep_their_order(client: httpx.Client, wanted: list[Answer]) -> None:
    told = said(client, "labels", texts=TEXTS)["answers"]
    assert len(told) == len(TEXTS) > 2 * tasks.PIECE
    for one, other in zip(told, wanted, strict=True):
        assert one["probabilities"] == pytest.approx(other.probabilities, abs=0.02)
    assert len({json.dumps(one["probabilities"]) for one in told}) > 10  # they differ
    assert len({one["id"] for one in told}) == len(TEXTS)
    assert said(client, "labels", texts=[]) == {"answers": []}
    assert len(said(client, "labels", texts=TEXTS[:1])["answers"]) == 1


def test_several_labels(client: httpx.Client) -> None:
    told = said(client, "several", text=TEXTS[0])
    assert told["label"] == "|".join(sorted(told["labels"]))
    assert {"yes", "not at all"} <= set(told["labels"])
    assert told["sure"] is None


def test_what_is_written_follows_the_schema(client: httpx.Client) -> None:
    told = said(client, "record", texts=TEXTS[:5])["answers"]
    for one in told:
        jsonschema.validate(one["object"], SCHEMA)
        assert one["kind"] == "extract"
        assert 0 < one["confidence"] < 1  # what validation says, by `certainty`
        assert one["sure"] == (one["confidence"] > 0.2)
    short = said(client, "short", text=TEXTS[0])
    jsonschema.validate(short["object"], SCHEMA)
    assert short["whole"] is False
    assert short["sure"] is False


def test_free_text(client: httpx.Client, shelf: Shelf) -> None:
    told = said(client, "text", text=TEXTS[0])
    with Model(shelf.book("text").path, threads=1) as model:
        assert told["text"] == str(model(TEXTS[0]))
    assert told["confidence"] is None  # validation never said what its probability means


def test_functions_of_all_or_of_each(client: httpx.Client) -> None:
    one = said(client, "calls", text="mend the phone", tools=TOOLS)
    assert {call["name"] for call in one["object"]} <= {"praise", "mend"}
    each = said(client, "calls", texts=["mend it", "praise it"], tools=[TOOLS[1:], TOOLS[:1]])
    names = [{call["name"] for call in told["object"]} for told in each["answers"]]
    assert names[0] <= {"mend"} and names[1] <= {"praise"}
    assert "chooses among functions" in refused(client, "calls", 400, text="mend the phone")
    assert "2 texts, but functions for 1" in refused(
        client, "calls", 400, texts=["a", "b"], tools=[TOOLS]
    )
    assert "calls no functions" in refused(client, "labels", 400, text="a", tools=TOOLS)
    bad = [{"type": "function", "function": {"name": "no name", "parameters": {}}}]
    assert "name" in refused(client, "calls", 400, text="a", tools=bad)


def test_a_text_that_does_not_fit_is_refused_or_told(client: httpx.Client) -> None:
    assert said(client, "labels", text=LONG)["cut"] is True
    answers = said(client, "labels", texts=[TEXTS[0], LONG])["answers"]
    assert [one["cut"] for one in answers] == [False, True]
    message = refused(client, "record", 400, text=LONG)
    assert "1,8" in message and "reads 300 at most" in message
    message = refused(client, "record", 400, texts=[TEXTS[0], LONG])
    assert message.startswith("texts[1]: a text of 1,8")
    message = refused(client, "text", 400, text=LONG)  # no bound of its own but the context
    assert "this model has room for 510" in message


def test_no_more_of_a_text_is_tokenized_than_may_be_read(
    client: httpx.Client, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, longest, encode = LONG * 5, 0, Model.encode
    with Model(shelf.book("labels").path, threads=1) as model:
        (wanted,) = model.batch([LONG])

    def watched(self: Model, segments: list[tuple[str, bool]]) -> list[int]:
        nonlocal longest
        longest = max(longest, *(len(text) for text, _ in segments))
        return encode(self, segments)

    monkeypatch.setattr(Model, "encode", watched)
    told = said(client, "labels", texts=[text, text[: 64 * 100 + 1], "a"])["answers"]
    assert [one["cut"] for one in told] == [True, True, False]
    assert told[0]["probabilities"] == pytest.approx(wanted.probabilities, abs=0.02)
    assert told[1]["probabilities"] == pytest.approx(wanted.probabilities, abs=0.02)
    assert refused(client, "record", 400, text=text).startswith("the prompt has 39,000 characters")
    message = refused(client, "text", 400, texts=["a", text])
    assert message.startswith("texts[1]: the prompt has 39,000 characters")
    assert longest == 64 * 100


def test_what_cannot_be_asked(client: httpx.Client) -> None:
    assert "there is no model 'other'" in refused(client, "other", 404, text="a")
    assert "/v1/chat/completions" in refused(client, "chat", 404, text="a")
    refused(client, "labels", 422, text="a", texts=["b"])
    refused(client, "labels", 422)
    refused(client, "labels", 422, text=7)
    refused(client, "labels", 422, texts=["a"] * (task_forms.MOST + 1))
    body = b'{"text": "half a character \\ud800"}'
    assert client.post("/tasks/labels", content=body).status_code == 422
    assert said(client, "labels", text="a", unknown=1)["label"] in LABELS


def test_a_stream_of_lines(client: httpx.Client, wanted: list[Answer]) -> None:
    body = "".join(json.dumps({"text": text, "row": 1}) + "\n" for text in TEXTS[:-1])
    told = lines(client, "labels", (body + json.dumps(TEXTS[-1])).encode())
    assert [one["line"] for one in told] == list(range(1, len(TEXTS) + 1))
    for one, other in zip(told, wanted, strict=True):
        assert one["probabilities"] == pytest.approx(other.probabilities, abs=0.02)
    assert lines(client, "labels", b"") == []


def test_errors_of_a_line_are_told_in_it(client: httpx.Client) -> None:
    body = [
        json.dumps({"text": TEXTS[0]}).encode(),
        b"",
        b"{broken",
        json.dumps({"text": LONG}).encode(),
        b'{"text": "\xff"}',
        b'{"tools": []}',
        b'{"text": "' + b"x" * task_forms.LONGEST + b'"}',
        json.dumps({"text": TEXTS[1]}).encode(),
    ]
    told = lines(client, "record", b"\n".join(body))
    assert [one["line"] for one in told] == [1, 3, 4, 5, 6, 7, 8]
    assert ["error" in one for one in told] == [False, True, True, True, True, True, False]
    assert "reads 300 at most" in told[2]["error"]["message"]
    assert told[4]["error"]["param"] == "text"
    assert told[5]["error"]["status"] == 413
    assert "broken" not in json.dumps(told[1])  # what was sent is not sent back


def test_a_table(client: httpx.Client, wanted: list[Answer]) -> None:
    rows = [f'{n};"{text}\nin ""two"" lines"\r\n' for n, text in enumerate(TEXTS[:3])]
    body = ("\ufeffn;words\r\n" + "".join(rows) + "\r\n9\r\n").encode()
    csv = {"headers": {"content-type": "text/csv"}, "params": {"column": "words"}}
    told = lines(client, "labels", body, **csv)
    whole = said(client, "labels", texts=[f'{t}\nin "two" lines' for t in TEXTS[:3]])["answers"]
    for one, other in zip(told[:3], whole, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=0.02)
    assert [one["line"] for one in told] == [2, 4, 6, 9]
    assert "it has 1 cells, the header 2" in told[3]["error"]["message"]
    told = lines(client, "labels", b"n,text\n1,a\n", **csv)
    assert "there is no column 'words'; there are: n, text" in told[0]["error"]["message"]
    told = lines(client, "labels", b'words,n\n"a', **csv)
    assert "within a quoted cell" in told[0]["error"]["message"]
    assert client.post("/tasks/labels/stream", headers={"content-type": "a/b"}).status_code == 400
    assert client.post("/tasks/other/stream").status_code == 404


def opened(client: httpx.Client, name: str) -> socket.socket:
    """A connection on which a stream has begun; its body is sent in chunks."""
    port = client.base_url.port
    made = socket.create_connection(("127.0.0.1", port), timeout=20)
    head = f"POST /tasks/{name}/stream HTTP/1.1\r\nHost: localhost\r\n"
    made.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    return made


def send(made: socket.socket, text: str) -> None:
    line = json.dumps({"text": text}).encode() + b"\n"
    made.sendall(b"%x\r\n%s\r\n" % (len(line), line))


def in_turns(client: httpx.Client, name: str) -> None:
    """Each line is sent when the one before was answered."""
    with opened(client, name) as made:
        received = made.makefile("rb")
        for number in range(1, 4):
            send(made, TEXTS[number])
            while b'"line"' not in (line := received.readline()):
                assert line, "the connection was closed"
            assert json.loads(line)["line"] == number
        made.sendall(b"0\r\n\r\n")
        assert received.readline() == b"\r\n"
        assert received.readline() == b"0\r\n"  # the end, as chunks have it


def test_an_answer_comes_before_the_next_line_is_sent(client: httpx.Client) -> None:
    in_turns(client, "labels")


def test_the_whole_server_answers_tasks(shelf: Shelf) -> None:
    """Behind its guard too; a name may hold slashes; what is answered is counted."""
    name = "org/labels:v1"
    own = Shelf({name: shelf.book("labels").path}, threads=1, parallel=1)
    with running(app(own, Settings())) as client:
        assert said(client, name, text="a")["model"] == name
        assert len(said(client, "org%2Flabels:v1", texts=TEXTS[:3])["answers"]) == 3
        in_turns(client, name)
        assert "one of them" in refused(client, name, 400, text="a", texts=["b"])
        assert "no model 'other'" in refused(client, "other", 404, text="a")
        assert client.get("/feedback").json()["kept"] is False
        counted = client.get("/metrics").text
        assert f'bantam_answer_seconds_count{{model="{name}"}} 7.0' in counted
    asyncio.run(own.close())


def test_a_client_that_goes_leaves_nothing_behind(client: httpx.Client, shelf: Shelf) -> None:
    with opened(client, "record") as made:
        for text in TEXTS * 10:
            send(made, text)
        while not busy(shelf, "record"):
            time.sleep(0.001)
    began = time.monotonic()
    while busy(shelf, "record"):
        assert time.monotonic() - began < 1
        time.sleep(0.01)
    time.sleep(0.2)
    assert not busy(shelf, "record")  # it did not go on with the next lines


def busy(shelf: Shelf, name: str) -> bool:
    (state,) = (state for state in shelf.state() if state["name"] == name)
    return bool(state["in_flight"] or state["waiting"])


def test_no_more_is_read_than_is_worked_on() -> None:
    """A client that sends and does not read has to wait; so does the one that reads slowly."""

    async def tried() -> tuple[int, int]:
        chunks = sent = 0

        async def receive() -> dict[str, Any]:
            nonlocal chunks
            chunks += 1
            await asyncio.sleep(0)
            return {"type": "http.request", "body": b'"a"\n' * 1000, "more_body": True}

        async def send(message: Any) -> None:
            nonlocal sent
            sent += 1
            if sent > 3:
                await asyncio.sleep(3600)

        async def work(piece: list[Any]) -> bytes:
            return b"answers"

        async def answered(received: Any) -> Any:
            async def pieces() -> Any:
                async for rows in lines_.json_rows(received):
                    yield rows

            async for answer in duplex.ordered(pieces(), work, 2):
                yield answer

        sending = asyncio.create_task(duplex.Duplex(answered, "a/b")({}, receive, send))
        await asyncio.sleep(0.5)
        told = chunks, sent
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        return told

    chunks, sent = asyncio.run(tried())
    assert sent == 4
    assert chunks <= 12


def test_the_document_tells_every_answer(client: httpx.Client) -> None:
    told = client.get("/openapi.json").json()
    schemas = told["components"]["schemas"]
    assert {"Asked", "Labelled", "Extracted", "Generated", "Many", "Known", "Wrong"} <= set(schemas)
    answer = told["paths"]["/tasks/{name}"]["post"]["responses"]
    assert {"200", "400", "404", "413", "422", "429", "503"} <= set(answer)
    body = told["paths"]["/tasks/{name}/stream"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/x-ndjson", "text/csv"}
    one = said(client, "labels", text="a")
    jsonschema.validate(one, schemas["Labelled"] | {"components": told["components"]})
