"""The recurrent states of layers once the engine is planned: their pages, and their part of a step."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionStep
from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.cache import BYTES, CacheGroup, CachePlan, RecurrentCache
from vllm_core.interfaces.state import StateStep
from vllm_core.interfaces.steps import NULL_PAGE

__all__ = ["PagedState", "States", "state_step"]


class PagedState:
    """`interfaces.state.BoundState` of one layer. Usable once pages are attached.

    ring   states that a running sequence has: one, and one more for each draft of a step
    """

    def __init__(self, path: str, spec: RecurrentCache, ring: int) -> None:
        self.path, self.spec, self.ring = path, spec, ring
        self.group, self.block_size = -1, 0
        self.states: tuple[Tensor, ...] = ()
        _check(path, spec)

    def of(self, batch: Batch) -> StateStep:
        if not self.states:
            raise RuntimeError(f"{self.path}: a state was used before EnginePlan.bind_caches gave it pages")
        key = ("state", self.group)
        if key not in batch.shared:
            batch.shared[key] = state_step(batch.attention[self.group], self.block_size, self.ring)
        return batch.shared[key]

    def before(self, batch: Batch) -> tuple[Tensor, ...]:
        step = self.of(batch)
        found = []
        for state in self.states:
            rows = state.index_select(0, step.read)
            # A page that nobody has written may hold anything, NaN too: no product with zero would clear it.
            found.append(rows.masked_fill_(step.begins.view(-1, *(1,) * (rows.ndim - 1)), 0))
        return tuple(found)

    def attach(self, group: CacheGroup, pages: Tensor) -> None:
        """pages   uint8 [P, page_bytes], the cache's own tensor of the pool"""
        self.group, self.block_size = group.index, group.block_size
        views, start = [], 0
        for shape, dtype in zip(self.spec.shapes, self.spec.dtypes, strict=True):
            end = start + prod(shape) * BYTES[dtype]
            views.append(pages[:, start:end].view(getattr(torch, dtype)).unflatten(1, shape))
            start = end
        self.states = tuple(views)


class States:
    """Those of one plan, by the names of their caches."""

    def __init__(self, ring: int) -> None:
        self._ring = ring
        self._layers: dict[str, PagedState] = {}

    def declare(self, path: str, spec: RecurrentCache) -> PagedState:
        self._layers[path] = PagedState(path, spec, self._ring)
        return self._layers[path]

    def attach(self, tensors: Sequence[Tensor], caches: CachePlan) -> None:
        """tensors   the pool, uint8 [num_pages, page_bytes] each; more of them than a group has caches, perhaps"""
        for group in caches.groups:
            for j, name in enumerate(group.names):
                if name in self._layers:
                    self._layers[name].attach(group, tensors[j])


def state_step(step: AttentionStep, block_size: int, ring: int) -> StateStep:
    """From the group's block table, whose entries `engine.cache.recurrent_pages` explains. Reads nothing back.

    block_size   tokens between two checkpoints
    """
    table = step.block_table.long()  # [S, ring + checkpoints]
    lengths = step.query_starts.diff().long()[:, None]  # [S, 1]
    after = step.kv_lens.long()[:, None]  # tokens once the step is done
    before = after - lengths
    read = table.gather(1, before % ring)[:, 0]

    back = torch.arange(min(ring, max(step.longest_query, 1)), device=table.device)
    last = lengths - back  # after so many of the step's tokens
    entries, counts, used = [(after - back) % ring], [last], [last > 0]
    if (checkpoints := table.shape[1] - ring) > 0:
        passed = torch.arange(step.longest_query // block_size + 1, device=table.device)
        number = before // block_size + passed  # of the checkpoint: after (number + 1) * block_size tokens
        count = (number + 1) * block_size - before
        entries.append(ring + number.clamp_max(checkpoints - 1))
        counts.append(count)
        used.append((count <= lengths) & (number < checkpoints))
    entry, count, keep = (torch.cat(parts, 1) for parts in (entries, counts, used))
    return StateStep(
        num_tokens=step.num_tokens,
        query_lens=step.query_lens,
        longest_query=step.longest_query,
        query_starts=step.query_starts,
        read=read,
        begins=before[:, 0] == 0,
        keep_after=count,
        keep_in=torch.where(keep, table.gather(1, entry), NULL_PAGE),
    )


def _check(path: str, spec: RecurrentCache) -> None:
    start = 0
    for shape, dtype in zip(spec.shapes, spec.dtypes, strict=True):
        if not shape or min(shape) < 1:
            raise ValueError(f"{path}: a state's tensors must have a size of at least 1, not the shape {shape}")
        if start % BYTES[dtype]:
            raise ValueError(
                f"{path}: a {dtype} tensor of its state would begin at byte {start} of a page, and needs a multiple of"
                f" {BYTES[dtype]}; list tensors of wide dtypes first"
            )
        start += prod(shape) * BYTES[dtype]
