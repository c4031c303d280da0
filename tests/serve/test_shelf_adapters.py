"""Adapters on the shelf: one process for a file and all that is over it, one adapter a request."""

import asyncio
import logging
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rooms import ask, chat
from served import served
from test_shelf import (
    LONG,
    PROMPT,
    ROOM,
    SHORT,
    asked,
    begun,
    processes,
    run,
    shelf,
    state,
    until,
    written,
)

from bantam import engine, runs
from bantam.engine import Piece
from bantam.errors import BadInput
from bantam.formats import gguf, lora
from bantam.kinds import to_metadata
from bantam.model import Model
from bantam.serve import keys, memory
from bantam.serve.ask import Refusal
from bantam.serve.guard import Settings
from bantam.serve.shelf import Shelf
from tiny import rewritten, tiny_llama
from tiny_adapter import adapter
from tiny_job import TASK

TEXTS = [f"the battery lasts {number} days" for number in range(40)]
KEYS = "limited-key-0123456789 models=formal,task"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base and two adapters, one of them for a task. Do not alter them: link them first."""
    folder = tmp_path_factory.mktemp("files")
    found = {name: folder / f"{name}.gguf" for name in ("base", "formal", "task")}
    plain = tiny_llama(folder / "plain.gguf")
    rewritten(found["base"], plain, {"llama.context_length": ROOM})
    adapter(found["formal"], found["base"], seed=1)
    known = to_metadata(TASK) | {lora.BASE: runs.file_sha256(found["base"])}
    adapter(found["task"], found["base"], seed=2, keys=known)
    return found


def over(files: dict[str, Path]) -> dict[str, Any]:
    """The places of a shelf with all of them."""
    return dict.fromkeys(files, files["base"])


def adapters(files: dict[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in files.items() if name != "base"}


@pytest.fixture(scope="module")
def texts(files: dict[str, Path]) -> dict[str, str]:
    """What a runtime of its own writes with each adapter, and with none."""
    found = {}
    for name, path in files.items():
        heard: list[Any] = []
        ended = threading.Event()

        def tell(what: object) -> None:
            heard.append(what)  # noqa: B023
            if not isinstance(what, Piece):
                ended.set()  # noqa: B023

        own = [] if name == "base" else [path]
        with engine.start(files["base"], threads=1, context=512, adapters=own) as runtime:
            (runtime.adapted(0) if own else runtime).write(PROMPT, SHORT, tell)
            assert ended.wait(20)
        found[name] = "".join(told.text for told in heard if isinstance(told, Piece))
    assert len(set(found.values())) == 3
    return found


def test_each_name_answers_as_its_own_in_one_process(
    files: dict[str, Path], texts: dict[str, str]
) -> None:
    async def test() -> None:
        async with shelf(over(files), adapters=adapters(files), parallel=3) as made:
            names = [*files] * 4
            answers = await asyncio.gather(*(asked(made, name) for name in names))
            assert answers == [texts[name] for name in names]
            assert len(processes()) == 1
            for name in files:
                assert (state(made, name)["loads"], state(made, name)["in_flight"]) == (1, 0)

            async with made.lent("task") as lent:
                answered = await lent.blocking(lent.model.batch, TEXTS)
            with Model(files["base"], threads=1, context=512).adapted(files["task"]) as model:
                for one, other in zip(answered, model.batch(TEXTS), strict=True):
                    assert one.probability == pytest.approx(other.probability, abs=0.02)

    run(test())
    assert processes() == []


def test_what_is_told_of_each(files: dict[str, Path]) -> None:
    async def test() -> None:
        async with shelf(over(files), adapters=adapters(files), context=None) as made:
            base, formal, task = made.books()
            assert [book.name for book in made.books()] == ["base", "formal", "task"]
            assert (base.task, formal.task, task.task) == (None, None, TASK)
            assert base.bytes == files["base"].stat().st_size
            assert formal.bytes == base.bytes + files["formal"].stat().st_size
            weights = gguf.read(files["formal"]).tensors.values()
            assert formal.parameters - base.parameters == sum(
                tensor.shape[0] * tensor.shape[1] for tensor in weights
            )
            assert (base.context, task.context) == (4096, 1024)  # a conversation, a task
            assert await asked(made, "task")
            await until(lambda: all(book.sha for book in made.books()))
            assert made.book("base").sha == runs.file_sha256(files["base"])
            assert len({book.sha for book in made.books()}) == 3
            with pytest.raises(Refusal, match="base, formal, task"):
                made.book(str(files["formal"]))
            # Of the one process each has its share.
            assert 10_000_000 < state(made, "base")["memory"] == state(made, "task")["memory"]

    run(test())


def test_a_process_is_for_one_file(files: dict[str, Path], tmp_path: Path) -> None:
    os.link(files["base"], tmp_path / "other.gguf")

    async def test() -> None:
        places = over(files) | {"again": files["base"], "other": tmp_path / "other.gguf"}
        async with shelf(places, adapters=adapters(files)) as made:
            first = await asked(made, "base")
            assert await asked(made, "again") == first
            assert len(processes()) == 1
            assert await asked(made, "other") == first
            assert len(processes()) == 2

    run(test())


def test_memory_is_reckoned_once_for_all(files: dict[str, Path]) -> None:
    sizes = sum(path.stat().st_size for path in files.values())
    need = memory.needed(gguf.read(files["base"]), sizes, 512, 2)

    async def test() -> None:
        async with shelf(over(files), adapters=adapters(files), memory=need) as made:
            for name in files:
                assert await asked(made, name)
        async with shelf(over(files), adapters=adapters(files), memory=need - 1) as made:
            with pytest.raises(Refusal, match="needs about"):
                await asked(made, "formal")

    run(test())


def test_they_share_their_turns_and_are_counted_apart(files: dict[str, Path]) -> None:
    async def test() -> None:
        told = {"adapters": adapters(files), "parallel": 1, "queue": 2, "patience": 20}
        async with shelf(over(files), **told) as made:
            async with made.lent("base"):
                waiting = [asyncio.create_task(asked(made, name)) for name in ("formal", "task")]
                await until(lambda: state(made, "task")["waiting"] == 1)
                counted = [(one["in_flight"], one["waiting"]) for one in made.state()]
                assert counted == [(1, 0), (0, 1), (0, 1)]
                with pytest.raises(Refusal) as refused:
                    await asked(made, "formal")
                assert refused.value.status == 429
            assert all(await asyncio.gather(*waiting))
            assert not any(one["in_flight"] + one["waiting"] for one in made.state())

    run(test())


def test_a_changed_adapter_is_taken_and_no_request_is_dropped(
    files: dict[str, Path], texts: dict[str, str], tmp_path: Path
) -> None:
    async def test() -> None:
        place = tmp_path / "formal.gguf"
        os.link(files["formal"], place)
        told = adapters(files) | {"formal": place}
        async with shelf(over(files), adapters=told, context=ROOM) as made:
            long = await begun(made, "formal", replace(LONG, max_tokens=1500))
            [old] = processes()
            assert await asked(made, "formal") == texts["formal"]
            adapter(tmp_path / "new", files["base"], seed=3)
            (tmp_path / "new").replace(place)
            newer = await asked(made, "formal")
            assert newer != texts["formal"]
            assert await asked(made, "base") == texts["base"]
            assert old in processes(), "the long text ended too early to show anything"
            assert (await long).startswith(texts["formal"])  # the old adapter to its end
            await until(lambda: old not in processes())
            assert len(processes()) == 1
            assert [one["loads"] for one in made.state()] == [2, 2, 2]

    run(test())


def test_a_broken_newcomer_leaves_the_old_ones_serving(
    files: dict[str, Path],
    texts: dict[str, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "bantam.serve")
    other = tiny_llama(tmp_path / "other.gguf", seed=5)
    places = {name: tmp_path / name for name in ("cut", "wide", "strange")}
    places["cut"].write_bytes(files["formal"].read_bytes()[:-900])
    adapter(places["wide"], files["base"], tensors={"blk.0.attn_q.weight.lora_a": None})
    adapter(places["strange"], files["base"], keys={lora.BASE: runs.file_sha256(other)})

    async def test() -> None:
        place = tmp_path / "formal.gguf"
        os.link(files["formal"], place)
        told = adapters(files) | {"formal": place}
        async with shelf(over(files), adapters=told) as made:
            assert await asked(made, "base") == texts["base"]
            for broken in places.values():
                broken.replace(place)
                caplog.clear()
                for name in files:
                    assert await asked(made, name) == texts[name]
                said = [one.message for one in caplog.records if "serves on" in one.message]
                assert len(said) == 1  # once, not for each request
            os.kill(processes()[0], signal.SIGKILL)  # now there is nothing to serve with
            await until(lambda: not state(made, "base")["loaded"])
            for name, shown in (("formal", "formal was trained"), ("task", "another adapter was")):
                with pytest.raises(Refusal) as refused:
                    await asked(made, name)
                assert refused.value.status == 503
                assert f"{name} cannot be opened: {shown}" in refused.value.message
                assert str(tmp_path) not in refused.value.message
                assert str(files["base"].parent) not in refused.value.message
            os.link(files["formal"], tmp_path / "new")
            (tmp_path / "new").replace(place)
            assert await asked(made, "formal") == texts["formal"]  # at once: it is another file

    run(test())


def test_a_death_is_everybodys_and_a_second_one_its_own(
    files: dict[str, Path], texts: dict[str, str]
) -> None:
    async def test() -> None:
        async with shelf(over(files), adapters=adapters(files), context=ROOM) as made:
            going = await begun(made, "formal", LONG)
            os.kill(processes()[0], signal.SIGSEGV)
            with pytest.raises(Refusal, match="SIGSEGV") as refused:
                await going
            assert (refused.value.status, refused.value.retry_after) == (503, 1)
            assert await asked(made, "base") == texts["base"]
            [main] = processes()
            assert [one["restarts"] for one in made.state()] == [1, 1, 1]

            # The same words for another adapter were not there: they need no process of their own.
            same = await begun(made, "task", LONG)
            assert processes() == [main]
            same.cancel()
            await asyncio.wait([same])
            poison = await begun(made, "formal", LONG)
            [alone] = set(processes()) - {main}
            os.kill(alone, signal.SIGSEGV)
            with pytest.raises(Refusal):
                await poison
            with pytest.raises(Refusal) as refused:
                await asked(made, "formal", LONG)
            assert refused.value.status == 422
            for name in files:
                assert await asked(made, name) == texts[name]
            assert processes() == [main]

    run(test())
    assert processes() == []


def test_a_suspect_is_tried_with_its_adapter(files: dict[str, Path], texts: dict[str, str]) -> None:
    async def test() -> None:
        async with shelf(over(files), adapters=adapters(files)) as made:
            async with made.lent("formal") as lent:
                # While the text is asked for the process is dead already, and it is blamed.
                os.kill(lent.model.runtime.pid, signal.SIGKILL)
                with pytest.raises(Refusal):
                    await written(lent)
            assert await asked(made, "formal") == texts["formal"]  # alone, with one slot
            assert await asked(made, "formal") == texts["formal"]

    run(test())


def test_embeddings_are_the_bases(files: dict[str, Path]) -> None:
    async def test() -> None:
        async with shelf(over(files), adapters=adapters(files)) as made:
            async with made.lent("base") as lent:
                assert len(await lent.embed([PROMPT])) == 1
            async with made.lent("formal") as lent:
                with pytest.raises(Refusal, match="gives no embeddings") as refused:
                    await lent.embed([PROMPT])
            assert refused.value.status == 400

    run(test())


def test_what_does_not_fit_is_told_at_the_start(files: dict[str, Path], tmp_path: Path) -> None:
    other = tiny_llama(tmp_path / "other.gguf", seed=5)
    with pytest.raises(BadInput, match="was trained over another file") as refused:
        Shelf({"task": other}, adapters={"task": files["task"]})
    assert runs.file_sha256(files["base"]) in refused.value.mend
    Shelf({"formal": other}, adapters={"formal": files["formal"]})  # it does not say which
    with pytest.raises(BadInput, match="is no LoRA adapter"):
        Shelf({"formal": other}, adapters={"formal": files["base"]})


def test_over_the_network(files: dict[str, Path]) -> None:
    made = Shelf(over(files), adapters=adapters(files), threads=1, parallel=2, context=512)
    held = keys.read(f"a-key-for-everything-0123\n{KEYS}", "here")
    with served(made, Settings(keys=held)) as address:
        port = int(address.rpartition(":")[2])

        def told(path: str, body: Any = None, key: str = "a-key-for-everything-0123") -> Any:
            method = "GET" if body is None else "POST"
            return ask(port, path, method, body, Authorization=f"Bearer {key}")

        limited = KEYS.partition(" ")[0]
        listed = {one["id"]: one["bantam"] for one in told("/v1/models").json["data"]}
        assert [*listed] == ["base", "formal", "task"]
        assert (listed["formal"]["task"], listed["task"]["task"]) == (None, "classify")
        seen = told("/v1/models", key=limited).json["data"]
        assert [one["id"] for one in seen] == ["formal", "task"]
        assert told("/v1/chat/completions", chat("base", max_tokens=2), limited).status == 404
        for name in files:
            reply = told("/v1/chat/completions", chat(name, max_tokens=2, temperature=0)).json
            assert reply["model"] == name
        answer = told("/tasks/task", {"text": "the battery broke"}).json
        assert answer["label"] in TASK.labels
        assert told("/tasks/formal", {"text": "the battery broke"}).status == 404
        refused = told("/v1/embeddings", {"model": "formal", "input": "a text"})
        assert refused.status == 400
        assert "gives no embeddings" in refused.json["error"]["message"]
        assert told("/v1/embeddings", {"model": "base", "input": "a text"}).status == 200
        counted = told("/metrics").body.decode()
        for name in files:
            assert f'bantam_model_loaded{{model="{name}"}} 1.0' in counted
            assert f'bantam_written_tokens_total{{model="{name}"}}' in counted
        running = told("/api/ps").json["models"]
        assert [one["name"] for one in running] == ["base:latest", "formal:latest", "task:latest"]
        assert all(one["size"] > 0 for one in running)
