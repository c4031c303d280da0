"""Safetensors headers against the library that writes them, and broken files."""

import json
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save, save_file

from bantam.errors import BadInput
from bantam.formats import safetensors


def test_what_the_library_wrote(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b.c": np.array(7, np.int64),
        "empty": np.zeros((0, 4), np.float16),
        "bytes": np.arange(5, dtype=np.uint8),
    }
    save_file(arrays, path, {"format": "pt"})
    entries = safetensors.check(path)
    content = path.read_bytes()
    assert entries.keys() == arrays.keys()
    for name, (dtype, shape, start, end) in entries.items():
        assert shape == arrays[name].shape
        assert content[start:end] == arrays[name].tobytes()
        with safe_open(path, "np") as theirs:
            assert theirs.get_slice(name).get_dtype() == dtype


def test_no_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({}, path)
    assert safetensors.check(path) == {}


def file(header: Any, data: int = 8, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + bytes(data)


def one(**change: Any) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | change}


TWO = {
    "x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    "y": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
}
TWICE = b'{"x":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"x":{}}'
BROKEN = {
    "empty": (b"", "0 bytes"),
    "short": (b"\1\0\0", "header"),
    "header of -1": (file(one(), length=2**64 - 1), "header would have"),
    "header of 2^63": (file(one(), length=2**63), "header would have"),
    "header past the end": (file(one(), length=1000), "header would have"),
    "header of 0": (file(one(), length=0), "header would have"),
    "no JSON": (file(b"{nonsense"), "no JSON"),
    "not UTF-8": (file(b'{"\xff": 1}'), "no JSON"),
    "deep": (file(b"[" * 100_000), "no JSON"),
    "deep objects": (file(b'{"a":' * 100_000), "no JSON"),
    "huge number": (file(b'{"x": ' + b"9" * 10_000 + b"}"), "no JSON"),
    "a list": (file([]), "no JSON object"),
    "name twice": (file(TWICE), "twice"),
    "no dtype": (file({"x": {"shape": [2], "data_offsets": [0, 8]}}), "lacks"),
    "a number": (file({"x": 1}), "lacks"),
    "three offsets": (file(one(data_offsets=[0, 4, 8])), "lacks"),
    "shape a number": (file(one(shape=2)), "lacks"),
    "unknown dtype": (file(one(dtype="F99")), "unknown dtype"),
    "shape negative": (file(one(shape=[-2])), "cannot be"),
    "shape a float": (file(one(shape=[2.0])), "cannot be"),
    "shape true": (file(one(shape=[True, 2])), "cannot be"),
    "shape NaN": (file(b'{"x":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}'), "cannot be"),
    "shape too deep": (file(one(shape=[1] * 9)), "cannot be"),
    "offset negative": (file(one(data_offsets=[-8, 0])), "cannot be"),
    "offsets reversed": (file(one(data_offsets=[8, 0])), "bytes, not those"),
    "shape overflows": (file(one(shape=[2**32, 2**32, 2**32])), "bytes, not those"),
    "too few bytes": (file(one(data_offsets=[0, 4])), "bytes, not those"),
    "past the end": (file(one(shape=[2**20], data_offsets=[0, 2**22])), "the file at"),
    "bytes over": (file(one(), data=9), "the file at"),
    "a gap": (file(one(data_offsets=[8, 16]), data=16), "it should at"),
    "overlap": (file(TWO), "it should at"),
    "name a path": (file({"../x": one()["x"]}), "odd name"),
    "name with NUL": (file({"x\0": one()["x"]}), "odd name"),
    "more keys": (file(one(more=1)), "odd"),
    "metadata a list": (file({"__metadata__": []}, data=0), "__metadata__"),
    "metadata of numbers": (file({"__metadata__": {"a": 1}}, data=0), "__metadata__"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_at_once(tmp_path: Path, name: str) -> None:
    content, message = BROKEN[name]
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    start = time.perf_counter()
    with pytest.raises(BadInput, match=message) as error:
        safetensors.check(path)
    assert time.perf_counter() - start < 1
    assert str(path) in error.value.message


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        safetensors.check(tmp_path / "missing.safetensors")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_what_passes_the_library_opens(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(save({"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.uint8)}))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.sampled_from(b'"{}[],:0123456789 aF') | st.integers(0, 255))
    path = tmp_path_factory.mktemp("altered") / "model.safetensors"
    path.write_bytes(content)
    try:
        entries = safetensors.check(path)
    except BadInput:
        return
    try:
        with safe_open(path, "np") as theirs:
            assert set(theirs.keys()) == set(entries)
    except SafetensorError as error:  # what passes the check must open
        raise AssertionError(str(error)) from error
