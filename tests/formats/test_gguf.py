"""GGUF reading and writing against the `gguf` package, and broken files."""

import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import gguf as reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bantam import engine
from bantam.errors import BadInput
from bantam.formats import gguf
from bantam.formats.tensor_types import TYPES

STRING, ARRAY, UINT32, INT32 = 8, 9, 4, 5


def test_reads_what_the_reference_wrote(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = reference.GGUFWriter(path, "llama")
    writer.add_uint8("a.u8", 255)
    writer.add_int8("a.i8", -128)
    writer.add_uint16("a.u16", 65535)
    writer.add_int16("a.i16", -32768)
    writer.add_int32("a.i32", -(2**31))
    writer.add_uint64("a.u64", 2**64 - 1)
    writer.add_int64("a.i64", -(2**63))
    writer.add_float32("a.f32", 0.5)
    writer.add_float64("a.f64", 0.1)
    writer.add_bool("a.yes", True)
    writer.add_string("a.text", "naïve 😀\0\n")
    writer.add_array("a.words", ["", "ä", "x" * 300])
    writer.add_array("a.numbers", [1, -2, 3])
    writer.add_custom_alignment(64)
    random = np.random.default_rng(0)
    matrix = random.standard_normal((3, 5, 64)).astype(np.float32)
    vector = random.standard_normal(7).astype(np.float32)
    writer.add_tensor("matrix", matrix)
    q8 = reference.GGMLQuantizationType.Q8_0
    quantised = reference.quants.quantize(matrix, q8)
    writer.add_tensor("quantised", quantised, raw_dtype=q8)
    writer.add_tensor("vector", vector)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    read = gguf.read(path)
    fields = reference.GGUFReader(path).fields
    assert read.metadata == {key: fields[key].contents() for key in read.metadata}
    assert read.metadata["a.text"] == "naïve 😀\0\n"
    assert read.tensors["quantised"].shape == (3, 5, 64)
    assert read.tensors["quantised"].type == "Q8_0"
    np.testing.assert_array_equal(gguf.tensor(read, "matrix"), matrix)
    np.testing.assert_array_equal(gguf.tensor(read, "vector"), vector)
    np.testing.assert_array_equal(
        gguf.tensor(read, "quantised"), reference.quants.dequantize(quantised, q8)
    )


def test_type_table_is_that_of_the_reference() -> None:
    sizes = reference.GGML_QUANT_SIZES
    for name, numbers in TYPES.items():
        kind = reference.GGMLQuantizationType[name]
        assert numbers == (int(kind), *sizes[kind])


text = st.text(st.characters(codec="utf-8"), max_size=20)
values = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(width=32, allow_nan=False),
    text,
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5),
    st.lists(text, min_size=1, max_size=5),
    st.lists(st.booleans(), min_size=1, max_size=5),
)


