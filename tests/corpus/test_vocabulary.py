"""Vocabularies learned from texts: the same tokens in transformers and the runtime."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

import tiny_corpus
from bantam import engine
from bantam.corpus import vocabulary
from bantam.errors import BadInput
from bantam.nets import fresh
from bantam.pack import gguf_file

TOKENIZER = tiny_corpus.tokenizer()
ODD = [
    *("The cat's 12345 dogs;\n\n  then\tnever...", "  two  spaces ", "\r\n\r\n x", "日本語 😀 é"),
    *("<|endoftext|> is text here", "", "a" * 500, "if x:\n    return 'y'  # z\n"),
]


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_every_text_comes_back(text: str) -> None:
    ids = TOKENIZER.encode([(text, False)])
    assert TOKENIZER.decode(ids) == text.encode("utf-8", "replace").decode() or "\ufffd" in (
        TOKENIZER.decode(ids)
    )
    assert 0 not in ids  # no text becomes the edge of one


def test_it_has_just_as_many_tokens_and_learned_words() -> None:
    assert TOKENIZER.vocab_size == tiny_corpus.SIZE
    assert TOKENIZER.bos_id == TOKENIZER.eos_id == 0
    assert TOKENIZER.start == [0]
    assert len(TOKENIZER.encode([(" house", False)])) == 1
    told = vocabulary.bytes_a_token(TOKENIZER, ["The cat sees the house."])
    assert told == 23 / len(TOKENIZER.encode([("The cat sees the house.", False)])) > 2


def test_the_runtime_and_transformers_read_alike(tmp_path: Path) -> None:
    torch.manual_seed(0)
    decoder = fresh.fresh(fresh.config(tiny_corpus.SIZE, 64, 32))
    gguf_file.write(tmp_path / "m.gguf", decoder, TOKENIZER, None, {})
    TOKENIZER.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    with engine.start(tmp_path / "m.gguf", threads=1, context=64) as runtime:
        for text in [*ODD, *tiny_corpus.texts(20, 1)]:
            ids = TOKENIZER.encode([(text, False)])
            assert runtime.tokenize(text, False) == ids
            if "<|" not in text:
                assert theirs(text)["input_ids"] == [0, *ids]
    assert vocabulary.load(tmp_path).encode([(ODD[0], False)]) == TOKENIZER.encode(
        [(ODD[0], False)]
    )


def test_sizes_follow_the_text() -> None:
    assert vocabulary.size_for(18_300_000) == 8192
    assert vocabulary.size_for(1000) == 512
    assert vocabulary.size_for(10**12) == 32_768


@pytest.mark.parametrize("size", [100, 256, 5000])
def test_sizes_that_cannot_be(size: int) -> None:
    with pytest.raises(BadInput):
        tiny_corpus.tokenizer(size=size)
