"""The engine: requests in, outputs out, one step at a time. It runs in the caller's thread and process."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from vllm_core.config.engine import EngineSettings
from vllm_core.engine.cache.manager import CacheManager
from vllm_core.engine.errors import EngineDeadError, RequestError
from vllm_core.engine.loop import OverlappedLoop, PlainLoop, StepLoop
from vllm_core.engine.outputs import RequestOutput
from vllm_core.engine.processor import OutputProcessor
from vllm_core.engine.request import FinishReason, Request
from vllm_core.engine.row_sampling import RowSamplings
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.engine.scheduler import Scheduler
from vllm_core.interfaces.executor import Capacity, Executor
from vllm_core.interfaces.scheduling import SchedulerPolicy
from vllm_core.interfaces.tokenizer import Tokenizer

__all__ = ["EngineCore"]

log = logging.getLogger(__name__)

GOLDEN = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: spreads counts over all seeds


class EngineCore:
    """``executor`` has been started and found ``capacity``.

    max_model_len    tokens of the longest sequence, prompt and output together
    max_step_tokens  tokens computed in one step, at most
    policy           who runs first; None: first come, first served
    processors       logits processors, ``runner.build.Chosen`` each

    A failure in what belongs to one request (its text, its stop strings) ends that request. A
    failure in a step ends them all and the engine with them.
    """

    def __init__(
        self,
        settings: EngineSettings,
        capacity: Capacity,
        executor: Executor,
        *,
        max_model_len: int,
        max_step_tokens: int,
        tokenizer: Tokenizer | None = None,
        eos_token_ids: Sequence[int] = (),
        policy: SchedulerPolicy | None = None,
        processors: Sequence[Any] = (),
    ) -> None:
        self.settings = settings
        self.capacity = capacity
        self.eos_token_ids = frozenset(eos_token_ids)
        self.executor = executor
        self.cache = CacheManager(
            capacity.caches,
            capacity.num_pages,
            max_model_len=max_model_len,
            prefix_caching=settings.enable_prefix_caching,
            num_drafts=capacity.num_drafts,
        )
        self.scheduler = Scheduler(
            self.cache,
            max_rows=capacity.max_rows,
            max_num_seqs=settings.max_num_seqs,
            max_num_batched_tokens=max_step_tokens,
            max_model_len=max_model_len,
            num_drafts=capacity.num_drafts,
            policy=policy,
        )
        self.roster = self.scheduler.roster
        self.processor = OutputProcessor(tokenizer)
        self.samplings = RowSamplings(
            vocab_size=capacity.vocab_size,
            max_logprobs=settings.max_logprobs,
            eos_token_ids=self.eos_token_ids,
            tokenizer=tokenizer,
            processors=processors,
        )
        loop = OverlappedLoop if settings.async_scheduling else PlainLoop
        self._loop: StepLoop = loop(self.scheduler, executor)
        self._seeds = 0
        self._ended: list[Request] = []  # outside a step: their outputs are due at the next one
        self._dead: BaseException | None = None

    def add_request(
        self,
        request_id: str,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        prompt: str | None = None,
        stream: bool = False,
        priority: int = 0,
        arrival_time: float | None = None,
    ) -> None:
        """Queue a request. ``stream``: outputs on the way, not only the last one. Raises ``RequestError``."""
        self._check_alive()
        ids = self._check(request_id, prompt_token_ids)
        if not isinstance(params, SamplingParams):
            raise RequestError(f"sampling_params must be SamplingParams, not {type(params).__name__}", request_id)
        try:
            sampling = self.samplings.of(params, (self.settings.seed + (self._seeds + 1) * GOLDEN) % 2**63)
        except ValueError as error:
            raise RequestError(str(error), request_id) from error
        self._seeds += 1
        ids = self._truncated(ids, params)
        eos = frozenset() if params.ignore_eos else self.eos_token_ids
        request = Request(
            request_id=request_id,
            token_ids=ids,
            num_prompt=len(ids),
            params=params,
            sampling=sampling,
            stop_ids=eos.union(params.stop_token_ids),
            max_total=2**31 - 1 if params.max_tokens is None else len(ids) + params.max_tokens,
            priority=priority,
        )
        if arrival_time is not None:
            request.arrival_time = arrival_time
        self.roster.add(request)
        try:
            self.processor.add(request, prompt, stream)
        except Exception as error:
            self.roster.finish(request, FinishReason.ERROR)
            raise RequestError(f"its tokens cannot be turned into text: {error}", request_id) from error

    def abort(self, request_id: str) -> None:
        """End a request, wherever it is. Its last output comes with the next step. Unknown ids are ignored."""
        request = self.roster.requests.get(request_id)
        if request is not None and self._dead is None:
            self.roster.finish(request, FinishReason.ABORT)
            self._ended.append(request)

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has anything to do. Without requests it must not be called in a loop."""
        return self.scheduler.has_work or bool(self._ended or self.scheduler.given_up)

    def step(self) -> list[RequestOutput]:
        """Go on by about one step. Outputs of requests that finished, and of those that stream."""
        self._check_alive()
        try:
            news = self._loop.step()
        except Exception as error:
            log.error("a step failed: %s", error)
            self.end(error)
            raise EngineDeadError(f"a step failed, the engine has ended: {error}") from error
        except BaseException as error:  # Ctrl-C and its like: half a step has been booked
            self.end(RuntimeError(f"{type(error).__name__} in the middle of a step"))
            raise
        ended = [*self._ended, *self.scheduler.given_up]
        self._ended, self.scheduler.given_up = [], []
        outputs = []
        for request in [*news, *ended]:
            output = self._read(request)
            if output is not None:
                outputs.append(output)
        return outputs

    def end(self, cause: BaseException) -> None:
        """Nothing runs any more; from now on every call raises ``EngineDeadError`` with this cause."""
        self._dead = self._dead or cause
        for request in list(self.roster.requests.values()):
            request.finish(FinishReason.ERROR, error=f"the engine died: {cause}")

    def _read(self, request: Request) -> RequestOutput | None:
        """The request's own code runs here: whatever it raises ends this request only."""
        try:
            stop = self.processor.read(request)
            if stop is not None:
                self.roster.finish(request, FinishReason.STOP, stop)
                request.finish(FinishReason.STOP, stop)  # it may just have reached its length as well
        except Exception as error:
            log.exception("request %s failed", request.request_id)
            message = f"{type(error).__name__} while its text was made: {error}"
            self.roster.finish(request, FinishReason.ERROR, error=message)
            request.finish(FinishReason.ERROR, error=message)
        return self.processor.output(request)

    def _truncated(self, ids: list[int], params: SamplingParams) -> list[int]:
        """The prompt's last tokens, as many as the request wants."""
        most = params.truncate_prompt_tokens
        if most == -1:  # as many as leave room for the longest output
            most = max(1, self.roster.max_len - (params.max_tokens or 1))
        return ids if most is None else ids[-most:]

    def _check(self, request_id: str, ids: Sequence[int]) -> list[int]:
        if isinstance(ids, str | bytes | bytearray | memoryview) or not isinstance(ids, Sequence):
            hint = "; its .tolist() is one" if hasattr(ids, "tolist") else ""
            raise RequestError(f"a prompt's token ids must be a list of numbers, not {ids!r:.80}{hint}", request_id)
        if not ids:
            raise RequestError("the prompt is empty; give it at least one token", request_id)
        ids = list(ids)
        for i, token in enumerate(ids):
            if type(token) is not int:
                raise RequestError(f"token id {i} of the prompt must be a whole number, not {token!r:.80}", request_id)
        low, high = min(ids), max(ids)
        if low < 0 or high >= self.capacity.vocab_size:
            wrong = low if low < 0 else high
            raise RequestError(
                f"token id {wrong} is not in the vocabulary of {self.capacity.vocab_size} tokens", request_id
            )
        return ids

    def _check_alive(self) -> None:
        if self._dead is not None:
            raise EngineDeadError(f"the engine has ended: {self._dead}") from self._dead
