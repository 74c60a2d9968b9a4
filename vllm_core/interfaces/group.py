"""A process group as layers see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class ProcessGroup(Protocol):
    """Ranks that split a layer between them. With ``size`` 1 every call returns its input."""

    rank: int
    size: int

    def all_reduce(self, x: Tensor) -> Tensor:
        """Sum over ranks; may work in place."""

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        """Concatenate the ranks' tensors along ``dim``, in rank order."""
