"""From updates to outputs: text, stop strings, times. Host work only, a request at a time."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterable

import attrs

from vllm_core.engine.detokenizer import Detokenizer
from vllm_core.engine.errors import RequestError
from vllm_core.engine.logprobs import ReadableLogprobs
from vllm_core.engine.messages import NewRequest, Update
from vllm_core.engine.outputs import CompletionOutput, RequestMetrics, RequestOutput
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.engine.stop_strings import StopStrings
from vllm_core.interfaces.tokenizer import Tokenizer

__all__ = ["OutputProcessor"]

log = logging.getLogger(__name__)


@attrs.define(slots=True, kw_only=True)
class Track:
    """What is kept of one request on the way out."""

    prompt: str | None
    prompt_token_ids: list[int]
    stream: bool  # outputs on the way, not only the last one
    params: SamplingParams
    metrics: RequestMetrics
    detokenizer: Detokenizer | None
    stops: StopStrings
    logprobs: ReadableLogprobs
    token_ids: list[int] = attrs.field(factory=list)  # of the output
    seen: int = 0  # of them, turned into text
    text: str = ""  # all that is certain
    num_cached: int = 0
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    error: str = ""


TEXTS = 1 << 16  # tokens whose text is kept for log-probabilities


class OutputProcessor:
    """``tokenizer`` None: outputs without text."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._tracks: dict[str, Track] = {}
        self._token_text = functools.lru_cache(TEXTS)(self._one_token)

    def add(self, new: NewRequest, params: SamplingParams, prompt: str | None, stream: bool) -> None:
        """Expect updates of a request. Raises ``RequestError`` if its tokens cannot be turned into text."""
        detokenizer = None
        if self._tokenizer is not None and params.detokenize:
            options = (params.skip_special_tokens, params.spaces_between_special_tokens)
            try:
                detokenizer = Detokenizer(self._tokenizer, new.token_ids, *options)
            except Exception as error:
                raise RequestError(f"its tokens cannot be turned into text: {error}", new.request_id) from error
        self._tracks[new.request_id] = Track(
            prompt=prompt,
            prompt_token_ids=new.token_ids,
            stream=stream,
            params=params,
            metrics=RequestMetrics(arrival_time=new.arrival_time),
            detokenizer=detokenizer,
            stops=StopStrings(params.stop, params.include_stop_str_in_output),
            logprobs=ReadableLogprobs(
                params.logprobs is not None,
                params.prompt_logprobs is not None,
                self._token_text if detokenizer is not None else None,
            ),
        )

    def drop(self, request_id: str) -> None:
        """Nobody waits for this one any more; its further updates are passed over."""
        self._tracks.pop(request_id, None)

    def take(self, updates: Iterable[Update]) -> tuple[list[RequestOutput], list[str]]:
        """(outputs for those who wait, ids of requests that are over here and must be aborted in the engine).

        A request's own code runs here: whatever it raises ends this request only.
        """
        outputs, over = [], []
        for update in updates:
            track = self._tracks.get(update.request_id)
            if track is None:
                continue
            try:
                self._read(track, update)
            except Exception as error:
                log.exception("request %s failed", update.request_id)
                track.finish_reason, track.stop_reason = "error", None
                track.error = f"{type(error).__name__} while its text was made: {error}"
            if track.finish_reason is not None:
                track.metrics.finished_time = time.time()
                del self._tracks[update.request_id]
                if update.finish_reason is None:
                    over.append(update.request_id)
            if track.stream or track.finish_reason is not None:
                outputs.append(_output(update.request_id, track))
        return outputs, over

    def _read(self, track: Track, update: Update) -> None:
        track.token_ids += update.token_ids
        track.logprobs.push(update.logprobs, update.prompt_logprobs)
        track.num_cached = update.num_cached
        track.metrics.first_token_time = update.first_token_time
        track.metrics.num_preemptions = update.num_preemptions
        track.finish_reason, track.stop_reason, track.error = update.finish_reason, update.stop_reason, update.error
        if track.detokenizer is None:
            return
        end = len(track.token_ids)
        if update.finish_reason == "stop" and not track.params.include_stop_str_in_output:
            end -= 1  # the stop token has no text
        for i in range(track.seen, end):
            piece = track.detokenizer.push(track.token_ids[i])
            if i < track.params.min_tokens:  # no stop string is looked for here, as in vLLM
                track.text += piece
                continue
            text, stop = track.stops.push(piece)
            track.text += text
            if stop is not None:
                del track.token_ids[i + 1 :]
                track.finish_reason, track.stop_reason = "stop", stop
                return
        track.seen = end
        if update.finish_reason is not None:
            text, stop = track.stops.push(track.detokenizer.flush())
            track.text += text + track.stops.flush()
            if stop is not None:
                track.finish_reason, track.stop_reason = "stop", stop

    def _one_token(self, token_id: int) -> str:
        assert self._tokenizer is not None
        return self._tokenizer.decode([token_id], skip_special_tokens=False)


def _output(request_id: str, track: Track) -> RequestOutput:
    logprobs, cumulative = track.logprobs.sampled(len(track.token_ids))
    completion = CompletionOutput(
        text=track.text,
        token_ids=track.token_ids[:],
        cumulative_logprob=cumulative,
        logprobs=logprobs,
        finish_reason=track.finish_reason,
        stop_reason=track.stop_reason,
    )
    return RequestOutput(
        request_id=request_id,
        prompt=track.prompt,
        prompt_token_ids=track.prompt_token_ids,
        outputs=[completion],
        finished=track.finish_reason is not None,
        metrics=track.metrics,
        prompt_logprobs=track.logprobs.prompt(),
        num_cached_tokens=track.num_cached,
        error=track.error,
    )
