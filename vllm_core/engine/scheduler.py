"""Which requests run in the next step, and with how many tokens each.

One budget of tokens a step, for prompts and outputs alike: first the rows that decode, then those
whose prompt is partly computed, then waiting requests. A step may be scheduled before the results
of earlier ones are known, so lengths are upper bounds here (see ``request``). When pages run out,
the running request that the policy wants last is preempted and later computed again.

    schedule() -> Flight | None     plan a step; its plan must be launched next
    retire(result) -> [Request]     the oldest step in flight has ended; requests with news
"""

from __future__ import annotations

from bisect import insort
from collections import deque

from vllm_core.engine.cache.manager import CacheManager
from vllm_core.engine.errors import RequestError
from vllm_core.engine.flight import Draft, Flight
from vllm_core.engine.policy import FirstComeFirstServed
from vllm_core.engine.request import NO_ROW, FinishReason, Request, State
from vllm_core.engine.waiting import WaitingQueue
from vllm_core.interfaces.scheduling import SchedulerPolicy
from vllm_core.interfaces.steps import NULL_PAGE, RowInit, StepResult

__all__ = ["Scheduler"]


class Scheduler:
    """Owns the requests' states, the rows and the calls to the cache manager. Not thread-safe."""

    def __init__(
        self,
        cache: CacheManager,
        *,
        max_rows: int,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        max_model_len: int,
        num_drafts: int = 0,
        policy: SchedulerPolicy | None = None,
    ) -> None:
        self.cache = cache
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.num_drafts = num_drafts
        self.max_len = min(max_model_len, self._longest(max_model_len))  # tokens
        self.waiting = WaitingQueue(policy or FirstComeFirstServed())
        self.running: list[Request] = []  # in the order of their keys
        self.requests: dict[str, Request] = {}  # all that have not finished
        self.flights: deque[Flight] = deque()  # launched, oldest first
        self._free_rows = list(range(max_rows - 1, -1, -1))
        self._arrivals = 0
        self._step = 0
        self._starved_at: int | None = None  # free pages when the first waiting request did not fit

    # ---- requests come and go

    def add(self, request: Request) -> None:
        """Queue a request. Raises ``RequestError`` for one that can never run."""
        if request.request_id in self.requests:
            raise RequestError("a request with this id is running already", request.request_id)
        if request.num_prompt >= self.max_len:
            raise RequestError(
                f"the prompt has {request.num_prompt} tokens; with one token of output it must fit into {self.max_len}",
                request.request_id,
            )
        request.max_total = min(request.max_total, self.max_len)
        request.order = self._arrivals
        self._arrivals += 1
        self.cache.open(request.request_id, request.token_ids)
        request.cache = self.cache.sequences[request.request_id]
        self.requests[request.request_id] = request
        self.waiting.push(request)

    def finish(
        self, request: Request, reason: FinishReason, stop_reason: int | str | None = None, error: str = ""
    ) -> None:
        """End a request at once. Pages and row come back when the last step with it has retired."""
        if request.state is State.FINISHED:
            return
        if request.state is State.RUNNING:
            self.running.remove(request)
        else:
            self.waiting.drop()
        request.finish(reason, stop_reason, error)
        del self.requests[request.request_id]
        self.cache.close(request.request_id)
        self._starved_at = None
        self._free_row(request)

    @property
    def has_work(self) -> bool:
        return bool(self.requests or self.flights)

    # ---- a step is planned

    def schedule(self) -> Flight | None:
        """Plan the next step, or None if nothing can run before a step in flight has retired."""
        draft = Draft(self.max_num_batched_tokens)
        prefilling = []
        pages_ran_out = False
        for request in self.running[:]:
            if request.bound < request.prefill_end:
                prefilling.append(request)
            elif request.state is State.RUNNING and draft.budget > 0:
                pages_ran_out |= not self._decode(request, draft)
        for request in prefilling:
            if request.state is State.RUNNING and draft.budget > 0:
                pages_ran_out |= not self._prefill(request, draft)
        if not pages_ran_out:
            self._admit(draft)
        if not draft.requests:
            if not self.flights and self.requests:
                self._give_up_on_one()
            return None
        flight = draft.flight(self._step, self.cache.take_copies())
        self.cache.launched(self._step, [request.request_id for request in draft.requests])
        self._step += 1
        self.flights.append(flight)
        return flight

    def _decode(self, request: Request, draft: Draft) -> bool:
        """Schedule the token sampled last and its drafts. False: pages ran out."""
        if len(request.token_ids) + request.sampling_in_flight >= request.max_total:
            return True  # what is in flight will end it
        drafts = min(self.num_drafts, request.max_total - request.bound - 2, draft.budget - 1)
        if drafts < 0:
            return True  # it may have ended: wait for the drafts in flight
        end = request.bound + 1 + drafts
        sequence = request.cache
        if (end > sequence.room or sequence.nulls) and not self._reserve(request, end, draft):
            return False
        draft.add(request, 1 + drafts, drafts, True)
        return True

    def _prefill(self, request: Request, draft: Draft) -> bool:
        """Schedule the next chunk of what is known. False: pages ran out."""
        tokens = min(draft.budget, request.prefill_end - request.bound)
        if not self._reserve(request, request.bound + tokens, draft):
            return False
        draft.add(request, tokens, 0, request.bound + tokens == request.prefill_end)
        return True

    def _reserve(self, request: Request, end: int, draft: Draft) -> bool:
        """Pages for ``end`` tokens, by preemption if need be. False: not in this step."""
        while (growths := self.cache.reserve(request.request_id, end)) is None:
            if self.cache.num_waiting:
                return False  # pages are on their way back from steps in flight
            scheduled = set(draft.rows)
            victim = next(r for r in reversed(self.running) if r.row not in scheduled)
            if victim is request:
                return False  # those before it run on and will give back pages
            self._preempt(victim)
        draft.grow(request.row, growths)
        return True

    def _preempt(self, request: Request) -> None:
        """Its pages go, its tokens stay: it will be computed again from the start, or from a cached prefix."""
        self.running.remove(request)
        self.cache.release(request.request_id)
        request.state = State.PREEMPTED
        request.num_preemptions += 1
        self._free_row(request)
        self.waiting.push(request)
        self._starved_at = None

    def _admit(self, draft: Draft) -> None:
        """Let waiting requests in, in order, while there is budget, a row and room for all they bring."""
        while draft.budget > 0 and self._free_rows and len(self.running) < self.max_num_seqs:
            request = self.waiting.first()
            if request is None or request.in_flight:  # preempted: its last tokens are not known yet
                return
            if self.running and self._starved_at is not None and self.cache.num_free <= self._starved_at:
                return
            admission = self.cache.admit(request.request_id, draft.budget)
            if admission is not None and self._outgrows(request):
                self.cache.release(request.request_id)
                admission = None
            if admission is None:
                self._starved_at = self.cache.num_free
                return
            self._starved_at = None
            self.waiting.pop()
            if request.num_cached < 0:
                request.num_cached = admission.num_computed
            request.state = State.RUNNING
            request.row = self._free_rows.pop()
            request.prefill_end = len(request.token_ids)
            request.bound = admission.num_computed
            insort(self.running, request, key=lambda r: r.key)
            draft.inits.append(
                RowInit(
                    row=request.row,
                    token_ids=request.token_ids[:],
                    num_computed=admission.num_computed,
                    pages=admission.pages,
                    sampling=request.sampling,
                )
            )
            tokens = min(draft.budget, request.prefill_end - request.bound)
            draft.add(request, tokens, 0, request.bound + tokens == request.prefill_end)

    def _outgrows(self, request: Request) -> bool:
        """Whether the rest of what is known would not fit: then it would soon be preempted again."""
        if not self.running:
            return False
        held = sum(page != NULL_PAGE for table in request.cache.tables for page in table.pages)
        most = self.cache.most_pages(len(request.token_ids) + 1, 2 * self.max_num_batched_tokens)
        return most - held > self.cache.num_free

    def _give_up_on_one(self) -> None:
        """Nothing runs and nothing can: end the first request with the reason, rather than wait for ever."""
        request = self.running[0] if self.running else self.waiting.first()
        if request is None or request.in_flight:
            return
        pages = self.cache.pool.num_pages - 1
        self.finish(
            request,
            FinishReason.ERROR,
            error=f"its {len(request.token_ids)} tokens need more cache pages than there are ({pages}); "
            "raise kv_cache_memory or lower max_model_len",
        )

    # ---- a step ends

    def retire(self, result: StepResult) -> list[Request]:
        """Take in the result of the oldest step in flight. Requests with new tokens are returned."""
        flight = self.flights.popleft()
        plan = flight.plan
        if result.step != plan.step:
            raise RuntimeError(f"step {result.step} ended, but step {plan.step} is the oldest in flight")
        self.cache.retired(plan.step)
        news = []
        sampled = result.token_ids.tolist()
        for i, request in enumerate(flight.requests):
            request.in_flight -= 1
            if plan.samples[i]:
                request.sampling_in_flight -= 1
            if request.state is State.RUNNING:
                if plan.samples[i]:
                    self._take(request, sampled[i], plan.num_drafts[i])
                    news.append(request)
                else:
                    self.cache.advance(request.request_id, request.cache.computed + plan.num_tokens[i])
            elif request.state is State.PREEMPTED and plan.samples[i]:
                # Its pages are gone, its tokens are good: noise depends on seed and position only.
                self._take(request, sampled[i], plan.num_drafts[i])
                news.append(request)
            if request.in_flight == 0 and request.state is not State.RUNNING:
                self._free_row(request)
        return news

    def _take(self, request: Request, sampled: list[int], drafts: int) -> None:
        """Append what a step sampled, up to the token that ends the request."""
        tokens = request.token_ids
        emitted = 0
        for token in sampled:
            if token < 0:
                break
            emitted += 1
            tokens.append(token)
            if token in request.stop_ids or len(tokens) >= request.max_total:
                break
        if request.state is State.RUNNING:
            request.bound -= 1 + drafts - emitted
            self.cache.advance(request.request_id, len(tokens) - 1)
        if not emitted:
            raise RuntimeError(f"the step sampled nothing for request {request.request_id}, row {request.row}")
        last = tokens[-1]
        if last in request.stop_ids:
            self.finish(request, FinishReason.STOP, last if last in request.params.stop_token_ids else None)
        elif len(tokens) >= request.max_total:
            self.finish(request, FinishReason.LENGTH)

    def _free_row(self, request: Request) -> None:
        if request.row != NO_ROW and request.in_flight == 0:
            self._free_rows.append(request.row)
            request.row = NO_ROW

    def _longest(self, max_model_len: int) -> int:
        """Tokens of the longest sequence that fits into the cache when it runs alone."""
        step_tokens, pages = 2 * self.max_num_batched_tokens, self.cache.pool.num_pages - 1
        low, high = 0, max_model_len
        while low < high:
            middle = (low + high + 1) // 2
            if self.cache.most_pages(middle, step_tokens) <= pages:
                low = middle
            else:
                high = middle - 1
        return low
