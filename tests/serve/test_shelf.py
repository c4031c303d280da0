"""The models by name, on real processes: turns, opening, changed files, deaths, memory."""

import asyncio
import gc
import logging
import os
import signal
import threading
import time
import weakref
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from bantam import engine
from bantam.engine import Completion, Done, Piece, Sampling
from bantam.errors import BadInput
from bantam.formats import gguf
from bantam.kinds import texts as writing
from bantam.kinds import to_metadata
from bantam.model import Model
from bantam.serve import memory
from bantam.serve.ask import Refusal
from bantam.serve.shelf import Lent, Shelf
from bantam.serve.watched import Blame, Watched
from tiny import rewritten, tiny_llama
from tiny_job import TASK

PROMPT = [10, 20, 30, 40, 50]
NO_END = ((0, -100.0), (1, -100.0), (2, -100.0))  # so that a text goes on as long as it may
SHORT = Sampling(max_tokens=8, logit_bias=NO_END)
LONG = Sampling(logit_bias=NO_END)
WHOLE = Sampling(alternatives=0, whole=True)  # as a runtime completes a text
ROOM = 16_000  # tokens: a text that fills them takes several seconds


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models of other weights, one of them for a task. Do not alter them: link them first."""
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for seed, name in enumerate(("one", "two")):
        plain = tiny_llama(folder / f"{name}-plain.gguf", seed=seed)
        found[name] = rewritten(folder / f"{name}.gguf", plain, {"llama.context_length": ROOM})
    found["task"] = rewritten(folder / "task.gguf", found["one"], to_metadata(TASK))
    return found


@asynccontextmanager
async def shelf(places: dict[str, Path], **how: Any) -> AsyncIterator[Shelf]:
    made = Shelf(places, **({"threads": 1, "parallel": 2, "context": 512} | how))
    try:
        yield made
    finally:
        await made.close()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


async def written(lent: Lent, sampling: Sampling = SHORT, prompt: list[int] = PROMPT) -> str:
    """The whole text; it must end as it should."""
    text, done = "", None
    async for told in lent.write(prompt, sampling):
        assert done is None
        if isinstance(told, Piece):
            text += told.text
        else:
            done = told
    assert isinstance(done, Done)
    return text


async def asked(shelf: Shelf, name: str, sampling: Sampling = SHORT) -> str:
    async with shelf.lent(name) as lent:
        return await written(lent, sampling)


async def begun(shelf: Shelf, name: str, sampling: Sampling) -> asyncio.Task[str]:
    """A request of which the first piece has come."""
    first = asyncio.Event()

    async def ask() -> str:
        text = ""
        async with shelf.lent(name) as lent, aclosing(lent.write(PROMPT, sampling)) as writing:
            async for told in writing:
                text += told.text if isinstance(told, Piece) else ""
                first.set()
        return text

    task = asyncio.create_task(ask())
    waiting = asyncio.create_task(first.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        task.result()
    return task


def directly(path: Path, sampling: Sampling = SHORT) -> str:
    """What the runtime itself writes."""
    heard: list[Any] = []
    over = threading.Event()
    with engine.start(path, threads=1, context=512) as runtime:

        def tell(what: object) -> None:
            heard.append(what)
            if not isinstance(what, Piece):
                over.set()

        runtime.write(PROMPT, sampling, tell)
        assert over.wait(20)
    return "".join(told.text for told in heard if isinstance(told, Piece))


def state(shelf: Shelf, name: str) -> dict[str, Any]:
    return next(told for told in shelf.state() if told["name"] == name)


def processes() -> list[int]:
    """The runtime's processes."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.status() != psutil.STATUS_ZOMBIE and "bantam.engine" in str(child.cmdline()):
                found.append(child.pid)
    return found


async def until(happens: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)


