"""Which requests run in the next step, and with how many tokens each.

One budget of tokens a step, for prompts and outputs alike: first the rows that decode, then those
whose prompt is partly computed, then waiting requests. A step may be scheduled before the results
of earlier ones are known, so lengths are upper bounds here (see ``request``). When pages run out,
the running request that the policy wants last is preempted and later computed again.

    schedule() -> Flight | None     plan a step; its plan must be launched next
    retire(result) -> [Request]     the oldest step in flight has ended; requests with news
    lose(error)                     what is in flight had not enough memory to run
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence

from vllm_core.engine.cache.manager import CacheManager
from vllm_core.engine.door import Door
from vllm_core.engine.flight import Draft, Flight
from vllm_core.engine.logprobs import book
from vllm_core.engine.micro_batches import MicroBatches, steps_in_flight
from vllm_core.engine.request import FinishReason, Request, State
from vllm_core.engine.roster import Roster
from vllm_core.engine.step_budget import StepBudget
from vllm_core.interfaces.executor import StepOutOfMemory
from vllm_core.interfaces.scheduling import SchedulerPolicy
from vllm_core.interfaces.steps import StepResult

__all__ = ["Scheduler"]

log = logging.getLogger(__name__)


class Scheduler:
    """Plans steps over a roster of requests and takes in their results. Not thread-safe."""

    def __init__(
        self,
        cache: CacheManager,
        *,
        max_rows: int,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        max_model_len: int,
        num_drafts: int = 0,
        lookahead: int = 0,
        policy: SchedulerPolicy | None = None,
        max_waiting: int | None = None,
        first_step: int = 0,
        stages: int = 1,
    ) -> None:
        self.cache = cache
        self.micro_batches = MicroBatches(stages)
        self.depth = steps_in_flight(stages)  # at most
        self.budget = StepBudget(max_num_batched_tokens)
        self.num_drafts = num_drafts
        self.lookahead = lookahead  # a proposer writes cache entries so far behind a row's last token
        # Of one request, the tokens of all steps but one may be in flight and as many as a step's being scheduled.
        step_tokens = self.depth * max_num_batched_tokens + lookahead
        longest = cache.longest_sequence(step_tokens, max_model_len)
        self.roster = Roster(cache, max_rows, longest, policy, max_waiting)
        self._door = Door(
            self.roster,
            cache,
            max_running=min(max_num_seqs, max_rows),
            budget=max_num_batched_tokens,
            step_tokens=step_tokens,
            lookahead=lookahead,
        )
        self.flights: deque[Flight] = deque()  # launched, oldest first
        self.given_up: list[Request] = []  # ended by ``schedule``, for the caller to take
        self.watcher: Callable[[Flight, Sequence[Request]], None] | None = None  # told of each step and its news
        self.next_step = first_step

    @property
    def has_work(self) -> bool:
        return bool(self.roster.requests or self.flights)

    # ---- a step is planned

    def schedule(self) -> Flight | None:
        """Plan the next step, or None if nothing can run before a step in flight has retired."""
        if self.roster.waiting.preempts:
            self._door.make_way()  # before anything is scheduled that could not be taken back
        draft = Draft(self.budget.now)
        prefilling = []
        pages_ran_out = False
        oldest = self.flights[0].plan.step if self.flights else self.next_step
        turn = self.micro_batches.turn(self.roster.running, self.next_step, oldest)
        rest = len(turn)  # rows not looked at yet: drafts leave a token for each
        for request in turn:
            rest -= 1
            if request.bound < request.prefill_end:
                prefilling.append(request)
            elif request.state is State.RUNNING and draft.budget > 0:
                pages_ran_out |= not self._decode(request, draft, rest)
        for request in prefilling:
            if draft.budget > 0 and not pages_ran_out:
                self._door.admit(draft, before=request.key)
            if request.state is State.RUNNING and draft.budget > 0:
                pages_ran_out |= not self._prefill(request, draft)
        if not pages_ran_out:
            self._door.admit(draft)
        if not draft.requests and not pages_ran_out:
            ahead = self.micro_batches.ahead(self.roster.running, len(self.flights))
            for i, request in enumerate(ahead, 1):
                if request.state is State.RUNNING and draft.budget > 0:
                    self._decode(request, draft, len(ahead) - i)
        if not draft.requests:
            if not self.flights and self.roster.requests:
                self._give_up_on_one()
            return None
        flight = draft.flight(self.next_step, self.cache.take_copies())
        self.cache.launched(self.next_step, [request.request_id for request in draft.requests])
        self.micro_batches.launched(self.next_step, flight.requests, flight.plan.samples)
        self.next_step += 1
        self.flights.append(flight)
        return flight

    def _decode(self, request: Request, draft: Draft, rest: int) -> bool:
        """Schedule the token sampled last and its drafts. False: pages ran out."""
        left = request.max_total - request.bound - 1  # tokens it may still get if all drafts in flight are right
        if left <= 0:
            return True  # then it ends with what is in flight, or runs on when that is known
        drafts = self.num_drafts
        if drafts:
            drafts = max(0, min(drafts, left - 1, draft.budget - 1 - rest))
        end = request.bound + 1 + drafts
        if self.lookahead:
            end = request.place(end, self.lookahead)
        sequence = request.cache
        if (end > sequence.room or sequence.nulls) and not self._reserve(request, end, draft):
            return False
        draft.add(request, 1 + drafts, drafts, True)
        return True

    def _prefill(self, request: Request, draft: Draft) -> bool:
        """Schedule the next chunk of what is known. False: pages ran out."""
        tokens = min(draft.budget, request.prefill_end - request.bound)
        end = request.bound + tokens
        last = end == request.prefill_end
        if not self._reserve(request, request.place(end, self.lookahead) if last else end, draft):
            return False
        draft.add(request, tokens, 0, last)
        return True

    def _reserve(self, request: Request, end: int, draft: Draft) -> bool:
        """Pages for ``end`` tokens, by preemption if need be. False: not in this step."""
        while (growths := self.cache.reserve(request.request_id, end)) is None:
            if self.cache.num_waiting:
                return False  # pages are on their way back from steps in flight
            scheduled = set(draft.rows)
            victim = next(r for r in reversed(self.roster.running) if r.row not in scheduled)
            if victim is request:
                return False  # those in the step run on: they will give back pages, or need some and be the victim
            self.roster.preempt(victim)
        draft.grow(request.row, growths)
        return True

    def _give_up_on_one(self) -> None:
        """Nothing runs and nothing can: end the first request with the reason, rather than wait for ever."""
        request = self.roster.running[0] if self.roster.running else self.roster.waiting.first()
        if request is None or request.in_flight:
            return
        pages = self.cache.pool.num_pages - 1
        self.given_up.append(request)
        self.roster.finish(
            request,
            FinishReason.ERROR,
            error=f"its {len(request.token_ids)} tokens need more cache pages than there are ({pages}); "
            "raise kv_cache_memory or lower max_model_len",
        )

    # ---- a step ends

    def lose(self, error: StepOutOfMemory) -> None:
        """No step in flight was run: their requests are computed again, in smaller steps than the oldest of them."""
        step, tokens = self.flights[0].plan.step, sum(self.flights[0].plan.num_tokens)
        self.cache.retired(self.flights[-1].plan.step)
        while self.flights:
            for request in self.flights.popleft().requests:
                request.in_flight -= 1
                if request.state is not State.RUNNING:
                    self.roster.free_row(request)
        lost = [request for request in self.roster.running if request.cache.last_step >= step]
        log.warning("%s; %d requests are computed again, in smaller steps", error, len(lost))
        if len(lost) == 1 and tokens == 1:
            self.given_up.append(lost[0])
            self.roster.finish(lost[0], FinishReason.ERROR, error=_too_little(lost[0], error))
            return
        self.budget.shrink(tokens)
        for request in reversed(lost):
            self.roster.preempt(request)

    def retire(self, result: StepResult) -> list[Request]:
        """Take in the result of the oldest step in flight. Requests with new tokens are returned."""
        flight = self.flights.popleft()
        plan = flight.plan
        if result.step != plan.step:
            raise RuntimeError(f"step {result.step} ended, but step {plan.step} is the oldest in flight")
        self.cache.retired(plan.step)
        self.budget.grow()
        if result.logprobs or result.prompt_logprobs:
            book(result, flight.requests)
        news = []
        take = self.roster.take
        rows = zip(
            flight.requests, plan.samples, result.token_ids.tolist(), plan.num_drafts, plan.num_tokens, strict=True
        )
        for i, (request, samples, sampled, drafts, tokens) in enumerate(rows):
            request.in_flight -= 1
            if i in result.failed:
                if request.state is not State.FINISHED:
                    self.roster.finish(request, FinishReason.ERROR, error=result.failed[i])
                    news.append(request)
                self.roster.free_row(request)
                continue
            if samples:
                # Of a preempted request the pages are gone, but the tokens are good: noise depends
                # on seed and position only. What a finished one did in its extra step is dropped.
                if request.state is not State.FINISHED:
                    take(request, sampled, drafts)
                    news.append(request)
            elif request.state is State.RUNNING:
                self.cache.advance(request.request_id, request.cache.computed + tokens)
            if request.state is not State.RUNNING:
                self.roster.free_row(request)
        if self.watcher is not None:
            self.watcher(flight, news)
        return news


def _too_little(request: Request, error: StepOutOfMemory) -> str:
    return (
        f"one token more than its {len(request.token_ids)} needs more memory than the device has free, even alone in a"
        f" step ({error.reason}); a lower gpu_memory_utilization leaves more beside the cache"
    )
