"""All requests of an engine, where each one is, and the rows: who comes, runs, waits again and ends."""

from __future__ import annotations

import time
from bisect import insort

from vllm_core.engine.cache.manager import CacheManager
from vllm_core.engine.cache.sequence import Admission
from vllm_core.engine.errors import RequestError
from vllm_core.engine.family import Family
from vllm_core.engine.policy import FirstComeFirstServed
from vllm_core.engine.request import NO_ROW, FinishReason, Request, State
from vllm_core.engine.waiting import WaitingQueue
from vllm_core.interfaces.scheduling import SchedulerPolicy

__all__ = ["Roster"]


class Roster:
    """The states of requests change here only, and with them what the cache manager knows."""

    def __init__(
        self,
        cache: CacheManager,
        max_rows: int,
        max_len: int,
        policy: SchedulerPolicy | None,
        max_waiting: int | None = None,
    ) -> None:
        self.cache = cache
        self.max_len = max_len  # tokens of a request, prompt and output together
        self.max_waiting = max_waiting  # requests beyond those that free rows are there for; None: any number
        self.requests: dict[str, Request] = {}  # all that have not finished
        self.waiting = WaitingQueue(policy or FirstComeFirstServed())
        self.preparing: dict[str, Request] = {}  # would queue, but their grammar is not compiled yet
        self.running: list[Request] = []  # in the order of their keys
        self.free_rows = list(range(max_rows - 1, -1, -1))
        self.preemptions = 0  # since the start
        self._arrivals = 0

    def add(self, request: Request) -> None:
        """Queue a request. Raises ``RequestError`` for one that can never run."""
        if request.request_id in self.requests:
            raise RequestError("a request with this id is running already", request.request_id)
        if request.num_prompt >= self.max_len:
            raise RequestError(
                f"the prompt has {request.num_prompt} tokens; with one token of output it must fit into {self.max_len}",
                request.request_id,
            )
        sibling = self.requests.get(request.sibling_of)
        if sibling is None:
            self._check_queue(request)
        request.max_total = min(request.max_total, self.max_len)
        request.order = self._arrivals
        self._arrivals += 1
        self.cache.open(
            request.request_id,
            request.token_ids,
            salt=request.salt,
            extra_keys=request.extra_keys,
            read_prefix=request.reads_prefix,
        )
        request.cache = self.cache.sequences[request.request_id]
        self.requests[request.request_id] = request
        if sibling is None or Family.of(sibling).add(request):
            self._queue(request)

    def prepared(self) -> list[Request]:
        """Queue those whose grammar has been compiled meanwhile; end and return those whose cannot be."""
        failed = []
        for request in [request for request in self.preparing.values() if request.grammar.done]:
            if request.grammar.ready:
                del self.preparing[request.request_id]
                self.waiting.push(request)
            else:
                failed.append(request)
                self.finish(request, FinishReason.ERROR, error=request.grammar.error)
        return failed

    def forget(self, request_id: str) -> None:
        """Undo an ``add`` that failed half-way."""
        request = self.requests.pop(request_id, None)
        if request is not None:
            self.waiting.remove(request)
            if request.family is not None:
                request.family.leave(request)
        if request_id in self.cache.sequences:
            self.cache.close(request_id)

    def start(self, request: Request, admission: Admission) -> None:
        """The first of the queue gets a row; its pages it has."""
        self.waiting.pop()
        if request.num_cached < 0:
            request.num_cached, request.started = admission.num_computed, time.monotonic()
        request.state = State.RUNNING
        request.row = self.free_rows.pop()
        request.prefill_end = len(request.token_ids)
        request.bound = admission.num_computed
        insort(self.running, request, key=lambda r: r.key)

    def preempt(self, request: Request) -> None:
        """Its pages go, its tokens stay: it will be computed again from the start, or from a cached prefix."""
        self.running.remove(request)
        self.cache.release(request.request_id)
        request.state = State.PREEMPTED
        request.num_preemptions += 1
        self.preemptions += 1
        self.free_row(request)
        self.waiting.push(request)

    def finish(self, request: Request, reason: FinishReason, stop_reason: int | None = None, error: str = "") -> None:
        """End a request at once. Pages and row come back when the last step with it has retired."""
        if request.state is State.FINISHED:
            return
        held = request.family is not None and request.family.leave(request)
        if request.state is State.RUNNING:
            self.running.remove(request)
        elif self.preparing.pop(request.request_id, None) is None and not held:
            self.waiting.drop()
        request.finish(reason, stop_reason, error)
        del self.requests[request.request_id]
        self.cache.close(request.request_id)
        self.free_row(request)
        self._queue_siblings(request)

    def take(self, request: Request, sampled: list[int], drafts: int) -> None:
        """Append what a step sampled, up to the token that ends the request. -1 ends the list."""
        tokens, stops, limit = request.token_ids, request.stop_ids, request.max_total
        emitted = 0
        for token in sampled:
            if token < 0:
                break
            emitted += 1
            tokens.append(token)
            if token in stops or len(tokens) >= limit:
                break
        if not emitted:
            raise RuntimeError(f"the step sampled nothing for request {request.request_id} in row {request.row}")
        request.num_accepted += emitted - 1
        request.num_drafted += drafts
        if request.state is State.RUNNING:
            request.bound -= 1 + drafts - emitted
            # As CacheManager.advance, without a call where nothing happens: most steps of most rows.
            sequence, computed = request.cache, len(tokens) - 1
            if sequence.computed <= computed < sequence.next_event:
                sequence.computed = computed
            else:
                self.cache.advance(request.request_id, computed)
        if request.family is not None and not request.family.computed:
            request.family.computed = True
            self._queue_siblings(request)
        if token in stops:
            self.finish(request, FinishReason.STOP, token if token in request.own_stop_ids else None)
        elif len(tokens) >= limit:
            self.finish(request, FinishReason.LENGTH)

    def free_row(self, request: Request) -> None:
        """Give its row back, once no step in flight has it."""
        if request.row != NO_ROW and request.in_flight == 0:
            self.free_rows.append(request.row)
            request.row = NO_ROW

    def _queue_siblings(self, request: Request) -> None:
        """Those who waited for it to compute their prompt, and need to no longer."""
        if request.family is not None:
            for sibling in request.family.let_go():
                self._queue(sibling)

    def _queue(self, request: Request) -> None:
        if request.grammar is None or request.grammar.ready:
            self.waiting.push(request)
        else:
            self.preparing[request.request_id] = request

    def _check_queue(self, request: Request) -> None:
        waiting = len(self.waiting) + len(self.preparing)
        if self.max_waiting is not None and waiting >= self.max_waiting + len(self.free_rows):
            raise RequestError(
                f"the queue is full (max_waiting_requests={self.max_waiting}); try again later", request.request_id
            )
