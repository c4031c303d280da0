"""The runtime on a tiny random model, against transformers with the same float32 weights."""

import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import llama_reference
import psutil
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tiny
from bantam import engine
from bantam.engine.runtime import LlamaCpp
from bantam.errors import BadInput, JobFailed

# llama.cpp's attention works in float16: measured on 200 prompts of up to 300 tokens, the largest
# difference in probability is 0.0018; with a float32 cache and no flash attention it is 0.000004.
NEAR = 0.005

PROMPT = [10, 20, 30, 40, 50, 60, 70]


@pytest.fixture(scope="module")
def runtime(tiny_model: Path) -> Iterator[engine.Runtime]:
    with engine.start(tiny_model, threads=1, context=256, parallel=4) as started:
        yield started


@pytest.fixture(scope="module")
def reference(tiny_model: Path) -> Any:
    return llama_reference.load(tiny_model)


def softmax_over(reference: Any, prompt: list[int], ids: list[int]) -> list[float]:
    chosen: list[float] = llama_reference.after(reference, prompt)[ids].softmax(-1).tolist()
    return chosen


def prompts(count: int, seed: int = 0, top: int = 300) -> list[list[int]]:
    dice = random.Random(seed)
    return [[dice.randrange(3, top) for _ in range(dice.randint(1, 60))] for _ in range(count)]


def test_choose_is_the_softmax_over_the_candidates(runtime: engine.Runtime, reference: Any) -> None:
    dice = random.Random(1)
    asked = prompts(40)
    candidates = [dice.sample(range(runtime.info.vocabulary), dice.randint(2, 9)) for _ in asked]
    answers = runtime.choose(asked, candidates)
    for prompt, ids, answer in zip(asked, candidates, answers, strict=True):
        assert answer == pytest.approx(softmax_over(reference, prompt, ids), abs=NEAR)
        assert sum(answer) == pytest.approx(1)


def test_choose_with_every_token_a_candidate(runtime: engine.Runtime, reference: Any) -> None:
    ids = list(range(runtime.info.vocabulary))
    random.Random(2).shuffle(ids)
    [answer] = runtime.choose([PROMPT], [ids[:-60]])  # some text tokens are left as anchors
    assert answer == pytest.approx(softmax_over(reference, PROMPT, ids[:-60]), abs=NEAR)


def test_candidates_that_are_parts_of_characters(runtime: engine.Runtime, reference: Any) -> None:
    # The first bytes of Cyrillic, Chinese and emoji: llama.cpp reports nothing when it samples one.
    ids = [runtime.tokenize(text, False)[0] for text in ("д", "中", "🙂")]
    assert len(set(ids)) == 3
    assert all(runtime.detokenize([part]) == "\ufffd" for part in ids)
    for more in ([], runtime.tokenize("a", False)):
        asked = prompts(10, seed=3)
        for prompt, answer in zip(asked, runtime.choose(asked, [ids + more] * 10), strict=True):
            assert answer == pytest.approx(softmax_over(reference, prompt, ids + more), abs=NEAR)


def test_a_batch_gives_what_single_questions_give(runtime: engine.Runtime) -> None:
    asked, ids = prompts(30, seed=4), [5, 100, 200]
    together = runtime.choose(asked, [ids] * 30)
    for prompt, answer in zip(asked, together, strict=True):
        [alone] = runtime.choose([prompt], [ids])
        # Not equal to the last bit: the prompts share matrix products of another shape.
        assert alone == pytest.approx(answer, abs=NEAR)


def test_the_end_token_and_a_single_one_can_be_candidates(
    runtime: engine.Runtime, reference: Any
) -> None:
    assert runtime.choose([PROMPT], [[2, 9]])[0] == pytest.approx(
        softmax_over(reference, PROMPT, [2, 9]), abs=NEAR
    )
    assert runtime.choose([PROMPT], [[9]]) == [[1.0]]
    assert runtime.choose([], []) == []


def test_senseless_ids_are_refused(runtime: engine.Runtime) -> None:
    for asked, candidates in (
        ([PROMPT], [[5, 5]]),
        ([PROMPT], [[]]),
        ([PROMPT], []),
        ([[]], [[5, 6]]),
        ([[-1]], [[5, 6]]),
        ([PROMPT], [[5, runtime.info.vocabulary]]),
    ):
        with pytest.raises(ValueError):
            runtime.choose(asked, candidates)


