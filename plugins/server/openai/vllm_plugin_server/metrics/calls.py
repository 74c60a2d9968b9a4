"""Figures of requests as their callers see them: an observer of every call of the engine, whichever route made it."""

from __future__ import annotations

import time
from collections.abc import Sequence
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

    def __init__(
        self, registry: CollectorRegistry, prefix: str, model: str, longest: int, engines: Sequence[int] = (0,)
    ) -> None:
        names = ["model_name", "engine"]
        counts = buckets.tokens_up_to(longest)
        self._running, self._first_engine = 0, engines[0]

        def counter(name: str, text: str) -> dict[int, Counter]:
            made = Counter(prefix + name, text, names, registry=registry)
            return {engine: made.labels(model, str(engine)) for engine in engines}

        def histogram(name: str, text: str, bounds: tuple[float, ...]) -> dict[int, Histogram]:
            made = Histogram(prefix + name, text, names, registry=registry, buckets=bounds)
            return {engine: made.labels(model, str(engine)) for engine in engines}

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
        self._ended = {(e, reason): success.labels(model, str(e), reason) for e in engines for reason in REASONS}
        self._held = Gauge(
            prefix + "api_server_requests", "Requests to the engine that this server's processes wait for.", names,
            registry=registry, multiprocess_mode="livesum",
        ).labels(model, str(self._first_engine))  # fmt: skip

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
        engine = output.metrics.engine
        self._prompt[engine].inc(len(output.prompt_token_ids))
        self._cached[engine].inc(output.num_cached_tokens)
        if (seconds := output.metrics.time_to_first_token) is not None:
            self._first[engine].observe(
                max(0.0, seconds)
            )  # clocks of two processes, and one that is set, can run backwards

    def ended(self, call: Any, reason: str, output: Any) -> None:
        self._running -= 1
        self._held.set(self._running)
        reason = reason if reason in REASONS else "error"
        sizes = [0]
        engine = self._first_engine if output is None else output.metrics.engine
        if output is None:
            self._ended[engine, reason].inc()
        else:
            self._computed[engine].observe(max(0, call.prompt_tokens - output.num_cached_tokens))
            for sample in output.outputs:
                self._ended[engine, sample.finish_reason if sample.finish_reason in REASONS else reason].inc()
                self._output_size[engine].observe(len(sample.token_ids))
                sizes.append(len(sample.token_ids))
        self._longest[engine].observe(max(sizes))
        self._prompt_size[engine].observe(call.prompt_tokens)
        self._n[engine].observe(max(1, getattr(call.params, "n", 1) or 1))
        if (most := getattr(call.params, "max_tokens", None)) is not None:
            self._max_tokens[engine].observe(most)
        self._whole[engine].observe(max(0.0, time.time() - call.arrived))
