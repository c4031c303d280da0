"""Block formats, bit for bit against the `gguf` package."""

import gguf as reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bantam.formats import quants
from bantam.formats.tensor_types import TYPES

ROWS = 8, 64


def kind_of(name: str) -> reference.GGMLQuantizationType:
    return reference.GGMLQuantizationType[name]


@pytest.mark.parametrize("name", quants.READABLE)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_bytes_are_read_alike(name: str, seed: int) -> None:
    size = 16 * TYPES[name][2]
    stored = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    with np.errstate(all="ignore"):
        ours = quants.dequantise(stored, name)
        theirs = reference.quants.dequantize(stored, kind_of(name))
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))


numbers = st.one_of(
    st.floats(-65000, 65000, width=32),
    st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.5, 127.0, 1e-30, 63.5]),
)


@pytest.mark.parametrize("name", quants.WRITABLE)
@settings(max_examples=60, deadline=None)
@given(values=arrays(np.float32, ROWS, elements=numbers))
def test_any_numbers_are_written_alike(name: str, values: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        ours = quants.quantise(values, name)
        theirs = reference.quants.quantize(values, kind_of(name)).view(np.uint8).reshape(-1)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", [name for name in quants.WRITABLE if name not in ("F32", "F16")])
def test_more_than_one_chunk(name: str) -> None:
    values = np.random.default_rng(1).standard_normal((300, 1024)).astype(np.float32)
    stored = reference.quants.quantize(values, kind_of(name)).view(np.uint8)
    np.testing.assert_array_equal(quants.quantise(values, name), stored.reshape(-1))
    np.testing.assert_array_equal(
        quants.dequantise(stored.reshape(-1), name),
        reference.quants.dequantize(stored, kind_of(name)).reshape(-1),
    )


@pytest.mark.parametrize("name", quants.K_QUANTS)
def test_more_than_one_chunk_of_k_quants(name: str) -> None:
    # Every byte below 0x7C: no scale is NaN or infinite, so plain equality holds.
    shape = 50, 25 * TYPES[name][2]
    stored = np.random.default_rng(1).integers(0, 0x7C, shape, dtype=np.uint8)
    np.testing.assert_array_equal(
        quants.dequantise(stored.reshape(-1), name),
        reference.quants.dequantize(stored, kind_of(name)).reshape(-1),
    )


def test_a_type_that_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="Q4_K"):
        quants.quantise(np.zeros(256, np.float32), "Q4_K")
