"""OpenTelemetry traces: a span for each call of the engine. An extra: ``pip install 'vllm-plugin-server[otel]'``.

Nothing here imports opentelemetry before ``--otlp-traces-endpoint`` asks for it.
"""

from __future__ import annotations

from typing import Any

__all__ = ["attach"]


def attach(context: Any) -> None:
    """Let a server send traces if its setting ``otlp_traces_endpoint`` says where to."""
    if context.settings.otlp_traces_endpoint:
        from vllm_plugin_server.tracing.export import open_provider
        from vllm_plugin_server.tracing.spans import CallSpans

        provider = open_provider(context.settings.otlp_traces_endpoint)
        context.observers.append(CallSpans(provider, next(iter(context.models), "")))

        async def flush() -> None:
            await context.work(provider.shutdown)

        context.on_shutdown.append(flush)
