"""Random LoRA adapters as GGUF files, written by the gguf package and by no code of ours."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np


def adapter(
    path: Path,
    base: Path,
    seed: int = 0,
    rank: int = 4,
    alpha: float = 8.0,
    keys: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray | None] | None = None,
) -> dict[str, Any]:
    """Writes an adapter of all matrices in the base's blocks; what it adds to each of them.

    `keys` and `tensors` take the place of what would be written; None leaves it out.
    """
    dice = np.random.default_rng(seed)
    told: dict[str, Any] = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": float(alpha),
    } | (keys or {})
    added, made = {}, {}
    for tensor in gguf.GGUFReader(base).tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2:
            inner, outer = (int(size) for size in tensor.shape)
            a = (dice.standard_normal((rank, inner)) / inner**0.5).astype(np.float32)
            b = (0.3 * dice.standard_normal((outer, rank))).astype(np.float32)
            made |= {f"{tensor.name}.lora_a": a, f"{tensor.name}.lora_b": b}
            added[tensor.name] = alpha / rank * (b @ a)
    writer = gguf.GGUFWriter(path, told.pop("general.architecture", "llama"))
    for key, value in told.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif value is not None:
            writer.add_uint32(key, value)
    for name, values in (made | (tensors or {})).items():
        if values is not None:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return added
