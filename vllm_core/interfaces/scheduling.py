"""The contract of scheduler policies: who runs first. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import attrs

from vllm_core.interfaces.queries import SchedulerQuery


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
    extra_args: Mapping[str, Any] = attrs.field(factory=dict)  # the request's, if ``SchedulerPolicy.check`` wants them


class SchedulerPolicy(Protocol):
    """Made once an engine. Waiting requests run in ascending order of ``key``.

    When memory runs out, the running request with the largest key is preempted. So it is for a
    waiting request with a smaller key that lacks a row or pages, if the policy has an attribute
    ``preempts = True``. Then a request keeps the key of its arrival: two could otherwise preempt
    each other for ever.

    A policy may also have ``check(params, query)``, a class method that is asked of every request in the process
    that prepares it: True if ``params``, the request's ``extra_args``, say something about its order. Then they
    come with its `Candidate`. ``ValueError``: they are wrong, and the request is refused with its text. Those of
    logits processors are among them.
    """

    def __init__(self, query: SchedulerQuery) -> None: ...

    def key(self, request: Candidate) -> tuple[float, ...]:
        """Compared with other requests' keys, which are as long; ``order`` is appended to make all different.

        Asked when the request is queued and, unless the policy preempts, when it is queued again.
        """
