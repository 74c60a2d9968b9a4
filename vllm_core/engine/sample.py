"""One output on its way to its caller: tokens become text as their updates come in."""

from __future__ import annotations

import attrs

from vllm_core.engine.detokenizer import Detokenizer
from vllm_core.engine.logprobs import ReadableLogprobs
from vllm_core.engine.messages import Update
from vllm_core.engine.outputs import CompletionOutput
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.engine.stop_strings import StopStrings

__all__ = ["Sample"]


@attrs.define(slots=True, kw_only=True)
class Sample:
    """``detokenizer`` None: without text."""

    index: int
    params: SamplingParams
    detokenizer: Detokenizer | None
    logprobs: ReadableLogprobs
    stops: StopStrings = attrs.field(init=False)
    token_ids: list[int] = attrs.field(factory=list)  # of the output
    seen: int = 0  # of them, turned into text
    text: str = ""  # all that is certain
    num_cached: int = 0
    num_preemptions: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    first_token_time: float | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    error: str = ""

    def __attrs_post_init__(self) -> None:
        self.stops = StopStrings(self.params.stop, self.params.include_stop_str_in_output)

    def read(self, update: Update) -> None:
        """Take in new tokens. A stop string that they complete ends the output here; the engine does not know yet."""
        self.token_ids += update.token_ids
        self.logprobs.push(update.logprobs, update.prompt_logprobs)
        self.num_cached, self.num_preemptions = update.num_cached, update.num_preemptions
        self.num_drafted, self.num_accepted = update.num_drafted, update.num_accepted
        self.first_token_time = update.first_token_time
        self.finish_reason, self.stop_reason, self.error = update.finish_reason, update.stop_reason, update.error
        if self.detokenizer is None:
            return
        end = len(self.token_ids)
        if update.finish_reason == "stop" and not self.params.include_stop_str_in_output:
            end -= 1  # the stop token has no text
        for i in range(self.seen, end):
            piece = self.detokenizer.push(self.token_ids[i])
            if i < self.params.min_tokens:  # no stop string is looked for here, as in vLLM
                self.text += piece
                continue
            text, stop = self.stops.push(piece)
            self.text += text
            if stop is not None:
                del self.token_ids[i + 1 :]
                self.finish_reason, self.stop_reason = "stop", stop
                return
        self.seen = end
        if update.finish_reason is not None:
            text, stop = self.stops.push(self.detokenizer.flush())
            self.text += text + self.stops.flush()
            if stop is not None:
                self.finish_reason, self.stop_reason = "stop", stop

    def fail(self, error: str) -> None:
        self.finish_reason, self.stop_reason, self.error = "error", None, error

    def output(self) -> CompletionOutput:
        logprobs, cumulative = self.logprobs.sampled(len(self.token_ids))
        return CompletionOutput(
            index=self.index,
            text=self.text,
            token_ids=self.token_ids[:],
            cumulative_logprob=cumulative,
            logprobs=logprobs,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
        )
