"""The core's own scheduler policy."""

from __future__ import annotations

from vllm_core.interfaces.scheduling import Candidate

__all__ = ["FirstComeFirstServed"]


class FirstComeFirstServed:
    """The core's own policy. A preempted request keeps its place: before all that arrived later."""

    def key(self, request: Candidate) -> tuple[float, ...]:
        return ()
