"""The engine: token ids in, token ids out, one step at a time. It runs in the thread and process of who calls it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import partial

from vllm_core.config.engine import EngineSettings
from vllm_core.engine.begin_again import begin_again
from vllm_core.engine.cache.manager import CacheManager
from vllm_core.engine.errors import EngineDeadError, RequestError
from vllm_core.engine.grammars import Entry, Grammars
from vllm_core.engine.loop import OverlappedLoop, PlainLoop, StepLoop
from vllm_core.engine.messages import NewRequest, Update
from vllm_core.engine.meter import Meter
from vllm_core.engine.request import FinishReason, Request
from vllm_core.engine.scheduler import Scheduler
from vllm_core.interfaces.executor import Capacity, Executor
from vllm_core.interfaces.scheduling import SchedulerPolicy
from vllm_core.plugins.whose import blamed

__all__ = ["EngineCore"]

log = logging.getLogger(__name__)

PATIENCE = 0.01  # seconds that a step waits for a grammar when nothing else is to be done


class EngineCore:
    """``executor`` has been started and found ``capacity``.

    max_model_len    tokens of the longest sequence, prompt and output together
    max_step_tokens  tokens computed in one step, at most
    policy           who runs first; None: first come, first served
    grammars         compiles what outputs must conform to; None: no request has that
    owners           of the code that steps run (``plugins.whose``), to say whose fault it was

    A failure in a step ends all requests and the engine with them, but a lack of memory: then its books are begun
    anew, and all requests computed again (``begin_again``). Text is made elsewhere, by ``processor``, where a failure
    belongs to one request.
    """

    def __init__(
        self,
        settings: EngineSettings,
        capacity: Capacity,
        executor: Executor,
        *,
        max_model_len: int,
        max_step_tokens: int,
        policy: SchedulerPolicy | None = None,
        grammars: Grammars | None = None,
        owners: Mapping[str, str] | None = None,
    ) -> None:
        self.capacity, self._owners = capacity, owners or {}
        self.grammars, self.executor = grammars, executor
        self._cache = partial(
            CacheManager,
            capacity.caches,
            capacity.num_pages,
            max_model_len=max_model_len,
            prefix_caching=settings.enable_prefix_caching,
            num_drafts=capacity.num_drafts,
        )
        self._scheduler = partial(
            Scheduler,
            max_rows=capacity.max_rows,
            max_num_seqs=settings.max_rows,
            max_num_batched_tokens=max_step_tokens,
            max_model_len=max_model_len,
            num_drafts=capacity.num_drafts,
            lookahead=capacity.lookahead,
            policy=policy,
            max_waiting=settings.max_waiting_requests,
            stages=capacity.stages,
        )
        self._make_loop = OverlappedLoop if settings.async_scheduling else PlainLoop
        self.meter = Meter()
        self.new_books(0)
        self.open: dict[str, Request] = {}  # all whose last update has not been given
        self.ended: list[Request] = []  # outside a step: their updates are due at the next one
        self.shortages = 0  # of memory, since a step went well
        self._dead: BaseException | None = None

    def new_books(self, first_step: int) -> None:
        """Of rows and pages, as if nothing had run. Nothing may be in flight."""
        self.cache = self._cache()
        self.scheduler = self._scheduler(self.cache, first_step=first_step)
        self.roster = self.scheduler.roster
        self.meter.follow(self.cache, self.roster)
        self.scheduler.watcher = self.meter.retired
        self.loop: StepLoop = self._make_loop(self.scheduler, self.executor)

    def add(self, new: NewRequest) -> None:
        """Queue a request. Raises ``RequestError`` for one that can never run."""
        self.check_alive()
        try:
            request = self._request(new)
            self.roster.add(request)
            self.open[new.request_id] = request
        except RequestError:
            raise
        except Exception as error:
            log.exception("request %s could not be queued", new.request_id)
            self.roster.forget(new.request_id)
            reason = f"{type(error).__name__} while it was queued: {blamed(error, self._owners)}"
            raise RequestError(reason, new.request_id) from error

    def abort(self, request_id: str, reason: FinishReason = FinishReason.ABORT) -> None:
        """End a request, wherever it is. Its last update comes with the next step. Unknown ids are ignored.

        reason   as figures have it: what is over for its caller may have stopped there, or failed
        """
        request = self.roster.requests.get(request_id)
        if request is None or self._dead is not None:
            return
        try:
            self.roster.finish(request, reason)
            self.ended.append(request)
        except MemoryError as error:
            request.finish(reason)
            begin_again(self, error)

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has anything to do. Without requests it must not be called in a loop."""
        return self.scheduler.has_work or bool(self.ended or self.scheduler.given_up)

    def step(self) -> list[Update]:
        """Go on by about one step. Updates of requests that finished, and of those that want each token."""
        self.check_alive()
        try:
            return self._step()
        except MemoryError as error:
            begin_again(self, error)
            return []
        except (Exception, SystemExit) as error:
            reason = blamed(error, self._owners)
            log.error("a step failed: %s", reason)
            self.end(error)
            raise EngineDeadError(f"a step failed, the engine has ended: {reason}") from error
        except BaseException as error:  # Ctrl-C and its like: half a step has been booked
            self.end(RuntimeError(f"{type(error).__name__} in the middle of a step"))
            raise

    def _step(self) -> list[Update]:
        if self.roster.preparing:
            self._prepare()
        news = self.loop.step()
        now = time.time()
        for request in news:
            if request.first_token_time is None:
                request.first_token_time = now
        due = [*news, *self.ended, *self.scheduler.given_up]
        told = [request for request in due if request.each_token or request.finished]
        updates = [_update(request) for request in told]
        # From here on nothing may be given twice; before, nothing was.
        self.ended, self.scheduler.given_up = [], []
        for request, update in zip(told, updates, strict=True):
            request.told += len(update.token_ids)
            request.told_prompt += len(update.prompt_logprobs)
            if request.finished:
                self.open.pop(request.request_id, None)
        if news:
            self.shortages = 0
        self._meter(due)
        return updates

    def _meter(self, due: list[Request]) -> None:
        try:
            for request in due:
                if request.finished:
                    self.meter.ended(request)
        except MemoryError as error:  # figures are worth less than the answers
            log.warning("figures of requests that have ended are incomplete: %s", error or "not enough memory")

    def _request(self, new: NewRequest) -> Request:
        return Request(
            grammar=self._grammar(new),
            request_id=new.request_id,
            token_ids=new.token_ids[:],
            num_prompt=len(new.token_ids) - new.num_output,
            told=new.num_output,
            metered=new.num_output,
            carried=new.num_output,
            sampling=new.sampling,
            stop_ids=frozenset(new.stop_ids),
            own_stop_ids=frozenset(new.own_stop_ids),
            max_total=new.max_total,
            priority=new.priority,
            order_args=new.order_args,
            reads_prefix=new.reads_prefix,
            each_token=new.each_token,
            sibling_of=new.sibling_of,
            salt=new.salt,
            extra_keys=tuple(new.extra_keys),
            arrival=time.monotonic() - max(0.0, time.time() - new.arrival_time),
        )

    def _grammar(self, new: NewRequest) -> Entry | None:
        if new.sampling.grammar is None:
            return None
        if self.grammars is None:
            raise RequestError("structured_outputs: this engine has nothing that compiles grammars", new.request_id)
        entry = self.grammars.ask(new.sampling.grammar)
        if entry.error:
            raise RequestError(entry.error, new.request_id)
        return entry

    def _prepare(self) -> None:
        """Look after requests whose grammars are compiled in other threads; wait a little if there is no other work."""
        assert self.grammars is not None
        roster = self.roster
        if len(roster.preparing) == len(roster.requests) and not self.scheduler.flights and not self.ended:
            self.grammars.wait(PATIENCE)
        self.ended += roster.prepared()

    def end(self, cause: BaseException) -> None:
        """Nothing runs any more; from now on every call raises ``EngineDeadError`` with this cause."""
        self._dead = self._dead or cause
        for request in list(self.open.values()):
            request.finish(FinishReason.ERROR, error=f"the engine died: {cause}")

    def check_alive(self) -> None:
        if self._dead is not None:
            raise EngineDeadError(f"the engine has ended: {self._dead}") from self._dead


def _update(request: Request) -> Update:
    """What its caller does not know yet."""
    news = request.token_ids[request.num_prompt + request.told :]
    first = request.told - request.carried
    lines = request.logprobs[first : first + len(news)]
    prompt_lines = request.prompt_logprobs[request.told_prompt :]
    return Update(
        request_id=request.request_id,
        token_ids=news,
        finish_reason=None if request.finish_reason is None else str(request.finish_reason),
        stop_reason=request.stop_reason,
        error=request.error,
        num_cached=max(request.num_cached, 0),
        num_preemptions=request.num_preemptions,
        num_drafted=request.num_drafted,
        num_accepted=request.num_accepted,
        first_token_time=request.first_token_time,
        logprobs=lines,
        prompt_logprobs=prompt_lines,
    )
