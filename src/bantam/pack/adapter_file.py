"""What LoRA learned as a GGUF file of its own, which llama.cpp runs over the base's own file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bantam import kinds
from bantam.formats import gguf, lora
from bantam.nets import gguf_keys, names
from bantam.nets.decoder import Decoder
from bantam.nets.load import shapes_of
from bantam.nets.names import Stored

KIND = "F16"  # of the values: half the bytes of F32, rounded a thousand times finer than the base


def write(
    path: Path,
    decoder: Decoder,
    learned: Mapping[str, Tensor],
    task: kinds.Task,
    base_sha256: str,
    lineage: Mapping[str, Any],
) -> None:
    """Write the adapter, whole or not at all.

    `decoder` has the base's shapes, `learned` are the `lora_a` [rank, in] and `lora_b` [out, rank]
    of its linear layers, `base_sha256` is of the base's file, `lineage` are more `general.*` and
    `bantam.*` keys.
    """
    rank = next(weight.shape[0] for name, weight in learned.items() if name.endswith("lora_a"))
    tensors: list[gguf.NewTensor] = []
    written = 0
    for stored in names.gguf(decoder.config, shapes_of(decoder)):
        layers = [part.removesuffix(".weight") for part in stored.parts]
        if f"{layers[0]}.lora_a" not in learned:
            continue
        a, b = ([learned[f"{layer}.lora_{each}"].cpu() for layer in layers] for each in "ab")
        for each, whole in zip("ab", _joined(stored, a, b), strict=True):
            name, shape = f"{stored.name}.lora_{each}", tuple(whole.shape)
            tensors.append((name, shape, KIND, partial(_values, whole)))
        written += len(a) + len(b)
    assert written == len(learned)  # else the adapter would not be all that was learned
    metadata = {
        "general.type": "adapter",
        "general.architecture": gguf_keys.ARCHITECTURES[decoder.config.family],
        "general.name": task.name,
        "adapter.type": "lora",
        "adapter.lora.alpha": float(rank),  # a layer's own is divided by its rank: 1
        lora.BASE: base_sha256,
    }
    gguf.write(path, metadata | kinds.to_metadata(task) | dict(lineage), tensors)


def _joined(stored: Stored, a: Sequence[Tensor], b: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The pair of a tensor that the file makes of several: experts lie one on the other, layers
    that are one matrix there keep to their own ranks of one larger pair."""
    if len(a) > 1 and not stored.stacked:
        # llama.cpp divides by the rank of the pair, which is the sum of theirs.
        diagonal: Tensor = torch.block_diag(*b)  # type: ignore[no-untyped-call]
        return torch.cat([*a]), len(a) * diagonal
    low = torch.stack([*a]) if stored.stacked else a[0]
    return low, stored.join(dict(zip(stored.parts, b, strict=True)).__getitem__)


def _values(whole: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = whole.detach().float().contiguous().numpy()
    return array