def test_books_are_read_and_not_opened(files: dict[str, Path], tmp_path: Path) -> None:
    async def test() -> None:
        places = {"the task": files["task"], "one": files["one"]}
        async with shelf(places, context=256) as made:
            task, one = made.books()
            assert (task.name, one.name) == ("the task", "one")
            assert (task.task, one.task) == (TASK, None)
            assert one.path == files["one"]
            assert one.bytes == files["one"].stat().st_size
            assert one.made == int(files["one"].stat().st_mtime)
            assert one.context == 256
            with engine.start(files["one"]) as runtime:
                assert one.parameters == runtime.info.parameters
            assert made.book("one") == one
            assert processes() == []
            for name in ("", "One", str(files["one"]), "../one", "one\0"):
                with pytest.raises(Refusal) as refused:
                    made.book(name)
                assert refused.value.status == 404
                assert "the task, one" in refused.value.message
                with pytest.raises(Refusal, match="there is no model"):
                    async with made.lent(name):
                        pass

    run(test())
    (tmp_path / "broken.gguf").write_bytes(b"GGUF, not really: some more bytes")
    with pytest.raises(BadInput):
        Shelf({"broken": tmp_path / "broken.gguf"})


def test_a_model_writes_as_its_runtime_does_and_its_file_is_hashed(files: dict[str, Path]) -> None:
    async def test() -> None:
        async with shelf(files) as made:
            for name in ("one", "two"):
                assert await asked(made, name) == directly(files[name])
            assert directly(files["one"]) != directly(files["two"])
            await until(lambda: all(made.book(name).sha for name in ("one", "two")))
            assert len(made.book("one").sha) == 64
            assert made.book("one").sha != made.book("two").sha
            assert made.book("task").sha == ""
            told = state(made, "one")
            assert told.pop("memory") > 10_000_000
            assert told == {
                "name": "one",
                "loaded": True,
                "in_flight": 0,
                "waiting": 0,
                "loads": 1,
                "restarts": 0,
            }
            assert not state(made, "task")["loaded"]

    run(test())
    assert processes() == []


def test_first_requests_open_a_model_once(files: dict[str, Path]) -> None:
    async def test() -> None:
        async with shelf(files, parallel=4) as made:
            texts = await asyncio.gather(*(asked(made, "one") for _ in range(8)))
            assert len(set(texts)) == 1
            assert state(made, "one")["loads"] == 1
            assert len(processes()) == 1

    run(test())


def test_who_goes_while_a_model_is_opened_leaves_it_to_the_others(files: dict[str, Path]) -> None:
    async def test() -> None:
        async with shelf(files) as made:
            first = asyncio.create_task(asked(made, "one"))
            await until(lambda: processes())
            second = asyncio.create_task(asked(made, "one"))
            await asyncio.sleep(0)
            first.cancel()
            assert await second
            with pytest.raises(asyncio.CancelledError):
                await first
            assert state(made, "one")["loads"] == 1
            assert state(made, "one")["in_flight"] == 0

    run(test())


def test_a_bounded_number_waits_and_not_for_ever(files: dict[str, Path]) -> None:
    async def test() -> None:
        async with shelf(files, parallel=1, queue=2, patience=0.5) as made:
            async with made.lent("one"):
                before = time.monotonic()
                waiting = [asyncio.create_task(asked(made, "one")) for _ in range(2)]
                await until(lambda: state(made, "one")["waiting"] == 2)
                with pytest.raises(Refusal) as refused:
                    await asked(made, "one")
                assert (refused.value.status, refused.value.retry_after) == (429, 3)
                for task in waiting:
                    with pytest.raises(Refusal) as refused:
                        await task
                    assert refused.value.status == 503
                    assert refused.value.retry_after
                assert 0.4 < time.monotonic() - before < 5
                assert state(made, "one")["waiting"] == 0
                assert await asked(made, "two")  # another model has its own turns
                follows = asyncio.create_task(asked(made, "one"))
                await asyncio.sleep(0.05)
                assert not follows.done()
            assert await follows  # the turn that was given back

    run(test())


