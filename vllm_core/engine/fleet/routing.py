"""Which engine gets a request."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Protocol

from vllm_core.engine.fleet.load import Load
from vllm_core.engine.messages import NewRequest

__all__ = ["LeastLoaded", "Router", "SamePrefix", "router_named"]

BLOCK = 32  # token ids that are remembered together
BLOCKS = 64  # of a prompt, from its beginning, at most
REMEMBERED = 1 << 16  # beginnings
SLACK, FACTOR = 4, 1.5  # an engine may have so many requests more, or times as many, for a prefix's sake


class Router(Protocol):
    def choose(self, request: NewRequest, loads: Mapping[int, Load]) -> int:
        """The number of one of these engines, of which there is one at least. It gets all samples of the prompt."""

    def forget(self, engine: int) -> None:
        """Its cache is gone."""


class LeastLoaded:
    """Fewest waiting requests, then fewest tokens to be computed; equals take turns."""

    def __init__(self) -> None:
        self._last = -1

    def choose(self, request: NewRequest, loads: Mapping[int, Load]) -> int:
        size = max(loads) + 1
        found = min(loads, key=lambda number: (loads[number].order, (number - self._last - 1) % size))
        self._last = found
        return found

    def forget(self, engine: int) -> None:
        """Nothing is known of caches here."""


class SamePrefix:
    """Prompts that begin alike go where the longest such beginning was computed before.

    An engine that is so preferred may be busier than the least loaded one, but only up to a bound: beyond it the
    request goes to the least loaded one, which from then on knows the beginning as well.
    """

    def __init__(self) -> None:
        self._least = LeastLoaded()
        self._known: OrderedDict[int, set[int]] = OrderedDict()  # beginning: engines; the last used one at the end

    def choose(self, request: NewRequest, loads: Mapping[int, Load]) -> int:
        least = self._least.choose(request, loads)
        beginnings = _beginnings(request)
        found = next((near for b in reversed(beginnings) if (near := self._near(b, loads, loads[least]))), None)
        chosen = least if found is None else min(found, key=lambda number: (loads[number].order, number))
        for beginning in beginnings:
            self._known.setdefault(beginning, set()).add(chosen)
            self._known.move_to_end(beginning)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return chosen

    def _near(self, beginning: int, loads: Mapping[int, Load], least: Load) -> list[int]:
        bound = max(least.held + SLACK, FACTOR * least.held)
        return [
            number
            for number in self._known.get(beginning, ())
            if number in loads and loads[number].held <= bound and loads[number].waiting <= least.waiting
        ]

    def forget(self, engine: int) -> None:
        for beginning in [b for b, engines in self._known.items() if engine in engines]:
            self._known[beginning].discard(engine)
            if not self._known[beginning]:
                del self._known[beginning]


def _beginnings(request: NewRequest) -> list[int]:
    """A number for each beginning of the prompt in whole blocks, the shortest first; equal for equal ones.

    With the salt and all else that decides who may share cached pages; none if the request wants none.
    """
    if not request.reads_prefix:
        return []
    so_far = hash((request.salt, *((extra.key, extra.start, extra.stop) for extra in request.extra_keys)))
    found = []
    for end in range(BLOCK, min(len(request.token_ids), BLOCK * BLOCKS) + 1, BLOCK):
        so_far = hash((so_far, *request.token_ids[end - BLOCK : end]))
        found.append(so_far)
    return found


def router_named(name: str) -> Router:
    """As ``data_parallel_routing`` has it."""
    return SamePrefix() if name == "prefix" else LeastLoaded()
