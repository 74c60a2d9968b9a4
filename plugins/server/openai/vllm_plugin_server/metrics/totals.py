"""What the engine did since this server watches it: steps and ended requests, added up."""

from __future__ import annotations

from collections import Counter
from typing import Any

from vllm_core.interfaces.metrics import RequestStats, StepStats
from vllm_plugin_server.metrics import buckets
from vllm_plugin_server.metrics.tally import Tally

__all__ = ["COUNTED", "TALLIED", "Totals"]

# name of the counter: (what is counted, the field of StepStats)
COUNTED = {
    "generation_tokens": ("Tokens of answers.", "output_tokens"),
    "prompt_tokens_computed": ("Tokens of prompts that were computed, again after a preemption.", "prompt_tokens"),
    "prefix_cache_queries": ("Tokens of prompts that were looked up in the cache.", "prefix_queries"),
    "prefix_cache_hits": ("Of those, tokens found.", "prefix_hits"),
    "prefix_cache_evictions": ("Cached pages given up for room.", "evictions"),
    "num_preemptions": ("Requests that gave up their pages for others.", "preemptions"),
    "spec_decode_num_drafts": ("Times that a request's guesses were verified.", "drafts"),
    "spec_decode_num_draft_tokens": ("Guessed tokens.", "drafted"),
    "spec_decode_num_accepted_tokens": ("Guessed tokens that were right.", "accepted"),
}
# name of the histogram: (what is measured, bounds)
TALLIED = {
    "iteration_tokens_total": ("Tokens computed in a step.", buckets.STEP_TOKENS),
    "engine_step_seconds": ("From a step's launch to its result.", buckets.STEP_SECONDS),
    "inter_token_latency_seconds": ("From one step that gave a request tokens to the next.", buckets.GAP),
    "request_time_per_output_token_seconds": ("Mean time between tokens, each sample.", buckets.GAP),
    "request_queue_time_seconds": ("From arrival to the first step.", buckets.LATENCY),
    "request_prefill_time_seconds": ("From the first step to the first token.", buckets.LATENCY),
    "request_decode_time_seconds": ("From the first token to the last.", buckets.LATENCY),
    "request_inference_time_seconds": ("From the first step to the last token.", buckets.LATENCY),
}


class Totals:
    """``took`` is for ``AsyncLLM.on_stats``. All server processes are told of everything: each has the same totals."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.accepted_at: list[int] = []  # guesses that were right, by their place
        self.tallies = {name: Tally(bounds) for name, (_, bounds) in TALLIED.items()}

    def took(self, figures: Any) -> None:
        for step in figures.steps:
            self._step(step)
        for request in figures.requests:
            self._request(request)

    def _step(self, step: StepStats) -> None:
        for name, (_, field) in COUNTED.items():
            self.counts[name] += getattr(step, field)
        self.accepted_at += [0] * (len(step.accepted_at) - len(self.accepted_at))
        for place, count in enumerate(step.accepted_at):
            self.accepted_at[place] += count
        self.tallies["iteration_tokens_total"].add(step.prompt_tokens + step.output_tokens)
        self.tallies["engine_step_seconds"].add(step.seconds)
        for seconds, requests in step.gaps:
            self.tallies["inter_token_latency_seconds"].add(seconds, requests)

    def _request(self, request: RequestStats) -> None:
        whole = None if request.prefill is None or request.decode is None else request.prefill + request.decode
        for name, seconds in (
            ("request_time_per_output_token_seconds", request.between_tokens),
            ("request_queue_time_seconds", request.queued),
            ("request_prefill_time_seconds", request.prefill),
            ("request_decode_time_seconds", request.decode),
            ("request_inference_time_seconds", whole),
        ):
            if seconds is not None:
                self.tallies[name].add(seconds)
