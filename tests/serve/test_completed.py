"""A model that completes text behind `/v1/completions`."""

from pathlib import Path

import httpx
import torch
from served import served

import tiny_corpus
from bantam.model import COMPLETE, Model
from bantam.nets import fresh
from bantam.pack import gguf_file
from bantam.serve import start
from bantam.serve.shelf import Shelf


def test_a_text_is_gone_on_with_as_by_the_model_itself(tmp_path: Path) -> None:
    pack, tokenizer = tmp_path / "tiny.gguf", tiny_corpus.tokenizer()
    decoder = fresh.fresh(fresh.config(tiny_corpus.SIZE, 64, 32))
    with torch.no_grad():
        for weight in decoder.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    gguf_file.write(pack, decoder, tokenizer, None, {COMPLETE: "complete", "general.name": "cats"})
    with Model(pack, threads=1) as packed:
        assert packed.completes
        ids = packed.start + packed.encode([("The cat", False)])
        expected = packed.runtime.complete(ids, 5).text
        assert "".join(packed.complete("The cat", max_tokens=5, temperature=0)) == expected
        long = "".join(packed.complete("The cat sees the dog. " * 50, max_tokens=3, seed=1))
        assert long is not None  # its end is read
    with served(Shelf({"tiny": pack}, threads=1)) as address:
        asked = {"model": "tiny", "prompt": "The cat", "max_tokens": 5, "temperature": 0}
        told = httpx.post(f"{address}/v1/completions", json=asked, timeout=60).json()
        wrong = httpx.post(f"{address}/tasks/tiny", json={"text": "The cat"}, timeout=60)
    assert (wrong.status_code, "/v1/completions" in wrong.text) == (404, True)
    assert start._own_name(pack) == "cats"
    assert told["choices"][0]["text"] == expected
    assert told["usage"]["prompt_tokens"] == len(ids)
