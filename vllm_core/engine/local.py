"""The engine and both ends of it in one process: prompts in, outputs out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm_core.engine.core import EngineCore
from vllm_core.engine.errors import RequestError
from vllm_core.engine.intake import Intake
from vllm_core.engine.outputs import RequestOutput
from vllm_core.engine.processor import OutputProcessor
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.plugins.whose import owners_of

__all__ = ["LocalEngine"]


class LocalEngine:
    """``intake`` checks what comes, ``core`` computes tokens, ``processor`` makes text of them."""

    def __init__(self, intake: Intake, core: EngineCore, processor: OutputProcessor) -> None:
        self.intake, self.core, self.processor = intake, core, processor

    @classmethod
    def of(cls, built: Any) -> LocalEngine:
        """Around the executor of a ``build.BuiltEngine``."""
        core = EngineCore(
            built.settings,
            built.capacity,
            built.executor,
            max_model_len=built.max_model_len,
            max_step_tokens=built.max_step_tokens,
            policy=built.policy.make(),
            grammars=built.grammars,
            owners=owners_of(built.lock),
        )
        if built.sinks:
            core.meter.listeners.append(built.sinks)
        intake = Intake(
            vocab_size=built.capacity.vocab_size,
            longest=core.roster.max_len,
            seed=built.settings.seed,
            max_logprobs=built.settings.max_logprobs,
            eos_token_ids=built.eos_token_ids,
            tokenizer=built.tokenizer,
            processors=built.processors,
            policy=built.policy,
            grammars=None if built.grammars is None else built.grammars.choices,
        )
        return cls(intake, core, OutputProcessor(built.tokenizer))

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
        cache_salt: str = "",
    ) -> None:
        """Queue a request. ``stream``: outputs on the way, not only the last one. Raises ``RequestError``."""
        self.core.check_alive()
        order = {"priority": priority, "arrival_time": arrival_time, "cache_salt": cache_salt}
        news = self.intake.prepare(request_id, prompt_token_ids, params, stream=stream, **order)  # type: ignore[arg-type]
        self.processor.add(request_id, news, params, prompt, stream)
        try:
            for new in news:
                self.core.add(new)
        except RequestError as error:
            self.abort(request_id)
            self.processor.drop(request_id)
            raise RequestError(error.reason, request_id) from error

    def abort(self, request_id: str) -> None:
        """End a request, wherever it is. Its last output comes with the next step. Unknown ids are ignored."""
        for sample in self.processor.samples(request_id):
            self.core.abort(sample)

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has anything to do. Without requests it must not be called in a loop."""
        return self.core.has_work

    def step(self) -> list[RequestOutput]:
        """Go on by about one step. Outputs of requests that finished, and of those that stream."""
        outputs, over = self.processor.take(self.core.step())
        for sample, reason in over:
            self.core.abort(sample, reason)
        return outputs

    def end(self, cause: BaseException) -> None:
        """Nothing runs any more; from now on every call raises ``EngineDeadError`` with this cause."""
        self.core.end(cause)