@settings(max_examples=30, deadline=None)
@given(metadata=st.dictionaries(st.from_regex(r"[a-z]{1,9}\.[a-z]{1,9}", fullmatch=True), values))
def test_the_reference_reads_what_we_write(
    tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    same = np.full((2, 32), 127, np.float32)  # which Q8_0 holds exactly
    gguf.write(path, metadata, [(name, (2, 32), name, lambda: same) for name in ("F16", "Q8_0")])
    theirs = reference.GGUFReader(path)
    assert {k: f.contents() for k, f in theirs.fields.items() if "." in k and k in metadata} == (
        metadata
    )
    assert gguf.read(path).metadata == metadata
    for tensor in theirs.tensors:
        assert tensor.tensor_type.name == tensor.name
        assert gguf.read(path).tensors[tensor.name].offset == tensor.data_offset
        np.testing.assert_array_equal(gguf.tensor(gguf.read(path), tensor.name), same)


def test_integers_get_the_smallest_promised_type(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    gguf.write(path, {"a": 1, "b": 2**32, "c": -1, "d": -(2**40), "e": [1], "f": [2**40]}, [])
    fields = reference.GGUFReader(path).fields
    names = {key: [kind.name for kind in fields[key].types] for key in "abcdef"}
    assert names == {
        "a": ["UINT32"],
        "b": ["UINT64"],
        "c": ["INT32"],
        "d": ["INT64"],
        "e": ["ARRAY", "INT32"],
        "f": ["ARRAY", "INT64"],
    }


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    gguf.write(path, {"a": 1}, [])
    before = path.read_bytes()

    def fail() -> np.ndarray:
        raise RuntimeError("no values")

    with pytest.raises(RuntimeError):
        gguf.write(path, {"a": 2}, [("x", (32,), "F32", fail)])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_mixed_lists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="mixed"):
        gguf.write(tmp_path / "model.gguf", {"mixed": [1, "a"]}, [])


def string(text: bytes | str, length: int | None = None) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def key(name: bytes | str, kind: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", kind) + value


def number(value: int) -> bytes:
    return struct.pack("<I", value)


def info(
    name: str | bytes = "x",
    shape: tuple[int, ...] = (32,),
    kind: int = 0,
    offset: int = 0,
    dimensions: int | None = None,
) -> bytes:
    count = len(shape) if dimensions is None else dimensions
    return (
        string(name)
        + struct.pack(f"<I{len(shape)}Q", count, *shape)
        + struct.pack("<IQ", kind, offset)
    )


def file(
    *parts: bytes,
    keys: int = 0,
    tensors: int = 0,
    version: int = 3,
    magic: bytes = b"GGUF",
    data: int = 4096,
) -> bytes:
    return magic + struct.pack("<IQQ", version, tensors, keys) + b"".join(parts) + bytes(data)


DEEP = struct.pack("<IQ", ARRAY, 1) * 1000
BROKEN = {
    "empty": (b"", "0 bytes"),
    "short": (b"GGUF\3\0\0\0", "8 bytes"),
    "bad magic": (file(magic=b"GGML"), "not b'GGUF'"),
    "version 1": (file(version=1), "version 1"),
    "version 0": (file(version=0), "version 0"),
    "version 2^31": (file(version=2**31 + 1), "version"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "tensors -1": (file(tensors=2**64 - 1), "number of tensors"),
    "tensors 2^63": (file(tensors=2**63), "number of tensors"),
    "keys -1": (file(keys=2**64 - 1), "number of metadata keys"),
    "keys 2^63": (file(keys=2**63), "number of metadata keys"),
    "keys past the end": (file(keys=9, data=0), "ends within"),
    "key twice": (file(*[key("a", UINT32, number(1))] * 2, keys=2), "'a' is twice"),
    "key not UTF-8": (file(key(b"\xff", UINT32, number(1)), keys=1), "not UTF-8"),
    "key of 2^63 bytes": (file(string("a", 2**63), keys=1), "has a string of"),
    "key of -1 bytes": (file(string("a", 2**64 - 1), keys=1), "has a string of"),
    "unknown value type": (file(key("a", 13, b""), keys=1), "unknown type 13"),
    "string of 2^40": (file(key("a", STRING, string("b", 2**40)), keys=1), "has a string"),
    "string past the end": (file(key("a", STRING, string("b", 99)), keys=1, data=0), "string"),
    "string not UTF-8": (file(key("a", STRING, string(b"\xed\xa0\x80")), keys=1), "not UTF-8"),
    "array of 2^63": (
        file(key("a", ARRAY, struct.pack("<IQ", UINT32, 2**63)), keys=1),
        "length of metadata 'a'",
    ),
    "array longer than the file": (
        file(key("a", ARRAY, struct.pack("<IQ", UINT32, 2**20)), keys=1),
        "ends within",
    ),
    "strings longer than the file": (
        file(key("a", ARRAY, struct.pack("<IQ", STRING, 2**20)), keys=1),
        "ends within",
    ),
    "array of arrays": (file(key("a", ARRAY, DEEP), keys=1), "array of arrays"),
    "array of unknown": (file(key("a", ARRAY, struct.pack("<IQ", 99, 1)), keys=1), "type 99"),
    "alignment 0": (file(key("general.alignment", UINT32, number(0)), keys=1), "alignment"),
    "alignment 33": (file(key("general.alignment", UINT32, number(33)), keys=1), "alignment"),
    "alignment -32": (
        file(key("general.alignment", INT32, struct.pack("<i", -32)), keys=1),
        "alignment",
    ),
    "alignment text": (file(key("general.alignment", STRING, string("32")), keys=1), "alignment"),
    "tensor twice": (file(info(), info(offset=128), tensors=2), "'x' is twice"),
    "tensor without name": (file(info(name=""), tensors=1), "name of tensor 1"),
    "tensor name too long": (file(info(name="x" * 64), tensors=1), "name of tensor 1"),
    "tensor name a path": (file(info(name="../../etc/passwd"), tensors=1), "name of tensor 1"),
    "tensor name not UTF-8": (file(info(name=b"\xff"), tensors=1), "not UTF-8"),
    "tensor name with NUL": (file(info(name="x\0y"), tensors=1), "name of tensor 1"),
    "no dimensions": (file(info(shape=()), tensors=1), "0 dimensions"),
    "5 dimensions": (file(info(shape=(32, 1, 1, 1, 1)), tensors=1), "5 dimensions"),
    "2^32-1 dimensions": (file(info(dimensions=2**32 - 1), tensors=1), "dimensions"),
    "dimension 0": (file(info(shape=(32, 0)), tensors=1), "shape"),
    "dimension 2^63": (file(info(shape=(2**63, 1)), tensors=1), "ends at byte"),
    "shape overflows": (file(info(shape=(2**32, 2**32, 2**32, 2**32)), tensors=1), "ends at"),
    "unknown tensor type": (file(info(kind=4), tensors=1), "unknown type 4"),
    "rows not whole blocks": (file(info(shape=(31, 32), kind=8), tensors=1), "whole Q8_0 blocks"),
    "offset unaligned": (file(info(offset=8), tensors=1), "should be at 0"),
    "offset past the end": (file(info(offset=2**40), tensors=1), "should be at 0"),
    "offset -1": (file(info(offset=2**64 - 32), tensors=1), "should be at 0"),
    "tensors overlap": (file(info(), info(name="y", offset=64), tensors=2), "should be at 128"),
    "tensors leave a gap": (file(info(), info(name="y", offset=256), tensors=2), "should be at"),
    "data cut off": (file(info(shape=(2048,)), tensors=1, data=4096), "the file at byte"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_at_once(tmp_path: Path, name: str) -> None:
    content, message = BROKEN[name]
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(BadInput, match=message) as error:
        gguf.read(path)
    seconds = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 1
    assert peak < 1 << 20
    assert str(path) in error.value.message
    assert error.value.mend


def test_many_small_strings_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    count = (1 << 22) + 1
    path.write_bytes(
        file(key("a", ARRAY, struct.pack("<IQ", STRING, count)), keys=1, data=8 * count)
    )
    start = time.perf_counter()
    with pytest.raises(BadInput, match="more than 4194304"):
        gguf.read(path)
    assert time.perf_counter() - start < 1


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.gguf", tmp_path):
        with pytest.raises(BadInput, match="cannot be read"):
            gguf.read(path)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_altered_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, data: st.DataObject
) -> None:
    content = bytearray(tiny_model.read_bytes())
    header = len(content) - sum(t.nbytes for t in gguf.read(tiny_model).tensors.values())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, header))
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    path = tmp_path_factory.mktemp("altered") / "model.gguf"
    path.write_bytes(content[:cut])
    try:
        read = gguf.read(path)
    except BadInput:
        return
    for info in read.tensors.values():
        assert info.offset + info.nbytes <= len(content[:cut])


def test_tensor_of_another_type_or_name(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(file(info(shape=(256,), kind=16), tensors=1))
    read = gguf.read(path)
    with pytest.raises(BadInput, match=r"IQ2_XXS.*Q8_0"):
        gguf.tensor(read, "x")
    with pytest.raises(BadInput, match="no tensor 'y'"):
        gguf.tensor(read, "y")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    path = tmp_path / "model.gguf"
    gguf.write(path, {}, [("x", (32,), "F32", lambda: np.full(32, value, np.float32))])
    with pytest.raises(BadInput, match="NaN or infinite"):
        gguf.tensor(gguf.read(path), "x")


def test_the_runtime_loads_what_we_write(tiny_model: Path) -> None:
    with engine.start(tiny_model, threads=1, context=64) as runtime:
        assert (
            runtime.info.vocabulary == gguf.read(tiny_model).tensors["token_embd.weight"].shape[0]
        )
        assert sum(runtime.choose([[5, 6, 7]], [[1, 2]])[0]) == pytest.approx(1)
