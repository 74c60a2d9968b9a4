"""The memory of all caches: one pool of pages of equal size."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vllm_core import ops
from vllm_core.interfaces.cache import CachePlan
from vllm_core.interfaces.steps import PageCopy
from vllm_core.runner.staging import upload


def make_pages(caches: CachePlan, num_pages: int, device: torch.device) -> list[Tensor]:
    """``caches.num_tensors`` zeroed tensors, uint8 [num_pages, page_bytes].

    On the CPU memory is taken when a page is first written, so a large pool costs nothing at
    the start.
    """
    shape = (num_pages, caches.page_bytes)
    if device.type != "cpu" or not hasattr(mmap, "MAP_ANONYMOUS"):
        return [torch.zeros(shape, dtype=torch.uint8, device=device) for _ in range(caches.num_tensors)]
    return [_lazy_zeros(shape) for _ in range(caches.num_tensors)]


def _lazy_zeros(shape: tuple[int, int]) -> Tensor:
    size = shape[0] * shape[1]
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, ValueError, OverflowError) as error:
        raise MemoryError(
            f"the cache needs {shape[0]:,} pages of {shape[1]:,} bytes a tensor ({size / 2**30:.2f} GiB), which the "
            f"system refused ({error}); a smaller --kv-cache-memory or --max-model-len asks for less"
        ) from error
    # The tensor keeps the mapping alive, and the mapping ends with it.
    return torch.frombuffer(memory, dtype=torch.uint8).view(shape)


def copy_pages(
    tensors: Sequence[Tensor],
    caches: CachePlan,
    copies: Sequence[PageCopy],
    copy: Callable[..., None] = ops.copy_pages,
) -> None:
    """Carry out a plan's copies, as if all were read before any is written. ``copy``: an implementation of the op."""
    for group in caches.groups:
        ours = [one for one in copies if one.group == group.index]
        if not ours or not group.names:  # on a pipeline stage all caches of a group may be elsewhere
            continue
        ids = upload(
            {
                "sources": np.array([one.source for one in ours], dtype=np.int64),
                "targets": np.array([one.target for one in ours], dtype=np.int64),
            },
            tensors[0].device,
        )
        for tensor in tensors[: len(group.names)]:
            copy(tensor, ids["sources"], ids["targets"])
