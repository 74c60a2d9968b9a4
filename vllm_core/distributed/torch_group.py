"""Groups over torch.distributed: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


class TorchGroup:
    """Ranks joined by a ``torch.distributed`` process group (None: all of the world)."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)

    def all_reduce(self, x: Tensor) -> Tensor:
        """Sum over ranks, in place if ``x`` is contiguous."""
        if self.size == 1:
            return x
        x = x.contiguous()
        dist.all_reduce(x, group=self.group)
        return x

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        """The ranks' equally shaped tensors, concatenated along ``dim`` in rank order."""
        if self.size == 1:
            return x
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.size)]
        dist.all_gather(parts, x.contiguous(), group=self.group)
        return torch.cat(parts, dim=dim)
