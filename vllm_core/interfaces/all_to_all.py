"""The contract of dispatch: tokens to the ranks of their experts and back.

Letters as in interfaces.experts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

from vllm_core.interfaces.experts import Routed
from vllm_core.interfaces.group import ProcessGroup
from vllm_core.interfaces.queries import AllToAllQuery

if TYPE_CHECKING:
    from torch import Tensor


@attrs.define(slots=True, kw_only=True)
class Dispatched:
    """What arrived at this rank."""

    x: Tensor  # "tokens": [N, H]; "batched": [E', M, H]
    routed: Routed | None  # "tokens": ids of this rank's experts or -1 [N, k], weights [N, k]
    counts: Tensor | None  # "batched": int32 [E'], valid rows
    handle: Any = None  # for combine


class Dispatcher(Protocol):
    """Made once an engine; buffers are sized then. All ranks call it in the same order."""

    def __init__(self, query: AllToAllQuery, group: ProcessGroup) -> None: ...

    def dispatch(self, x: Tensor, routed: Routed, placement: Tensor) -> Dispatched:
        """Send x [T, H] to the ranks of ``routed.ids``. T may differ between ranks, and be 0.

        placement   int32 [E, 2]: rank, and number there, of each expert; it changes between
                    steps when experts are moved.
        """

    def combine(self, y: Tensor, sent: Dispatched) -> Tensor:
        """Bring results back: [T, H], summed over each token's experts.

        y   "tokens": [N, H], weighted already; "batched": [E', M, H], weighted here.
        """
