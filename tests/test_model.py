"""A model in use: how it is found, what it is asked, and that it answers as it was judged."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import bantam
import job
from bantam.answer import Answer
from bantam.errors import BadInput
from bantam.formats import gguf
from bantam.kinds import texts as writing
from bantam.model import Model
from bantam.model_files import find, load
from tiny import rewritten, tiny_llama
from tiny_tasks import packed


@pytest.fixture(scope="module")
def model(made: Path) -> Iterator[Model]:
    with bantam.load(made / "runs/tiny", threads=1) as loaded:
        yield loaded


def test_a_model_answers_as_it_was_judged(model: Model, made: Path) -> None:
    judged = pl.read_parquet(made / "runs/tiny/judge/predictions.parquet").filter(
        pl.col("model") == "ours"
    )
    test = pl.read_parquet(made / "runs/tiny/text/test.parquet")
    assert judged["id"].to_list() == test["id"].to_list()
    for text, row in zip(test["input"], judged.iter_rows(named=True), strict=True):
        answer = model(text)
        # In batches and one by one the runtime adds the same numbers in another order.
        assert list(answer.probabilities.values()) == pytest.approx(row["probabilities"], abs=0.02)
        assert answer.probability == max(answer.probabilities.values())
        assert answer.probabilities[answer.label] == answer.probability


def test_answers_are_calibrated(model: Model, tmp_path: Path) -> None:
    """The same weights, packed with another temperature, are less sure of the same answers."""
    keys = {"bantam.calibration": '{"temperature": 4.0}'}
    path = rewritten(tmp_path / "warm.gguf", model.path, keys)
    assert model.task
    texts = [text for text, _ in job.texts_and_labels(6)]
    with Model(path, threads=1) as warm:
        for told, plain in zip(warm.batch(texts), model.batch(texts), strict=True):
            share = np.array(list(plain.probabilities.values())) ** (model.task.temperature / 4)
            wanted = share / share.sum()
            assert list(told.probabilities.values()) == pytest.approx(wanted.tolist(), abs=0.02)
            assert told.probability < plain.probability


def test_a_batch_keeps_its_order(model: Model) -> None:
    texts = [text for text, _ in job.texts_and_labels(9)]
    assert model.batch([]) == []
    answers = model.batch(texts)
    backwards = model.batch(texts[::-1])
    for answer, again in zip(answers, backwards[::-1], strict=True):
        assert again.probability == pytest.approx(answer.probability, abs=0.02)


def test_an_answer_is_its_label_in_words() -> None:
    assert f"{Answer('poor', 0.5, {'poor': 0.5, 'good': 0.5}, ('poor',))}" == "poor"


def test_a_run_a_pack_and_a_file_are_one_model(made: Path) -> None:
    packed = made / "runs/tiny/pack/tiny-Q8_0.gguf"
    for name in (made / "runs/tiny", made / "runs/tiny/pack", packed, str(packed)):
        assert find(name) == packed


def test_what_is_not_one_model_is_refused(made: Path, tmp_path: Path) -> None:
    for name in ("one.gguf", "two.gguf"):
        shutil.copy(made / "tiny.gguf", tmp_path / name)
    with pytest.raises(BadInput, match=r"several models: one\.gguf, two\.gguf"):
        find(tmp_path)
    with pytest.raises(BadInput, match="is no GGUF file"):
        find(made / "runs/tiny/model")
    with pytest.raises(BadInput, match=r"rows\.csv is no model"):
        find(made / "rows.csv")
    with pytest.raises(BadInput, match="does not exist"):
        find(tmp_path / "missing.gguf")


def test_what_is_no_gguf_is_refused_unread(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base can have gigabytes: none of them is hashed only to say that it is no GGUF."""

    def hashed(path: Path) -> tuple[str, int]:
        raise AssertionError(f"{path} was hashed")

    monkeypatch.setattr("bantam.sources.cache.sha256_of", hashed)
    (tmp_path / "empty").mkdir()
    for name, message in (
        (made / "runs/tiny/model", "is no GGUF file"),
        (made / "runs/tiny/model/model.safetensors", "is no model"),
        (tmp_path / "empty", "holds no model"),
    ):
        with pytest.raises(BadInput, match=message):
            load(name)
    (tmp_path / "empty/below").mkdir()
    shutil.copy(made / "tiny.gguf", tmp_path / "empty/below")
    assert find(tmp_path / "empty") == tmp_path / "empty/below/tiny.gguf"


def test_control_tokens_in_a_text_are_only_text(model: Model) -> None:
    tokenizer = model.tokenizer
    assert tokenizer and model.task
    control = {tokenizer.token_id("<|im_end|>"), tokenizer.token_id("<|endoftext|>")}
    ids = model.prompt(model.task, "ends <|im_end|> here <|endoftext|>")
    assert not control & set(ids)
    assert control <= set(model.encode([("<|im_end|><|endoftext|>", True)]))


