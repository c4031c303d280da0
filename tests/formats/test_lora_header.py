"""Adapter files against the model that they are for: what does not fit goes to no runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam.errors import BadInput
from bantam.formats import gguf, lora
from tiny import tiny_llama
from tiny_adapter import adapter

Q = "blk.0.attn_q.weight"  # [64, 64]
UP = "blk.1.ffn_up.weight"  # [128, 64]


def zeros(*shape: int, type: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, type)


def pair(name: str, a: Any, b: Any) -> dict[str, Any]:
    return {f"{name}.lora_a": a, f"{name}.lora_b": b}


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> gguf.GGUF:
    return gguf.read(tiny_model)


def test_a_sound_one_is_read(base: gguf.GGUF, tmp_path: Path) -> None:
    adapter(tmp_path / "a.gguf", base.path)
    file = lora.read(tmp_path / "a.gguf", base)
    assert len(file.tensors) == 2 * 7 * 2
    # Any rank, float16, and not all layers.
    more = {name: None for name in file.tensors if ".attn_k." in name} | pair(
        Q, zeros(1, 64, type=np.float16), zeros(64, 1, type=np.float16)
    )
    adapter(tmp_path / "b.gguf", base.path, tensors=more)
    assert len(lora.read(tmp_path / "b.gguf", base).tensors) == 2 * 6 * 2


@pytest.mark.parametrize(
    ("keys", "tensors", "message"),
    [
        ({"general.type": "model"}, {}, "is no LoRA adapter"),
        ({"general.type": None}, {}, "is no LoRA adapter"),
        ({"adapter.type": "control_vector"}, {}, "is no LoRA adapter"),
        ({"adapter.alora.invocation_tokens": [1, 2]}, {}, "is no LoRA adapter"),
        ({"general.architecture": "qwen2"}, {}, "for a 'qwen2' and this is a 'llama'"),
        ({"adapter.lora.alpha": None}, {}, "alpha is None"),
        ({"adapter.lora.alpha": "8"}, {}, "alpha is '8'"),
        ({"adapter.lora.alpha": 8}, {}, "alpha is 8"),
        ({"adapter.lora.alpha": float("nan")}, {}, "alpha is nan"),
        ({}, {f"{Q}.lora_b": None}, "has not both lora_a and lora_b"),
        ({}, {f"{Q}.lora_a": None}, "has not both lora_a and lora_b"),
        ({}, {f"{Q}.lora_magnitude": zeros(64)}, "beside its pairs"),
        ({}, {"lora_a": zeros(4, 64)}, "has not both"),
        ({}, pair("blk.9.attn_q.weight", zeros(4, 64), zeros(64, 4)), "has no tensor"),
        ({}, pair("blk.0.attn_norm.weight", zeros(4, 64), zeros(64, 4)), "cannot be adapted"),
        ({}, pair("token_embd.weight", zeros(400, 4), zeros(64, 4)), "cannot be adapted"),
        ({}, pair(Q, zeros(4, 32), zeros(64, 4)), "the shapes of blk.0.attn_q"),
        ({}, pair(Q, zeros(4, 64), zeros(63, 4)), "the shapes of blk.0.attn_q"),
        ({}, pair(Q, zeros(4, 64), zeros(64, 5)), "the shapes of blk.0.attn_q"),
        ({}, pair(Q, zeros(64), zeros(64, 4)), "the shapes of blk.0.attn_q"),
        ({}, pair(Q, zeros(4, 64), zeros(64)), "the shapes of blk.0.attn_q"),
        ({}, pair(Q, zeros(64, 4), zeros(4, 64)), "the shapes of blk.0.attn_q"),
        ({}, pair(Q, zeros(2, 4, 64), zeros(2, 64, 4)), "the shapes of blk.0.attn_q"),
        ({}, pair(UP, zeros(4, 128), zeros(64, 4)), "the shapes of blk.1.ffn_up"),
        ({}, pair(Q, zeros(4, 64, type=np.int32), zeros(64, 4)), "lora_a is I32"),
        ({}, pair(Q, zeros(4, 64), zeros(64, 4, type=np.float64)), "lora_b is F64"),
    ],
)
def test_what_does_not_fit_is_refused(
    base: gguf.GGUF, tmp_path: Path, keys: dict[str, Any], tensors: dict[str, Any], message: str
) -> None:
    path = tmp_path / "a.gguf"
    adapter(path, base.path, keys=keys, tensors=tensors)
    with pytest.raises(BadInput, match=message) as refused:
        lora.read(path, base)
    assert str(path) in refused.value.message
    assert refused.value.mend


def test_one_of_another_size_or_without_tensors(base: gguf.GGUF, tmp_path: Path) -> None:
    made = adapter(tmp_path / "a.gguf", base.path)
    none = {f"{name}.lora_{each}": None for name in made for each in "ab"}
    adapter(tmp_path / "none.gguf", base.path, tensors=none)
    with pytest.raises(BadInput, match="has no tensors"):
        lora.read(tmp_path / "none.gguf", base)
    whole = (tmp_path / "a.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:-3000])
    with pytest.raises(BadInput, match="ends at byte"):
        lora.read(tmp_path / "cut.gguf", base)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, gguf.GGUF, bytes, int]:
    folder = tmp_path_factory.mktemp("altered")
    base = gguf.read(tiny_llama(folder / "base.gguf"))
    adapter(folder / "a.gguf", base.path)
    file = lora.read(folder / "a.gguf", base)
    head = min(tensor.offset for tensor in file.tensors.values())
    return folder / "altered.gguf", base, (folder / "a.gguf").read_bytes(), head


@settings(max_examples=300)
@given(st.data())
def test_an_altered_head_is_refused_or_still_fits(
    written: tuple[Path, gguf.GGUF, bytes, int], data: st.DataObject
) -> None:
    path, base, whole, head = written
    altered = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        altered[data.draw(st.integers(0, head - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(altered)
    try:
        file = lora.read(path, base)
    except BadInput:
        return
    for name, tensor in file.tensors.items():  # by the rule of the mathematics: B A is like W
        if name.endswith("lora_a"):
            b = file.tensors[f"{name.removesuffix('a')}b"]
            product = np.zeros(b.shape) @ np.zeros(tensor.shape)
            assert product.shape == base.tensors[name.removesuffix(".lora_a")].shape
