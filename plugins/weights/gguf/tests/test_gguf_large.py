"""A tensor of more than 2^31 numbers is read where it lies, to its end (CVE-2026-53923).

The file is sparse: it takes no more room on the disk than the blocks that are written.
"""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from vllm_plugin_gguf.architectures.record import Stored
from vllm_plugin_gguf.file import GgufFile
from vllm_plugin_gguf.source import GgufSource

COLUMNS = 1 << 15
ROWS = (1 << 31) // COLUMNS + 3  # so that the last rows begin beyond 2^31 numbers, and 2^31 bytes
BLOCK, BYTES = gguf.GGML_QUANT_SIZES[Type.Q8_0]  # 32 numbers in 34 bytes
NUMBERS = ROWS * COLUMNS


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """(the tensor's source, its last two rows, its first)."""
    path = tmp_path_factory.mktemp("large") / "m.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    packed = NUMBERS // BLOCK * BYTES
    writer.add_tensor_info("output.weight", (ROWS, COLUMNS // BLOCK * BYTES), np.uint8, packed, raw_dtype=Type.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    start = -(-path.stat().st_size // 32) * 32
    values = np.random.default_rng(1).standard_normal((3, COLUMNS), dtype=np.float32)
    rows = gguf.quants.quantize(values, Type.Q8_0)
    with path.open("r+b") as file:
        try:
            file.truncate(start + packed)
        except OSError as error:
            pytest.skip(f"the file system has no files of {packed:,} bytes: {error}")
        file.seek(start)
        file.write(rows[2].tobytes())
        file.seek(start + packed - rows[:2].nbytes)
        file.write(rows[:2].tobytes())
    assert path.stat().st_blocks * 512 < 1 << 20
    tensor = GgufFile(path).tensors["output.weight"]
    assert tensor.shape == (ROWS, COLUMNS)
    known = torch.from_numpy(gguf.quants.dequantize(rows, Type.Q8_0))
    return GgufSource({"lm_head.weight": Stored(tensor)}, {}), known[:2], known[2]


def test_rows_beyond_two_to_the_31_numbers_are_those_of_the_file(large):
    source, last, first = large
    assert torch.equal(source.read("lm_head.weight", ((ROWS - 2, ROWS), (0, COLUMNS))), last)
    assert torch.equal(source.read("lm_head.weight", ((0, 1), (0, COLUMNS)))[0], first)
    assert torch.equal(source.read("lm_head.weight", ((ROWS - 1, ROWS), (96, 160))), last[1:, 96:160])


def test_no_row_of_a_large_tensor_keeps_what_was_in_memory(large):
    """The advisory's leak: a count cut to 32 bits left rows of ``torch.empty`` as they were."""
    source, last, first = large
    for column in (0, COLUMNS - BLOCK):  # the first and the last block of every row
        cut = slice(column, column + BLOCK)
        out = torch.full((ROWS, BLOCK), float("nan"), dtype=torch.bfloat16)
        source.read_into("lm_head.weight", ((0, ROWS), (cut.start, cut.stop)), out)
        assert torch.equal(out[0], first[cut].bfloat16())
        assert torch.equal(out[-2:], last[:, cut].bfloat16())
        assert not out[1:-2].any(), "these are zeros in the file"