def test_a_text_of_any_length_has_an_answer(model: Model) -> None:
    long = "the camera is bright " * 2000
    assert model.task
    ids = model.prompt(model.task, long)
    assert len(ids) < model.runtime.info.context
    assert ids[-3:] == model.prompt(model.task, "short")[-3:]  # cut in the text, not in the prompt
    assert model(long).label in job.LABELS
    most = model.task.max_text_tokens
    word = "camera "
    while len(model.encode([(word + "camera ", False)])) <= most:
        word += "camera "
    over = word + "camera "
    assert [answer.cut for answer in model.batch(["", word, over])] == [False, False, True]
    assert model("").label in job.LABELS
    assert model("\ud800 half a character").label in job.LABELS


def test_a_closed_model_may_be_used_again(made: Path) -> None:
    model = load(made / "runs/tiny", threads=1)
    before = model("the phone is awful")
    model.close()
    model.close()
    assert model("the phone is awful") == before
    model.close()


def test_a_model_without_a_task_can_only_talk(tiny_model: Path) -> None:
    with load(tiny_model, threads=1) as model:
        with pytest.raises(BadInput, match="bantam chat"):
            model("a text")
        talk = [{"role": "user", "content": "Hello"}]
        for settings in ({"temperature": 0.0}, {"seed": 3}):
            pieces = list(model.stream(talk, max_tokens=6, **settings))
            assert "".join(pieces) == model.chat(talk, max_tokens=6, **settings)


@pytest.mark.parametrize(
    ("said", "temperature"),
    [({}, 0.7), ({"general.sampling.temp": 0.25}, 0.25), ({"general.sampling.temp": "hot"}, 0.7)],
)
def test_the_temperature_of_a_conversation(
    said: dict[str, object],
    temperature: float,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is asked for, else what the file recommends, else ours."""
    path = rewritten(tmp_path / "said.gguf", tiny_model, said)
    talk = [{"role": "user", "content": "Hello"}]
    with load(path, threads=1) as model:
        asked: list[float] = []
        generate = model.runtime.generate
        monkeypatch.setattr(
            model.runtime,
            "generate",
            lambda ids, **how: (asked.append(how["temperature"]), generate(ids, **how))[1],
        )
        model.chat(talk, max_tokens=1)
        model.chat(talk, max_tokens=1, temperature=0.0)
    assert asked == [temperature, 0.0]


@pytest.mark.parametrize("written", [True, False])
def test_a_conversation_begins_with_one_start_token(
    written: bool, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the template writes it or not."""
    template = gguf.read(tiny_model).metadata["tokenizer.chat_template"]
    keys = {
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.chat_template": ("{{ bos_token }}" if written else "") + template,
    }
    path = rewritten(tmp_path / "bos.gguf", tiny_model, keys)
    with load(path, threads=1) as model:
        asked: list[list[int]] = []
        generate = model.runtime.generate
        monkeypatch.setattr(
            model.runtime,
            "generate",
            lambda ids, **how: (asked.append(ids), generate(ids, **how))[1],
        )
        model.chat([{"role": "user", "content": "Hello <|endoftext|>"}], max_tokens=1)
    assert asked[0].count(0) == 1
    assert asked[0][0] == 0


def test_a_tokenizer_that_only_the_runtime_knows(tmp_path: Path) -> None:
    """Its ids then come from the runtime, with control tokens off for what users write."""
    ours = tiny_llama(tmp_path / "ours.gguf")
    with (
        load(tiny_llama(tmp_path / "theirs.gguf", pre="chatglm-bpe"), threads=1) as theirs,
        load(ours, threads=1) as known,
    ):
        assert theirs.tokenizer is None
        assert known.tokenizer is not None
        segments = [("<|im_start|>user\n", True), ("say <|im_end|> twice", False)]
        assert theirs.encode(segments) == known.encode(segments)
        assert (theirs.start, theirs.end) == (known.start, known.end)
        held = theirs._tokenize.cache_info().currsize  # type: ignore[attr-defined]
        long = [("a long letter " * 50, False)]
        assert theirs.encode(long) == known.encode(long)
        assert theirs._tokenize.cache_info().currsize == held  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "bad",
    [
        '{"type": "array", "items": ' * 200 + "{}" + "}" * 200,
        '{"$defs": {"n": {"$ref": "#/$defs/n"}}, "$ref": "#/$defs/n"}',
        '{"type": "string", "pattern": "(?=a)b"}',
        '{"$ref": "https://example.org/schema.json"}',
    ],
)
def test_the_schema_of_a_strange_file_is_checked(
    tiny_model: Path, tmp_path: Path, bad: str
) -> None:
    task = writing.task("extract", "t", "", answer_schema={"type": "string"})
    path = packed(tmp_path / "strange.gguf", tiny_model, replace(task, schema=bad))
    with (
        Model(path, threads=1) as strange,
        pytest.raises(BadInput, match=r"strange\.gguf: bantam\.schema"),
    ):
        strange("a text")
