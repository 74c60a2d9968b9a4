"""A span for each call of the engine, with vLLM's attributes."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

__all__ = ["CallSpans"]

NANOSECONDS = 10**9


class CallSpans:
    """Observer. A span is made when its call has ended, from the call's own times, so nothing is kept meanwhile.

    Its parent is what the HTTP request's ``traceparent`` names. It has no text of prompts or answers.
    """

    def __init__(self, provider: Any, model: str) -> None:
        """``provider``: a ``TracerProvider``. opentelemetry is an extra: it is imported where it is used."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = provider.get_tracer("vllm_plugin_server", version("vllm-plugin-server"))
        self._propagator = TraceContextTextMapPropagator()
        self._model = model

    def ended(self, call: Any, reason: str, output: Any) -> None:
        from opentelemetry.trace import SpanKind, StatusCode

        now = time.time()
        span = self._tracer.start_span(
            "llm_request",
            context=self._propagator.extract(dict(call.trace_headers)),
            kind=SpanKind.SERVER,
            start_time=int(call.arrived * NANOSECONDS),
            attributes=self._attributes(call, reason, output, now),
        )
        if reason == "error":
            span.set_status(StatusCode.ERROR)
        span.end(int(now * NANOSECONDS))

    def _attributes(self, call: Any, reason: str, output: Any, now: float) -> dict[str, Any]:
        params = call.params
        found: dict[str, Any] = {
            "gen_ai.request.id": call.request_id,
            "gen_ai.response.model": self._model,
            "gen_ai.request.temperature": getattr(params, "temperature", None),
            "gen_ai.request.top_p": getattr(params, "top_p", None),
            "gen_ai.request.max_tokens": getattr(params, "max_tokens", None),
            "gen_ai.request.n": getattr(params, "n", None),
            "gen_ai.usage.prompt_tokens": call.prompt_tokens,
            "gen_ai.latency.e2e": now - call.arrived,
            "http.route": call.route or None,
        }
        samples = [] if output is None else output.outputs
        found["gen_ai.usage.num_sequences"] = len(samples) or None
        found["gen_ai.usage.completion_tokens"] = sum(len(sample.token_ids) for sample in samples)
        found["gen_ai.response.finish_reasons"] = [sample.finish_reason or reason for sample in samples] or [reason]
        if output is not None:
            found["gen_ai.usage.cached_tokens"] = output.num_cached_tokens
            found |= _latencies(output.metrics, now)
        return {key: value for key, value in found.items() if value is not None}


def _latencies(metrics: Any, now: float) -> dict[str, float | None]:
    arrived, first = metrics.arrival_time, metrics.first_token_time
    scheduled = getattr(metrics, "scheduled_time", None)
    end = metrics.finished_time or now
    return {
        "gen_ai.latency.time_to_first_token": _between(arrived, first),
        "gen_ai.latency.time_in_queue": _between(arrived, scheduled),
        "gen_ai.latency.time_in_model_prefill": _between(scheduled, first),
        "gen_ai.latency.time_in_model_decode": _between(first, end),
        "gen_ai.latency.time_in_model_inference": _between(scheduled, end),
    }


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else max(0.0, end - start)
