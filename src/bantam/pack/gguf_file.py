"""A tuned decoder as one GGUF file, with the task that it does written into it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bantam import kinds
from bantam.errors import BadInput
from bantam.formats import gguf
from bantam.formats.tokenizer import Tokenizer
from bantam.formats.tokenizer_json import NORMAL, UNUSED
from bantam.nets import gguf_keys, names
from bantam.nets.decoder import Decoder, DecoderConfig
from bantam.nets.hf_config import Unsupported
from bantam.nets.load import config_of, shapes_of
from bantam.nets.names import Stored

FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 7, "Q5_0": 8, "BF16": 32}  # general.file_type


def write(
    path: Path,
    decoder: Decoder,
    tokenizer: Tokenizer,
    task: kinds.Task | None,
    lineage: dict[str, Any],
    bits: str = "Q8_0",
) -> None:
    """Write the pack, whole or not at all. `lineage` are more `general.*` and `bantam.*` keys."""
    config = decoder.config
    architecture, factors = _keys(config)
    metadata: dict[str, Any] = {
        "general.type": "model",
        "general.file_type": FILE_TYPES[bits],
        "general.quantization_version": 2,
    }
    metadata |= architecture | _vocabulary(tokenizer, config.vocab_size) | lineage
    if task:
        metadata |= {"general.name": task.name} | kinds.to_metadata(task)
    gguf.write(path, metadata, _tensors(decoder, factors, bits))


def check_base(path: Path) -> DecoderConfig:
    """What the base in a file or folder is; its weights are not read.

    Raises BadInput unless it can be tuned here, and packed afterwards.
    """
    config = config_of(path)
    _keys(config)
    return config


def _keys(config: DecoderConfig) -> tuple[dict[str, Any], dict[str, list[float]]]:
    try:
        return gguf_keys.write(config)
    except Unsupported as error:
        raise BadInput(
            f"a model of this kind cannot be packed as GGUF: {error}", "use another base"
        ) from error


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
    if "tokenizer.ggml.scores" in keys:
        keys["tokenizer.ggml.scores"] = keys["tokenizer.ggml.scores"] + [0.0] * len(names)
    return keys | {
        "tokenizer.ggml.tokens": keys["tokenizer.ggml.tokens"] + names,
        "tokenizer.ggml.token_type": types,
    }


def _tensors(decoder: Decoder, factors: dict[str, list[float]], bits: str) -> list[gguf.NewTensor]:
    ours = decoder.state_dict()
    tensors: list[gguf.NewTensor] = [
        (name, (len(values),), "F32", partial(np.array, values, np.float32))
        for name, values in factors.items()
    ]
    for stored in names.gguf(decoder.config, shapes_of(decoder)):
        shape = tuple(stored.join(lambda name: ours[name].to("meta")).shape)
        # Rows that do not fill the format's blocks of 32 stay as they are; so do norms, biases,
        # routers and tables of positions, which are small and which the runtime wants so.
        kind = bits if len(shape) > 1 and shape[-1] % 32 == 0 else "F32"
        if stored.name.endswith(("ffn_gate_inp.weight", "position_embd.weight")):
            kind = "F32"
        tensors.append((stored.name, shape, kind, _values(stored, ours)))
    return tensors


def _values(stored: Stored, ours: dict[str, Tensor]) -> Callable[[], NDArray[np.float32]]:
    """The tensor as the file holds it, made when its turn to be written comes."""

    def values() -> NDArray[np.float32]:
        whole = stored.join(lambda name: ours[name].detach().float().cpu())
        array: NDArray[np.float32] = whole.contiguous().numpy()
        return array

    return values
