"""Rows by number: on the GPU, bit for bit."""

from __future__ import annotations

import pytest
import torch
from vllm_kernels.bench.cases_elementwise import kernel

pytestmark = pytest.mark.usefixtures("gpu")


@pytest.mark.parametrize(("size", "dtype"), [(1024, "bfloat16"), (33, "bfloat16"), (4096, "float32"), (5, "float16")])
@pytest.mark.parametrize("ids", [torch.int64, torch.int32])
def test_embeddings_are_rows_of_the_table(size, dtype, ids):
    table = torch.randn(1000, size).to(getattr(torch, dtype))
    look_up = kernel("embedding", dtype, size=size, vocab=1000)
    for tokens in (0, 1, 777):
        wanted = torch.randint(1000, (tokens,)).to(ids)
        assert torch.equal(look_up(wanted, table), table[wanted.long()])
    assert torch.equal(look_up(wanted[::2], table), table[wanted[::2].long()])


@pytest.mark.parametrize("size", [65536, 40, 1000003])
def test_pages_are_copied_as_if_all_were_read_first(size):
    pages = torch.randint(256, (20, size), dtype=torch.uint8)
    sources, targets = torch.tensor([3, 4, 5, 3, 9]), torch.tensor([4, 5, 3, 11, 0])
    want = pages.clone()
    want[targets] = pages[sources]
    kernel("copy_pages")(pages, sources, targets)
    assert torch.equal(pages, want)
    kernel("copy_pages")(pages, sources[:0], targets[:0])
    assert torch.equal(pages, want)
