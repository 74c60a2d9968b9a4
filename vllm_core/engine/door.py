"""The way in: who waits gets a row and pages, in the policy's order; who is urgent may take those of others."""

from __future__ import annotations

from collections import Counter

from vllm_core.engine.cache.manager import CacheManager
from vllm_core.engine.flight import Draft
from vllm_core.engine.request import Request
from vllm_core.engine.roster import Roster
from vllm_core.interfaces.steps import NULL_PAGE, RowInit

__all__ = ["Door"]

Key = tuple[float, ...]


class Door:
    """max_running  requests that run at the same time
    budget       tokens of a step
    step_tokens  of one request, tokens that may be in flight or being scheduled
    lookahead    tokens behind a request's last one for which a proposer needs a place in the cache
    """

    def __init__(
        self,
        roster: Roster,
        cache: CacheManager,
        *,
        max_running: int,
        budget: int,
        step_tokens: int,
        lookahead: int = 0,
    ) -> None:
        self._roster = roster
        self._cache = cache
        self._max_running = max_running
        self._budget = budget
        self._step_tokens = step_tokens
        self._lookahead = lookahead
        self._starved: tuple[Request, int] | None = None  # did not fit when so many pages were free
        self._hopeless: tuple[Request, int] | None = None  # nor if all that wait behind it gave up theirs

    def admit(self, draft: Draft, before: Key | None = None) -> None:
        """Let waiting requests in while there is budget, a row and room for all they bring.

        before   only those with smaller keys
        """
        roster = self._roster
        while draft.budget > 0 and roster.free_rows and len(roster.running) < self._max_running:
            request = roster.waiting.first()
            if request is None or request.in_flight:  # preempted: its last tokens are not known yet
                return
            if before is not None and request.key >= before:
                return
            if roster.running and self._still(self._starved, request):
                return
            parent = None if request.family is None else request.family.parent(request)
            admission = self._cache.admit(
                request.request_id,
                draft.budget,
                parent_id=None if parent is None else parent.request_id,
                shared=request.num_prompt,
                lookahead=self._place(request) - len(request.token_ids),
            )
            if admission is not None and self._outgrows(request):
                self._cache.release(request.request_id)
                admission = None
            if admission is None:
                self._starved = request, self._cache.num_free
                return
            self._starved = None
            roster.start(request, admission)
            draft.inits.append(
                RowInit(
                    row=request.row,
                    token_ids=request.token_ids[:],
                    num_computed=admission.num_computed,
                    pages=admission.pages,
                    sampling=request.sampling,
                    num_prompt=request.num_prompt,
                    report_from=1 + len(request.prompt_logprobs),
                )
            )
            tokens = min(draft.budget, request.prefill_end - request.bound)
            draft.add(request, tokens, 0, request.bound + tokens == request.prefill_end)

    def make_way(self) -> None:
        """Preempt the request that the policy wants last for a waiting one that it wants before, where that helps.

        What is given up may come back only when steps in flight have retired: so one at a time.
        """
        roster = self._roster
        request = roster.waiting.first()
        if request is None or not roster.running or request.key > roster.running[-1].key:
            return
        no_row = len(roster.running) >= min(self._max_running, self._budget)  # each takes a token of every step
        no_pages = self._still(self._starved, request) and not self._cache.num_waiting
        if not (no_row or no_pages) or self._still(self._hopeless, request):
            return
        if self._could_fit(request):
            roster.preempt(roster.running[-1])
        else:
            self._hopeless = request, self._cache.num_free

    def _still(self, noted: tuple[Request, int] | None, request: Request) -> bool:
        """Whether what was noted of this request holds: no page has become free since."""
        return noted is not None and noted[0] is request and self._cache.num_free <= noted[1]

    def _could_fit(self, request: Request) -> bool:
        """Whether pages would suffice if all running requests with larger keys gave up theirs."""
        lacking = self._needs(request) - self._cache.num_free - self._cache.num_waiting
        owners, held = self._cache.pool.owners, Counter[int]()
        for victim in reversed(self._roster.running):
            if lacking <= 0 or victim.key < request.key:
                break
            for table in victim.cache.tables:
                for page in table.pages:
                    held[page] += 1
                    lacking -= page != NULL_PAGE and held[page] == owners[page]
        return lacking <= 0

    def _outgrows(self, request: Request) -> bool:
        """Whether the rest of what is known would not fit: then it would soon be preempted again."""
        if not self._roster.running:
            return False
        held = sum(page != NULL_PAGE for table in request.cache.tables for page in table.pages)
        return self._needs(request) - held > self._cache.num_free

    def _needs(self, request: Request) -> int:
        """Pages for all that is known of it, and one token."""
        tokens = max(len(request.token_ids) + 1, self._place(request))
        return self._cache.most_pages(tokens, self._step_tokens)

    def _place(self, request: Request) -> int:
        """Tokens that need a place once all that is known of it is computed."""
        return request.place(len(request.token_ids), self._lookahead)
