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


@attrs.frozen
class Lane:
    """A micro-batch's share of the engine."""

    scheduler: Scheduler
    loop: StepLoop


class Replica:
    """``add`` requests, ``step`` while there is work.

    With pipeline stages as many micro-batches are under way as there are stages. Each is a lane: a scheduler of its
    own with its share of rows and pages. A request stays in its lane, so no two of its steps overlap.

    tokens   of cache, in all
    """

    def __init__(self, time: StepTime, limits: Limits, tokens: int) -> None:
        self.clock = Clock()
        self.pipeline = SimulatedPipeline(time, self.clock)
        self._host = time.host
        self._next = 0
        self._outcomes: dict[str, Outcome] = {}
        count = len(time.stages)
        self.lanes = [self._lane(i, count, time, limits, tokens) for i in range(count)]

    def _lane(self, index: int, count: int, time: StepTime, limits: Limits, tokens: int) -> Lane:
        plan = cache_plan(time.shapes, time.split.tp, max(time.stages))
        most = tokens if count == 1 else max(tokens // count, limits.max_model_len)
        rows = -(-limits.max_num_seqs // count)
        # No more pages than all rows can fill, as the engine plans.
        pages = min(most // BLOCK, rows * -(-limits.max_model_len // BLOCK)) + 1
        cache = CacheManager(
            plan, pages, max_model_len=limits.max_model_len, prefix_caching=limits.enable_prefix_caching
        )
        scheduler = Scheduler(
            cache,
            max_rows=rows,
            max_num_seqs=rows,
            max_num_batched_tokens=limits.max_num_batched_tokens,
            max_model_len=limits.max_model_len,
        )
        loop = OverlappedLoop if limits.async_scheduling else PlainLoop
        return Lane(scheduler, loop(scheduler, self.pipeline.lane(index)))  # type: ignore[arg-type]

    @property
    def has_work(self) -> bool:
        return bool(self._outcomes)

    @property
    def outstanding(self) -> int:
        """Requests that have not finished."""
        return len(self._outcomes)

    @property
    def preemptions(self) -> int:
        return sum(lane.scheduler.roster.preemptions for lane in self.lanes)

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
        lane = min(self.lanes, key=lambda lane: len(lane.scheduler.roster.requests))
        lane.scheduler.roster.add(request)
        self.clock.passes(len(token_ids) * self._host.prompt_token_seconds)
        self._outcomes[name] = outcome = Outcome(arrival, len(token_ids), output_tokens)
        return outcome

    def step(self) -> None:
        """Go on by about one step of each lane that has work."""
        before = self.clock.now, self.pipeline.steps
        for lane in self.lanes:
            if not lane.scheduler.has_work:
                continue
            for request in lane.loop.step():
                outcome = self._outcomes[request.request_id]
                outcome.times += [self.clock.now] * (request.num_output - outcome.seen)
                outcome.seen = request.num_output
                if request.finished:
                    del self._outcomes[request.request_id]
            if lane.scheduler.given_up:
                raise RuntimeError(f"a request was given up: {lane.scheduler.given_up[0].error}")
        if before == (self.clock.now, self.pipeline.steps):
            raise RuntimeError(f"the simulated engine stands still with {self.outstanding} requests")