def test_a_refusal_says_whose_fault_it_is(runtime: engine.Runtime, tmp_path: Path) -> None:
    """The process lives: no death is told, and it answers what can be answered."""
    told: SimpleQueue[Any] = SimpleQueue()
    runtime.write(PROMPT, engine.Sampling(max_tokens=2, repeat_penalty=0.0), told.put)
    refused = told.get(timeout=20)
    assert isinstance(refused, engine.Refused)
    assert refused.asked
    assert "penalty" in refused.message
    assert runtime.alive
    assert len(runtime.choose([PROMPT], [[5, 6]])) == 1
    path = tiny.tiny_llama(tmp_path / "broken.gguf", broken=True)
    with engine.start(path, threads=1) as own:
        for ask in (
            lambda: own.choose([PROMPT], [[5, 6]]),
            lambda: own.likeliest(PROMPT, 3),
        ):
            with pytest.raises(engine.Refused, match="weights are broken") as failed:
                ask()
            assert not failed.value.asked
        assert own.alive


def test_a_prompt_as_long_as_the_context(runtime: engine.Runtime) -> None:
    room = runtime.info.context - 1
    assert room == 255
    [answer] = runtime.choose([[7] * room], [[5, 6]])
    assert sum(answer) == pytest.approx(1)
    with pytest.raises(BadInput, match="prompt 2 has 256 tokens, but there is room for 255"):
        runtime.choose([PROMPT, [7] * 256], [[5, 6]] * 2)
    with pytest.raises(BadInput, match="256"):
        runtime.generate([7] * 256, max_tokens=1)


def test_many_full_prompts_at_once(runtime: engine.Runtime) -> None:
    asked = [[10 + place] * 250 for place in range(12)]
    assert len(runtime.choose(asked, [[5, 6]] * 12)) == 12


def test_generate_follows_the_largest_logit(runtime: engine.Runtime, reference: Any) -> None:
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        after = reference.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=2)
    said = after[0, len(PROMPT) :].tolist()
    expected = runtime.detokenize([token for token in said if token > 2])
    # A character that is not finished when the tokens are used up is left out.
    assert "".join(runtime.generate(PROMPT, max_tokens=12)) == expected.removesuffix("\ufffd")


def test_pieces_are_whole_characters(runtime: engine.Runtime) -> None:
    # A random model writes bytes at random, so most of them are no characters at all.
    for seed in range(5):
        for piece in runtime.generate(PROMPT, max_tokens=40, temperature=1.5, seed=seed):
            assert piece and piece.encode()


def test_sampling_repeats_with_a_seed_and_varies_without(runtime: engine.Runtime) -> None:
    def said(**options: Any) -> str:
        return "".join(runtime.generate(PROMPT, max_tokens=20, **options))

    assert said(temperature=1.0, seed=3) == said(temperature=1.0, seed=3)
    assert len({said(temperature=1.0) for _ in range(4)}) > 1
    assert said(temperature=1.0, top_p=0.0, seed=1) == said()


def test_temperature_and_top_p_sample_what_they_say(
    runtime: engine.Runtime, reference: Any
) -> None:
    logits = llama_reference.after(reference, PROMPT)
    probabilities = (logits / 0.7).softmax(-1).sort(descending=True)
    within = int((probabilities.values.cumsum(-1) < 0.3).sum()) + 1
    allowed = {runtime.detokenize([token]) for token in probabilities.indices[:within].tolist()}
    options = {"max_tokens": 1, "temperature": 0.7, "top_p": 0.3}
    said = {"".join(runtime.generate(PROMPT, seed=seed, **options)) for seed in range(60)}
    assert said <= allowed | {""}
    assert len(said) > 2