def test_a_request_that_goes_frees_its_turn_within_a_second(files: dict[str, Path]) -> None:
    async def test() -> None:
        async with shelf(files, parallel=1, context=ROOM) as made:
            for how in ("cancelled", "closed", "left"):
                if how == "cancelled":
                    going = await begun(made, "one", LONG)
                    going.cancel()
                    left = time.monotonic()
                    with pytest.raises(asyncio.CancelledError):
                        await going
                else:
                    async with made.lent("one") as lent:
                        writing = lent.write(PROMPT, LONG)
                        assert await anext(writing)
                        if how == "closed":
                            await writing.aclose()
                        left = time.monotonic()
                assert await asked(made, "one")  # with the only slot: the text before has stopped
                assert time.monotonic() - left < 1, how
                assert state(made, "one")["in_flight"] == 0

    run(test())


def test_what_was_given_up_asks_nothing_more(files: dict[str, Path]) -> None:
    async def test() -> None:
        async with shelf(files, parallel=1) as made:
            ended = threading.Event()
            steps = []

            def work(lent: Lent) -> None:
                try:
                    while True:
                        lent.model.runtime.likeliest(PROMPT, 3)
                        steps.append(1)
                finally:
                    ended.set()

            async def ask() -> None:
                async with made.lent("one") as lent:
                    await lent.blocking(work, lent)

            task = asyncio.create_task(ask())
            await until(lambda: len(steps) > 3)
            task.cancel()
            await until(ended.is_set, 1)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asked(made, "one")

    run(test())


def test_a_whole_text_that_nobody_waits_for_is_stopped(files: dict[str, Path]) -> None:
    """It would take half a minute; the slot, which is the only one, is free long before."""

    async def test() -> None:
        async with shelf(files, parallel=1, context=ROOM) as made:

            async def ask() -> Completion:
                async with made.lent("one") as lent:
                    return await lent.blocking(lent.model.runtime.complete, PROMPT, ROOM)

            assert await asked(made, "one")
            task = asyncio.create_task(ask())
            await until(lambda: state(made, "one")["in_flight"] == 1)
            await asyncio.sleep(0.3)
            assert not task.done()
            task.cancel()
            left = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asked(made, "one")
            assert time.monotonic() - left < 5

    run(test())


def test_what_cannot_be_asked_is_refused(files: dict[str, Path]) -> None:
    async def test() -> None:
        async with shelf(files) as made, made.lent("one") as lent:
            for prompt in ([], [10**6], [-1], [5] * 600):
                with pytest.raises(Refusal) as refused:
                    await written(lent, prompt=prompt)
                assert refused.value.status == 400
            with pytest.raises(Refusal) as refused:
                await lent.embed([[5] * 600])
            assert refused.value.status == 400
            with pytest.raises(Refusal) as refused:
                await lent.blocking(lent.model.batch, ["a text"])
            assert refused.value.status == 400
            assert str(files["one"].parent) not in refused.value.message
            with pytest.raises(Refusal) as refused:
                async with made.lent("two") as other:
                    other.model.asked()
            assert refused.value.status == 400
            assert await written(lent)

    run(test())


def test_a_task_is_answered_in_a_thread(files: dict[str, Path]) -> None:
    texts = [f"the battery lasts {number} days" for number in range(80)]

    async def test() -> None:
        async with shelf(files) as made, made.lent("task") as lent:
            answers = await lent.blocking(lent.model.batch, texts)
            assert len(answers) == 80
            [alone] = await lent.blocking(lent.model.batch, texts[70:71])
            assert answers[70].probability == pytest.approx(alone.probability, abs=0.02)

    run(test())


