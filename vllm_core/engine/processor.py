"""From sampled ids to outputs: text, stop strings, times. Host work only, a request at a time."""

from __future__ import annotations

import functools
import time

import attrs

from vllm_core.engine.detokenizer import Detokenizer
from vllm_core.engine.logprobs import ReadableLogprobs
from vllm_core.engine.outputs import CompletionOutput, RequestMetrics, RequestOutput
from vllm_core.engine.request import FinishReason, Request
from vllm_core.engine.stop_strings import StopStrings
from vllm_core.interfaces.tokenizer import Tokenizer

__all__ = ["OutputProcessor"]


@attrs.define(slots=True, kw_only=True)
class Track:
    """What is kept of one request on the way out."""

    prompt: str | None
    stream: bool  # outputs on the way, not only the last one
    metrics: RequestMetrics
    detokenizer: Detokenizer | None
    stops: StopStrings
    logprobs: ReadableLogprobs
    seen: int = 0  # output tokens turned into text
    text: str = ""  # all that is certain
    stop: str | None = None


TEXTS = 1 << 16  # tokens whose text is kept for log-probabilities


class OutputProcessor:
    """``tokenizer`` None: outputs without text."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._tracks: dict[str, Track] = {}
        self._token_text = functools.lru_cache(TEXTS)(self._one_token)

    def add(self, request: Request, prompt: str | None, stream: bool) -> None:
        params = request.params
        text = self._tokenizer is not None and params.detokenize
        options = (params.skip_special_tokens, params.spaces_between_special_tokens)
        self._tracks[request.request_id] = Track(
            prompt=prompt,
            stream=stream,
            metrics=RequestMetrics(arrival_time=request.arrival_time),
            detokenizer=Detokenizer(self._tokenizer, request.token_ids, *options) if text else None,  # type: ignore[arg-type]
            stops=StopStrings(params.stop, params.include_stop_str_in_output),
            logprobs=ReadableLogprobs(self._token_text if text else None),
        )

    def read(self, request: Request) -> str | None:
        """Take in new output tokens; the stop string met, if any. Then tokens after it are dropped."""
        track = self._tracks[request.request_id]
        if track.metrics.first_token_time is None and request.num_output:
            track.metrics.first_token_time = time.time()
        if track.detokenizer is None:
            return None
        params = request.params
        if not (track.stream or params.stop or request.finished):
            return None  # nobody looks before the end: then all at once
        end = request.num_output
        if request.finish_reason is FinishReason.STOP and not params.include_stop_str_in_output:
            end -= 1  # the stop token has no text
        for i in range(request.num_prompt + track.seen, request.num_prompt + end):
            piece = track.detokenizer.push(request.token_ids[i])
            if i - request.num_prompt < params.min_tokens:  # no stop string is looked for here, as in vLLM
                track.text += piece
                continue
            text, stop = track.stops.push(piece)
            track.text += text
            if stop is not None:
                del request.token_ids[i + 1 :]
                return stop
        track.seen = max(track.seen, end)
        if request.finished:
            text, stop = track.stops.push(track.detokenizer.flush())
            track.text += text + track.stops.flush()
            return stop
        return None

    def output(self, request: Request) -> RequestOutput | None:
        """The request's output, if it has finished or somebody watches it."""
        track = self._tracks[request.request_id]
        if not (track.stream or request.finished):
            return None
        if request.finished:
            track.metrics.finished_time = time.time()
            del self._tracks[request.request_id]
        track.metrics.num_preemptions = request.num_preemptions
        logprobs, cumulative = track.logprobs.sampled(request)
        completion = CompletionOutput(
            text=track.text,
            token_ids=request.output_token_ids,
            cumulative_logprob=cumulative,
            logprobs=logprobs,
            finish_reason=None if request.finish_reason is None else str(request.finish_reason),
            stop_reason=request.stop_reason,
        )
        return RequestOutput(
            request_id=request.request_id,
            prompt=track.prompt,
            prompt_token_ids=request.prompt_token_ids,
            outputs=[completion],
            finished=request.finished,
            metrics=track.metrics,
            prompt_logprobs=track.logprobs.prompt(request),
            num_cached_tokens=max(request.num_cached, 0),
            error=request.error,
        )

    def _one_token(self, token_id: int) -> str:
        assert self._tokenizer is not None
        return self._tokenizer.decode([token_id], skip_special_tokens=False)