def test_stop_strings_and_end_tokens(runtime: engine.Runtime) -> None:
    pieces = list(runtime.generate(PROMPT, max_tokens=30, temperature=1.0, seed=5))
    whole = "".join(pieces)
    middle = whole[len(whole) // 2 :][:2]
    again = "".join(runtime.generate(PROMPT, max_tokens=30, temperature=1.0, seed=5, stop=[middle]))
    assert again == whole[: whole.index(middle)]
    ends = runtime.tokenize(pieces[2], False)
    cut = list(runtime.generate(PROMPT, max_tokens=30, temperature=1.0, seed=5, end_ids=ends))
    assert cut == pieces[:2]


def test_a_closed_iterator_stops_the_work(tiny_model: Path) -> None:
    with engine.start(tiny_model, threads=1, context=512) as own:
        assert isinstance(own, LlamaCpp)
        for _ in range(3):
            pieces: Any = own.generate(PROMPT, max_tokens=450)
            next(pieces)
            told = pieces.gi_frame.f_locals["told"]
            pieces.close()
            # There is one slot only: had the work gone on, this would wait for all 450 tokens.
            assert sum(own.choose([PROMPT], [[5, 6]])[0]) == pytest.approx(1)
            assert not own._waiting
            assert told.qsize() < 300


def test_an_iterator_may_outlive_its_runtime(tiny_model: Path) -> None:
    with engine.start(tiny_model, threads=1) as own:
        pieces: Any = own.generate(PROMPT, max_tokens=400)
        next(pieces)
    pieces.close()


def test_more_questions_than_workers(runtime: engine.Runtime, reference: Any) -> None:
    asked = prompts(40, seed=8)
    candidates = [[5 + place, 100 + place, 200 + place] for place in range(40)]
    answers = runtime.choose(asked, candidates)
    for prompt, ids, answer in zip(asked, candidates, answers, strict=True):
        assert answer == pytest.approx(softmax_over(reference, prompt, ids), abs=NEAR)


@pytest.mark.parametrize("template", ["{% for a in range(10 ** 9) %}{{ a }}{% endfor %}", "{% if"])
def test_the_chat_template_in_the_file_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    monkeypatch.setattr(tiny, "CHATML", template)
    with engine.start(tiny.tiny_llama(tmp_path / "hostile.gguf"), threads=1) as own:
        assert isinstance(own, LlamaCpp)
        assert sum(own.choose([PROMPT], [[5, 6]])[0]) == pytest.approx(1)
        assert not own._log


def test_threads_may_ask_at_the_same_time(runtime: engine.Runtime) -> None:
    asked = prompts(8, seed=6)
    expected = runtime.choose(asked, [[5, 6, 7]] * 8)
    wrong: list[object] = []

    def ask(place: int) -> None:
        for _ in range(5):
            [answer] = runtime.choose([asked[place]], [[5, 6, 7]])
            if answer != pytest.approx(expected[place], abs=NEAR):
                wrong.append((place, answer))

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(8)]
    text = runtime.generate(PROMPT, max_tokens=60)
    next(text)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    list(text)
    assert not wrong


def test_embed_is_the_state_after_the_final_norm(tiny_model: Path, reference: Any) -> None:
    asked = [*prompts(10, seed=7), [9] * 400]
    with engine.start(tiny_model, threads=1, context=512, parallel=2, embeddings=True) as own:
        states = own.embed(asked)
        assert own.embed([]) == []
        assert own.info.width == len(states[0])
        assert sum(own.choose([PROMPT], [[5, 6]])[0]) == pytest.approx(1)
    for prompt, state in zip(asked, states, strict=True):
        with torch.no_grad():
            expected = reference.model(torch.tensor([prompt])).last_hidden_state[0, -1]
        assert state == pytest.approx(expected.tolist(), abs=0.03)  # measured 0.0105


def test_embed_needs_a_runtime_started_for_it(runtime: engine.Runtime) -> None:
    with pytest.raises(ValueError, match="embeddings"):
        runtime.embed([PROMPT])


def test_tokenize_adds_nothing_and_trusts_only_when_told(runtime: engine.Runtime) -> None:
    text = "Do not <|im_end|> waste é 🙂"
    assert 2 in runtime.tokenize(text, True)
    untrusted = runtime.tokenize(text, False)
    assert not {0, 1, 2} & set(untrusted)
    assert runtime.detokenize(untrusted) == text
    assert runtime.tokenize("", True) == []
    assert runtime.detokenize([]) == ""


@settings(max_examples=60, deadline=None)
@given(st.text())
@example('\n\r\0\u2028"\\{}')
def test_any_text_comes_through_the_pipes_and_back(runtime: engine.Runtime, text: str) -> None:
    assert runtime.detokenize(runtime.tokenize(text, False)) == text


def test_info_and_memory(runtime: engine.Runtime, tiny_model: Path) -> None:
    info = runtime.info
    assert info.runtime == "llama.cpp"
    assert (info.context, info.width) == (256, 64)
    assert 0 < info.bytes < tiny_model.stat().st_size
    assert info.parameters * 4 == pytest.approx(info.bytes)
    assert 20e6 < runtime.peak_memory_bytes < 1e9


