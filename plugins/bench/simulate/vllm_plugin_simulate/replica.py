"""One engine in simulated time: the real scheduler and the real loop over stages that only take time."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from vllm_core.interfaces.steps import RowSampling
from vllm_core.simulation import CacheManager, OverlappedLoop, PlainLoop, Request, Scheduler, StepLoop
from vllm_plugin_simulate.clock import Clock
from vllm_plugin_simulate.device import SimulatedPipeline
from vllm_plugin_simulate.memory import BLOCK, Limits, cache_plan
from vllm_plugin_simulate.step_time import StepTime

__all__ = ["Outcome", "Replica"]

GREEDY = RowSampling(temperature=0.0)


@attrs.define(eq=False)
class Outcome:
    """What became of a request. Seconds of simulated time."""

    arrival: float
    input_tokens: int
    output_tokens: int
    times: list[float] = attrs.field(factory=list)  # when the host had each output token
    seen: int = 0


class Replica:
    """``add`` requests, ``step`` while there is work. ``tokens``: of cache."""

    def __init__(self, time: StepTime, limits: Limits, tokens: int) -> None:
        self.clock = Clock()
        self.pipeline = SimulatedPipeline(time, self.clock)
        self._host = time.host
        self._next = 0
        self._outcomes: dict[str, Outcome] = {}
        # No more pages than all rows can fill, as the engine plans.
        pages = min(tokens // BLOCK, limits.max_num_seqs * -(-limits.max_model_len // BLOCK)) + 1
        cache = CacheManager(
            cache_plan(time.shapes, time.split.tp, max(time.stages)),
            pages,
            max_model_len=limits.max_model_len,
            prefix_caching=limits.enable_prefix_caching,
        )
        self.scheduler = Scheduler(
            cache,
            max_rows=limits.max_num_seqs,
            max_num_seqs=limits.max_num_seqs,
            max_num_batched_tokens=limits.max_num_batched_tokens,
            max_model_len=limits.max_model_len,
            stages=len(time.stages),
        )
        loop = OverlappedLoop if limits.async_scheduling else PlainLoop
        self._loop: StepLoop = loop(self.scheduler, self.pipeline)  # type: ignore[arg-type]

    @property
    def has_work(self) -> bool:
        return bool(self._outcomes)

    @property
    def outstanding(self) -> int:
        """Requests that have not finished."""
        return len(self._outcomes)

    @property
    def preemptions(self) -> int:
        return self.scheduler.roster.preemptions

    def add(self, arrival: float, token_ids: Sequence[int], output_tokens: int) -> Outcome:
        """A request arrives. An idle engine's clock moves on to it. ``RequestError`` if it can never run."""
        self.clock.until(arrival)
        name = str(self._next)
        self._next += 1
        request = Request(
            request_id=name,
            token_ids=list(token_ids),
            num_prompt=len(token_ids),
            sampling=GREEDY,
            stop_ids=frozenset(),
            max_total=len(token_ids) + output_tokens,
            each_token=True,
        )
        self.scheduler.roster.add(request)
        self.clock.passes(len(token_ids) * self._host.prompt_token_seconds)
        self._outcomes[name] = outcome = Outcome(arrival, len(token_ids), output_tokens)
        return outcome

    def step(self) -> None:
        """Go on by about one step."""
        before = self.clock.now, self.pipeline.steps
        for request in self._loop.step():
            outcome = self._outcomes[request.request_id]
            outcome.times += [self.clock.now] * (request.num_output - outcome.seen)
            outcome.seen = request.num_output
            if request.finished:
                del self._outcomes[request.request_id]
        if self.scheduler.given_up:
            raise RuntimeError(f"a request was given up: {self.scheduler.given_up[0].error}")
        if before == (self.clock.now, self.pipeline.steps):
            raise RuntimeError(f"the simulated engine stands still with {self.outstanding} requests")
