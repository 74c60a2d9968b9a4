"""A collective on every rank of a group: threads of this process, with gloo between them to meet by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from vllm_core.distributed.layout import Layout
from vllm_core.distributed.torch_group import TorchGroup
from vllm_core.interfaces.queries import CollectiveQuery
from vllm_core.plugin import Offer, load_target
from vllm_core.testing.ranks import PATIENCE, Ranks


class Members:
    """``each[rank]`` is the ``interfaces.collective.Collective`` of a rank."""

    def __init__(
        self, offer: Offer, query: CollectiveQuery, device: str, timeout: float, patience: float = PATIENCE
    ) -> None:
        world = query.world_size
        if device != "cpu" and torch.cuda.device_count() < world:
            pytest.skip(f"needs {world} CUDA devices, one for each rank")
        self.offer, self.query, self.world, self.device = offer, query, world, device
        self.dtype: torch.dtype = getattr(torch, query.dtype)
        self.ranks = Ranks(Layout(tp=world), patience)
        self.target, self.timeout = load_target(offer.target), timeout
        self.each = self.make()

    def make(self) -> list[Any]:
        """Made on every rank; may be done again."""
        return self.ranks.run(
            lambda rank, groups: self.target(self.query, rank, groups["tp"], timeout=self.timeout, **self.offer.options)
        )

    def placed(self, x: Tensor, rank: int) -> Tensor:
        """A copy of its own on the rank's device."""
        return x.clone() if self.device == "cpu" else x.to(f"{self.device}:{rank}")

    def takes(self, x: Tensor) -> bool:
        """The same answer on every rank, or this fails."""
        answers = [bool(member.takes(self.placed(x, rank))) for rank, member in enumerate(self.each)]
        assert len(set(answers)) == 1, f"ranks do not agree on whether they take {list(x.shape)}: {answers}"
        return answers[0]

    def call(self, parts: Sequence[Tensor], dim: int = 0) -> list[Tensor]:
        """What each rank gets, on the CPU, from its own part."""
        return self.ranks.run(lambda rank, _: self.each[rank](self.placed(parts[rank], rank), dim=dim).cpu())

    def together(self, work: Callable[[int, Any], Any]) -> list[Any]:
        """``work(rank, collective)`` on every rank at a time."""
        return self.ranks.run(lambda rank, _: work(rank, self.each[rank]))

    def in_order(self, parts: Sequence[Tensor]) -> Tensor:
        """torch's sum in the order of ranks."""

        def work(rank: int, groups: Any) -> Tensor:
            return TorchGroup(groups["tp"].backend, ordered=True).all_reduce(parts[rank].clone())

        return self.ranks.run(work)[0]

    def close(self) -> None:
        self.ranks.close()

    def __enter__(self) -> Members:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def parts_of(shape: Sequence[int], dtype: torch.dtype, world: int, seed: int = 0) -> list[Tensor]:
    """A tensor for each rank, rows of very different sizes."""
    generator = torch.Generator().manual_seed(1000 * world + seed)
    found = torch.randn(world, *shape, generator=generator)
    if len(shape) > 1:
        found *= torch.exp2(torch.arange(shape[0]) % 7 - 3.0).view(-1, *[1] * (len(shape) - 1))
    return list(found.to(dtype))
