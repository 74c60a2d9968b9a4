"""From updates to outputs: each request's samples are read and joined. Host work only."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import attrs

from vllm_core.engine.detokenizer import Detokenizer
from vllm_core.engine.errors import RequestError
from vllm_core.engine.logprobs import ReadableLogprobs
from vllm_core.engine.messages import NewRequest, Update
from vllm_core.engine.outputs import RequestMetrics, RequestOutput
from vllm_core.engine.request import FinishReason
from vllm_core.engine.sample import Sample
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.interfaces.tokenizer import Tokenizer

__all__ = ["OutputProcessor", "Over"]

log = logging.getLogger(__name__)


class Over(NamedTuple):
    """A sample that has ended here, where its text is, and goes on in the engine."""

    request_id: str
    reason: FinishReason


@attrs.define(slots=True, kw_only=True, eq=False)
class Track:
    """What is kept of one request on the way out."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    stream: bool  # outputs on the way, not only the last one
    metrics: RequestMetrics
    samples: dict[str, Sample]  # by the id that the engine has for each

    @property
    def finished(self) -> bool:
        return all(sample.finish_reason is not None for sample in self.samples.values())

    def output(self) -> RequestOutput:
        samples = list(self.samples.values())
        times = [sample.first_token_time for sample in samples if sample.first_token_time is not None]
        self.metrics.first_token_time = min(times, default=None)
        self.metrics.num_preemptions = sum(sample.num_preemptions for sample in samples)
        self.metrics.num_drafts = sum(sample.num_drafted for sample in samples)
        self.metrics.num_accepted_drafts = sum(sample.num_accepted for sample in samples)
        return RequestOutput(
            request_id=self.request_id,
            prompt=self.prompt,
            prompt_token_ids=self.prompt_token_ids,
            outputs=[sample.output() for sample in samples],
            finished=self.finished,
            metrics=self.metrics,
            prompt_logprobs=samples[0].logprobs.prompt(),
            num_cached_tokens=samples[0].num_cached,
            error=next((sample.error for sample in samples if sample.error), ""),
        )


TEXTS = 1 << 16  # tokens whose text is kept for log-probabilities


class OutputProcessor:
    """``tokenizer`` None: outputs without text."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._tracks: dict[str, Track] = {}  # by request
        self._of: dict[str, Track] = {}  # by sample
        self.begun = 0  # updates of the last ``take`` that were begun to be read: all but after a failure
        self._token_text = functools.lru_cache(TEXTS)(self._one_token)

    def add(
        self, request_id: str, news: Sequence[NewRequest], params: SamplingParams, prompt: str | None, stream: bool
    ) -> None:
        """Expect updates of a request's samples.

        Raises ``RequestError`` if its tokens cannot be turned into text, or a name is taken.
        """
        taken = next((new.request_id for new in news if new.request_id in self._of), request_id)
        if taken in self._of or request_id in self._tracks:
            raise RequestError("a request with this id is running already", taken)
        track = Track(
            request_id=request_id,
            prompt=prompt,
            prompt_token_ids=news[0].token_ids,
            stream=stream,
            metrics=RequestMetrics(arrival_time=news[0].arrival_time),
            samples={new.request_id: self._sample(request_id, i, new, params) for i, new in enumerate(news)},
        )
        self._tracks[request_id] = track
        self._of.update(dict.fromkeys(track.samples, track))

    def goes_to(self, request_id: str, engine: int) -> None:
        """Which of several engines has it now."""
        if (track := self._tracks.get(request_id)) is not None:
            track.metrics.engine = engine

    def samples(self, request_id: str) -> list[str]:
        """The ids that the engine has for what runs of a request."""
        track = self._tracks.get(request_id)
        return [] if track is None else [name for name, s in track.samples.items() if s.finish_reason is None]

    def names(self) -> list[str]:
        """The requests that run."""
        return list(self._tracks)

    def tokens(self, sample: str) -> list[int]:
        """The output so far of a sample that runs."""
        return self._of[sample].samples[sample].token_ids

    def drop(self, request_id: str) -> None:
        """Nobody waits for this one any more; its further updates are passed over."""
        track = self._tracks.pop(request_id, None)
        for name in () if track is None else track.samples:
            self._of.pop(name, None)

    def take(self, updates: Iterable[Update]) -> tuple[list[RequestOutput], list[Over]]:
        """(outputs for those who wait, samples that are over here and must be ended in the engine).

        A request's own code runs here: whatever it raises ends this sample only.
        """
        news, over = dict[str, Track](), list[Over]()
        self.begun = 0
        for self.begun, update in enumerate(updates, 1):
            track = self._of.get(update.request_id)
            if track is None:
                continue
            sample = track.samples[update.request_id]
            try:
                sample.read(update)
            except Exception as error:
                log.exception("request %s failed", update.request_id)
                sample.fail(f"{type(error).__name__} while its text was made: {error}")
            if sample.finish_reason is not None:
                del self._of[update.request_id]
                if update.finish_reason is None:
                    over.append(Over(update.request_id, FinishReason(sample.finish_reason)))
            news[track.request_id] = track
        outputs = []
        for track in news.values():
            if track.finished:
                track.metrics.finished_time = time.time()
                del self._tracks[track.request_id]
            if track.stream or track.finished:
                try:
                    outputs.append(track.output())
                except Exception as error:
                    log.exception("request %s failed", track.request_id)
                    outputs.append(self._broken(track, error, over))
        return outputs, over

    def _broken(self, track: Track, error: Exception, over: list[Over]) -> RequestOutput:
        """The last output of a request whose log-probabilities cannot be read; what runs of it is ``over``."""
        for name, sample in track.samples.items():
            if sample.finish_reason is None:
                over.append(Over(name, FinishReason.ERROR))
            sample.fail(f"{type(error).__name__} while its output was made: {error}")
            sample.logprobs = ReadableLogprobs(False, False, None)
        self.drop(track.request_id)
        track.metrics.finished_time = time.time()
        return track.output()

    def _sample(self, request_id: str, index: int, new: NewRequest, params: SamplingParams) -> Sample:
        detokenizer = None
        if self._tokenizer is not None and params.detokenize:
            options = (params.skip_special_tokens, params.spaces_between_special_tokens)
            try:
                detokenizer = Detokenizer(self._tokenizer, new.token_ids, *options)
            except MemoryError:
                raise
            except Exception as error:
                raise RequestError(f"its tokens cannot be turned into text: {error}", request_id) from error
        texts = self._token_text if detokenizer is not None else None
        prompt_logprobs = params.prompt_logprobs is not None and index == 0  # the same for all
        logprobs = ReadableLogprobs(params.logprobs is not None, prompt_logprobs, texts)
        return Sample(index=index, params=params, detokenizer=detokenizer, logprobs=logprobs)

    def _one_token(self, token_id: int) -> str:
        assert self._tokenizer is not None
        return self._tokenizer.decode([token_id], skip_special_tokens=False)
