"""What the engine did since this server watches it: steps and ended requests, added up."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from vllm_core.interfaces.metrics import RequestStats, StepStats
from vllm_plugin_server.metrics import buckets, shared
from vllm_plugin_server.metrics.tally import Tally

__all__ = ["COUNTED", "TALLIED", "SharedTotals", "Totals"]

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
    """``took`` is for ``AsyncLLM.on_stats``."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.accepted_at: list[int] = []  # guesses that were right, by their place
        self.tallies = {name: Tally(bounds) for name, (_, bounds) in TALLIED.items()}

    def took(self, figures: Any) -> None:
        for step in figures.steps:
            self._step(step)
        for request in figures.requests:
            self._request(request)

    def now(self) -> Totals:
        """What there is to tell."""
        return self

    def add(self, other: Totals) -> None:
        self.counts.update(other.counts)
        self._accept(other.accepted_at)
        for name, tally in self.tallies.items():
            tally.merge(other.tallies[name])

    def _step(self, step: StepStats) -> None:
        for name, (_, field) in COUNTED.items():
            self.counts[name] += getattr(step, field)
        self._accept(step.accepted_at)
        self.tallies["iteration_tokens_total"].add(step.prompt_tokens + step.output_tokens)
        self.tallies["engine_step_seconds"].add(step.seconds)
        for seconds, requests in step.gaps:
            self.tallies["inter_token_latency_seconds"].add(seconds, requests)

    def _accept(self, places: Any) -> None:
        self.accepted_at += [0] * (len(places) - len(self.accepted_at))
        for place, count in enumerate(places):
            self.accepted_at[place] += count

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


class SharedTotals:
    """Of several server processes. The engine tells all of them everything; the one with the smallest pid counts.

    It writes its totals to a file of its own in the shared folder, and whoever is asked adds up the files. So counts
    stay when a process ends, and the next one goes on; what came in that moment, a tenth of a second, may be missing.
    """

    def __init__(self, folder: Path, engine: int = 0) -> None:
        self._folder, self._ending = folder, f".totals{engine}"
        self._own = Totals()
        self._file = folder / f"{os.getpid()}{self._ending}"

    def took(self, figures: Any) -> None:
        if os.getpid() != min(shared.live_pids()):
            return
        self._own.took(figures)
        new = self._file.with_suffix(f"{self._ending}.new")
        new.write_bytes(msgspec.json.encode(_Plain.of(self._own)))
        new.replace(self._file)

    def now(self) -> Totals:
        found = Totals()
        for path in self._folder.glob(f"*{self._ending}"):
            found.add(msgspec.json.decode(path.read_bytes(), type=_Plain).totals())
        return found


class _Plain(msgspec.Struct):
    """Totals as a file has them."""

    counts: dict[str, int]
    accepted_at: list[int]
    tallies: dict[str, tuple[list[int], float]]

    @classmethod
    def of(cls, totals: Totals) -> _Plain:
        tallies = {name: (tally.counts, tally.total) for name, tally in totals.tallies.items()}
        return cls(dict(totals.counts), totals.accepted_at, tallies)

    def totals(self) -> Totals:
        found = Totals()
        found.counts.update(self.counts)
        found.accepted_at = self.accepted_at
        for name, (counts, total) in self.tallies.items():
            found.tallies[name].counts, found.tallies[name].total = counts, total
        return found
