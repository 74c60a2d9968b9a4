"""The container: what gguf's own writer wrote and reader reads, and files that are damaged."""

from __future__ import annotations

import struct

import gguf
import numpy as np
import pytest
from gguf_writing import finish
from vllm_plugin_gguf.file import GgufFile

from vllm_core.weights import CheckpointError


def test_metadata_of_every_type_is_read_as_written(tmp_path):
    path = tmp_path / "m.gguf"
    w = gguf.GGUFWriter(str(path), "llama")
    w.add_uint8("u8", 200)
    w.add_int8("i8", -100)
    w.add_uint16("u16", 60000)
    w.add_int16("i16", -30000)
    w.add_uint32("u32", 4_000_000_000)
    w.add_int32("i32", -2_000_000_000)
    w.add_uint64("u64", 2**63)
    w.add_int64("i64", -(2**62))
    w.add_float32("f32", 0.5)
    w.add_float64("f64", 0.1)
    w.add_bool("yes", True)
    w.add_bool("no", False)
    w.add_string("text", "Zoë 猫 \n")
    w.add_array("texts", ["a", "", "ü"])
    w.add_array("numbers", [1, 2, 3])
    finish(w)

    m = GgufFile(path).metadata
    assert {k: v for k, v in m.items() if k != "general.architecture"} == {
        "u8": 200, "i8": -100, "u16": 60000, "i16": -30000, "u32": 4_000_000_000, "i32": -2_000_000_000, "u64": 2**63,
        "i64": -(2**62), "f32": 0.5, "f64": 0.1, "yes": True, "no": False, "text": "Zoë 猫 \n", "texts": ["a", "", "ü"],
        "numbers": [1, 2, 3],
    }  # fmt: skip
    assert m["yes"] is True


@pytest.mark.slow
def test_the_real_file_reads_as_ggufs_reader_reads_it(smollm2):
    ours, theirs = GgufFile(smollm2), gguf.GGUFReader(smollm2)

    fields = {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert ours.metadata == fields
    assert len(ours.tensors) == len(theirs.tensors) == 272
    for t in theirs.tensors:
        found = ours.tensors[t.name]
        assert found.shape == tuple(reversed(t.shape.tolist()))
        assert (found.type, found.offset, found.nbytes) == (t.tensor_type, t.data_offset, t.n_bytes)


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.gguf"
    w = gguf.GGUFWriter(str(path), "llama")
    w.add_array("names", ["one", "two"])
    w.add_tensor("a", np.arange(64, dtype=np.float32).reshape(2, 32))
    finish(w)
    return path


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d[:-1], r"cut off: tensor 'a' ends at byte [\d,]+, the file has [\d,]+"),
        (lambda d: d[:60], "cut off or damaged"),
        (lambda d: d[:20], "cut off or damaged"),
        (lambda d: b"GGML" + d[4:], "is not a GGUF file"),
        (lambda d: b"", "cannot be read"),
        (lambda d: d[:4] + struct.pack("<I", 1) + d[8:], "has version 1; known"),
        (lambda d: d[:4] + struct.pack(">I", 3) + d[8:], "big-endian"),
        (lambda d: d[:24] + struct.pack("<Q", 2**60) + d[32:], "cut off or damaged"),
        (lambda d: d[:24] + struct.pack("<Q", 2**64 - 1) + d[32:], "cut off or damaged"),
    ],
)
def test_a_damaged_file_is_refused_by_name(good, damage, message):
    good.write_bytes(damage(good.read_bytes()))

    with pytest.raises(CheckpointError, match=message) as e:
        GgufFile(good)
    assert str(good) in str(e.value)


def test_an_unknown_quantization_type_is_named_with_those_known(good):
    data = good.read_bytes()
    entry = data.index(struct.pack("<Q", 1) + b"a" + struct.pack("<I", 2))
    at = entry + 8 + 1 + 4 + 16
    good.write_bytes(data[:at] + struct.pack("<I", 4711) + data[at + 4 :])

    with pytest.raises(CheckpointError, match=r"tensor 'a' has quantization type 4711.*it knows F32"):
        GgufFile(good)


@pytest.mark.parametrize("count", [2**31, 2**32 + 1, 2**61, 2**63, 2**64 - 1])
@pytest.mark.parametrize("at", [8, 16, "text", "numbers"])
def test_counts_beyond_the_file_are_refused(tmp_path, at, count):
    """CVE-2024-23605 and its like: sizes made of these overflowed, and too little memory was written to."""
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    if at == "text":
        damaged = header + struct.pack("<Q", count)
    elif at == "numbers":  # an array of float64
        damaged = header + struct.pack("<Q1sIIQ", 1, b"a", 9, 12, count)
    else:
        damaged = bytearray(header)
        damaged[at : at + 8] = struct.pack("<Q", count)
    path = tmp_path / "m.gguf"
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="cut off or damaged"):
        GgufFile(path)
