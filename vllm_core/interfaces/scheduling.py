"""The contract of scheduler policies: who runs first. No torch."""

from __future__ import annotations

from typing import Protocol

import attrs


@attrs.frozen(kw_only=True)
class Candidate:
    """A request as a policy sees it."""

    request_id: str
    arrival: float  # seconds, monotonic
    order: int  # counts up with arrival: no two are equal
    priority: int  # smaller is more urgent; 0 unless the request says otherwise
    prompt_tokens: int
    output_tokens: int  # so far; more than 0 after a preemption
    cached_tokens: int  # found in the prefix cache when it was queued


class SchedulerPolicy(Protocol):
    """Made once an engine. Waiting requests run in ascending order of ``key``.

    When memory runs out, the running request with the largest key is preempted. So it is for a
    waiting request with a smaller key that lacks a row or pages, if the policy has an attribute
    ``preempts = True``. Then a request keeps the key of its arrival: two could otherwise preempt
    each other for ever.
    """

    def key(self, request: Candidate) -> tuple[float, ...]:
        """Compared with other requests' keys; ``order`` is appended to make all different.

        Asked when the request is queued and, unless the policy preempts, when it is queued again.
        """
