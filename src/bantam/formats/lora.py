"""GGUF files of LoRA adapters, held against the model that they are for.

llama.cpp trusts the shapes in them further than it looks at them: a file that passes here is safe
to hand to it together with that model.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from bantam.errors import BadInput
from bantam.formats import gguf
from bantam.formats.gguf import GGUF, TensorInfo

BASE = "bantam.base_sha256"  # of the file that the adapter was trained over, where it is known
KINDS = ("F32", "F16", "BF16", "Q8_0")


def read(path: Path, base: GGUF) -> GGUF:
    """The header of an adapter. Raises BadInput unless it is sound and fits `base`."""
    file = gguf.read(path)
    metadata = file.metadata
    kind = metadata.get("general.type"), metadata.get("adapter.type")
    if kind != ("adapter", "lora") or "adapter.alora.invocation_tokens" in metadata:
        raise BadInput(
            f"{path} is no LoRA adapter",
            "name a .gguf that llama.cpp's convert_lora_to_gguf.py or `bantam make` has written",
        )
    family, other = (each.metadata.get("general.architecture") for each in (file, base))
    if family != other:
        raise _unfit(path, base, f"it is for a {family!r:.80} and this is a {other!r:.80}")
    alpha: Any = metadata.get("adapter.lora.alpha")
    if type(alpha) is not float or not math.isfinite(alpha):
        raise _broken(path, f"its adapter.lora.alpha is {alpha!r:.80}")
    names = {name.rpartition(".")[0] for name in file.tensors}
    if not names:
        raise _broken(path, "it has no tensors")
    for name in names:
        pair = [file.tensors.get(f"{name}.lora_{which}") for which in "ab"]
        _check(path, base, name, *pair)
    if len(file.tensors) != 2 * len(names):
        raise _broken(path, "it has tensors beside its pairs of lora_a and lora_b")
    return file


def _check(path: Path, base: GGUF, name: str, a: TensorInfo | None, b: TensorInfo | None) -> None:
    """Hold what belongs to the tensor `name` of the base against it."""
    whole = base.tensors.get(name)
    if a is None or b is None:
        raise _broken(path, f"{name!r:.80} has not both lora_a and lora_b")
    if whole is None:
        raise _unfit(path, base, f"that has no tensor {name!r}")
    # Those of embeddings lie the other way round, and llama.cpp reads them both ways.
    if len(whole.shape) not in (2, 3) or name == "token_embd.weight":
        raise _unfit(path, base, f"{name} cannot be adapted")
    *experts, outer, inner = whole.shape
    if a.shape != (*experts, b.shape[-1], inner) or b.shape[:-1] != (*experts, outer):
        shapes = f"{whole.shape}, {a.shape} and {b.shape}"
        raise _unfit(path, base, f"the shapes of {name}, its lora_a and its lora_b are {shapes}")
    for each in (a, b):
        if each.type not in KINDS:
            raise _broken(path, f"{each.name} is {each.type}, not one of {', '.join(KINDS)}")


def _unfit(path: Path, base: GGUF, why: str) -> BadInput:
    return BadInput(
        f"{path} does not fit {base.path}: {why}",
        "name the model that the adapter was trained over",
    )


def _broken(path: Path, what: str) -> BadInput:
    return BadInput(f"{path}: no sound adapter: {what}", "make or convert the adapter again")
