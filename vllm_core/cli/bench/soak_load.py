"""Drives an engine with a mix of requests, ends some of them on the way, and keeps the books."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs

from vllm_core.cli.bench.mix import Mix, Phase, Wish

__all__ = ["Load"]

TOLD = 10  # failures that are kept in words


@attrs.define
class Running:
    wish: Wish
    ends_at: int | None  # engine step at which it is aborted


class Load:
    """``run`` until told, then until all have ended. ``engine`` is an ``engine.local.LocalEngine``."""

    def __init__(self, engine: Any, mix: Mix) -> None:
        self._engine, self._mix = engine, mix
        self._running: dict[str, Running] = {}
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []  # the first TOLD
        self.tokens: Counter[int] = Counter()  # minute -> output tokens of requests that ended in it
        self._begin = time.monotonic()

    def run(self, over: Callable[[int], bool]) -> None:
        """``over(requests that came)`` is asked before each step."""
        for phase in self._mix.phases():
            self.counts[f"phases_{phase.name}"] += 1
            if not self._phase(phase, over):
                break
        while self._engine.has_work:
            self._step()
        self._look_for_losses()

    def _phase(self, phase: Phase, over: Callable[[int], bool]) -> bool:
        """False: it is over."""
        left = phase.requests
        while left or (phase.drain and self._engine.has_work):
            if over(self.counts["came"]):
                return False
            count = left if phase.at_once else min(left, self._mix.arrivals(), max(0, phase.most - len(self._running)))
            for _ in range(count):
                if over(self.counts["came"]):
                    return False
                self._add()
                left -= 1
            if self._engine.has_work:
                self._step()
            elif self._running:
                self._look_for_losses()  # what it has forgotten would be waited for in vain
        if phase.drain:
            self._look_for_losses()
        return True

    def _add(self) -> None:
        from vllm_core.engine.errors import RequestError

        wish, name = self._mix.wish(), str(self.counts["came"])
        self.counts["came"] += 1
        try:
            self._engine.add_request(name, wish.prompt, wish.params, stream=wish.stream, cache_salt=wish.salt)
        except RequestError as error:
            full = "the queue is full" in error.reason  # as max_waiting_requests asks for
            self.counts["refused"] += full
            if not full:
                self._fail(name, f"refused: {error.reason}")
            return
        ends_at = None if wish.abort_after is None else self.counts["steps"] + wish.abort_after
        self._running[name] = Running(wish, ends_at)

    def _step(self) -> None:
        self.counts["steps"] += 1
        for name, running in self._running.items():
            if running.ends_at is not None and self.counts["steps"] >= running.ends_at:
                self._engine.abort(name)
        self.counts["most_at_once"] = max(self.counts["most_at_once"], len(self._running))
        for output in self._engine.step():
            if output.finished:
                self._ended(output)

    def _ended(self, output: Any) -> None:
        name = output.request_id
        running = self._running.pop(name)
        made = sum(len(sample.token_ids) for sample in output.outputs)
        self.tokens[int((time.monotonic() - self._begin) // 60)] += made
        self.counts["output_tokens"] += made
        self.counts["prompt_tokens"] += len(output.prompt_token_ids)
        self.counts["cached_tokens"] += output.num_cached_tokens
        self.counts["preemptions"] += output.metrics.num_preemptions
        self.counts["preempted_requests"] += output.metrics.num_preemptions > 0
        reasons = {sample.finish_reason for sample in output.outputs}
        if problem := _problem(running, output, reasons):
            self._fail(name, problem)
        else:
            self.counts["aborted" if "abort" in reasons else "done"] += 1

    def _fail(self, name: str, why: str) -> None:
        self.counts["failed"] += 1
        if len(self.failures) < TOLD:
            self.failures.append(f"request {name}: {why}")

    def _look_for_losses(self) -> None:
        """Nothing runs: every page and row must be free."""
        core = self._engine.core
        core.cache.check()
        self.counts["looks_for_losses"] += 1
        pages = core.cache.pool.num_pages - 1 - core.cache.num_free + core.cache.num_waiting
        self.counts["lost_pages"] = max(self.counts["lost_pages"], pages)
        self.counts["lost_rows"] = max(self.counts["lost_rows"], core.capacity.max_rows - len(core.roster.free_rows))
        if self._running:
            self._fail(next(iter(self._running)), f"{len(self._running)} requests were forgotten")
            self._running.clear()


def _problem(running: Running, output: Any, reasons: set[str | None]) -> str:
    """What is wrong with a request that ended, or ""."""
    wanted = running.wish.params
    if output.error or "error" in reasons:
        return output.error or "it ended with an error that says nothing"
    if "abort" in reasons and running.ends_at is None:
        return "it was aborted, and nobody asked for that"
    if len(output.outputs) != wanted.n:
        return f"{len(output.outputs)} outputs came instead of {wanted.n}"
    for sample in output.outputs:
        count = len(sample.token_ids)
        if sample.finish_reason == "length" and count != wanted.max_tokens:
            return f"{count} tokens came instead of {wanted.max_tokens}, and it ended for its length"
        if wanted.logprobs is not None and len(sample.logprobs or ()) != count:
            return f"{count} tokens came with log-probabilities of {len(sample.logprobs or ())}"
    return ""
