"""The group of a rank that shares nothing."""

from __future__ import annotations

from torch import Tensor


class SingleGroup:
    """A process group of one: every call returns its input."""

    rank = 0
    size = 1

    def all_reduce(self, x: Tensor) -> Tensor:
        return x

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        return x

    def send(self, x: Tensor, to: int) -> None:
        raise ValueError(f"rank {to} of a group of one was to be sent a tensor")

    def receive(self, x: Tensor, source: int) -> Tensor:
        raise ValueError(f"a tensor of rank {source} was expected in a group of one")