def test_a_changed_file_is_opened_and_no_request_is_dropped(
    files: dict[str, Path], tmp_path: Path
) -> None:
    one, two = directly(files["one"]), directly(files["two"])

    async def test() -> None:
        place = tmp_path / "model.gguf"
        os.link(files["one"], place)
        async with shelf({"model": place}, parallel=4, context=ROOM) as made:
            long = await begun(made, "model", replace(LONG, max_tokens=2000))
            [old] = processes()
            sha = made.book("model").sha
            texts: list[str] = []
            enough = asyncio.Event()

            async def client() -> None:
                while not enough.is_set():
                    texts.append(await asked(made, "model"))

            clients = [asyncio.create_task(client()) for _ in range(4)]
            await until(lambda: len(texts) > 4)
            assert set(texts) == {one}
            os.link(files["two"], tmp_path / "new")
            (tmp_path / "new").replace(place)
            await until(lambda: texts[-1] == two)
            enough.set()
            await asyncio.gather(*clients)
            assert set(texts) == {one, two}
            assert old in processes(), "the long text ended too early to show anything"
            assert (await long).startswith(one)  # the old weights to its end
            await until(lambda: old not in processes())
            assert len(processes()) == 1
            assert state(made, "model")["loads"] == 2
            assert state(made, "model")["restarts"] == 0
            await until(lambda: made.book("model").sha not in ("", sha))

    run(test())


def test_a_broken_newcomer_leaves_the_old_one_serving(
    files: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "bantam.serve")
    weights_gone = rewritten(tmp_path / "gone", files["two"], {"llama.embedding_length": 96})

    async def test() -> None:
        place = tmp_path / "model.gguf"
        os.link(files["one"], place)
        async with shelf({"model": place}) as made:
            first = await asked(made, "model")
            book = made.book("model")
            for content in (b"GGUF", files["one"].read_bytes()[:-900], weights_gone.read_bytes()):
                (tmp_path / "new").write_bytes(content)
                (tmp_path / "new").replace(place)
                caplog.clear()
                assert await asked(made, "model") == first
                assert await asked(made, "model") == first
                told = [one.message for one in caplog.records if "serves on" in one.message]
                assert len(told) == 1  # once, not for each request
            place.unlink()
            assert await asked(made, "model") == first
            assert made.book("model").parameters == book.parameters

            os.kill(processes()[0], signal.SIGKILL)  # now there is nothing to serve with
            await until(lambda: not state(made, "model")["loaded"])
            for _ in range(2):
                with pytest.raises(Refusal) as refused:
                    await asked(made, "model")
                assert refused.value.status == 503
                assert refused.value.retry_after
                assert str(tmp_path) not in refused.value.message
            os.link(files["two"], place)
            assert await asked(made, "model") != first  # at once: it is another file

    run(test())


def test_a_death_is_told_and_the_next_request_starts_the_model_again(
    files: dict[str, Path],
) -> None:
    async def test() -> None:
        async with shelf(files, context=ROOM) as made:
            before = await asked(made, "one")
            going = [await begun(made, "one", LONG) for _ in range(2)]
            waiting = asyncio.create_task(asked(made, "one"))
            await until(lambda: state(made, "one")["waiting"] == 1)
            [process] = processes()
            os.kill(process, signal.SIGSEGV)
            for task in going:
                with pytest.raises(Refusal) as refused:
                    await task
                assert (refused.value.status, refused.value.retry_after) == (503, 1)
                assert "SIGSEGV" in refused.value.message
            assert await waiting == before  # it was not under way
            assert process not in processes()
            told = state(made, "one")
            assert (told["restarts"], told["loads"], told["loaded"]) == (1, 2, True)

            os.kill(processes()[0], signal.SIGKILL)  # while nothing is asked
            await until(lambda: not state(made, "one")["loaded"])
            assert await asked(made, "one") == before

    run(test())
    assert processes() == []


