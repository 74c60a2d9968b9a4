"""A process group some of whose operations plugins do: each for the tensors that it takes, in the order of choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from torch import Tensor

from vllm_core.interfaces.collective import Collective
from vllm_core.interfaces.group import ProcessGroup
from vllm_core.interfaces.queries import CollectiveQuery
from vllm_core.plugin import load_target

__all__ = ["CollectiveChoice", "OfferedGroup", "offered"]

TORCH = "vllm_core.distributed.torch_group:TorchGroup"
"""The core's own offer stands for the group itself, which takes every tensor: nobody behind it is reached."""


@attrs.frozen
class CollectiveChoice:
    name: str
    target: str
    query: CollectiveQuery
    options: Mapping[str, Any]


class OfferedGroup:
    """``base`` does what nobody in ``sums`` and ``gathers`` takes."""

    def __init__(self, base: ProcessGroup, sums: Sequence[Collective], gathers: Sequence[Collective]) -> None:
        self.base, self.rank, self.size = base, base.rank, base.size
        self._sums = [(collective.takes, collective) for collective in sums]
        self._gathers = [(collective.takes, collective) for collective in gathers]
        self.send, self.receive = base.send, base.receive

    def all_reduce(self, x: Tensor) -> Tensor:
        for takes, collective in self._sums:
            if takes(x):
                return collective(x)
        return self.base.all_reduce(x)

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        for takes, collective in self._gathers:
            if takes(x):
                return collective(x, dim=dim)
        return self.base.all_gather(x, dim)


def offered(
    base: ProcessGroup,
    choices: Mapping[str, Sequence[CollectiveChoice]],
    bootstrap: Callable[[], ProcessGroup],
    timeout: float,
) -> ProcessGroup:
    """``base`` itself where nobody else was chosen. ``bootstrap``: joins its ranks on the CPU, if that is needed."""
    before = {op: list(_before_torch(chosen)) for op, chosen in choices.items()}
    if not any(before.values()):
        return base
    meeting = bootstrap()
    made = {
        op: [load_target(c.target)(c.query, base.rank, meeting, timeout=timeout, **c.options) for c in chosen]
        for op, chosen in before.items()
    }
    return OfferedGroup(base, made.get("all_reduce", ()), made.get("all_gather", ()))


def _before_torch(choices: Sequence[CollectiveChoice]) -> list[CollectiveChoice]:
    names = [choice.target for choice in choices]
    return list(choices[: names.index(TORCH)] if TORCH in names else choices)
