"""The contract of cache layouts: how entries lie in the raw bytes of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vllm_core.interfaces.cache import CacheSpec

if TYPE_CHECKING:
    from torch import Tensor


class CacheLayout(Protocol):
    """``Target(layout)``; without state. ``layout`` is the name in the query."""

    def __init__(self, layout: str) -> None: ...

    def page_bytes(self, spec: CacheSpec, block_size: int) -> int:
        """Bytes that a page of ``block_size`` tokens needs, scales included.

        Pages are planned by the smallest size that they may have: more tokens never need more bytes each.
        """

    def views(self, pages: Tensor, spec: CacheSpec, block_size: int) -> tuple[Tensor, ...]:
        """Views on raw pages uint8 [P, page_bytes], which may be larger than needed. No copies.

        The tuple is what the backend's ``write`` and ``attend`` get as ``pages``; the first
        dimension of each is P.
        """