def test_a_death_within_work_in_a_thread(files: dict[str, Path]) -> None:
    async def test() -> None:
        async with shelf(files) as made:
            async with made.lent("one") as lent:

                def work() -> None:
                    lent.model.runtime.likeliest(PROMPT, 3)
                    os.kill(lent.model.runtime.pid, signal.SIGSEGV)
                    lent.model.runtime.likeliest(PROMPT, 3)

                with pytest.raises(Refusal) as refused:
                    await lent.blocking(work)
                assert (refused.value.status, refused.value.retry_after) == (503, 1)
            assert await asked(made, "one")

    run(test())


def test_what_has_killed_a_model_twice_is_refused_and_nothing_else(files: dict[str, Path]) -> None:
    innocent = replace(LONG, max_tokens=500, seed=1)

    async def test() -> None:
        async with shelf(files, parallel=3, context=ROOM) as made:
            both = [await begun(made, "one", how) for how in (LONG, innocent)]
            os.kill(processes()[0], signal.SIGSEGV)
            for task in both:
                with pytest.raises(Refusal, match="SIGSEGV"):
                    await task

            # Asked again, both are tried in processes of their own, so that only one dies.
            assert await asked(made, "one")
            [main] = processes()
            poison = await begun(made, "one", LONG)
            [alone] = set(processes()) - {main}
            others = [await begun(made, "one", how) for how in (innocent, replace(LONG, seed=2))]
            os.kill(alone, signal.SIGSEGV)
            with pytest.raises(Refusal) as refused:
                await poison
            assert refused.value.status == 503
            assert await others[0]
            assert main in processes()

            for _ in range(2):
                with pytest.raises(Refusal) as refused:
                    await asked(made, "one", LONG)
                assert refused.value.status == 422
                assert "died twice" in refused.value.message
            assert await asked(made, "one", innocent)
            assert processes() == [main]  # what came through is trusted again
            others[1].cancel()
            await asyncio.wait(others)
            assert state(made, "one")["restarts"] == 1

    run(test())


def test_a_model_that_died_takes_its_vocabulary_with_it(files: dict[str, Path]) -> None:
    """Without the collector, which seldom looks: a vocabulary is some fifty megabytes."""
    schema = {"type": "object", "properties": {"a": {"enum": ["b", "c"]}}, "required": ["a"]}
    task = writing.task("extract", "small", "", answer_schema=schema)

    async def used(made: Shelf) -> weakref.ref[Model]:
        async with made.lent("one") as lent:
            assert (await lent.blocking(lent.model.written, task, "text")).text
            return weakref.ref(lent.model)

    async def test() -> None:
        async with shelf(files) as made:
            before = await used(made)
            assert before() is not None
            os.kill(processes()[0], signal.SIGKILL)
            await until(lambda: not state(made, "one")["loaded"])
            after = await used(made)
            assert after() is not None
            await until(lambda: before() is None)

    gc.collect()
    gc.disable()
    try:
        run(test())
    finally:
        gc.enable()


def test_what_was_refused_is_suspect_again_after_a_while() -> None:
    now = [0.0]
    blame = Blame(lambda: now[0])
    asked = ("write", PROMPT, SHORT)
    blame.set(asked, 2)
    now[0] = 599.0
    assert blame.deaths(asked) == 2
    now[0] = 601.0
    assert blame.deaths(asked) == 1
    blame.set(asked, 2)  # it died of it again
    assert blame.deaths(asked) == 2


