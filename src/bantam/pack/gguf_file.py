"""A tuned decoder as one GGUF file, with the task that it does written into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bantam import kinds
from bantam.errors import BadInput
from bantam.formats import gguf
from bantam.formats.tokenizer import Tokenizer
from bantam.formats.tokenizer_json import NORMAL, UNUSED
from bantam.nets.decoder import Decoder
from bantam.nets.load import BLOCK_NAMES, OUTER_NAMES, pair_neighbours

FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7}  # general.file_type


def write(
    path: Path,
    decoder: Decoder,
    tokenizer: Tokenizer,
    task: kinds.Task | None,
    lineage: dict[str, Any],
    bits: str = "Q8_0",
) -> None:
    """Write the pack, whole or not at all. `lineage` are more `general.*` and `bantam.*` keys."""
    c = decoder.config
    metadata = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.file_type": FILE_TYPES[bits],
        "general.quantization_version": 2,
        "llama.block_count": c.n_layers,
        "llama.context_length": c.context,
        "llama.embedding_length": c.width,
        "llama.feed_forward_length": c.hidden_width,
        "llama.attention.head_count": c.n_heads,
        "llama.attention.head_count_kv": c.n_kv_heads,
        "llama.attention.key_length": c.head_size,
        "llama.attention.value_length": c.head_size,
        "llama.attention.layer_norm_rms_epsilon": c.norm_eps,
        "llama.rope.freq_base": c.rope_theta,
        "llama.rope.dimension_count": c.head_size,
        "llama.vocab_size": c.vocab_size,
    }
    metadata |= _vocabulary(tokenizer, c.vocab_size) | lineage
    if task:
        metadata |= {"general.name": task.name} | kinds.to_metadata(task)
    gguf.write(path, metadata, _tensors(decoder, bits))


def _vocabulary(tokenizer: Tokenizer, rows: int) -> dict[str, Any]:
    """The tokenizer's keys with a token for each row of the embedding, as the runtime wants them.

    Some models have more rows than tokens, to fill blocks. Raises BadInput when they have fewer.
    """
    keys, tokens = tokenizer.gguf_metadata(), tokenizer.vocab_size
    if tokens > rows:
        raise BadInput(
            f"the tokenizer has {tokens} tokens, the model knows {rows}",
            "use a base whose tokenizer belongs to it",
        )
    if tokens == rows:
        return keys
    names = [f"[PAD{id}]" for id in range(tokens, rows)]
    types = keys.get("tokenizer.ggml.token_type", [NORMAL] * tokens) + [UNUSED] * len(names)
    keys.pop("tokenizer.ggml.scores", None)  # no byte-level tokenizer uses them
    return keys | {
        "tokenizer.ggml.tokens": keys["tokenizer.ggml.tokens"] + names,
        "tokenizer.ggml.token_type": types,
    }


def _tensors(decoder: Decoder, bits: str) -> list[gguf.NewTensor]:
    outer = {ours: theirs for theirs, ours in OUTER_NAMES.items()}
    parts = {ours: theirs for theirs, ours in BLOCK_NAMES.items()}
    tensors: list[gguf.NewTensor] = []
    for name, weight in decoder.state_dict().items():
        if name == "lm_head.weight" and decoder.config.tied:
            continue
        if name in outer:
            theirs = outer[name]
        else:
            _, _, number, part = name.removesuffix(".weight").split(".", 3)
            theirs = f"blk.{number}.{parts[part]}.weight"
        # Rows that do not fill the format's blocks of 32 stay as they are; so do the norms.
        kind = bits if weight.ndim == 2 and weight.shape[1] % 32 == 0 else "F32"
        tensors.append((theirs, tuple(weight.shape), kind, _values(decoder, name)))
    return tensors


def _values(decoder: Decoder, name: str) -> Callable[[], NDArray[np.float32]]:
    """The tensor in GGUF's order of rows, made when its turn to be written comes."""
    config = decoder.config

    def values() -> NDArray[np.float32]:
        weight = decoder.state_dict()[name].detach().float().cpu()
        if name.endswith("q_proj.weight"):
            weight = pair_neighbours(weight, config.n_heads)
        elif name.endswith("k_proj.weight"):
            weight = pair_neighbours(weight, config.n_kv_heads)
        array: NDArray[np.float32] = weight.contiguous().numpy()
        return array

    return values
