"""The table of bytes a token, and that what it calls GPT-2's tokens are."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

import tiny_corpus

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    import vocabulary

    yield vocabulary
    sys.path.remove(str(BENCHMARKS))
    for name in ("vocabulary", "corpora", "debian_index"):
        sys.modules.pop(name, None)


@pytest.mark.slow  # fetches the vocabulary
@pytest.mark.parametrize(
    ("text", "ids"),
    [  # as published with the model
        ("Hello world", [15496, 995]),
        ("Hello, my dog is cute", [15496, 11, 616, 3290, 318, 13779]),
        ("\n\n", [628]),
    ],
)
def test_gpt2s_tokens(bench: ModuleType, text: str, ids: list[int]) -> None:
    theirs = bench.gpt2()
    assert theirs.get_vocab_size() == 50_257
    assert theirs.encode(text).ids == ids


def test_the_table(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With single bytes in place of GPT-2's tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    single = tokenizers.Tokenizer(models.BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    single.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned, held = tiny_corpus.texts(400, 1), ["The cat sees the garden.\n", "A dög."]
    monkeypatch.setitem(bench.CORPORA, "tiny", lambda: (learned, held))
    monkeypatch.setattr(bench, "gpt2", lambda: single)
    monkeypatch.setattr(bench, "sizes", lambda chosen: [257, 350])
    bench.main(["tiny"])
    told = capsys.readouterr().out
    assert "32 held out" in told
    rows = re.findall(r"^\| (\d+).*?\| ([\d.]+) \| ([\d.]+) \|", told, re.MULTILINE)
    assert rows[0] == ("257", "1.00", "1.00") and rows[2] == ("256", "1.00", "1")
    assert rows[1][0] == "350" and float(rows[1][1]) > 1.5
