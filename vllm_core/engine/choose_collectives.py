"""Who adds up and gathers over tensor-parallel ranks: the hook collective."""

from __future__ import annotations

from vllm_core.distributed.layout import Layout
from vllm_core.distributed.offered import CollectiveChoice
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import CollectiveQuery
from vllm_core.plugins import Selector

__all__ = ["choose_collectives"]

OPS = ("all_reduce", "all_gather")


def choose_collectives(
    selector: Selector, layout: Layout, dtype: str, device: Device
) -> dict[str, tuple[CollectiveChoice, ...]]:
    """By operation, best first. ``NoOffer`` if nobody may do one of them."""
    found = {}
    for op in OPS if layout.tp > 1 else ():
        query = CollectiveQuery(op=op, group="tp", world_size=layout.tp, dtype=dtype, device=device)
        decisions = selector.choose_all("collective", query)
        if not decisions:
            selector.choose("collective", query)  # says why
        found[op] = tuple(CollectiveChoice(d.offer.name, d.offer.target, query, d.offer.options) for d in decisions)
    return found
