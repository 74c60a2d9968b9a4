"""The process groups of a rank, as plans have them: by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType

from torch import distributed as dist

from vllm_core.distributed.dry import DryGroup
from vllm_core.distributed.layout import Layout
from vllm_core.distributed.offered import CollectiveChoice, offered
from vllm_core.distributed.torch_group import LOOPBACK, join, told
from vllm_core.interfaces.group import ProcessGroup

__all__ = ["dry_groups", "join_groups", "meet"]

START = timedelta(hours=1)  # that a rank may need longer than others

NONE: Mapping[str, Sequence[CollectiveChoice]] = MappingProxyType({})


def join_groups(
    layout: Layout,
    rank: int,
    store: dist.Store,
    kind: str,
    timeout: float,
    address: str = LOOPBACK,
    collectives: Mapping[str, Sequence[CollectiveChoice]] = NONE,
    ordered: bool = False,
) -> dict[str, ProcessGroup]:
    """Meet the other ranks at ``store``; groups of one are left out. Arguments as for `torch_group.join`.

    collectives   of the group "tp", by operation, best first

    "pp" carries hidden states on, "ids" what the last stage sampled back: two groups of the same ranks, because
    each direction keeps an order of its own.
    """
    groups: dict[str, ProcessGroup] = {}
    members = layout.members(rank)
    for name, ranks in (("tp", members["tp"]), ("pp", members["pp"]), ("ids", members["pp"])):
        if len(ranks) > 1:
            place = f"{name}/{ranks[0]}"
            groups[name] = join(kind, store, place, ranks.index(rank), len(ranks), timeout, address, ordered)
    if (tp := groups.get("tp")) is not None:

        def bootstrap() -> ProcessGroup:
            if kind == "cpu":
                return tp
            return join("cpu", store, f"tp-cpu/{members['tp'][0]}", tp.rank, tp.size, timeout, address)

        groups["tp"] = offered(tp, collectives, bootstrap, timeout)
    return groups


def meet(store: dist.Store, name: str, rank: int, world: int) -> None:
    """Wait for all ranks to come so far: what they read and compile takes longer for some than for others.

    Whoever started them ends those that wait for one that has failed.
    """
    store.set(f"{name}/{rank}", "")
    with told():
        store.wait([f"{name}/{other}" for other in range(world)], START)


def dry_groups(layout: Layout, rank: int = 0) -> dict[str, ProcessGroup]:
    """For binding where the others are not: shapes are this rank's, nothing is communicated."""
    place = layout.place(rank)
    sizes = {"tp": layout.tp, "pp": layout.pp}
    return {name: DryGroup(place[name], size) for name, size in sizes.items() if size > 1}