def test_blame_is_bounded_and_only_of_those_under_way(files: dict[str, Path]) -> None:
    blame = Blame()
    for number in range(3000):
        blame.set(("write", [number], SHORT), 2)
    assert blame.deaths(("write", [2999], SHORT)) == 2
    assert blame.deaths(("write", [0], SHORT)) == 0
    assert blame.deaths(("write", [2999], LONG)) == 0

    blame = Blame()
    started: list[engine.Runtime] = []

    def start(parallel: int) -> engine.Runtime:
        started.append(engine.start(files["one"], threads=1, parallel=parallel))
        return started[-1]

    with Watched(start, 2, blame) as watched, ThreadPoolExecutor(1) as pool:
        before = watched.likeliest(PROMPT, 2)
        dying = pool.submit(watched.complete, PROMPT, 4)
        dying.result()
        os.kill(watched.pid, signal.SIGKILL)
        with pytest.raises(engine.BantamError):
            watched.complete(PROMPT, 5)
        assert blame.deaths(("likeliest", PROMPT, 2)) == 0
        four, five = (("write", PROMPT, replace(WHOLE, max_tokens=count)) for count in (4, 5))
        assert blame.deaths(four) == 0
        assert blame.deaths(five) == 1
        watched.complete(PROMPT, 5)  # in a process of its own, the other being dead
        assert blame.deaths(five) == 0
        assert len(started) == 2
        assert not started[1].alive
    with Watched(start, 2, blame) as watched:
        assert watched.likeliest(PROMPT, 2) == before
        watched.close()
        with pytest.raises(engine.BantamError):
            watched.complete(PROMPT, 5)
        assert blame.deaths(five) == 0  # it was closed, it did not die


