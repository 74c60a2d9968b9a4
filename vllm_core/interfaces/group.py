"""A process group as layers see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class ProcessGroup(Protocol):
    """Ranks that share work. With ``size`` 1 every call returns its input.

    All ranks of a group make the same calls in the same order; none of them waits for the device's queue.
    """

    rank: int
    size: int

    def all_reduce(self, x: Tensor) -> Tensor:
        """Sum over ranks, the same bits on each; may work in place."""

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        """Concatenate the ranks' tensors, all of one shape, along ``dim``, in rank order."""

    def send(self, x: Tensor, to: int) -> None:
        """Give a contiguous tensor to the rank ``to``, which receives it. Nobody may change ``x`` afterwards."""

    def receive(self, x: Tensor, source: int) -> Tensor:
        """Fill a contiguous ``x`` with what the rank ``source`` sends next, of this shape and dtype."""
