"""Figures of requests as their callers see them: an observer of every call of the engine, whichever route made it."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from vllm_plugin_server.metrics import buckets

__all__ = ["CallFigures"]

NOTE = "figures"  # in ``Call.notes``: whether the first token was seen
REASONS = ("stop", "length", "abort", "error")


class CallFigures:
    """Observer (``interfaces.endpoint.Observer``); belongs to the event loop.

    longest   tokens of the longest request: bounds the buckets of token counts
    """

    def __init__(self, registry: CollectorRegistry, prefix: str, model: str, longest: int) -> None:
        labels = {"model_name": model, "engine": "0"}
        names = list(labels)
        counts = buckets.tokens_up_to(longest)
        self._running = 0

        def counter(name: str, text: str) -> Counter:
            return Counter(prefix + name, text, names, registry=registry).labels(**labels)

        def histogram(name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
            return Histogram(prefix + name, text, names, registry=registry, buckets=bounds).labels(**labels)

        self._prompt = counter("prompt_tokens", "Tokens of prompts, cached ones included.")
        self._cached = counter("prompt_tokens_cached", "Tokens of prompts that the prefix cache had.")
        self._first = histogram("time_to_first_token_seconds", "From arrival to the first token.", buckets.TTFT)
        self._whole = histogram("e2e_request_latency_seconds", "From arrival to the end.", buckets.LATENCY)
        self._prompt_size = histogram("request_prompt_tokens", "Tokens of a request's prompt.", counts)
        self._computed = histogram(
            "request_prefill_kv_computed_tokens", "Tokens of a prompt that the cache did not have.", counts
        )
        self._output_size = histogram("request_generation_tokens", "Tokens of an answer, each sample.", counts)
        self._longest = histogram("request_max_num_generation_tokens", "Tokens of a request's longest sample.", counts)
        self._n = histogram("request_params_n", "Samples asked for.", buckets.SAMPLES)
        self._max_tokens = histogram("request_params_max_tokens", "max_tokens, where a request gave it.", counts)
        success = Counter(
            prefix + "request_success", "Requests that ended, by reason, each sample.", [*names, "finished_reason"],
            registry=registry,
        )  # fmt: skip
        self._ended = {reason: success.labels(**labels, finished_reason=reason) for reason in REASONS}
        self._held = Gauge(
            prefix + "api_server_requests", "Requests to the engine that this server's processes wait for.", names,
            registry=registry, multiprocess_mode="livesum",
        ).labels(**labels)  # fmt: skip

    def began(self, call: Any) -> None:
        self._running += 1
        self._held.set(self._running)

    @property
    def held(self) -> int:
        """Requests that this process waits for."""
        return self._running

    def output(self, call: Any, output: Any) -> None:
        if NOTE in call.notes or not any(sample.token_ids for sample in output.outputs):
            return
        call.notes[NOTE] = True
        self._prompt.inc(len(output.prompt_token_ids))
        self._cached.inc(output.num_cached_tokens)
        if (seconds := output.metrics.time_to_first_token) is not None:
            self._first.observe(max(0.0, seconds))  # clocks of two processes, and one that is set, can run backwards

    def ended(self, call: Any, reason: str, output: Any) -> None:
        self._running -= 1
        self._held.set(self._running)
        reason = reason if reason in REASONS else "error"
        sizes = [0]
        if output is None:
            self._ended[reason].inc()
        else:
            self._computed.observe(max(0, call.prompt_tokens - output.num_cached_tokens))
            for sample in output.outputs:
                self._ended[sample.finish_reason if sample.finish_reason in REASONS else reason].inc()
                self._output_size.observe(len(sample.token_ids))
                sizes.append(len(sample.token_ids))
        self._longest.observe(max(sizes))
        self._prompt_size.observe(call.prompt_tokens)
        self._n.observe(max(1, getattr(call.params, "n", 1) or 1))
        if (most := getattr(call.params, "max_tokens", None)) is not None:
            self._max_tokens.observe(most)
        self._whole.observe(max(0.0, time.time() - call.arrived))
