"""A tiny random model with a real tokenizer, which llama.cpp loads in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from bantam.formats import gguf

TEXTS = (
    "The picture is sharp and the battery lasts all day. I would buy this camera again.",
    "It broke after two weeks, and nobody answered my letters. Do not waste your money!",
    "What does this product review feel? Answer positive, negative or neutral.",
    "positive negative neutral yes no 0 1 2 3 4 5 6 7 8 9",
)
RUNS = (
    "hahahahaha haha hah",
    "xxxxxxxxxxx xxxx xxx",
    "----- -- --- 😀😀😀 日本語日本",
    "a: b; c: d",
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' "
    "+ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer_metadata(
    texts: Iterable[str] = TEXTS, vocab_size: int = 400, pre: str = "smollm"
) -> dict[str, Any]:
    """The `tokenizer.*` keys of a byte-level BPE vocabulary trained on `texts`."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator([text for text in texts for _ in range(2)], trainer)
    ids = trained.get_vocab()
    # The merges of a trained model are only to be had from its JSON.
    merges = json.loads(trained.to_str())["model"]["merges"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": sorted(ids, key=lambda token: ids[token]),
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (len(ids) - len(SPECIAL)),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in merges],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHATML,
    }


def sentencepiece_metadata(
    texts: Iterable[str] = (*TEXTS, *RUNS), prefix: bool = False, ties: int = 1
) -> dict[str, Any]:
    """The `tokenizer.*` keys of a SentencePiece vocabulary trained on `texts`, as Gemma's is.

    Tokens may span words. `ties` tokens in a row have the same score.
    """
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "▁")
    special = ["<unk>", "<s>", "</s>", "<start_of_turn>", "<end_of_turn>", "<unused0>"]
    words = ["\n\n", "  ", "   ", "<h1>"]  # found before spaces are rewritten
    bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=640, special_tokens=special + words + bytes, show_progress=False
    )
    trained.train_from_iterator([text for text in texts for _ in range(2)], trainer)
    ids = trained.get_vocab()
    pieces = sorted(ids, key=lambda token: ids[token])[len(special + words + bytes) :]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": special + words + bytes + pieces,
        "tokenizer.ggml.token_type": [3] * len(special)
        + [4] * len(words)
        + [6] * len(bytes)
        + [1] * len(pieces),
        "tokenizer.ggml.scores": [0.0] * (len(ids) - len(pieces))
        + [-float(rank // ties) for rank in range(len(pieces))],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": prefix,
        "tokenizer.chat_template": CHATML,
    }


def tiny_llama(
    path: Path,
    seed: int = 0,
    type: str = "F32",
    vocab_texts: Iterable[str] = TEXTS,
    pre: str = "smollm",
    tokenizer: dict[str, Any] | None = None,
    broken: bool = False,
) -> Path:
    """Write a random Llama (2 layers, width 64, 4 heads, 2 of keys) to `path`, and return `path`.

    Its matrices are stored as `type`; the same arguments give the same file. `tokenizer` are the
    keys of another tokenizer than that of `vocab_texts` and `pre`. The last norm of a `broken` one
    is not a number.
    """
    metadata = dict(tokenizer or tokenizer_metadata(vocab_texts, pre=pre))
    vocab, width, hidden, layers, heads, kv_heads, context = (
        len(metadata["tokenizer.ggml.tokens"]),
        *(64, 128, 2, 4, 2, 512),
    )
    kv_width = width // heads * kv_heads
    metadata |= {
        "general.architecture": "llama",
        "general.name": "tiny",
        "llama.block_count": layers,
        "llama.context_length": context,
        "llama.embedding_length": width,
        "llama.feed_forward_length": hidden,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": width // heads,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": vocab,
    }
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocab, width)}
    for layer in range(layers):
        block = f"blk.{layer}"
        shapes |= {
            f"{block}.attn_norm.weight": (width,),
            f"{block}.attn_q.weight": (width, width),
            f"{block}.attn_k.weight": (kv_width, width),
            f"{block}.attn_v.weight": (kv_width, width),
            f"{block}.attn_output.weight": (width, width),
            f"{block}.ffn_norm.weight": (width,),
            f"{block}.ffn_gate.weight": (hidden, width),
            f"{block}.ffn_up.weight": (hidden, width),
            f"{block}.ffn_down.weight": (width, hidden),
        }
    shapes["output_norm.weight"] = (width,)

    random = np.random.default_rng(seed)
    tensors: list[gguf.NewTensor] = []
    for name, shape in shapes.items():
        if len(shape) == 1:
            values = 1 + 0.1 * random.standard_normal(shape)
        else:
            values = random.standard_normal(shape) / shape[-1] ** 0.5
        if broken and name == "output_norm.weight":
            values = np.full(shape, np.nan)
        stored = "F32" if len(shape) == 1 else type
        tensors.append((name, shape, stored, lambda v=values: v.astype(np.float32)))
    gguf.write(path, metadata, tensors)
    return path


def rewritten(path: Path, source: Path, keys: Mapping[str, Any]) -> Path:
    """Write the model of `source` with other metadata to `path`; None leaves a key out."""
    file = gguf.read(source)
    tensors = [
        (name, info.shape, info.type, lambda name=name: gguf.tensor(file, name))
        for name, info in file.tensors.items()
    ]
    metadata = {name: value for name, value in (file.metadata | keys).items() if value is not None}
    gguf.write(path, metadata, tensors)
    return path
