"""The pool's memory."""

import resource

import pytest
import torch

from vllm_core.interfaces.cache import CacheGroup, CachePlan, FullAttentionCache
from vllm_core.interfaces.steps import PageCopy
from vllm_core.runner.pages import copy_pages, make_pages

SPEC = FullAttentionCache(num_kv_heads=1, k_dim=4, v_dim=4, dtype="float32")
CPU = torch.device("cpu")


def plan(page_bytes=64):
    groups = (
        CacheGroup(index=0, spec=SPEC, names=("a", "b"), block_size=2),
        CacheGroup(index=1, spec=SPEC, names=("c",), block_size=2),
    )
    return CachePlan(groups=groups, page_bytes=page_bytes, num_tensors=2)


def test_a_large_pool_on_the_cpu_takes_memory_only_where_it_is_written():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pages = make_pages(plan(page_bytes=1 << 20), 4096, CPU)  # 2 tensors of 4 GiB
    pages[0][7] = 1
    assert [p.shape for p in pages] == [(4096, 1 << 20)] * 2
    assert not pages[0][0].any()
    assert not pages[1][4095].any()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 64 << 10  # KiB


def test_the_memory_lives_as_long_as_a_view_of_it():
    view = make_pages(plan(), 8, CPU)[0].view(torch.float32)[3]
    view.fill_(2.5)
    assert view.sum() == 2.5 * 16


def test_a_pool_that_the_system_refuses_is_an_error_with_its_size():
    with pytest.raises(MemoryError, match=r"1,099,511,627,776 pages of 1,048,576 bytes .*--kv-cache-memory"):
        make_pages(plan(page_bytes=1 << 20), 1 << 40, CPU)


def test_copies_are_read_before_any_is_written_and_touch_their_groups_tensors_only():
    pages = make_pages(plan(), 8, CPU)
    for tensor in pages:
        tensor.copy_(torch.arange(8, dtype=torch.uint8)[:, None].expand(8, 64))
    copy_pages(
        pages,
        plan(),
        [
            PageCopy(group=0, source=1, target=2),
            PageCopy(group=0, source=2, target=3),
            PageCopy(group=1, source=4, target=5),
        ],
    )
    assert pages[0][:, 0].tolist() == [0, 1, 1, 2, 4, 4, 6, 7]
    assert pages[1][:, 63].tolist() == [0, 1, 1, 2, 4, 5, 6, 7]


def test_copies_go_through_the_kernel_that_was_chosen():
    calls = []
    pages = make_pages(plan(), 8, CPU)
    copy_pages(
        pages,
        plan(),
        [PageCopy(group=0, source=1, target=2)],
        lambda tensor, sources, targets: calls.append((tensor.data_ptr(), sources.tolist(), targets.tolist())),
    )
    assert calls == [(page.data_ptr(), [1], [2]) for page in pages]