def test_the_longest_unused_are_closed_when_memory_asks(
    files: dict[str, Path], tmp_path: Path
) -> None:
    file = gguf.read(files["one"])
    size = files["one"].stat().st_size
    assert (
        memory.needed(file, 0, 1, 1) - memory.needed(file, 0, 0, 1) == 256
    )  # 2 layers, 2 heads of 16
    one = memory.needed(file, size, 512, 2)

    async def test() -> None:
        places = {name: tmp_path / name for name in "abc"}  # three files
        for place in places.values():
            os.link(files["one"], place)
        async with shelf(places, memory=2 * one) as made:

            def open_now() -> list[str]:
                return [told["name"] for told in made.state() if told["loaded"]]

            await asked(made, "a")
            await asked(made, "b")
            await asked(made, "a")
            await asked(made, "c")
            assert open_now() == ["a", "c"]
            assert len(processes()) == 2
            async with made.lent("a") as lent, made.lent("c"):
                with pytest.raises(Refusal) as refused:
                    await asked(made, "b")
                assert refused.value.status == 503
                assert refused.value.retry_after
                assert f"{one / 1e6:,.0f} MB" in refused.value.message
                assert f"{2 * one / 1e6:,.0f} MB" in refused.value.message
                assert await written(lent)
            assert await asked(made, "b")
            assert open_now() == ["a", "b"]  # c was given back first
            assert state(made, "a")["loads"] == 1
            # One after the other, more than there is room for at once.
            for name in "abcabc":
                assert await asked(made, name)
        async with shelf(places, memory=one // 2) as made:
            with pytest.raises(Refusal, match="needs about") as refused:
                await asked(made, "a")
            assert refused.value.retry_after is None  # it will never do

    run(test())
    assert processes() == []


def test_a_changed_file_needs_no_more_memory_than_one(
    files: dict[str, Path], tmp_path: Path
) -> None:
    need = memory.needed(gguf.read(files["one"]), files["one"].stat().st_size, 512, 2)

    async def test() -> None:
        place = tmp_path / "model.gguf"
        os.link(files["one"], place)
        async with shelf({"model": place}, memory=need + 1000) as made:
            first = await asked(made, "model")
            os.link(files["two"], tmp_path / "new")
            async with made.lent("model") as lent:
                (tmp_path / "new").replace(place)
                assert await asked(made, "model") == first  # no room for a second one
                assert await written(lent) == first
            made._places["model"].failure = None  # as after five seconds
            assert await asked(made, "model") != first
            assert len(processes()) == 1

    run(test())


def test_embeddings_come_from_a_process_of_their_own(files: dict[str, Path]) -> None:
    prompts = [[5, 6, 7, number] for number in range(40)]
    with engine.start(files["one"], threads=1, context=512, embeddings=True) as runtime:
        expected = runtime.embed(prompts)

    async def test() -> None:
        async with shelf(files) as made:

            async def embedded() -> list[list[float]]:
                async with made.lent("one") as lent:
                    return await lent.embed(prompts)

            for rows in await asyncio.gather(embedded(), embedded()):
                for row, right in zip(rows, expected, strict=True):
                    assert row == pytest.approx(right, abs=1e-3)
            assert len(processes()) == 2
            both = state(made, "one")["memory"]
            copy = made._places["one"].copy
            assert copy
            _, embedder = copy.processes()
            os.kill(embedder.pid, signal.SIGSEGV)
            await until(lambda: not embedder.alive)
            assert state(made, "one")["memory"] < both
            assert len(await embedded()) == 40
            assert await asked(made, "one")
            assert len(processes()) == 2

    run(test())
    assert processes() == []


def test_a_copy_that_was_closed_takes_no_room_for_its_embedder(files: dict[str, Path]) -> None:
    """Its client went while it waited for room, so that it was idle and made room for another."""

    async def test() -> None:
        async with shelf(files) as made:
            assert await asked(made, "one")
            place = made._places["one"]
            copy = place.copy
            assert copy
            await made._making_room.acquire()
            waiting = asyncio.ensure_future(made._embedder(place, copy, "one"))
            await asyncio.sleep(0.05)
            place.copy = None  # as who makes room does
            copy.close()
            made._open.discard(copy)
            made._making_room.release()
            with pytest.raises(Refusal) as caught:
                await waiting
            assert (caught.value.status, copy in made._open) == (503, False)
            assert await asked(made, "one")

    run(test())


def test_nothing_is_left_behind_by_many_requests(files: dict[str, Path], tmp_path: Path) -> None:
    this = psutil.Process()

    def held() -> tuple[int, int]:
        gc.collect()
        return this.num_fds(), len(processes())

    async def test() -> None:
        async with shelf(files, parallel=4, context=2048) as made:

            async def request(number: int) -> None:
                async with made.lent("one") as lent:
                    if number % 4 == 0:
                        await written(lent)
                    elif number % 4 == 1:
                        await lent.blocking(lent.model.runtime.likeliest, PROMPT, 2)
                    elif number % 4 == 2:
                        writing = lent.write(PROMPT, LONG)
                        await anext(writing)
                        if number % 8 == 2:
                            await writing.aclose()
                    else:
                        with pytest.raises(TimeoutError):
                            async with asyncio.timeout(0.01):
                                await written(lent, LONG)

            await asyncio.gather(*map(request, range(40)))
            before, threads = held(), threading.active_count()
            await asyncio.gather(*map(request, range(56)))
            for number in range(144):
                await request(number)
            assert held() == before
            assert threading.active_count() <= threads + 4  # its pools grow to their bound
            lent_now = made._places["one"].copy
            assert lent_now
            assert (lent_now.lent, state(made, "one")["in_flight"]) == (0, 0)

    threads, fds = threading.active_count(), this.num_fds()
    run(test())
    assert processes() == []
    deadline = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= threads
    gc.collect()
    assert this.num_fds() <= fds


def test_a_closed_shelf_refuses_what_is_under_way(files: dict[str, Path]) -> None:
    async def test() -> None:
        made = Shelf(files, threads=1, context=ROOM)
        going = await begun(made, "one", LONG)
        opening = asyncio.create_task(asked(made, "two"))
        await until(lambda: len(processes()) == 2)
        await made.close()
        assert processes() == []
        # On a busy machine one of them may have been answered before the shelf was closed.
        for ended in await asyncio.gather(going, opening, return_exceptions=True):
            if isinstance(ended, BaseException):
                assert isinstance(ended, Refusal) and ended.status == 503
        with pytest.raises(Refusal) as refused:
            await asked(made, "one")
        assert refused.value.status == 503
        await made.close()

    run(test())
