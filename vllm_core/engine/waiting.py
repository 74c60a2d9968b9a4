"""Requests that wait for a row and pages, in the order of a policy."""

from __future__ import annotations

import heapq

from vllm_core.engine.request import Request, State
from vllm_core.interfaces.scheduling import Candidate, SchedulerPolicy

__all__ = ["WaitingQueue"]


class WaitingQueue:
    """A heap by the policy's key, with the order of arrival behind it."""

    def __init__(self, policy: SchedulerPolicy) -> None:
        self._policy = policy
        self.preempts: bool = getattr(policy, "preempts", False)
        """A waiting request may take the place of a running one with a larger key."""
        self._heap: list[tuple[tuple[float, ...], Request]] = []
        self._gone = 0  # finished while they waited: still in the heap

    def __len__(self) -> int:
        return len(self._heap) - self._gone

    def push(self, request: Request) -> None:
        if not (request.key and self.preempts):  # keys that change could preempt each other for ever
            request.key = (*self._policy.key(_candidate(request)), request.order)
        heapq.heappush(self._heap, (request.key, request))

    def first(self) -> Request | None:
        """The next to run; it stays in the queue."""
        while self._heap and self._heap[0][1].state is State.FINISHED:
            heapq.heappop(self._heap)
            self._gone -= 1
        return self._heap[0][1] if self._heap else None

    def pop(self) -> Request:
        return heapq.heappop(self._heap)[1]

    def remove(self, request: Request) -> None:
        """Take a request out, if it is there."""
        self._heap = [entry for entry in self._heap if entry[1] is not request]
        heapq.heapify(self._heap)

    def drop(self) -> None:
        """A request in the queue has just finished: it no longer counts."""
        self._gone += 1


def _candidate(request: Request) -> Candidate:
    return Candidate(
        request_id=request.request_id,
        arrival=request.arrival,
        order=request.order,
        priority=request.priority,
        prompt_tokens=request.num_prompt,
        output_tokens=request.num_output,
        cached_tokens=max(request.num_cached, 0),
        extra_args=request.order_args,
    )
