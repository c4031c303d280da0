"""Texts written by the runtime, against transformers with the same float32 weights."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import llama_reference
import pytest
import torch

from bantam import engine
from bantam.engine import Done, Piece, Sampling, Token
from bantam.engine.runtime import LlamaCpp
from bantam.errors import BadInput, BantamError, JobFailed

NEAR = 0.05  # of log-probabilities; see test_runtime.py
PROMPT = [10, 20, 30, 40, 50, 60, 70]
Told = list[Piece | Done | BantamError]


@pytest.fixture(scope="module")
def runtime(tiny_model: Path) -> Iterator[engine.Runtime]:
    with engine.start(tiny_model, threads=1, context=256, parallel=2) as started:
        yield started


@pytest.fixture(scope="module")
def reference(tiny_model: Path) -> Any:
    return llama_reference.load(tiny_model)


def written(
    runtime: engine.Runtime, prompt: list[int] = PROMPT, **sampling: Any
) -> tuple[str, Done, list[Token]]:
    heard: SimpleQueue[Piece | Done | BantamError] = SimpleQueue()
    runtime.write(prompt, Sampling(**sampling), heard.put)
    text, tokens = "", []
    while isinstance(one := heard.get(timeout=30), Piece):
        assert one.text
        text += one.text
        tokens += one.tokens
    assert isinstance(one, Done), one
    return text, one, tokens


def test_a_text_ends_at_its_length(runtime: engine.Runtime) -> None:
    text, done, tokens = written(runtime, max_tokens=6)
    assert text == "".join(runtime.generate(PROMPT, max_tokens=6))
    assert (done.reason, done.stop, done.tokens, tokens) == ("length", None, 6, [])
    # The context is full: 7 of 256 tokens were the prompt's.
    assert written(runtime)[1].tokens == 249
    assert written(runtime, max_tokens=1000)[1].reason == "length"
    text, done, _ = written(runtime, [7] * 255)
    assert (done.reason, done.tokens) == ("length", 1)


def test_a_text_that_is_told_whole_is_the_same_in_one_piece(runtime: engine.Runtime) -> None:
    for sampling in ({"max_tokens": 12}, {"max_tokens": 12, "alternatives": 2, "stop": ("never",)}):
        heard: SimpleQueue[Piece | Done | BantamError] = SimpleQueue()
        runtime.write(PROMPT, Sampling(whole=True, **sampling), heard.put)
        piece, done = heard.get(timeout=30), heard.get(timeout=30)
        assert isinstance(piece, Piece) and isinstance(done, Done)
        in_pieces, ended, tokens = written(runtime, **sampling)
        assert (piece.text, list(piece.tokens)) == (in_pieces, tokens)
        assert (done.reason, done.tokens) == (ended.reason, ended.tokens)


def test_a_text_ends_where_the_model_ends_it(runtime: engine.Runtime) -> None:
    text, done, tokens = written(runtime, logit_bias=((2, 100.0),), alternatives=1)
    assert (text, tokens) == ("", [])
    assert (done.reason, done.stop, done.tokens) == ("stop", None, 1)


def test_a_text_ends_at_an_end_id(runtime: engine.Runtime, reference: Any) -> None:
    third = follow(reference, 3)[2]
    text, done, _ = written(runtime, max_tokens=9, end_ids=(third,))
    assert text == "".join(runtime.generate(PROMPT, max_tokens=2))
    assert (done.reason, done.stop, done.tokens) == ("stop", None, 3)


def follow(
    reference: Any, count: int, change: Callable[[torch.Tensor, list[int]], None] | None = None
) -> list[int]:
    """The likeliest tokens one after the other; `change` changes logits, given what is written."""
    said: list[int] = []
    for _ in range(count):
        logits = llama_reference.after(reference, PROMPT + said).clone()
        if change:
            change(logits, said)
        said.append(int(logits.argmax()))
    return said


PLAIN = tuple((token, -100.0) for token in [0, 1, 2, *range(3, 400)] if not 33 <= token <= 92)


def plain(logits: torch.Tensor, _: list[int]) -> None:
    """Only single letters are left: every token is a character."""
    for token, bias in PLAIN:
        if token < len(logits):
            logits[token] += bias


@pytest.fixture(scope="module")
def plainly(runtime: engine.Runtime) -> dict[str, Any]:
    top = runtime.info.vocabulary
    return {"logit_bias": tuple(one for one in PLAIN if one[0] < top)}


def test_stop_strings_are_told_and_left_out(
    runtime: engine.Runtime, plainly: dict[str, Any]
) -> None:
    whole, _, _ = written(runtime, max_tokens=12, **plainly)
    assert len(whole) == 12
    for begin in range(1, 9):
        stop = whole[begin : begin + 3]
        text, done, tokens = written(
            runtime, max_tokens=12, stop=("no such", stop), alternatives=0, **plainly
        )
        assert text == whole[: whole.index(stop)]
        assert (done.reason, done.stop) == ("stop", stop)
        assert done.tokens == len(text) + 3
        assert "".join(token.text for token in tokens) == text


def test_what_might_have_become_a_stop_string_is_not_lost(
    runtime: engine.Runtime, plainly: dict[str, Any]
) -> None:
    whole, _, _ = written(runtime, max_tokens=6, **plainly)
    text, done, tokens = written(
        runtime, max_tokens=6, stop=(whole[-3:] + "#",), alternatives=0, **plainly
    )
    assert (text, done.reason, done.stop) == (whole, "length", None)
    assert "".join(token.text for token in tokens) == whole


def test_the_first_stop_string_in_the_text_ends_it(
    runtime: engine.Runtime, plainly: dict[str, Any]
) -> None:
    whole, _, _ = written(runtime, max_tokens=8, **plainly)
    _, done, _ = written(runtime, max_tokens=8, stop=(whole[4:6], whole[2:7]), **plainly)
    first = min(
        (whole.index(whole[4:6]) + 2, whole[4:6]), (whole.index(whole[2:7]) + 5, whole[2:7])
    )
    assert done.stop == first[1]


@pytest.mark.parametrize("character", ["🙂", "中", "é", "𝄞"])
def test_a_character_is_one_piece_whatever_its_tokens(
    runtime: engine.Runtime, character: str
) -> None:
    ids = runtime.tokenize(character, False)
    assert len(set(ids)) == len(ids) >= 2
    # The model writes them in order: a penalty keeps each away from when it was written.
    sampling: dict[str, Any] = {
        "logit_bias": tuple((token, 100.0 - 9 * place) for place, token in enumerate(ids)),
        "frequency_penalty": 60.0,
        "alternatives": 2,
    }
    text, done, tokens = written(runtime, max_tokens=len(ids), **sampling)
    assert (text, done.tokens) == (character, len(ids))
    # The last of them, as the whole character.
    assert [(token.id, token.text) for token in tokens] == [(ids[-1], character)]
    assert len(tokens[0].alternatives) == 2
    text, done, tokens = written(runtime, max_tokens=len(ids) - 1, **sampling)
    assert (text, done.tokens, tokens) == ("", len(ids) - 1, [])


def test_log_probabilities_are_those_before_any_bias(
    runtime: engine.Runtime, reference: Any, plainly: dict[str, Any]
) -> None:
    text, done, tokens = written(
        runtime, max_tokens=8, temperature=2.0, seed=1, alternatives=3, **plainly
    )
    assert len(tokens) == done.tokens == len(text)
    said = list(PROMPT)
    for token in tokens:
        logs = llama_reference.after(reference, said).log_softmax(-1)
        assert token.log_probability == pytest.approx(float(logs[token.id]), abs=NEAR)
        assert len(token.alternatives) == 3
        for id, _, log in token.alternatives:
            assert log == pytest.approx(float(logs[id]), abs=NEAR)
        best = [log for _, _, log in token.alternatives]
        assert best == sorted(best, reverse=True)
        assert best == pytest.approx(logs.topk(3).values.tolist(), abs=NEAR)
        said.append(token.id)
    assert written(runtime, max_tokens=2, alternatives=0, **plainly)[2][0].alternatives == ()


def ids_of(tokens: list[Token]) -> list[int]:
    return [token.id for token in tokens]


@pytest.mark.parametrize(
    ("frequency", "presence"), [(1.5, 0.0), (0.0, 3.0), (0.7, 2.0), (-0.5, 0.0), (0.0, -1.0)]
)
def test_penalties_count_what_was_written_and_not_the_prompt(
    runtime: engine.Runtime,
    reference: Any,
    plainly: dict[str, Any],
    frequency: float,
    presence: float,
) -> None:
    # The prompt holds what would be written anyway, several times.
    likely = follow(reference, 12, plain)
    prompt = PROMPT + likely + likely

    def change(logits: torch.Tensor, said: list[int]) -> None:
        plain(logits, said)
        for token, count in Counter(said).items():
            logits[token] -= count * frequency + presence

    said: list[int] = []
    margins = []
    for _ in range(24):
        logits = llama_reference.after(reference, prompt + said).clone()
        change(logits, said)
        margins.append(float(logits.topk(2).values.diff().abs()))
        said.append(int(logits.argmax()))
    sure = next((n for n, margin in enumerate(margins) if margin < NEAR), len(said))
    assert sure >= 3  # beyond that two tokens are too near each other to tell
    _, done, tokens = written(
        runtime,
        prompt,
        max_tokens=24,
        frequency_penalty=frequency,
        presence_penalty=presence,
        alternatives=0,
        **plainly,
    )
    assert ids_of(tokens)[:sure] == said[:sure]
    assert (done.reason, done.tokens) == ("length", 24)


def test_penalised_texts_end_as_others_do(runtime: engine.Runtime, plainly: dict[str, Any]) -> None:
    prompt = [token for token, _ in plainly["logit_bias"]][:3] + list(range(33, 93))
    sampling = {"presence_penalty": 0.5, "temperature": 1.0, "seed": 4, **plainly}
    text, done, _ = written(runtime, prompt, max_tokens=30, **sampling)
    assert (len(text), done.reason, done.tokens) == (30, "length", 30)
    assert written(runtime, prompt, max_tokens=30, **sampling)[0] == text
    cut, done, _ = written(runtime, prompt, max_tokens=30, stop=(text[9:14],), **sampling)
    assert (cut, done.stop) == (text[: text.index(text[9:14])], text[9:14])
    # To the last place of the context.
    assert written(runtime, prompt, **sampling)[1].tokens == 256 - len(prompt)


def test_repeat_penalty_looks_back_over_the_prompt(
    runtime: engine.Runtime, reference: Any, plainly: dict[str, Any]
) -> None:
    likeliest = follow(reference, 1, plain)[0]
    prompt = [likeliest, *PROMPT]
    logits = llama_reference.after(reference, prompt).clone()
    plain(logits, [])
    for token in prompt:
        logits[token] = logits[token] / 3 if logits[token] > 0 else logits[token] * 3
    _, _, [token] = written(
        runtime, prompt, max_tokens=1, repeat_penalty=3.0, alternatives=0, **plainly
    )
    assert token.id == int(logits.argmax())


def seen(runtime: engine.Runtime, plainly: dict[str, Any], **sampling: Any) -> set[int]:
    found = [
        written(
            runtime, max_tokens=1, temperature=0.8, seed=seed, alternatives=0, **sampling, **plainly
        )[2][0].id
        for seed in range(60)
    ]
    assert len(set(found)) > 1
    return set(found)


def test_bounds_keep_what_they_say(
    runtime: engine.Runtime, reference: Any, plainly: dict[str, Any]
) -> None:
    logits = llama_reference.after(reference, PROMPT).clone()
    plain(logits, [])
    shares = (logits / 0.8).softmax(-1).sort(descending=True)
    ranked = shares.indices.tolist()
    assert seen(runtime, plainly, top_k=3) <= set(ranked[:3])
    within = int((shares.values.cumsum(-1) < 0.4).sum()) + 1
    assert seen(runtime, plainly, top_p=0.4) <= set(ranked[:within])
    least = int((shares.values >= 0.5 * shares.values[0]).sum())
    assert seen(runtime, plainly, min_p=0.5) <= set(ranked[: least + 1])


def test_a_biased_token_comes_or_goes(runtime: engine.Runtime, reference: Any) -> None:
    first = follow(reference, 1)[0]
    _, _, [token] = written(runtime, max_tokens=1, alternatives=0, logit_bias=((40, 100.0),))
    assert token.id == 40
    _, _, tokens = written(runtime, max_tokens=1, alternatives=0, logit_bias=((first, -100.0),))
    assert first not in ids_of(tokens)


def test_seeds_of_any_size(runtime: engine.Runtime) -> None:
    for seed in (0, 1, 2**31, 2**32 - 1, 2**63, -1, -(2**40)):
        again = [written(runtime, max_tokens=12, temperature=1.0, seed=seed)[0] for _ in range(2)]
        assert again[0] == again[1]


def test_the_prompts_beginning_is_known_again(tiny_model: Path) -> None:
    with engine.start(tiny_model, threads=1, context=256, parallel=2) as own:
        fixed = list(range(30, 130))
        assert written(own, [*fixed, 200], max_tokens=2)[1].cached_tokens == 0
        assert written(own, [*fixed, 201, 202], max_tokens=2)[1].cached_tokens == 100
        # Others take both slots, several times; it is kept beside them.
        for turn in range(6):
            other = [131 + turn, *range(240, 120 + 10 * turn, -1)]
            written(own, other, max_tokens=2)
        assert written(own, [*fixed, 203], max_tokens=2)[1].cached_tokens == 100
        written(own, [*fixed, 203], max_tokens=9, presence_penalty=1.0)


def test_senseless_requests_are_refused(runtime: engine.Runtime) -> None:
    def tell(_: object) -> None:
        raise AssertionError

    with pytest.raises(ValueError):
        runtime.write(PROMPT, Sampling(max_tokens=0), tell)
    with pytest.raises(ValueError):
        runtime.write([], Sampling(), tell)
    with pytest.raises(ValueError):
        runtime.write(PROMPT, Sampling(logit_bias=((10**6, 1.0),)), tell)
    with pytest.raises(BadInput, match="256"):
        runtime.write([7] * 256, Sampling(), tell)


def test_many_wait_and_nobody_else_does(tiny_model: Path) -> None:
    """64 texts for one slot: cancelling, tokenizing and choosing do not wait for them."""
    with engine.start(tiny_model, threads=1, context=512) as own:
        heard: list[SimpleQueue[Any]] = [SimpleQueue() for _ in range(64)]
        cancels = [
            own.write([20 + n, *PROMPT], Sampling(logit_bias=((2, -100.0),)), queue.put)
            for n, queue in enumerate(heard)
        ]
        assert isinstance(heard[0].get(timeout=10), Piece)
        began = time.perf_counter()
        own.tokenize("camera", False)
        tokenized = time.perf_counter() - began
        own.choose([PROMPT], [[5, 6]])
        chosen = time.perf_counter() - began
        # The first text is still written when the tokens are told, the second when `choose` is.
        waiting = sum(queue.empty() for queue in heard)
        assert waiting >= 60, (waiting, tokenized, chosen)
        for cancel in cancels:
            cancel()
        own.choose([PROMPT], [[5, 6]])
        stopped = sum(queue.empty() for queue in heard)
        assert stopped >= 60
        time.sleep(0.2)
        assert sum(queue.empty() for queue in heard) == stopped
        assert written(own, max_tokens=3)[1].tokens == 3


def test_one_who_fails_to_listen_disturbs_nobody(runtime: engine.Runtime) -> None:
    def tell(_: object) -> None:
        raise RuntimeError("the loop is closed")

    runtime.write(PROMPT, Sampling(max_tokens=5), tell)
    assert written(runtime, max_tokens=5)[1].tokens == 5


def test_a_dead_child_is_told_to_all(tiny_model: Path) -> None:
    with engine.start(tiny_model, threads=1, context=512) as own:
        assert isinstance(own, LlamaCpp)
        heard: list[SimpleQueue[Any]] = [SimpleQueue() for _ in range(5)]
        cancels = [own.write(PROMPT, Sampling(), queue.put) for queue in heard]
        own._process.send_signal(signal.SIGKILL)
        for queue in heard:
            while isinstance(one := queue.get(timeout=10), Piece):
                pass
            assert isinstance(one, JobFailed) and "SIGKILL" in one.message
        for cancel in cancels:
            cancel()
        with pytest.raises(JobFailed, match="SIGKILL"):
            own.write(PROMPT, Sampling(), heard[0].put)
        assert not own.alive


def test_threads_write_at_the_same_time(runtime: engine.Runtime) -> None:
    """Each gets its own text, whole."""
    alone = [written(runtime, [30 + n, *PROMPT], max_tokens=1)[0] for n in range(12)]
    wrong: list[int] = []

    def check(n: int) -> None:
        for _ in range(5):
            wrong.extend([n] * (written(runtime, [30 + n, *PROMPT], max_tokens=1)[0] != alone[n]))

    threads = [threading.Thread(target=check, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Rounded differently together, a token may change where two are as likely.
    assert len(set(wrong)) <= 1
