"""The contract of collectives: one operation of a process group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from vllm_core.interfaces.queries import CollectiveQuery

if TYPE_CHECKING:
    from torch import Tensor


class Collective(Protocol):
    """Made once a group on every rank, in the same order on all."""

    def __init__(self, query: CollectiveQuery, rank: int, bootstrap: Any) -> None:
        """``bootstrap`` is a ``torch.distributed`` group of the CPU, to exchange addresses with."""

    def takes(self, x: Tensor) -> bool:
        """Whether it can do this tensor: the same answer on every rank. Shapes only, no values."""

    def __call__(self, x: Tensor, dim: int = 0, peer: int = 0) -> Tensor:
        """Run the operation; never synchronises with the host.

        all_reduce       x [...] -> [...], the sum; may work in place.
        all_gather       x -> the ranks' tensors concatenated along ``dim``.
        reduce_scatter   x -> this rank's part, along ``dim``, of the sum.
        broadcast        x of rank ``peer`` on every rank.
        send             x to rank ``peer`` (there: receives into x).
        """

    def close(self) -> None: ...
