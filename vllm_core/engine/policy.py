"""The core's own scheduler policies."""

from __future__ import annotations

from vllm_core.interfaces.queries import SchedulerQuery
from vllm_core.interfaces.scheduling import Candidate

__all__ = ["FirstComeFirstServed", "MostUrgentFirst"]


class FirstComeFirstServed:
    """A preempted request keeps its place: before all that arrived later."""

    def __init__(self, query: SchedulerQuery | None = None) -> None: ...

    def key(self, request: Candidate) -> tuple[float, ...]:
        return ()


class MostUrgentFirst:
    """vLLM's ``priority``: smaller numbers first, then first come, first served.

    A request that waits takes the row and the pages of running ones with larger numbers, or with
    the same number that came later, if it cannot run otherwise. Larger numbers may starve.
    """

    preempts = True

    def __init__(self, query: SchedulerQuery | None = None) -> None: ...

    def key(self, request: Candidate) -> tuple[float, ...]:
        return (request.priority,)
