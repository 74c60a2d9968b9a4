"""Counts what steps do and how requests fare, for metrics sinks and for callers who asked for figures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from vllm_core.engine.cache.manager import CacheManager
from vllm_core.engine.flight import Flight
from vllm_core.engine.request import Request
from vllm_core.engine.roster import Roster
from vllm_core.interfaces.metrics import RequestStats, StepStats

__all__ = ["Listener", "Meter"]


class Listener:
    """Who is told. As ``interfaces.metrics.MetricsSink``, and what it raises would end the engine."""

    def step(self, stats: StepStats) -> None:
        raise NotImplementedError

    def request(self, stats: RequestStats) -> None:
        raise NotImplementedError


class Meter:
    """Tells ``listeners`` of every step and of every request that ends. Without one it counts nothing."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []

    def follow(self, cache: CacheManager, roster: Roster) -> None:
        """Whose counts are told from now on."""
        self._cache, self._roster = cache, roster
        self._before = (0, 0, 0, 0)  # counts since the start, as of the last step

    def retired(self, flight: Flight, news: Sequence[Request]) -> None:
        """A step has been taken in; ``news`` got tokens from it, or failed in it."""
        if not self.listeners:
            return
        now, roster, cache, plan = time.monotonic(), self._roster, self._cache, flight.plan
        first_tokens, last, output, accepted = [], Counter[float](), 0, [0] * max(plan.num_drafts, default=0)
        for request in news:
            emitted = request.num_output - request.metered
            if not emitted:
                continue
            output += emitted
            for place in range(min(emitted - 1, len(accepted))):  # more: it ran before anybody listened
                accepted[place] += 1
            request.metered = request.num_output
            if request.first_token is None:
                request.first_token = now
                first_tokens.append(now - request.arrival)
            else:
                last[request.last_token or now] += 1
            request.last_token = now
        prefixes = cache.stats()
        counts = (prefixes.queries, prefixes.hits, prefixes.evictions, roster.preemptions)
        queries, hits, evictions, preemptions = (a - b for a, b in zip(counts, self._before, strict=True))
        self._before = counts
        drafting = len(plan.num_drafts) - plan.num_drafts.count(0)
        total = cache.pool.num_pages - 1
        stats = StepStats(
            step=plan.step,
            seconds=now - flight.launched,
            rows=len(plan.rows),
            running=len(roster.running),
            waiting=len(roster.requests) - len(roster.running),
            prompt_tokens=flight.prompt_tokens,
            output_tokens=output,
            prefix_queries=queries,
            prefix_hits=hits,
            evictions=evictions,
            preemptions=preemptions,
            drafts=drafting,
            drafted=sum(plan.num_drafts),
            accepted=sum(accepted),
            accepted_at=tuple(accepted),
            pages_used=total - cache.num_free,
            pages_total=total,
            first_tokens=tuple(first_tokens),
            gaps=tuple((now - before, requests) for before, requests in last.items()),
        )
        for listener in self.listeners[:]:
            listener.step(stats)

    def ended(self, request: Request) -> None:
        if not self.listeners:
            return
        now, arrival, started, first = time.monotonic(), request.arrival, request.started, request.first_token
        decode = None if first is None or request.last_token is None else request.last_token - first
        tokens = request.num_output
        stats = RequestStats(
            request_id=request.request_id,
            finish_reason=str(request.finish_reason),
            prompt_tokens=request.num_prompt,
            cached_tokens=max(request.num_cached, 0),
            output_tokens=tokens,
            queued=None if started is None else started - arrival,
            first_token=None if first is None else first - arrival,
            between_tokens=decode / (tokens - 1) if decode is not None and tokens > 1 else None,
            total=now - arrival,
            prefill=None if first is None or started is None else first - started,
            decode=decode,
            max_tokens=request.max_total - request.num_prompt,
            preemptions=request.num_preemptions,
            drafted=request.num_drafted,
            accepted=request.num_accepted,
        )
        for listener in self.listeners[:]:
            listener.request(stats)
