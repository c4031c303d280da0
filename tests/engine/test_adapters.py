"""LoRA adapters beside a model, against the weights that they make, merged in transformers."""

import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import llama_reference
import pytest
import torch

from bantam import engine
from bantam.engine import Done, Piece, Sampling
from bantam.errors import BadInput, JobFailed
from tiny_adapter import adapter

NEAR = 0.005  # as in test_runtime.py
PROMPTS = [[10, 20, 30, 40, 50, 60, 70], [10, 20, 30, 41], [200, 100]]
CANDIDATES = [5, 60, 150, 333]


def merged(base: Path, added: dict[str, Any]) -> Any:
    model = llama_reference.load(base)
    for name, values in added.items():
        _, block, kind, _ = name.split(".")
        if kind in ("attn_q", "attn_k"):
            values = llama_reference.unpermuted(values, 4 if kind == "attn_q" else 2)
        where = f"model.layers.{block}.{llama_reference.NAMES[kind]}.weight"
        model.get_parameter(where).data += torch.from_numpy(values.copy())
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Any]:
    """Two adapter files, and the three models: without, with the one and with the other."""
    folder = tmp_path_factory.mktemp("adapters")
    paths = [folder / f"{name}.gguf" for name in ("first", "second")]
    added = [adapter(path, tiny_model, seed) for seed, path in enumerate(paths)]
    models = [merged(tiny_model, what) for what in ({}, *added)]
    return {"paths": paths, "models": models}


@pytest.fixture(scope="module")
def runtimes(tiny_model: Path, made: dict[str, Any]) -> Iterator[list[engine.Runtime]]:
    with engine.start(
        tiny_model, threads=1, context=256, parallel=2, adapters=made["paths"]
    ) as own:
        yield [own, own.adapted(0), own.adapted(1)]


def expected(model: Any, prompt: list[int]) -> list[float]:
    chosen: list[float] = llama_reference.after(model, prompt)[CANDIDATES].softmax(-1).tolist()
    return chosen


def test_each_answers_as_its_merged_weights_do(
    runtimes: list[engine.Runtime], made: dict[str, Any]
) -> None:
    # Again and again, so that what is remembered of one would be seen in another's answer.
    for turn in (0, 1, 2, 0, 2, 1, 0, 0, 1, 1, 2):
        runtime, model = runtimes[turn], made["models"][turn]
        answers = runtime.choose(PROMPTS, [CANDIDATES] * len(PROMPTS))
        for prompt, answer in zip(PROMPTS, answers, strict=True):
            assert answer == pytest.approx(expected(model, prompt), abs=NEAR)
        likeliest = runtime.likeliest(PROMPTS[0], 1)[0][0]
        assert likeliest == int(llama_reference.after(model, PROMPTS[0]).argmax())
        assert first_token(runtime, PROMPTS[0])[1] == pytest.approx(
            float(llama_reference.after(model, PROMPTS[0]).log_softmax(-1)[60]), abs=0.05
        )
    for one, other in ((0, 1), (1, 2)):  # they do differ
        apart = [
            abs(a - b)
            for prompt in PROMPTS
            for a, b in zip(
                expected(made["models"][one], prompt),
                expected(made["models"][other], prompt),
                strict=True,
            )
        ]
        assert max(apart) > 4 * NEAR


def first_token(runtime: engine.Runtime, prompt: list[int]) -> tuple[int, float]:
    heard: SimpleQueue[Any] = SimpleQueue()
    runtime.write(prompt, Sampling(1, logit_bias=((60, 100.0),), alternatives=0), heard.put)
    piece = heard.get(timeout=20)
    assert isinstance(piece, Piece), piece
    return piece.tokens[0].id, piece.tokens[0].log_probability


def test_they_answer_at_the_same_time(runtimes: list[engine.Runtime], made: dict[str, Any]) -> None:
    wrong: list[int] = []

    def ask(turn: int) -> None:
        for prompt in PROMPTS * 5:
            [answer] = runtimes[turn].choose([prompt], [CANDIDATES])
            right = expected(made["models"][turn], prompt)
            wrong.extend([turn] * (answer != pytest.approx(right, abs=NEAR)))

    threads = [threading.Thread(target=ask, args=(turn,)) for turn in (0, 1, 2, 0, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_begins_alike_is_not_forgotten_for_another(
    tiny_model: Path, made: dict[str, Any]
) -> None:
    """Prompts of two adapters share 20 of their 120 tokens, as those of one template do."""
    prompts = [[*range(100, 120), *range(start, start + 100)] for start in (150, 270)]
    with engine.start(
        tiny_model, threads=1, context=256, parallel=2, adapters=made["paths"]
    ) as own:
        known = []
        for _ in range(3):
            for adapter, prompt in enumerate(prompts):
                heard: SimpleQueue[Any] = SimpleQueue()
                own.adapted(adapter).write(prompt, Sampling(1), heard.put)
                while not isinstance(told := heard.get(timeout=20), Done):
                    assert isinstance(told, Piece), told
                known.append(told.cached_tokens)
    assert known[:2] == [0, 0]
    assert min(known[2:]) >= 100


def test_none_waits_without_end_for_another(runtimes: list[engine.Runtime]) -> None:
    """Texts of one adapter follow each other; a question to the other is answered between them."""
    over = threading.Event()
    heard: SimpleQueue[Any] = SimpleQueue()

    def go_on(what: object) -> None:
        if isinstance(what, Done) and not over.is_set():
            begin()
        heard.put(what)

    def begin() -> None:
        runtimes[1].write([5, 6, 7], Sampling(60, logit_bias=((2, -100.0),)), go_on)

    for _ in range(3):
        begin()
    assert isinstance(heard.get(timeout=20), Piece)
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(runtimes[2].choose([[5, 6, 7]], [CANDIDATES])), daemon=True
    )
    asking.start()
    asking.join(timeout=20)
    over.set()
    assert answers


def test_senseless_adapters_are_refused(
    tiny_model: Path, tmp_path: Path, made: dict[str, Any], runtimes: list[engine.Runtime]
) -> None:
    for number in (-1, 2):
        with pytest.raises(ValueError):
            runtimes[0].adapted(number)
    with pytest.raises(BadInput, match="none"):
        engine.start(tiny_model, adapters=[tmp_path / "none.gguf"])
    with pytest.raises(ValueError):
        engine.start(tiny_model, embeddings=True, adapters=made["paths"])
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(made["paths"][0].read_bytes()[:-3000])
    with pytest.raises(JobFailed):
        engine.start(tiny_model, threads=1, adapters=[broken])
    with pytest.raises(JobFailed):
        engine.start(tiny_model, threads=1, adapters=[tiny_model])
