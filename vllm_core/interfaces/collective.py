"""The contract of collectives: one operation of a process group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from vllm_core.interfaces.queries import CollectiveQuery

if TYPE_CHECKING:
    from torch import Tensor

    from vllm_core.interfaces.group import ProcessGroup


class PeerLost(RuntimeError):
    """Another rank did not take part: it has ended, or was not there in time."""


class Collective(Protocol):
    """Made once a group on every rank, in the same order on all."""

    def __init__(
        self, query: CollectiveQuery, rank: int, bootstrap: ProcessGroup, *, timeout: float, **options: Any
    ) -> None:
        """``bootstrap`` joins the same ranks on the CPU, to exchange addresses with; ``options`` are the offer's.

        ``timeout``: seconds to wait for another rank, if anything can be done about it; then `PeerLost`.
        """

    def takes(self, x: Tensor) -> bool:
        """Whether it can do this tensor: the same answer on every rank. Shapes only, no values."""

    def __call__(self, x: Tensor, dim: int = 0) -> Tensor:
        """Run the operation; never synchronises with the host.

        all_reduce       x [...] -> [...], the sum, the same bits on every rank; may work in place.
        all_gather       x -> the ranks' tensors concatenated along ``dim``.
        """