def test_a_killed_child_is_reported_and_hangs_nobody(tiny_model: Path) -> None:
    runtime = engine.start(tiny_model, threads=1, context=512)
    assert isinstance(runtime, LlamaCpp)
    pieces = runtime.generate(PROMPT, max_tokens=500)
    next(pieces)
    runtime._process.send_signal(signal.SIGKILL)
    with pytest.raises(JobFailed, match="SIGKILL") as failure:
        list(pieces)
    assert "memory" in failure.value.mend
    with pytest.raises(JobFailed, match="SIGKILL"):
        runtime.choose([PROMPT], [[5, 6]])
    runtime.close()
    runtime.close()
    with pytest.raises(JobFailed, match="closed"):
        runtime.tokenize("a", False)


def test_what_is_asked_of_a_child_that_is_ending_hangs_nobody(tiny_model: Path) -> None:
    """Its output may be closed while its input still takes what nobody will read."""
    with engine.start(tiny_model, threads=1) as runtime, Path(os.devnull).open("wb") as still:
        assert isinstance(runtime, LlamaCpp)
        runtime._process.send_signal(signal.SIGKILL)
        with pytest.raises(JobFailed, match="SIGKILL"):
            runtime.complete(PROMPT, 400)
        assert runtime._process.stdin
        runtime._process.stdin.close()
        runtime._process.stdin = still
        with pytest.raises(JobFailed, match="SIGKILL"):
            runtime.complete(PROMPT, 4)
        with pytest.raises(JobFailed, match="SIGKILL"):
            runtime.write(PROMPT, engine.Sampling(max_tokens=4), lambda _: None)


def test_sigterm_ends_the_child_and_ctrl_c_does_not(tiny_model: Path) -> None:
    with engine.start(tiny_model, threads=1) as runtime:
        assert isinstance(runtime, LlamaCpp)
        runtime._process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        assert len(runtime.choose([PROMPT], [[5, 6]])) == 1
        runtime._process.send_signal(signal.SIGTERM)
        with pytest.raises(JobFailed, match="SIGTERM"):
            for _ in range(1000):
                runtime.choose([PROMPT], [[5, 6]])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"hello", "magic"),
        (b"", "exit status 1"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 16, "exit status 1"),
        (None, "corrupted or incomplete"),
    ],
)
def test_a_broken_file_is_named_with_the_reason(
    tmp_path: Path, tiny_model: Path, content: bytes | None, expected: str
) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(tiny_model.read_bytes()[:-5000] if content is None else content)
    with pytest.raises(JobFailed, match=expected) as failure:
        engine.start(path, threads=1)
    assert "broken.gguf" in failure.value.message


def test_no_such_file() -> None:
    with pytest.raises(BadInput, match=r"none\.gguf"):
        engine.start(Path("none.gguf"))


