"""What benchmarks/soak.py finds wrong, and, slowly, that it finds nothing wrong in a short run."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
RETRY = {"retry-after": "1"}


@pytest.fixture(scope="module")
def asks() -> Iterator[Any]:
    sys.path.insert(0, str(FOLDER))
    import soak_asks

    yield soak_asks
    sys.path.remove(str(FOLDER))


def known(asks: Any) -> Any:
    return asks.Known({"Who?": "it is"}, {"a": "good", "b": "bad"}, {t: [1.0, 0.0] for t in "abc"})


def one(asks: Any, make: str, wanted: Callable[[Any], bool] = lambda _: True) -> Any:
    """A request of a kind that is as wanted."""
    chances = (random.Random(seed) for seed in range(1000))
    found = (getattr(asks, make)(chance, known(asks)) for chance in chances)
    return next(ask for ask in found if wanted(ask))


def reply(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()


def stream(*deltas: dict[str, Any], end: str = "[DONE]") -> bytes:
    told = [{"choices": [{"delta": one, "finish_reason": None}]} for one in deltas]
    told.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    return b"".join(f"data: {json.dumps(one)}\n\n".encode() for one in told) + (
        f"data: {end}\n\n".encode()
    )


def plain(asks: Any, whole: bool) -> Callable[[Any], bool]:
    """A question to OpenAI's chat whose answer is known."""
    return lambda ask: bool(
        ask.path == asks.CHAT and not ask.again and ask.body["stream"] is not whole
    )


def test_a_wrong_answer_is_found(asks: Any) -> None:
    ask = one(asks, "talk", plain(asks, whole=True))
    assert asks.judged(ask, 200, {}, reply("it is"), False) == "right"
    for raw in (reply("it was"), b'{"choices": []}', b"{", b""):
        with pytest.raises(asks.Wrong):
            asks.judged(ask, 200, {}, raw, False)


def test_a_mark_of_another_request_is_found(asks: Any) -> None:
    ask = one(asks, "senseless", lambda ask: ask.status == 400)
    assert asks.judged(ask, 400, {}, ask.mark.encode(), False) == "right"
    for status in (400, 200, 503):
        with pytest.raises(asks.Wrong, match="another request"):
            asks.judged(ask, status, RETRY, b'{"error": "' + asks.new_mark().encode(), False)


def test_statuses_are_only_those_that_may_be(asks: Any) -> None:
    ask = one(asks, "talk", plain(asks, whole=True))
    for status in (429, 503):
        assert asks.judged(ask, status, RETRY, b'{"error": {}}', False) == str(status)
        for headers, raw in (({}, b'{"error": {}}'), (RETRY, b"")):
            with pytest.raises(asks.Wrong, match="does not say when"):
                asks.judged(ask, status, headers, raw, False)
    assert asks.judged(ask, 422, {}, b'{"error": {"code": "crashes_model"}}', False) == "422"
    for status in (500, 422, 404, 400, 201):
        with pytest.raises(asks.Wrong, match=f"status {status}"):
            asks.judged(ask, status, RETRY, b'{"error": {}}', True)


def test_a_stream_must_end(asks: Any) -> None:
    ask = one(asks, "talk", plain(asks, whole=False))
    said = ({"role": "assistant"}, {"content": "it "}, {"content": "is"})
    assert asks.judged(ask, 200, {}, stream(*said), False) == "right"
    cut = stream(*said).replace(b"data: [DONE]\n\n", b"")
    for raw in (cut, stream(*said[:2]), stream(*said).replace(b'"stop"', b"null")):
        with pytest.raises(asks.Wrong):
            asks.judged(ask, 200, {}, raw, True)
    broken = stream(*said, end='{"error": {"message": "died"}}')
    assert asks.judged(ask, 200, {}, broken, True) == "broken off"
    with pytest.raises(asks.Wrong, match="nothing was killed"):
        asks.judged(ask, 200, {}, broken, False)


def test_labels_in_another_order_are_found(asks: Any) -> None:
    ask = one(asks, "labelled", lambda ask: ask.path == "/tasks/labels")
    wanted = [known(asks).labels[text] for text in ask.body["texts"][:-1]] + ["neither"]
    answers = [{"label": label} for label in wanted]
    raw = json.dumps({"answers": answers}).encode()
    assert asks.judged(ask, 200, {}, raw, False) == "right"
    turned = json.dumps({"answers": [{"label": "neither"}, *answers[1:]]}).encode()
    fewer = json.dumps({"answers": answers[:-1]}).encode()
    for wrong in (turned, fewer):
        with pytest.raises(asks.Wrong):
            asks.judged(ask, 200, {}, wrong, False)


def test_only_a_tie_excuses_another_answer(asks: Any) -> None:
    def token(text: str, apart: float) -> dict[str, Any]:
        return {"token": text, "top_logprobs": [{"logprob": -1.0}, {"logprob": -1.0 - apart}]}

    alone = [token("a", 2.0), token("b", asks.TIE / 2), token("c", 2.0)]
    assert not asks.differs(alone, "abc")
    assert not asks.differs(alone, "ax and whatever follows")
    assert asks.differs(alone, "xbc")
    assert asks.differs(alone, "abx")
    assert asks.differs(alone, "abcd")


@pytest.mark.slow
def test_a_short_run_finds_nothing_wrong(tiny_model: Path) -> None:
    command = [
        sys.executable,
        FOLDER / "soak.py",
        tiny_model,
        "--clients",
        "6",
        "--minutes",
        "0.25",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n0 violations" in done.stdout
    assert re.search(r"^[12] engines killed", done.stdout, re.M)
    (total,) = re.findall(r"^all +([\d,]+)", done.stdout, re.M)
    assert int(total.replace(",", "")) > 100
    kept = re.search(r"([\d,]+) rows of feedback acknowledged, ([\d,]+) kept", done.stdout)
    assert kept and 0 < int(kept[1].replace(",", "")) <= int(kept[2].replace(",", ""))