def test_the_child_ends_with_its_parent(tiny_model: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from bantam import engine\n"
        "runtime = engine.start(Path(sys.argv[1]), threads=1)\n"
        "print(runtime._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tiny_model)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    child = psutil.Process(int(parent.stdout.readline()))
    settings = json.loads(child.cmdline()[-1])
    assert Path(settings["socket"]).exists()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    child.wait(timeout=5)
    assert not Path(settings["socket"]).parent.exists()


def test_ctrl_c_leaves_no_child_and_no_traceback_of_it(tiny_model: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from bantam import engine\n"
        "with engine.start(Path(sys.argv[1]), threads=1, context=512) as runtime:\n"
        "    print(runtime._process.pid, flush=True)\n"
        "    try:\n"
        "        while True: list(runtime.generate([5, 6], max_tokens=400))\n"
        "    except KeyboardInterrupt: print('stopped')"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tiny_model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout
    child = int(parent.stdout.readline())
    time.sleep(0.3)
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: parent and child alike
    said, complained = parent.communicate(timeout=10)
    assert (said, complained, parent.returncode) == ("stopped\n", "", 0)
    assert not psutil.pid_exists(child)


def test_a_forgotten_runtime_is_collected(tiny_model: Path) -> None:
    runtime = engine.start(tiny_model, threads=1)
    assert isinstance(runtime, LlamaCpp)
    process = runtime._process
    del runtime
    gc.collect()
    assert process.poll() == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="reads the sockets from /proc")
def test_no_port_is_opened(runtime: engine.Runtime) -> None:
    assert isinstance(runtime, LlamaCpp)
    child = psutil.Process(runtime._process.pid)
    assert child.net_connections("inet") == []
    folder = Path(json.loads(child.cmdline()[-1])["socket"]).parent
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(sys.platform != "linux", reason="no other system is told")
@pytest.mark.skipif(engine.cores() < 2, reason="needs two cores")
def test_with_a_thread_for_each_core_each_has_its_own(tiny_model: Path) -> None:
    every = os.sched_getaffinity(0)

    def allowed(threads: int) -> list[set[int]]:
        """The processors of each thread of the child, its first one's first."""
        with engine.start(tiny_model, threads=threads) as runtime:
            runtime.complete(PROMPT, 4)
            assert isinstance(runtime, LlamaCpp)
            tasks = sorted(
                Path(f"/proc/{runtime.pid}/task").iterdir(), key=lambda one: int(one.name)
            )
            return [os.sched_getaffinity(int(task.name)) for task in tasks]

    first, *others = allowed(engine.cores())
    bound = {frozenset(one) for one in others if one != every}
    assert first == every
    assert len(bound) == engine.cores()
    assert sum(map(len, bound)) == len(frozenset.union(*bound))  # no two share a processor
    assert all(one == every for one in allowed(1))


def test_the_socket_asks_for_a_key(runtime: engine.Runtime) -> None:
    import http.client
    import socket

    assert isinstance(runtime, LlamaCpp)
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(json.loads(runtime._process.args[-1])["socket"])  # type: ignore[index]
    connection.request("POST", "/tokenize", '{"content": "a"}')
    assert connection.getresponse().status == 401
    connection.close()


def test_where_a_socket_path_is_too_long_a_port_serves(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with engine.start(tiny_model, threads=1) as runtime:
        assert runtime.detokenize(runtime.tokenize("camera", False)) == "camera"


def test_the_users_folder_cannot_replace_modules(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.chdir(tmp_path)
    with engine.start(tiny_model, threads=1) as runtime:
        assert runtime.tokenize("a", False)


def test_the_child_imports_nothing_of_the_heavy_rooms() -> None:
    code = "import sys, bantam.engine.llama_cpp; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    ours = {name for name in loaded if name.startswith("bantam.")}
    own = {"bantam.engine", "bantam.engine.llama_cpp", "bantam.engine.writing", "bantam.errors"}
    assert ours == own
    assert not {"numpy", "torch", "polars", "psutil", "pydantic"} & set(loaded)


def test_the_likeliest_tokens_are_those_of_the_softmax(
    runtime: engine.Runtime, reference: Any
) -> None:
    for prompt in prompts(20, seed=8):
        shares = llama_reference.after(reference, prompt).softmax(-1)
        found = runtime.likeliest(prompt, 5)
        assert [share for _, share in found] == sorted((s for _, s in found), reverse=True)
        for token, share in found:
            assert share == pytest.approx(float(shares[token]), abs=NEAR)
        assert sum(share for _, share in found) == pytest.approx(
            float(shares.topk(5).values.sum()), abs=NEAR
        )


def test_the_likeliest_may_be_a_part_of_a_character(tiny_model: Path, reference: Any) -> None:
    """llama.cpp reports nothing of such a token when it is sampled; the list holds it."""
    with engine.start(tiny_model, threads=1, context=256) as started:
        parts = [
            prompt
            for prompt in prompts(200, seed=9)
            if "�" in started.detokenize([int(llama_reference.after(reference, prompt).argmax())])
        ]
        assert parts
        for prompt in parts[:5]:
            logits = llama_reference.after(reference, prompt)
            assert started.likeliest(prompt, 1)[0][0] == int(logits.argmax())


def plainly(runtime: engine.Runtime, tokens: int) -> Iterator[list[int]]:
    """Prompts after which the random model happens to write no broken characters."""
    for prompt in prompts(300, seed=10, top=270):
        if (text := runtime.complete(prompt, tokens).text) and text.isascii():
            yield prompt


def test_complete_writes_what_generate_does(runtime: engine.Runtime) -> None:
    for prompt in islice(plainly(runtime, 4), 5):
        told = runtime.complete(prompt, 4)
        assert told.text == "".join(runtime.generate(prompt, max_tokens=4))
        assert told.tokens <= 4
        assert told.log_probability < 0


def test_complete_knows_how_likely_its_tokens_were(runtime: engine.Runtime, reference: Any) -> None:
    for prompt in islice(plainly(runtime, 1), 5):
        told = runtime.complete(prompt, 1)
        shares = llama_reference.after(reference, prompt).softmax(-1)
        assert told.log_probability == pytest.approx(float(shares.max().log()), abs=10 * NEAR)
        assert not told.ended


def test_complete_ends_before_a_stop_string(runtime: engine.Runtime) -> None:
    for prompt in islice(plainly(runtime, 4), 5):
        whole = runtime.complete(prompt, 4).text
        told = runtime.complete(prompt, 4, [whole[-1]])
        assert told.ended
        assert told.text == whole[: whole.index(whole[-1])]
